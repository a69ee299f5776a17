"""Keys, approvals and the audit."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Duration
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import InputError


@click.group()
def audit() -> None:
    """Evidence of what was done, by whom and why."""


@audit.command()
@click.option("--home", type=click.Path(path_type=Path), help="A home or a replay's folder; else DRIFT_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(home: Path | None, as_json: bool) -> int:
    """Check the audit chain, its signed checkpoint, and that every artefact it names is there and unchanged.

    It cannot detect what somebody did who holds both the signing key and the storage, back to the last checkpoint
    that was copied out of their reach, nor records that were cut or rewritten after that checkpoint.
    """
    from drift_pipeline.evidence.verification import verify_home
    from drift_pipeline.settings import Settings

    settings = Settings() if home is None else Settings(home=home, database="")
    found = verify_home(settings, system_clock())
    document = {"ok": found.ok, "records": found.records, "head": found.head, "covered_by_checkpoint": found.covered}
    document |= {"first_bad": found.first_bad, "reason": found.reason}
    if as_json:
        click.echo(json.dumps(document, indent=2))
    elif found.ok:
        click.echo(f"{settings.home}: {found.records} records verified, {found.covered} of them under a checkpoint")
    else:
        where = f"record {found.first_bad}" if found.first_bad is not None else "checkpoint"
        click.echo(f"{settings.home}: NOT VERIFIED: {where}: {found.reason}")
    return OK if found.ok else NEGATIVE


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--label", required=True, metavar="NAME", help="Whose key it is, as approvals will show it.")
@click.option("--home", type=click.Path(path_type=Path), help="Copy the public half there: its approvals then count.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def key(file: Path, label: str, home: Path | None, as_json: bool) -> int:
    """Make an ed25519 key pair to approve with: FILE, which stays private, and its .pub.json.

    Whoever can write to the keys/ folder of a home decides who may approve there.
    """
    from drift_pipeline.control.signing import public_path
    from drift_pipeline.evidence.approve import make_key
    from drift_pipeline.settings import Settings

    signer, copy = make_key(file, label, None if home is None else Settings(home=home, database=""))
    public = public_path(file)
    if as_json:
        files = {"private": str(file), "public": str(public), "trusted_by": copy and str(copy)}
        click.echo(json.dumps({"key_id": signer.key_id, "label": label, **files}, indent=2))
        return OK
    click.echo(f"key id      {signer.key_id} ({label})\nprivate     {file} (keep it to yourself)\npublic      {public}")
    click.echo(
        f"trusted by  {copy}" if copy else f"its approvals count in a home whose keys/ folder holds {public.name}"
    )
    return OK


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="Your private key (drift key).")
@click.option("--reason", required=True, help="Why; it stands on the model's card.")
@click.option("--expires", type=Duration(), default="14d", show_default=True, help="How long the approval holds.")
@click.option("--environment", help="Where the version may run; else DRIFT_ENVIRONMENT, or production.")
@click.option("--home", type=click.Path(path_type=Path), help="A home or a replay's folder; else DRIFT_HOME.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def approve(
    model: str,
    version: str,
    key_file: Path,
    reason: str,
    expires: timedelta,
    environment: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Sign your approval of VERSION of MODEL (v3, or sha256:...) and file it in the home's GitOps folder.

    Refused, with nothing filed, when a gate did not pass, when the stored bytes changed, or when the approval would
    not count: an unknown key, the trainer's own, a replay's outside of a replay.
    """
    from drift_pipeline.control.signing import Signer
    from drift_pipeline.evidence.approve import approve as give
    from drift_pipeline.rollout.approval import Refusal
    from drift_pipeline.settings import Settings

    if environment == "":
        raise InputError("--environment: is empty; name where the version may run, such as production")
    given: dict[str, Any] = ({} if home is None else {"home": home, "database": ""}) | (
        {} if environment is None else {"environment": environment}
    )
    settings = Settings(**given)
    found = give(settings, Signer.load(key_file), model, version, reason, expires, system_clock())
    if isinstance(found, Refusal):
        told = f"{model} {version}: NOT APPROVED for {settings.environment}: {found.reason}"
        click.echo(json.dumps({"approved": False, "reason": found.reason}, indent=2) if as_json else told)
        return NEGATIVE
    if as_json:
        document = {"approved": True, "model": model, "environment": settings.environment, **asdict(found)}
        click.echo(json.dumps(document, indent=2, default=str))
        return OK
    wanted = (
        f"of {found.wanted} approvals valid now" if found.wanted else "valid now (no spec here says how many it wants)"
    )
    click.echo(
        f"{model} {found.version}: approved for {settings.environment} by {found.approver} "
        f"until {found.expires:%Y-%m-%d %H:%M} UTC"
    )
    click.echo(f"approvals   {found.valid} {wanted}\nfiled in    {found.path}")
    for other in found.refused:
        click.echo(f"refused     {other}")
    return OK


COMMANDS = (key, approve, audit)
