"""Keys of people, and the home's own."""

import getpass
import json
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import OK, actor_option, example, home_option, json_option, settings_of
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import InputError


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


COMMANDS = (key,)
