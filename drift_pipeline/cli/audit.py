"""Whether the audit holds."""

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Whole, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import format_duration, system_clock
from drift_pipeline.errors import InputError

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
