"""What people see of a home: how models stand, their versions, incidents and decisions. Nothing in it is changed."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.options import (
    NEGATIVE,
    OK,
    Since,
    example,
    home_option,
    json_option,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import minute, rough, say, table, told_below, wrapped
from drift_pipeline.clock import MINUTE, system_clock
from drift_pipeline.errors import InputError, NothingToDoError, UnavailableError

if TYPE_CHECKING:
    from drift_pipeline.homes import Home
    from drift_pipeline.loop.status import Standing

_REFRESH = 3.0  # seconds
_PHASES = {
    "shadow": "{version} in the shadow since {since}",
    "awaiting_approval": "{version} waits for approval since {since}: drift approve {model} {version} --key FILE",
    "canary": "{version} canary{weight} since {since}",
    "full": "{version} took over {since}",
    "rolled_back": "{version} rolled back {since}: {why}",
}


def home_at(home: Path | None) -> "Home":
    from drift_pipeline.homes import Home

    return Home(settings_of(home))


def standings_of(home: Path | None, model: str | None = None) -> list["Standing"]:
    """How the models stand, or the one; who looks is told where none is adopted."""
    from drift_pipeline.loop.home import models_of, none_adopted, reading

    at = home_at(home)
    if model is not None:
        return [at.standing(model)]
    with reading(at.settings) as store:
        if told := none_adopted(store, at.settings, models_of(at.settings)):
            say(told, err=True)
    return at.standings()


@click.command(epilog=example("drift status", "drift status fraud --watch"))
@model_argument(required=False)
@click.option("--watch", is_flag=True, help="Again every few seconds, until Ctrl-C.")
@home_option
@json_option
def status(model: str | None, watch: bool, home: Path | None, as_json: bool) -> int:
    """How the models stand, or one: verdict, why KPIs are not judged and when they can be, incident, rollout."""
    if watch and as_json:
        raise InputError("--watch and --json: a screen that goes on is no JSON; give one of them")

    def screen() -> str:
        found, now = standings_of(home, model), system_clock().now()
        return "\n".join([*(line for one in found for line in _block(one, now)), *_told_elsewhere(home)])

    if as_json:
        click.echo(json.dumps([one.to_json() for one in standings_of(home, model)], indent=2))
    elif watch:
        _watch(screen)
    elif told := screen():
        say(told)
    return OK


def _told_elsewhere(home: Path | None) -> Iterator[str]:
    """Lineage, W&B, alerts, traces and Kafka, of the whole home, where something is amiss or waits."""
    from drift_pipeline.alerts import standing
    from drift_pipeline.loop import mirroring, tracing
    from drift_pipeline.loop.home import reading
    from drift_pipeline.loop.lineage import standing as lineage_standing
    from drift_pipeline.loop.lineage import told
    from drift_pipeline.observability import lag
    from drift_pipeline.observability.facts import CAPTURE

    settings = settings_of(home)
    with reading(settings) as store:
        found, mirror = lineage_standing(settings, store), mirroring.told(settings, store)
        alerts = standing.told(settings, store) if settings.alerts_file else []
        traces, captured = tracing.told(store), store.recall(CAPTURE)
    for line in told(found) if found else ():
        yield wrapped(f"lineage: {line}", then="  ")
    for line in mirror:
        yield wrapped(f"wandb: {line}", then="  ")
    for line in alerts:
        yield wrapped(f"alerts: {line}", then="  ")
    for line in traces:
        yield wrapped(f"traces: {line}", then="  ")
    for line in lag.told(captured.body, system_clock().now()) if captured else ():
        yield wrapped(f"kafka: {line}", then="  ")


def _watch(screen: Callable[[], str]) -> None:
    """Until it is interrupted; a store that does not answer may do so the next time."""
    told = screen()  # what is wrong from the beginning ends it
    while True:
        click.clear()
        say(f"{system_clock().now():%Y-%m-%d %H:%M:%S} UTC, every {_REFRESH:.0f} s until Ctrl-C\n\n{told}\n")
        time.sleep(_REFRESH)
        try:
            told = screen()
        except UnavailableError as error:
            told = f"drift: {error}"


def _block(one: "Standing", now: datetime) -> Iterator[str]:
    ticked = f"last tick {ago}" if (ago := _ticked(one, now)) else ""
    yield wrapped("  ".join(filter(None, (one.model, one.champion, _verdict(one), ticked))), then="  ")
    yield from told_below([*_told(one)])


def _verdict(one: "Standing") -> str:
    from drift_pipeline.detection.judging.verdict import told_verdict
    from drift_pipeline.loop.status import NOT_ADOPTED

    if not one.verdict:
        return "" if one.champion == NOT_ADOPTED else "no tick yet"
    return told_verdict({"verdict": one.verdict, "judged": one.judged, "configured": one.configured})


def _ticked(one: "Standing", now: datetime) -> str:
    age = one.age(now)
    if age is None or not one.verdict:
        return ""
    return f"{rough(age)} ago" if age > -MINUTE else f"{rough(-age)} ahead of this clock (a drill's? set DRIFT_DRILL)"


def _told(one: "Standing") -> Iterator[tuple[str, str]]:
    """What a standing rests on, by name: what is open, KPIs that speak, why others are not judged, labels, rollout."""
    from drift_pipeline.detection.judging.verdict import told_reason

    if one.incident:
        who = f", acknowledged by {one.acknowledged_by}" if one.acknowledged_by else ""
        yield "incident", f"{one.incident} is open{who}"
    for name, kpi in one.kpis.items():
        if speaks(kpi):
            yield name, f"{kpi['verdict']}: {kpi['reason']}"
    for name, waits in one.not_judged.items():
        yield name, f"waits: {told_reason(waits['reason'], waits.get('judged_at'))}"
    if one.labels:
        landed, joined, judged = (one.labels[name] for name in ("landed", "joined", "judged"))
        yet = "" if judged else " yet"
        yield "labels", f"{landed:,} landed, {joined:,} joined to predictions, {judged:,} judged{yet}"
    if one.phase:
        yield "rollout", _rollout(one)
    for run in one.runs:
        yield "retrain", run
    if one.paused_by:
        yield "paused", f"by {one.paused_by}: retraining and promotion are held"
    if one.maintenance_to:
        by = one.maintenance.rpartition(" by ")[2]
        yield "maintenance", f"{minute(one.maintenance_from)} to {minute(one.maintenance_to)} UTC, announced by {by}"
    yield from one.concerns.items()


def _rollout(one: "Standing") -> str:
    """In a phrase; of one that was rolled back the first of its reasons."""
    why = one.rollout.partition(": ")[2].partition("; ")[0]
    weight = f" {one.weight} %" if one.weight else ""
    told = {"version": one.candidate, "model": one.model, "weight": weight, "why": why}
    return _PHASES[one.phase].format(since=f"{minute(one.phase_since)} UTC", **told)


def speaks(kpi: Mapping[str, Any]) -> bool:
    return kpi["verdict"] in ("WARN", "BREACH")


@click.command(epilog=example("drift models", "drift models --json"))
@home_option
@json_option
def models(home: Path | None, as_json: bool) -> int:
    """The models of a home, one line each: what answers, the verdict, the last tick, the open incident."""
    if as_json:
        return _json(home_at(home).models().to_dicts())
    found, now = standings_of(home), system_clock().now()
    rows = [
        (
            one.model,
            one.champion,
            _ticked(one, now),
            _verdict(one) + (f", incident {one.incident}" if one.incident else ""),
        )
        for one in found
    ]
    if rows:
        say(table(("model", "answers", "last tick", "verdict"), rows))
    return OK


@click.command(epilog=example("drift versions fraud"))
@model_argument()
@home_option
@json_option
def versions(model: str, home: Path | None, as_json: bool) -> int:
    """The versions of MODEL: when each was trained, its gates, whether it answers or did, who approved it, its card."""
    found = home_at(home).versions(model).to_dicts()
    if as_json:
        return _json(found)
    for one in found:
        since = minute(one["since"] or one["trained_at"])
        say(wrapped(f"{one['version']}  {one['phase'].replace('_', ' ')} since {since} UTC", then="  "))
        card = [("card", Path(one["card"]))] if one["card"] else []
        say("\n".join(told_below([*((name, words) for name, words in _version(one) if words), *card])))
    return OK


def _version(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows = "" if one["rows"] is None else f" on {one['rows']:,} rows"
    asked = f", for {one['decision']}" if one["decision"] else ""
    yield "trained", f"{minute(one['trained_at'])} UTC{rows}{asked}"
    yield "gates", one["gates"]
    if one["answers_from"]:
        yield "answered", f"from {minute(one['answers_from'])} to {minute(one['answers_to']) or 'now'} UTC"
    yield "approved", f"by {', '.join(one['approved_by'])}" if one["approved_by"] else ""
    yield "sha256", one["digest"].removeprefix("sha256:")


@click.command(epilog=example("drift card fraud v3", "drift card fraud v3 --md | less"))
@model_argument()
@click.argument("version")
@click.option("--open", "browse", is_flag=True, help="Show it in the browser.")
@click.option("--md", is_flag=True, help="Print it as Markdown.")
@home_option
@json_option
def card(model: str, version: str, browse: bool, md: bool, home: Path | None, as_json: bool) -> int:
    """Where the card of VERSION of MODEL (v3, or its digest) lies; or its text, or show it in the browser."""
    if browse + md + as_json > 1:
        raise InputError("--open, --md and --json: the card is shown in one way; give one of them")
    path = card_of(home_at(home), model, version)
    if md or as_json:
        file = path.with_suffix(".md" if md else ".json")
        try:
            click.echo(file.read_text(encoding="utf-8").rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from error
        return OK
    click.echo(path)
    if browse and click.launch(path.absolute().as_uri()):
        say("no browser could be opened here", err=True)
        return NEGATIVE
    return OK


def card_of(home: "Home", model: str, version: str) -> Path:
    """Raises InputError for an unknown version, NothingToDoError where it has no card."""
    known = home.versions(model).to_dicts()
    found = [one for one in known if version in (one["version"], one["digest"])]
    if not found:
        names = ", ".join(one["version"] for one in known)
        raise InputError(f"{model} has no version {version!r}; there are: {names}")
    if found[-1]["card"] is None:
        told = "it is written when a candidate is registered (audit_artifacts in Dagster), and by replays"
        raise NothingToDoError(f"{model} {version}: has no card below {home.settings.evidence}: {told}")
    return Path(found[-1]["card"])


@click.command(epilog=example("drift decisions fraud --since 30d"))
@model_argument()
@click.option("--since", type=Since(), help="Only those since: ISO 8601, or how long ago, such as 30d.")
@home_option
@json_option
def decisions(model: str, since: datetime | None, home: Path | None, as_json: bool) -> int:
    """What the policy decided about MODEL, oldest first: when, what asked it, what it said, and why."""
    found = [one for one in home_at(home).decisions(model).to_dicts() if since is None or one["at"] >= since]
    if as_json:
        return _json(found)
    rows = [
        (minute(one["at"]), one["trigger"], one["action"], "; ".join([*_asked(one), *one["reasons"]])) for one in found
    ]
    if rows:
        say(table(("when (UTC)", "trigger", "action", "why"), rows))
    else:
        say(f"{model}: nothing was decided", err=True)
    return OK


def _asked(one: Mapping[str, Any]) -> list[str]:
    return [f"{one['asked_by']}: {one['asked_for']}"] if one["asked_for"] else []


def list_incidents(home: Path | None, model: str | None, as_json: bool) -> int:
    """The open ones."""
    found = [one for one in standings_of(home, model) if one.incident]
    if as_json:
        return _json([one.to_json() for one in found])
    for one in found:
        who = f", acknowledged by {one.acknowledged_by}" if one.acknowledged_by else ""
        say(wrapped(f"{one.model}: {one.incident}{who}", then="  "))
        breached = [(name, f"{kpi['verdict']}: {kpi['reason']}") for name, kpi in one.kpis.items() if speaks(kpi)]
        say("\n".join(told_below(breached)))
    if not found:
        say("no incident is open")
    return OK


def _json(rows: Iterable[Mapping[str, Any]]) -> int:
    """Times as ISO 8601."""
    click.echo(json.dumps([*rows], indent=2, default=lambda moment: moment.isoformat()))
    return OK


COMMANDS = (status, models, versions, card, decisions)
