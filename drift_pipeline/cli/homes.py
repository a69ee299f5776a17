"""Commands on a home as a whole."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from drift_pipeline.cli.options import OK, Whole, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import at_work, say, wrapped


@click.group(cls=Whole)
def home() -> None:
    """Where a home keeps what it knows."""


@home.command(epilog=example("drift home migrate --to postgresql://drift:secret@db/drift"))
@click.option("--to", envvar="DRIFT_DATABASE", required=True, help="PostgreSQL's url; else DRIFT_DATABASE.")
@home_option
@json_option
def migrate(to: str, home: Path | None, as_json: bool) -> int:
    """Move the control store to PostgreSQL, its chain intact. Stop what runs first.

    Until the copy verifies the home goes on with what it has, whatever ends
    this. Then set DRIFT_DATABASE; the old store stays as control.db.moved.
    """
    from drift_pipeline.control.moving import move_store
    from drift_pipeline.settings import ASIDE

    folder = settings_of(home).home
    with at_work(f"{folder}: copying its control store"):
        moved = move_store(folder, to)
    if as_json:
        click.echo(json.dumps(asdict(moved), indent=2))
    else:
        counts = ", ".join(f"{name} {count}" for name, count in moved.rows.items())
        say(wrapped(f"{moved.to}: {counts} rows; the chain ends at {moved.head[:12]} on both sides"))
        say(
            wrapped(f"set DRIFT_DATABASE to that url before anything is started again; {folder / ASIDE} is what it was")
        )
    return OK


COMMANDS = (home,)
