"""Commands on producers: who may ask the gateway."""

import getpass
import json
from pathlib import Path

import click

from drift_pipeline.cli.options import (
    OK,
    Whole,
    actor_option,
    example,
    home_option,
    json_option,
    model_argument,
    reason_option,
    settings_of,
)
from drift_pipeline.cli.telling import at_work
from drift_pipeline.clock import system_clock


@click.group(cls=Whole)
def producer() -> None:
    """Producers: who may ask the gateway, and tell it of events."""


@producer.command("add", epilog=example("drift producer add checkout fraud"))
@click.argument("name")
@model_argument(nargs=-1)
@click.option("--rows-per-second", type=click.IntRange(min=1), default=1000, show_default=True)
@home_option
@json_option
def add_producer(name: str, model: tuple[str, ...], rows_per_second: int, home: Path | None, as_json: bool) -> int:
    """Make an API key for NAME, to speak of each MODEL, or of all where none is named.

    It is shown this once, and only its hash is kept.
    """
    from drift_pipeline.loop.home import model_of, opened
    from drift_pipeline.serving import keys

    settings = settings_of(home)
    for one in model:
        model_of(settings, one)
    with at_work(f"{name}: making a key"), opened(settings, system_clock(), new=True) as at:
        made = keys.add_producer(at.store, name, model or (keys.ANY_MODEL,), rows_per_second, getpass.getuser())
    click.echo(json.dumps({"producer": name, "key": made}) if as_json else made)
    return OK


@producer.command("revoke", epilog=example('drift producer revoke checkout --reason "its key leaked"'))
@click.argument("name")
@reason_option
@actor_option
@home_option
@json_option
def revoke_producer(name: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Refuse NAME's key from the next second on."""
    from drift_pipeline.loop.home import opened
    from drift_pipeline.loop.operating import given
    from drift_pipeline.serving import keys

    with at_work(f"{name}: revoking its key"), opened(settings_of(home), system_clock()) as at:
        keys.revoke_producer(at.store, name, actor or getpass.getuser(), given(reason))
    told = json.dumps({"producer": name, "revoked": True})
    click.echo(told if as_json else f"{name}: its key is refused from now on")
    return OK


@producer.command("list", epilog=example("drift producer list"))
@home_option
@json_option
def list_producers(home: Path | None, as_json: bool) -> int:
    """Who has a key."""
    from drift_pipeline.loop.home import reading
    from drift_pipeline.serving import keys

    with reading(settings_of(home)) as store:
        found = keys.producers(store)
    if as_json:
        click.echo(json.dumps([{"name": one.name, **one.to_json()} for one in found], indent=2))
        return OK
    for one in found:
        told = "revoked" if one.revoked else f"{one.rows_per_second:,} rows/s, {', '.join(one.models)}"
        click.echo(f"{one.name}: {told}")
    return OK


COMMANDS = (producer,)
