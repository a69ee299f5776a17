"""What people may do to a running loop; each is audited."""

import getpass
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from drift_pipeline.cli.options import (
    INCONCLUSIVE,
    NEGATIVE,
    OK,
    Duration,
    Moment,
    Whole,
    actor_option,
    example,
    home_option,
    json_option,
    model_argument,
    reason_option,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, minute, say
from drift_pipeline.cli.watch import list_incidents
from drift_pipeline.clock import DAY, Window, system_clock
from drift_pipeline.errors import DriftError, InputError

LONG = 30 * DAY
T = TypeVar("T")


def _verb(command: Callable[..., int]) -> Callable[..., int]:
    """The parameters of every verb."""
    for decorate in (json_option, home_option, actor_option, reason_option, model_argument()):
        command = decorate(command)
    return command


def _act(model: str, home: Path | None, actor: str | None, do: Callable[[Any, str], T]) -> T:
    """Do it to the model's loop, as the actor; again where a tick came in between, whose state is taken up first.

    Raises:
        ConflictError: ticks came in between each time.
    """
    from drift_pipeline.loop.home import model_of, opened
    from drift_pipeline.loop.operating import retried

    settings = settings_of(home)
    spec = model_of(settings, model)
    with at_work(f"{model}: taking up where its loop stands"), opened(settings, system_clock()) as at:
        done = retried(lambda: do(at.loop(spec), actor or getpass.getuser()))
        with suppress(DriftError):  # what was done stands; the next tick writes the card, or tells why it cannot
            at.document(spec)
    return done


def _say(model: str, words: str, as_json: bool, **told: Any) -> int:
    if as_json:
        click.echo(json.dumps({"model": model, **told}, indent=2))
    else:
        say(f"{model}: {words}")
    return OK


_STEP = click.option("--step", "steps", multiple=True, metavar="STEP", help="Of its graph, this alone; repeatable.")


def _retrain(
    model: str,
    reason: str,
    actor: str | None,
    home: Path | None,
    as_json: bool,
    steps: tuple[str, ...],
    *,
    hotfix: bool,
) -> int:
    from drift_pipeline.loop import operating
    from drift_pipeline.loop.deciding import NO_CANARY
    from drift_pipeline.policy.decide import Action, Decision

    def ask(loop: Any, who: str) -> tuple[str, Decision, bool]:
        decided = operating.retrain(loop, who, reason, hotfix=hotfix, steps=steps)
        return *decided, loop.monitor.champion.recorded

    decision_id, decision, recorded = _act(model, home, actor, ask)
    elsewhere = f"; {NO_CANARY}" if recorded else ""
    agreed = decision.action in (Action.RETRAIN, Action.HOTFIX_RETRAIN)
    alone = f" of {', '.join(steps)} alone" if steps else ""
    then = f"; the sensor, or drift tick, runs it{alone}{elsewhere}" if agreed else ""
    _say(
        model,
        f"{decision_id} {decision.action}: {'; '.join(decision.reasons)}{then}",
        as_json,
        decision=decision_id,
        action=str(decision.action),
        reasons=list(decision.reasons),
        **({"steps": list(steps)} if steps else {}),
    )
    if decision.unavailable:
        return INCONCLUSIVE
    return OK if agreed else NEGATIVE


@click.command(epilog=example('drift retrain fraud --reason "a new catalogue"'))
@_STEP
@_verb
def retrain(
    model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, steps: tuple[str, ...]
) -> int:
    """Ask for a retrain of MODEL; the policy may refuse (1) or be silent (3). It waits for its turn."""
    return _retrain(model, reason, actor, home, as_json, steps, hotfix=False)


@click.command(epilog=example('drift hotfix fraud --reason "prices are wrong since noon"'))
@_STEP
@_verb
def hotfix(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, steps: tuple[str, ...]) -> int:
    """Ask for a retrain of MODEL in the fast lane, past the cooldown and beside a long retrain."""
    return _retrain(model, reason, actor, home, as_json, steps, hotfix=True)


@click.command(epilog=example('drift promote fraud --reason "no need to wait for the night"'))
@_verb
def promote(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Take MODEL's rollout its next step now. Evidence, gates and approvals are asked for as ever."""
    from drift_pipeline.loop import operating

    status = _act(model, home, actor, lambda loop, who: operating.promote(loop, who, reason))
    return _say(model, f"{status.rollout_id} is in {status.phase}", as_json, phase=str(status.phase))


@click.command(epilog=example('drift rollback fraud --reason "complaints"'))
@click.option("--champion", is_flag=True, help="Also where the last rollout was rolled back, by somebody else perhaps.")
@_verb
def rollback(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, champion: bool) -> int:
    """Stop MODEL's rollout or, after a promotion, go back to the version before. The gateway follows at once."""
    from drift_pipeline.loop import operating

    status = _act(model, home, actor, lambda loop, who: operating.roll_back(loop, who, reason, champion=champion))
    words = f"{status.rollout_id} rolled back; {status.champion} answers"
    return _say(model, words, as_json, rollout=status.rollout_id, champion=status.champion)


@click.command(epilog=example('drift pause fraud --reason "audit week"'))
@_verb
def pause(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Hold retraining and promotion of MODEL. Monitoring and rollback go on."""
    return _pause(model, reason, actor, home, as_json, on=True)


@click.command(epilog=example('drift resume fraud --reason "audit is over"'))
@_verb
def resume(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Let retraining and promotion of MODEL go on."""
    return _pause(model, reason, actor, home, as_json, on=False)


def _pause(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, *, on: bool) -> int:
    from drift_pipeline.loop import operating

    _act(model, home, actor, lambda loop, who: operating.pause(loop, who, reason, on=on))
    return _say(model, "retraining and promotion are held" if on else "goes on", as_json, paused=on)


@click.group(cls=Whole)
def maintenance() -> None:
    """Maintenance: rows of its span are kept but judge nothing, and nothing is done meanwhile."""


@maintenance.command(epilog=example('drift maintenance begin fraud --for 2h --reason "migration"'))
@click.option("--from", "start", type=Moment(), help="ISO 8601; else now.")
@click.option("--to", "end", type=Moment(), help="ISO 8601.")
@click.option("--for", "lasting", type=Duration(), help="How long, in place of --to, such as 2h.")
@click.option("--yes", is_flag=True, help="Also where nothing is judged for over 30 days.")
@_verb
def begin(
    model: str,
    reason: str,
    actor: str | None,
    home: Path | None,
    as_json: bool,
    start: datetime | None,
    end: datetime | None,
    lasting: timedelta | None,
    yes: bool,
) -> int:
    """Announce maintenance of MODEL, in place of the one that goes on or is to come."""
    from drift_pipeline.loop import operating

    since = start or system_clock().now()
    if (end is None) == (lasting is None):
        raise InputError("--to and --for: the maintenance ends at a time, or after one; give one of them")
    end = end or _later(since, lasting or DAY)
    if end <= since:
        raise InputError(f"--to {minute(end)} is not after --from {minute(since)}")
    if end - since > LONG and not yes:
        long = f"nothing would be judged or done for {(end - since).days:,} days"
        raise InputError(f"--to {minute(end)}: {long}; say --yes if that is meant")
    _act(model, home, actor, lambda loop, who: operating.announce_maintenance(loop, who, reason, Window(since, end)))
    told = {"from": since.isoformat(), "to": end.isoformat()}
    return _say(model, f"maintenance from {minute(since)} to {minute(end)} UTC", as_json, **told)


def _later(since: datetime, lasting: timedelta) -> datetime:
    try:
        return since + lasting
    except OverflowError as error:
        raise InputError("--for: no calendar reaches that far; give a shorter time") from error


@maintenance.command("end", epilog=example('drift maintenance end fraud --reason "migrated"'))
@_verb
def end_maintenance(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """End MODEL's maintenance now, or call off the one to come; what lands from now on is judged."""
    from drift_pipeline.loop import operating

    _act(model, home, actor, lambda loop, who: operating.end_maintenance(loop, who, reason))
    return _say(model, "maintenance is over; what lands from now on is judged", as_json, maintenance=False)


@click.group(cls=Whole)
def incident() -> None:
    """Incidents: what is open, and what people said to it."""


@incident.command("ack", epilog=example('drift incident ack fraud --reason "looking into it"'))
@_verb
def acknowledge(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Say that somebody looks after MODEL's open incident."""
    from drift_pipeline.loop import operating

    who = actor or getpass.getuser()
    key = _act(model, home, who, lambda loop, who: operating.acknowledge(loop, who, reason))
    return _say(model, f"incident {key} is acknowledged by {who}", as_json, incident=key, by=who)


@incident.command(epilog=example('drift incident snooze fraud --for 4h --reason "campaign is known"'))
@click.option("--for", "lasting", required=True, type=Duration(), help="How long, such as 4h.")
@_verb
def snooze(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, lasting: timedelta) -> int:
    """No pages about drift of MODEL for a while. What happens is recorded as ever."""
    from drift_pipeline.loop import operating

    until = _later(system_clock().now(), lasting)
    _act(model, home, actor, lambda loop, who: operating.snooze(loop, who, reason, until))
    return _say(model, f"no pages until {until:%Y-%m-%d %H:%M} UTC", as_json, until=until.isoformat())


@incident.command(epilog=example('drift incident close fraud --reason "sensor was replaced"'))
@_verb
def close(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Close MODEL's open incident by hand; what is still found opens it again."""
    from drift_pipeline.loop import operating

    key = _act(model, home, actor, lambda loop, who: operating.close_incident(loop, who, reason))
    return _say(model, f"incident {key} is closed", as_json, incident=key)


@incident.command("list", epilog=example("drift incident list"))
@model_argument(required=False)
@home_option
@json_option
def listed(model: str | None, home: Path | None, as_json: bool) -> int:
    """The open incidents of every model, or of one."""
    return list_incidents(home, model, as_json)


@click.command(epilog=example("drift retain --apply"))
@click.option("--apply", "really", is_flag=True, help="Delete it; else only tell what would go.")
@home_option
@json_option
def retain(really: bool, home: Path | None, as_json: bool) -> int:
    """Tell, or with --apply delete, telemetry that is older than each spec's retention.telemetry.

    Documents, approvals and the audit are never deleted.
    """
    from drift_pipeline.loop.home import models_of, opened
    from drift_pipeline.loop.retention import past_retention
    from drift_pipeline.loop.retention import retain as delete

    settings = settings_of(home)
    with opened(settings, system_clock()) as at:
        specs = models_of(settings).values()
        found, failed = [], list[DriftError]()
        for spec in specs:
            try:
                found.append(delete(at, spec, getpass.getuser()) if really else past_retention(at, spec))
            except DriftError as error:  # one model's lake; the others' rows are past their time all the same
                failed.append(error)
    if as_json:
        told = [
            {
                "model": old.model,
                "before": old.before.isoformat(),
                "tables": {str(table): size for table, size in old.tables.items()},
            }
            for old in found
        ]
        click.echo(json.dumps({"deleted": really, "models": told}, indent=2))
    for old in () if as_json else found:
        parts = [f"{table} {rows:,} rows, {size / 1e6:,.1f} MB" for table, (rows, size) in old.tables.items()]
        what = "deleted" if really else "would go (--apply deletes it)"
        click.echo(f"{old.model}: before {old.before}: {'; '.join(parts) + f': {what}' if parts else 'nothing'}")
    if failed:
        raise failed[0]
    return OK


@click.command(epilog=example('drift erase fraud --subject u17 --reason "asked on 3 May"'))
@click.option("--subject", required=True, help="The entity, as the spec's columns.entity has it.")
@_verb
def erase(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, subject: str) -> int:
    """Erase a person's rows of MODEL from every file of the home. The audit keeps their hash, and who asked why.

    What is interrupted, each tick carries on.
    """
    from drift_pipeline.loop.erasure import erase as delete
    from drift_pipeline.loop.home import model_of, opened

    settings = settings_of(home)
    with opened(settings, system_clock()) as at:
        found = delete(at, model_of(settings, model), subject, reason, actor or getpass.getuser(), patience_s=20)
    rows = ", ".join(f"{table} {count:,}" for table, count in found.rows.items()) or "no row"
    trained = f"; trained on some of them: {', '.join(found.versions)}" if found.versions else ""
    return _say(model, f"{rows} erased{trained}", as_json, rows=found.rows, versions=list(found.versions))


COMMANDS = (retain, erase, retrain, hotfix, promote, rollback, pause, resume, maintenance, incident)
