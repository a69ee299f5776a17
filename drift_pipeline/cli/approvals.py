"""Keys, approvals and the audit."""

import getpass
import json
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.options import (
    NEGATIVE,
    OK,
    Duration,
    Whole,
    actor_option,
    example,
    home_option,
    json_option,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import format_duration, system_clock
from drift_pipeline.errors import DriftError, InputError

if TYPE_CHECKING:
    from drift_pipeline.control.verifying import Verification
    from drift_pipeline.settings import Settings


@click.group(cls=Whole)
def audit() -> None:
    """Evidence of what was done, by whom and why."""


@audit.command(epilog=example("drift audit verify --home live", "drift audit verify audit.jsonl --keys trusted"))
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--from", "kept", type=click.Path(path_type=Path), help="A checkpoint that you kept.")
@click.option("--keys", type=click.Path(path_type=Path), help="Folder of public keys that you trust, or one.")
@click.option("--pinned", is_flag=True, help="FILE's own key will do: that it is whole is checked, not whose it is.")
@home_option
@json_option
def verify(
    file: Path | None, kept: Path | None, keys: Path | None, pinned: bool, home: Path | None, as_json: bool
) -> int:
    """Check the audit chain, its signed checkpoints, the state that it wrote, and every artefact that it names.

    Of FILE, what drift audit export wrote, the chain and its checkpoints: they have to be signed by a key of --keys,
    else of trust/ in the home; without one it ends with 3.

    Nothing is changed. It cannot detect what somebody did who holds both the signing key and the storage, back to the
    last checkpoint that was copied out of their reach (--from), nor records that were cut or rewritten after that
    checkpoint.
    """
    from drift_pipeline.control.trust import trusted_keys
    from drift_pipeline.control.verifying import Cover
    from drift_pipeline.evidence.exporting import read_kept, require_trusted, verify_export
    from drift_pipeline.evidence.verification import verify_home

    if pinned and (file is None or keys is not None):
        raise InputError("--pinned: is for an exported FILE, in place of --keys")
    settings = settings_of(home)
    where = settings.home if file is None else file
    place = keys or (None if file is None or pinned else settings.trust)
    trusted, before = trusted_keys(place) if place else None, read_kept(kept) if kept else None
    with at_work(f"{where}: verifying"):
        if file is None:
            found = verify_home(settings, before)
        else:
            found = verify_export(file, Cover(settings.checkpoint_records, settings.checkpoint_age), before)
    if found.ok and trusted is not None:
        require_trusted(found, trusted, where)
    _tell_verified(found, where, "" if file else _unpublished(settings), as_json)
    return OK if found.ok else NEGATIVE


def _unpublished(settings: "Settings") -> str:
    from drift_pipeline.control.trust import read_store
    from drift_pipeline.evidence.gitops.progress import uncommitted

    with closing(read_store(settings)) as store:
        return uncommitted(settings, store, system_clock().now())


def _tell_verified(found: "Verification", where: Path, unpublished: str, as_json: bool) -> None:
    document = {"ok": found.ok, "records": found.records, "head": found.head, "covered_by_checkpoint": found.covered}
    document |= {"checkpoints": found.checkpoints, "signed_at": found.signed_at and found.signed_at.isoformat()}
    document |= {"signed_by": sorted(found.signers), "first_bad": found.first_bad, "reason": found.reason}
    if as_json:
        click.echo(json.dumps({**document, "unpublished": unpublished or None}, indent=2))
        return
    if found.ok:
        click.echo(f"{where}: {found.records} records verified, {found.covered} of them under a checkpoint")
    else:
        bad = f"record {found.first_bad}" if found.first_bad is not None else "evidence"
        say(f"{where}: NOT VERIFIED: {bad}: {found.reason}")
    if found.signed_at is not None:
        age = max(system_clock().now() - found.signed_at, timedelta())
        many = f"{found.checkpoints} checkpoints, the last one" if found.checkpoints > 1 else "1 checkpoint,"
        click.echo(f"{many} of {found.signed_at:%Y-%m-%d %H:%M} UTC, {format_duration(age)} ago")
    if unpublished:
        say(unpublished)


@click.command(epilog=example("drift key ada.pem --label ada", "drift key ada.pub.json --home live --revoke"))
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--label", metavar="NAME", help="Whose key it is, as approvals will show it. Makes a new key.")
@click.option("--identity", metavar="ID", help="Whose it is, where one person has several keys; else the label.")
@click.option("--role", "roles", multiple=True, help="As which it signs, such as risk; may be repeated; else approver.")
@home_option
@click.option("--revoke", is_flag=True, help="Approvals of this key count no more in the home.")
@click.option("--rotate", is_flag=True, help="Give the home a new key of its own, which the old one hands over to.")
@actor_option
@json_option
def key(
    file: Path | None,
    label: str | None,
    identity: str | None,
    roles: tuple[str, ...],
    home: Path | None,
    revoke: bool,
    rotate: bool,
    actor: str | None,
    as_json: bool,
) -> int:
    """Make an ed25519 key pair to approve with, with --label: FILE, which stays private, and its .pub.json.

    Where there is a home, by --home or DRIFT_HOME, its approvals count there from now on. Without --label FILE is
    somebody's .pub.json, which the home is to trust, or with --revoke no more. Each change of who may approve is
    audited; a file that is only put into keys/ counts for nothing.
    """
    given = _home_of(home)
    who = actor or getpass.getuser()
    if roles and (revoke or rotate):
        raise InputError("--role: is of a key that is added; to give a key others, revoke it and add it again")
    if rotate:
        if given is None or file is not None or label is not None or revoke:
            raise InputError("--rotate: is of a home's own key; name the home (--home or DRIFT_HOME) and nothing else")
        return _rotated(given, who, as_json)
    if file is None:
        raise InputError("FILE: is missing; name a new key's file, or somebody's .pub.json")
    if label is not None and not revoke:
        return _made(file, label, identity, roles, given, who, as_json)
    if given is None or label is not None or identity is not None:
        raise InputError(
            f"{file}: give --label to make a key, or name a home (--home or DRIFT_HOME) for a .pub.json that exists"
        )
    return _revoked(file, given, who, as_json) if revoke else _trusted(file, roles, given, who, as_json)


def _home_of(home: Path | None) -> Any:
    """The one that is named; None where none is, and none lies here: a key can be made where there is no home."""
    settings = settings_of(home)
    named = home is not None or "home" in settings.model_fields_set or settings.database
    return settings if named or (settings.home / "control.db").is_file() else None


def _made(
    file: Path, label: str, identity: str | None, roles: tuple[str, ...], home: Any, actor: str, as_json: bool
) -> int:
    from drift_pipeline.control.signing import public_path
    from drift_pipeline.evidence.approve import make_key

    if roles and home is None:
        raise InputError("--role: is what a home appoints a key as; name the home (--home or DRIFT_HOME)")
    signer, copy = make_key(file, label, identity, home, actor, system_clock(), roles or ("approver",))
    public = public_path(file)
    if as_json:
        files = {"private": str(file), "public": str(public), "trusted_by": copy and str(copy)}
        told = {"key_id": signer.key_id, "label": label, "identity": signer.public.identity}
        click.echo(json.dumps({**told, **files}, indent=2))
        return OK
    click.echo(f"key id      {signer.key_id} ({label})\nprivate     {file} (keep it to yourself)\npublic      {public}")
    adds = f"its approvals count in a home that adds it: drift key {public} --home HOME"
    click.echo(f"trusted by  {copy} as {', '.join(roles or ('approver',))}" if copy else adds)
    return OK


def _trusted(file: Path, roles: tuple[str, ...], home: Any, actor: str, as_json: bool) -> int:
    from drift_pipeline.control.signing import PublicKey
    from drift_pipeline.evidence.approve import trust_key

    public = PublicKey.load(file)
    stem = file.name.removesuffix(".pub.json")
    copy = trust_key(public, stem, home, actor, system_clock(), roles or ("approver",))
    told = {"key_id": public.key_id, "label": public.label, "identity": public.identity, "trusted_by": str(copy)}
    words = f"key id      {public.key_id} ({public.label})\ntrusted by  {copy}"
    click.echo(json.dumps(told, indent=2) if as_json else words)
    return OK


def _revoked(file: Path, home: Any, actor: str, as_json: bool) -> int:
    from drift_pipeline.control.signing import PublicKey
    from drift_pipeline.evidence.approve import revoke_key

    public = PublicKey.load(file)
    revoke_key(public, home, actor, system_clock())
    told = {"key_id": public.key_id, "label": public.label, "revoked": True}
    click.echo(json.dumps(told, indent=2) if as_json else f"{public}: its approvals count no more in {home.home}")
    return OK


def _rotated(home: Any, actor: str, as_json: bool) -> int:
    from drift_pipeline.evidence.approve import rotate_home_key

    public = rotate_home_key(home, actor, system_clock())
    told = {"key_id": public.key_id, "home": str(home.home)}
    click.echo(json.dumps(told, indent=2) if as_json else f"{home.home}: its own key is {public.key_id} from now on")
    return OK


def settings_for(home: Path | None, environment: str | None) -> "Settings":
    """The settings of a home and where the version may run."""
    from drift_pipeline.settings import FILES_ALONE, Settings

    if environment == "":
        raise InputError("--environment: is empty; name where the version may run, such as production")
    given: dict[str, Any] = ({} if home is None else {"home": home, **FILES_ALONE}) | (
        {} if environment is None else {"environment": environment}
    )
    return Settings(**given)


def write_cards(settings: "Settings", model: str) -> None:
    """With what was approved; what cannot be written now the next tick writes, or tells why it cannot."""
    from drift_pipeline.control.trust import open_store
    from drift_pipeline.evidence.documents import refresh_documents
    from drift_pipeline.loop.declared import spec_in_force
    from drift_pipeline.loop.forms import frozen
    from drift_pipeline.registry.backends import kept_registry

    clock = system_clock()
    with suppress(DriftError), closing(open_store(settings, clock)) as store:
        spec = frozen(store, spec_in_force(settings, store, model))
        refresh_documents(settings, store, kept_registry(settings), spec, clock.now())


def signing_options(what: str, lasts: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Of a command by which a person signs something about a version."""
    file, holds = click.Path(path_type=Path), f"How long the {what} holds."
    options = (
        click.option("--key", "key_file", required=True, type=file, help="Your private key (drift key)."),
        click.option("--role", help="As which you sign, where your key was appointed with several roles."),
        click.option("--reason", required=True, help="Why; it stands on the model's card."),
        click.option("--expires", type=Duration(), default=lasts, show_default=True, help=holds),
        click.option("--environment", help="Where the version may run; else DRIFT_ENVIRONMENT, or production."),
        home_option,
        json_option,
    )

    def with_options(command: Callable[..., int]) -> Callable[..., int]:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


@click.command(epilog=example('drift approve fraud v3 --key ada.pem --reason "read the card"'))
@model_argument()
@click.argument("version")
@signing_options("approval", "14d")
def approve(
    model: str,
    version: str,
    key_file: Path,
    role: str | None,
    reason: str,
    expires: timedelta,
    environment: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Sign your approval of VERSION of MODEL (v3, or its digest) and file it in the home's GitOps folder.

    It is for one rollout: the one under way, or else the next.

    Refused, with nothing filed, when a gate did not pass and is not waived, when the stored bytes changed, or when the
    approval would not count: an unknown key, another role, the trainer's own, a replay's outside of a replay.
    """
    from drift_pipeline.control.signing import Signer
    from drift_pipeline.evidence.approve import approve as give
    from drift_pipeline.rollout.approval import Refusal

    settings = settings_for(home, environment)
    with at_work(f"{model} {version}: its bytes and gates are looked at"):
        found = give(settings, Signer.load(key_file), model, version, reason, expires, system_clock(), role)
    if isinstance(found, Refusal):
        told = f"{model} {version}: NOT APPROVED for {settings.environment}: {found.reason}"
        if as_json:
            click.echo(json.dumps({"approved": False, "reason": found.reason}, indent=2))
        else:
            say(told)
        return NEGATIVE
    write_cards(settings, model)
    card = settings.evidence / model / found.version / "card.html"
    if as_json:
        document = {"approved": True, "model": model, "environment": settings.environment, **asdict(found)}
        document["card"] = str(card) if card.is_file() else None
        click.echo(json.dumps(document, indent=2, default=str))
        return OK
    wanted = (
        f"of {found.wanted} approvals valid now" if found.wanted else "valid now (no spec here says how many it wants)"
    )
    click.echo(
        f"{model} {found.version}: {found.rollout} approved for {settings.environment} by {found.approver} "
        f"until {found.expires:%Y-%m-%d %H:%M} UTC"
    )
    click.echo(f"approvals   {found.valid} {wanted}\nfiled in    {found.path}")
    click.echo(f"its card    {card}" if card.is_file() else "its card    is not written yet")
    for other in found.refused:
        click.echo(f"refused     {other}")
    return OK


COMMANDS = (key, approve)
