"""Incidents: when findings become one, and when it is over; one a model, however many windows and KPIs join it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.detection.judging.verdict import HINTS, KpiResult, Report, Verdict

TICKS, OF_TICKS = 2, 3  # k of m
WARN_OPENS_AFTER = DAY
CALM_TICKS = 3
LEAST_CALM = HOUR  # a 15-minute window is calm by chance often enough to open and close by turns
REOPENS_WITHIN = DAY
UNDECIDED_PAGES_AFTER = DAY
FIRST_DECIDED_WITHIN = 28 * DAY  # a monitor that just began fills its windows first


class Change(StrEnum):
    """What a tick did to the incident."""

    OPENED = "incident.opened"
    REOPENED = "incident.reopened"
    JOINED = "incident.joined"
    CLOSED = "incident.closed"
    UNDECIDED = "monitoring.undecided"


@dataclass(frozen=True)
class Incident:
    """What is remembered between two ticks about one model on one reference.

    `key` is empty while there never was one; `breaches` has the last three ticks, conclusive or not: when each
    breached or drifted within a day, or None; times are None where they do not apply. `onset` is the first tick of
    what opened it.
    """

    reference: str
    key: str = ""
    open: bool = False
    opened_at: datetime | None = None
    onset: datetime | None = None
    closed_at: datetime | None = None
    breaches: tuple[datetime | None, ...] = ()
    warn_since: datetime | None = None
    undecided_since: datetime | None = None
    undecided_paged: bool = False
    decided_once: bool = False
    calm_since: datetime | None = None
    calm_ticks: int = 0
    kpis: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    windows_seconds: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Incident":
        """Of what `to_json` wrote."""
        times = ("opened_at", "onset", "closed_at", "warn_since", "undecided_since", "calm_since")
        read = {name: _moment(document[name]) for name in times}
        names = {name: tuple(document[name]) for name in ("kpis", "features")}
        return cls(**{**document, **read, **names, "breaches": tuple(map(_moment, document["breaches"]))})


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def step(incident: Incident, report: Report) -> tuple[Incident, Change | None]:
    """Take one tick's report.

    Opens on BREACH, or on drift in a window under a day, in 2 of 3 ticks, or on WARN that lasts 24 h. Closes when
    nothing is found at half the thresholds for one whole window of what opened it, an hour at least, and 3 conclusive
    ticks. INCONCLUSIVE neither opens nor closes; it is told once after 24 h (of a monitor that never decided anything
    yet, after 28 days), also while an incident is open. Re-opening within 24 h continues the incident.
    """
    seen = _remember(incident, report)
    if seen.open:
        return _while_open(incident, seen, report)
    breaches = [at for at in seen.breaches if at is not None]
    if len(breaches) >= TICKS:
        return _open(seen, report, breaches[0])
    found = report.verdict in (Verdict.BREACH, Verdict.WARN)
    if found and seen.warn_since is not None and report.at - seen.warn_since >= WARN_OPENS_AFTER:
        return _open(seen, report, seen.warn_since)
    return _undecided(seen, report)


def _undecided(seen: Incident, report: Report) -> tuple[Incident, Change | None]:
    first = max(FIRST_DECIDED_WITHIN, 2 * report.shortest)  # of a model with few rows, windows fill for months
    patience = UNDECIDED_PAGES_AFTER if seen.decided_once else first
    if _undecided_for(seen, report) >= patience and not seen.undecided_paged:
        return replace(seen, undecided_paged=True), Change.UNDECIDED
    return seen, None


def _remember(incident: Incident, report: Report) -> Incident:
    verdict, at = report.verdict, report.at
    breach = at if verdict is Verdict.BREACH or report.sudden else None
    found = verdict in (Verdict.BREACH, Verdict.WARN)
    undecided = verdict is Verdict.INCONCLUSIVE
    blind = undecided and not report.rolled_up.judged  # what was judged, and is fine, ends a warning
    return replace(
        incident,
        breaches=(*incident.breaches, breach)[-OF_TICKS:],
        warn_since=(incident.warn_since or at) if found else (incident.warn_since if blind else None),
        undecided_since=(incident.undecided_since or at) if undecided else None,
        undecided_paged=incident.undecided_paged and undecided,
        decided_once=incident.decided_once or not undecided,
    )


def _undecided_for(incident: Incident, report: Report) -> timedelta:
    return timedelta() if incident.undecided_since is None else report.at - incident.undecided_since


def _open(incident: Incident, report: Report, onset: datetime) -> tuple[Incident, Change]:
    joined = _joined(incident, report)
    if incident.closed_at is not None and report.at - incident.closed_at <= REOPENS_WITHIN:
        return replace(joined, open=True, closed_at=None, calm_since=None, calm_ticks=0), Change.REOPENED
    key = f"{incident.reference.removeprefix('sha256:')[:12]}-{onset:%Y%m%dT%H%M}"
    fresh = replace(joined, kpis=_named(report), features=report.drifting)
    return (
        replace(
            fresh, key=key, open=True, opened_at=report.at, onset=onset, closed_at=None, calm_since=None, calm_ticks=0
        ),
        Change.OPENED,
    )


def _named(report: Report) -> tuple[str, ...]:
    return tuple(n for n, kpi in report.kpis.items() if kpi.verdict in (Verdict.BREACH, Verdict.WARN))


def _joined(incident: Incident, report: Report) -> Incident:
    named = [report.kpis[name] for name in _named(report)]
    longest = max((int(kpi.window.total_seconds()) for kpi in named if kpi.window), default=0)
    return replace(
        incident,
        kpis=tuple(dict.fromkeys((*incident.kpis, *_named(report)))),
        features=tuple(dict.fromkeys((*incident.features, *report.drifting))),
        windows_seconds=max(incident.windows_seconds, longest),
    )


def _while_open(before: Incident, seen: Incident, report: Report) -> tuple[Incident, Change | None]:
    joined = _joined(seen, report)
    calm = _calm(joined, report)
    if joined.kpis != before.kpis:
        return replace(joined, calm_since=None, calm_ticks=0), Change.JOINED
    if calm is None:
        return _undecided(joined, report)
    if not calm:
        return replace(joined, calm_since=None, calm_ticks=0), None
    calm_since = joined.calm_since or report.at
    ticks = joined.calm_ticks + 1
    calm_for = max(LEAST_CALM, timedelta(seconds=joined.windows_seconds))
    if ticks >= CALM_TICKS and report.at - calm_since >= calm_for:
        closed = replace(joined, open=False, closed_at=report.at, breaches=(), warn_since=None)
        return replace(closed, kpis=(), features=(), windows_seconds=0, calm_since=None, calm_ticks=0), Change.CLOSED
    return replace(joined, calm_since=calm_since, calm_ticks=ticks), None


def _calm(incident: Incident, report: Report) -> bool | None:
    """Whether what opened it is back within half the thresholds; None where it cannot be told.

    A hint keeps an incident open while it warns; that it warns no more proves nothing, so the rest has to be OK.
    """
    hints = [report.kpis[name].verdict for name in incident.kpis if name in HINTS and name in report.kpis]
    kpis = [report.kpis[name] for name in incident.kpis if name not in HINTS]
    if Verdict.WARN in hints:
        return False
    if hints and not kpis and report.verdict is not Verdict.OK:
        return None
    told = [kpi for kpi in kpis if kpi.verdict is not Verdict.INCONCLUSIVE]
    if report.drifting or not all(kpi.verdict is Verdict.OK and _within_half(kpi) for kpi in told):
        return False
    return True if len(told) == len(kpis) else None


def _within_half(kpi: KpiResult) -> bool:
    """Falls (thresholds below 0) and rises alike; range_z reports the excess it found, and 0 for none. A latency
    that was measured elsewhere, in no window of ours, is in milliseconds, of which half is no measure of calm."""
    by_verdict = kpi.name == "range_z" or (kpi.name == "latency_p95_ms" and kpi.window is None)
    if kpi.value is None or kpi.threshold is None or by_verdict:
        return True
    half = kpi.threshold / 2
    return kpi.value > half if half < 0 else kpi.value < half
