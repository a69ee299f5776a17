"""Verifying a folder of evidence, by whoever was sent it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_pipeline.cli.options import NEGATIVE, OK, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.errors import InputError

if TYPE_CHECKING:
    from drift_pipeline.evidence.offline import Verified


@click.command(epilog=example("drift verify evidence --keys trusted", "drift verify evidence/fraud/v3 --home live"))
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    help="Folder of the public keys (*.pub.json) that you trust, or one of them; else trust/ of the home.",
)
@click.option(
    "--registry",
    type=click.Path(path_type=Path),
    help="Also the models' bytes, as they lie in this registry.",
)
@home_option
@json_option
def verify(path: Path, keys: Path | None, registry: Path | None, home: Path | None, as_json: bool) -> int:
    """Verify PATH, a home's evidence folder or one version's in it, or a copy, from its files alone.

    Every file has to be what a trusted key signed, and none may be there that was not signed. The keys of the home
    that wrote the evidence say only that the home agrees with itself: who audits it has them from its people, by
    another way than the evidence, and names them with --keys. Ends with 3 where no key is trusted.
    """
    from drift_pipeline.evidence.offline import verify_evidence

    if keys is not None and not keys.exists():
        raise InputError(f"--keys {keys}: there is no such folder or file")
    with at_work(f"{path}: verifying"):
        found = verify_evidence(path, keys or settings_of(home).trust, registry)
    if as_json:
        click.echo(json.dumps({"ok": not found.faults, "path": str(path), **asdict(found)}, indent=2))
    else:
        _tell(path, found)
    return NEGATIVE if found.faults else OK


def _tell(path: Path, found: "Verified") -> None:
    for fault in found.faults:
        say(_printable(f"{path / fault.file}: NOT VERIFIED: {fault.reason}"))
    if found.faults:
        return
    by = f", signed by {found.signer} as of {found.at}" if found.at else ""
    click.echo(_printable(f"{path}: verified: {found.files} files of {len(found.versions)} versions{by}"))
    for one in found.versions:
        lasts = f", approved until {one.expires}" if one.expires else ""
        held = "its bytes verified" if one.bytes_verified else "its bytes not asked for (--registry DIR)"
        click.echo(_printable(f"{one.model} {one.version}  {one.outcome}, {one.environment}, as of {one.at}{lasts}"))
        click.echo(_printable(f"    bundle {one.bundle}, {held}"))
        click.echo(_printable(f"    signed by {one.signer}"))


def _printable(text: str) -> str:
    """What strangers' files say must not move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


COMMANDS = (verify,)
