"""The channels that alerts go to."""

import json
from pathlib import Path

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Whole, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import say, wrapped
from drift_pipeline.clock import system_clock


@click.group(cls=Whole)
def alerts() -> None:
    """Whom alerts reach: the channels that DRIFT_ALERTS names, how they stand, and a try of each."""


@alerts.command("list", epilog=example("drift alerts list", "drift alerts list --json"))
@home_option
@json_option
def listed(home: Path | None, as_json: bool) -> int:
    """Each channel: what it was sent, what waits and why, and what its receiver refused."""
    from drift_pipeline.alerts.standing import standings
    from drift_pipeline.loop.home import reading

    settings = settings_of(home)
    with reading(settings) as store:
        found = standings(settings, store)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return OK
    say(f"alerts.jsonl (file): has every alert: {settings.alerts}")
    for one in found:
        waits = f", {one.waiting:,} wait since {one.since}" if one.waiting else ""
        why = f": {one.error}" if one.error else ""
        say(wrapped(f"{one.channel} ({one.kind}): {one.sent:,} sent{waits}{why}", then="  "))
        for parked in one.parked:
            say(wrapped(f"  refused {parked['id']}: {parked['why']}", then="    "))
    return OK


@alerts.command("test", epilog=example("drift alerts test", "drift alerts test pager"))
@click.argument("channel", required=False)
@home_option
@json_option
def test(channel: str | None, home: Path | None, as_json: bool) -> int:
    """Send a test alert, and its end, to each CHANNEL, or to one; 1 where one does not take it.

    It is of severity ticket, whatever the routes say, and stands in no outbox.
    """
    from drift_pipeline.alerts.standing import tried
    from drift_pipeline.loop.home import reading

    settings = settings_of(home)
    with reading(settings) as store:
        found = []
        for name, why in tried(settings, store, channel, system_clock().now()):
            found.append({"channel": name, "ok": not why, "why": why})
            if not as_json:
                say(wrapped(f"{name}: {why or 'took it'}", then="  "))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    return OK if all(one["ok"] for one in found) else NEGATIVE


COMMANDS = (alerts,)
