"""What the audit tells: its records, and the causal chain of a version."""

import json
import math
import re
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.audit import audit
from drift_pipeline.cli.options import (
    INCONCLUSIVE,
    OK,
    Since,
    example,
    home_option,
    json_option,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import say, wrapped
from drift_pipeline.cli.watch import home_at
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import NothingToDoError

if TYPE_CHECKING:
    from drift_pipeline.evidence.chain import Step

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+(?:\+00:00|Z)")


@audit.command(epilog=example("drift audit show fraud", "drift audit show fraud v3 --html v3.html"))
@model_argument()
@click.argument("version", required=False)
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Draw it, as a page that needs no script.")
@home_option
@json_option
def show(model: str, version: str | None, html: Path | None, home: Path | None, as_json: bool) -> int:
    """How VERSION of MODEL came about: breach, incident, decision, data, candidate, gates, approvals, rollout, outcome.

    Without VERSION, the one that answers. Each step names its record of the audit, for drift audit list; what is
    missing is said. Nothing is changed: a copy of a home or a replay's folder will do.
    """
    found = (at := home_at(home)).chain(model, version)
    if html is not None:
        from drift_pipeline.replays.chains import write_chain

        card = at.settings.evidence / model / found.version / "card.html"
        write_chain(found, html, card if card.is_file() else None)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return OK
    say(wrapped(f"{model} {found.version}" + (f", {found.digest}" if found.digest else ", another system answers")))
    for step in found.steps:
        _say(step)
    for stage, why in found.lacks:
        say(wrapped(f"{'-':>5}  {stage:<10}  {why}", then=" " * 19))
    return OK


def _say(step: "Step") -> None:
    head = f"{step.seq:>5}  {step.stage:<10}  {step.at[:16].replace('T', ' ')}  "
    say(wrapped(_plain(step.words), head, " " * 19))
    named = {**step.digests, **({"policy": step.policy_digest} if step.policy_digest else {}), "record": step.hash}
    digests = ", ".join(f"{name} {digest.removeprefix('sha256:')[:12]}" for name, digest in named.items())
    for line in (*step.lines, f"by {step.actor}; {digests}"):
        say(wrapped(_plain(line), " " * 19, " " * 21))


@audit.command("list", epilog=example("drift audit list fraud --since 30d --event rollout"))
@model_argument(required=False)
@click.option("--since", type=Since(), help="Only those since: ISO 8601, or how long ago, such as 30d.")
@click.option("--actor", help="Only those of this person or part, such as loop.")
@click.option("--event", help="Only this event, such as rollout.canary, or rollout for all of them.")
@home_option
@json_option
def list_(
    model: str | None,
    since: datetime | None,
    actor: str | None,
    event: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Print the audit's records, of MODEL or all, oldest first, also of a copy that nobody may write.

    What they say, verify checks.
    """
    from drift_pipeline.evidence.timeline import Story, plain

    found, teller = home_at(home).records(model, since=since, actor=actor, event=event), Story()
    if as_json:
        click.echo(json.dumps([asdict(record) for record in found], indent=2))
        return OK
    for record in found:
        plainly = ", ".join(f"{name} {_short(value)}" for name, value in record.details.items())
        words = _sentence(teller, record) or plainly
        head = f"{record.seq}  {record.at[:19].replace('T', ' ')}  {record.actor}  {record.event}  {record.subject}"
        say(wrapped(plain(head), then="    "))
        if words:
            say(wrapped(plain(_plain(words)), "    "))
    if not found:
        say("no record is of that kind", err=True)
    return OK


def _plain(words: str) -> str:
    return _MOMENT.sub(r"\1 \2 UTC", words)


def _sentence(teller: Any, record: Any) -> str:
    """What the record says; "" where there is no word for it, or its details are not those of its event."""
    try:
        told = teller.tell(record)
    except Exception:  # of whoever wrote it: it is shown as it is
        return ""
    return told.words if told else ""


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@click.command(epilog=example("drift lineage", "drift lineage --home out"))
@home_option
@json_option
def lineage(home: Path | None, as_json: bool) -> int:
    """Tell now what is new as OpenLineage events, as the loop does by itself, and say how that stands.

    They go to DRIFT_LINEAGE_URL with DRIFT_LINEAGE_KEY, else into files in the home's folder lineage/; with
    DRIFT_LINEAGE=off nowhere. Ends with 3 where the backend does not take them: they are told again.
    """
    from drift_pipeline.control.store import ControlStore
    from drift_pipeline.control.trust import require_store
    from drift_pipeline.loop.home import models_of
    from drift_pipeline.loop.lineage import deliver_lineage, standing, told

    settings, now = settings_of(home), system_clock().now()
    if not settings.lineage:
        raise NothingToDoError("lineage is off: DRIFT_LINEAGE=off is set")
    require_store(settings)
    with closing(ControlStore(settings.database_url, system_clock())) as store:
        sent = deliver_lineage(settings, store, models_of(settings), now, seconds=math.inf, at_once=True)
        found = standing(settings, store)
    assert found is not None
    if as_json:
        click.echo(json.dumps({"sent": sent, **asdict(found)}, indent=2))
    else:
        say(wrapped("; ".join([f"{found.where}: {sent:,} events told", *told(found)]), then="  "))
    return INCONCLUSIVE if found.error else OK


COMMANDS = (audit, lineage)
