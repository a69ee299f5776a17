"""What people see of a running loop, and what they may do to it."""

import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Duration, Moment, home_option, json_option, settings_of
from drift_pipeline.clock import Window, format_duration, system_clock
from drift_pipeline.errors import DriftError, InputError

reason_option = click.option("--reason", required=True, help="Why; it stands in the audit.")
actor_option = click.option("--actor", envvar="DRIFT_ACTOR", help="Who; else DRIFT_ACTOR, or your login name.")


def _verb(command: Callable[..., int]) -> Callable[..., int]:
    """The parameters of every verb."""
    for decorate in (json_option, home_option, actor_option, reason_option, click.argument("model")):
        command = decorate(command)
    return command


@contextmanager
def _loop(model: str, home: Path | None, actor: str | None) -> Iterator[tuple[Any, str]]:
    """The model's loop and who acts."""
    from drift_pipeline.loop.home import model_of, opened

    settings = settings_of(home)
    spec = model_of(settings, model)
    with opened(settings, system_clock()) as at:
        yield at.loop(spec), actor or getpass.getuser()
        with suppress(DriftError):  # what was done stands; the next tick writes the card, or tells why it cannot
            at.document(spec)


def _say(model: str, words: str, as_json: bool, **told: Any) -> int:
    click.echo(json.dumps({"model": model, **told}, indent=2) if as_json else f"{model}: {words}")
    return OK


def _retrain(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, *, hotfix: bool) -> int:
    from drift_pipeline.loop import operating
    from drift_pipeline.loop.deciding import NO_CANARY
    from drift_pipeline.policy.decide import Action

    with _loop(model, home, actor) as (loop, who):
        decision_id, decision = operating.retrain(loop, who, reason, hotfix=hotfix)
        elsewhere = f"; {NO_CANARY}" if loop.monitor.champion.recorded else ""
    agreed = decision.action in (Action.RETRAIN, Action.HOTFIX_RETRAIN)
    then = f"; the sensor, or drift tick, runs it{elsewhere}" if agreed else ""
    _say(
        model,
        f"{decision_id} {decision.action}: {'; '.join(decision.reasons)}{then}",
        as_json,
        decision=decision_id,
        action=str(decision.action),
        reasons=list(decision.reasons),
    )
    return OK if agreed else NEGATIVE


@click.command()
@_verb
def retrain(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Ask for a retrain of MODEL; the policy may refuse (1). It waits for its turn like every other."""
    return _retrain(model, reason, actor, home, as_json, hotfix=False)


@click.command()
@_verb
def hotfix(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Ask for a retrain of MODEL in the fast lane, past the cooldown and beside a long retrain."""
    return _retrain(model, reason, actor, home, as_json, hotfix=True)


@click.command()
@_verb
def promote(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Take MODEL's rollout its next step now. Evidence, gates and approvals are asked for as ever."""
    from drift_pipeline.loop import operating

    with _loop(model, home, actor) as (loop, who):
        status = operating.promote(loop, who, reason)
    return _say(model, f"{status.rollout_id} is in {status.phase}", as_json, phase=str(status.phase))


@click.command()
@click.option("--champion", is_flag=True, help="Also where the last rollout was rolled back, by somebody else perhaps.")
@_verb
def rollback(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, champion: bool) -> int:
    """Stop MODEL's rollout or, after a promotion, go back to the version before. The gateway follows at once."""
    from drift_pipeline.loop import operating

    with _loop(model, home, actor) as (loop, who):
        status = operating.roll_back(loop, who, reason, champion=champion)
    words = f"{status.rollout_id} rolled back; {status.champion} answers"
    return _say(model, words, as_json, rollout=status.rollout_id, champion=status.champion)


@click.command()
@_verb
def pause(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Hold retraining and promotion of MODEL. Monitoring and rollback go on."""
    return _pause(model, reason, actor, home, as_json, on=True)


@click.command()
@_verb
def resume(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Let retraining and promotion of MODEL go on."""
    return _pause(model, reason, actor, home, as_json, on=False)


def _pause(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, *, on: bool) -> int:
    from drift_pipeline.loop import operating

    with _loop(model, home, actor) as (loop, who):
        operating.pause(loop, who, reason, on=on)
    return _say(model, "retraining and promotion are held" if on else "goes on", as_json, paused=on)


@click.command()
@click.option("--from", "start", type=Moment(), help="ISO 8601; else now.")
@click.option("--to", "end", required=True, type=Moment(), help="ISO 8601.")
@_verb
def maintenance(
    model: str,
    reason: str,
    actor: str | None,
    home: Path | None,
    as_json: bool,
    start: datetime | None,
    end: datetime,
) -> int:
    """Announce maintenance of MODEL: rows of the span are kept but judge nothing, and nothing is done meanwhile."""
    from drift_pipeline.loop import operating

    since = start or system_clock().now()
    if end <= since:
        raise InputError(f"--to {end:%Y-%m-%d %H:%M} is not after --from {since:%Y-%m-%d %H:%M}")
    with _loop(model, home, actor) as (loop, who):
        operating.announce_maintenance(loop, who, reason, Window(since, end))
    told = {"from": since.isoformat(), "to": end.isoformat()}
    return _say(model, f"maintenance from {told['from']} to {told['to']}", as_json, **told)


@click.group()
def incident() -> None:
    """Incidents: what is open, and what people said to it."""


@incident.command("ack")
@_verb
def acknowledge(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Say that somebody looks after MODEL's open incident."""
    from drift_pipeline.loop import operating

    with _loop(model, home, actor) as (loop, who):
        key = operating.acknowledge(loop, who, reason)
    return _say(model, f"incident {key} is acknowledged by {who}", as_json, incident=key, by=who)


@incident.command()
@click.option("--for", "lasting", required=True, type=Duration(), help="How long, such as 4h.")
@_verb
def snooze(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool, lasting: timedelta) -> int:
    """No pages about drift of MODEL for a while. What happens is recorded as ever."""
    from drift_pipeline.loop import operating

    until = system_clock().now() + lasting
    with _loop(model, home, actor) as (loop, who):
        operating.snooze(loop, who, reason, until)
    return _say(model, f"no pages until {until:%Y-%m-%d %H:%M} UTC", as_json, until=until.isoformat())


@incident.command()
@_verb
def close(model: str, reason: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    """Close MODEL's open incident by hand; what is still found opens it again."""
    from drift_pipeline.loop import operating

    with _loop(model, home, actor) as (loop, who):
        key = operating.close_incident(loop, who, reason)
    return _say(model, f"incident {key} is closed", as_json, incident=key)


@incident.command("list")
@home_option
@json_option
def list_incidents(home: Path | None, as_json: bool) -> int:
    """The open incidents of every model."""
    found = [one for one in _standings(home)[0] if one.incident]
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return OK
    for one in found:
        breached = [f"{name} {kpi['verdict']}: {kpi['reason']}" for name, kpi in one.kpis.items() if _speaks(kpi)]
        who = f", acknowledged by {one.acknowledged_by}" if one.acknowledged_by else ""
        click.echo(f"{one.model}: {one.incident}{who}")
        for line in breached:
            click.echo(f"  {line}")
    if not found:
        click.echo("no incident is open")
    return OK


def _speaks(kpi: Any) -> bool:
    return kpi["verdict"] in ("WARN", "BREACH")


def _standings(home: Path | None) -> tuple[list[Any], datetime]:
    from drift_pipeline.loop.home import models_of, none_adopted, reading
    from drift_pipeline.loop.status import standings

    settings, now = settings_of(home), system_clock().now()
    specs = models_of(settings)
    with reading(settings) as store:
        if told := none_adopted(store, settings, specs):
            click.echo(told, err=True)
        return standings(store, specs.values(), now), now


@click.command()
@home_option
@json_option
def status(home: Path | None, as_json: bool) -> int:
    """How every model stands, on one screen: verdict, incident, runs, rollout, heartbeat."""
    found, now = _standings(home)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return OK
    rows: list[tuple[str, ...]] = [("model", "answers", "verdict", "last tick", "incident", "rollout and runs")]
    rows += [_row(one, now) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        click.echo(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        )
    for one in found:
        for line in _beneath(one):
            click.echo(f"  {one.model}  {line}")
    return OK


def _beneath(one: Any) -> Iterator[str]:
    """What a standing rests on: KPIs that speak, labels, and why the others are not judged."""
    from drift_pipeline.detection.judging.verdict import told_waiting

    for name, kpi in one.kpis.items():
        if _speaks(kpi):
            yield f"{kpi['verdict']:<7} {name}: {kpi['reason']}"
    if one.labels:
        landed, joined, judged = (one.labels[name] for name in ("landed", "joined", "judged"))
        yet = "" if judged else " yet"
        yield f"labels  {landed:,} landed, {joined:,} joined to predictions, {judged:,} judged{yet}"
    for event, why in one.concerns.items():
        yield f"{event}: {why}"
    for line in told_waiting(one.not_judged):
        yield f"waits   {line}"


def _row(one: Any, now: datetime) -> tuple[str, ...]:
    from drift_pipeline.detection.judging.verdict import told_verdict
    from drift_pipeline.loop.status import NOT_ADOPTED

    age = one.age(now)
    beat = "" if age is None else f"{format_duration(timedelta(seconds=round(age.total_seconds())))} ago"
    told = [
        f"paused by {one.paused_by}" if one.paused_by else "",
        f"maintenance {one.maintenance}" if one.maintenance else "",
        *one.runs,
        one.rollout,
    ]
    who = f" ({one.acknowledged_by})" if one.acknowledged_by else ""
    verdict = told_verdict({"verdict": one.verdict, "judged": one.judged, "configured": one.configured})
    if not one.verdict and one.champion != NOT_ADOPTED:
        verdict = "no tick yet"
    return one.model, one.champion, verdict, beat, one.incident + who, "; ".join(filter(None, told))


@click.command()
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


@click.command()
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


COMMANDS = (retain, erase, status, retrain, hotfix, promote, rollback, pause, resume, maintenance, incident)
