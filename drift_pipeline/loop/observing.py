"""Observing: a tick's report, and the incident that it opens, carries on or closes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from drift_pipeline.control.store import Message
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report, told_verdict, told_waiting
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.monitoring.kpi_history import KpiHistory, told
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.state import Memory
from drift_pipeline.policy.incident import Change, step

MOST_COLUMNS = 20  # that metrics may tell of


class Observing:
    """Of one model; the incident is in the memory that all stages share."""

    def __init__(self, context: Context, memory: Memory) -> None:
        self._at, self._memory, self._pauses = context, memory, Pauses(context)
        self._kpis = KpiHistory(context.ledger, context.lake)

    def observe(self, monitor: ChampionMonitor) -> Report:
        """Judge what landed, and carry the incident on; in a maintenance its evidence starts anew."""
        now, left_out = self._at.clock.now(), self._pauses.maintenances()
        self._kpis.settle(now)
        report = monitor.observe(now, left_out)
        self._memory.seen = _summary(report, monitor)
        if any(now in span for span in left_out):
            self._memory.incident = replace(self._memory.incident, breaches=(), warn_since=None)
            self._at.ledger.remember(self._memory.to_json(now), told(report, monitor.champion.name))
        else:
            self._carry_incident(report, monitor)
        return report

    def look(self, monitor: ChampionMonitor) -> Report:
        """What `observe` would say, without taking it as a tick of the incident."""
        return monitor.observe(self._at.clock.now(), self._pauses.maintenances(), keep=False)

    def _carry_incident(self, report: Report, monitor: ChampionMonitor) -> None:
        memory, ledger, before = self._memory, self._at.ledger, self._memory.incident
        memory.incident, change = step(before, report)
        said = told(report, monitor.champion.name)
        if change is None:
            ledger.remember(memory.to_json(report.at), said)
            return
        key = _key(change, memory.incident.key, report.at)
        kpis = {name: report.kpis[name].to_json() for name in memory.incident.kpis or before.kpis}
        details: dict[str, Any] = {"key": key, "kpis": kpis, "features": list(memory.incident.features[:10])}
        details["verdict"] = report.rolled_up.to_json()
        puts: dict[str, Mapping[str, Any]] = {"incident": memory.incident.to_json()}
        if change in (Change.OPENED, Change.REOPENED, Change.JOINED):
            puts[f"finding/{key}"] = _finding(key, report, kpis, monitor)
        alerts = self._alerts(change, key, kpis, report)
        ledger.find("incident")
        ledger.commit(change, details, puts=puts, messages=alerts, memory=memory.to_json(report.at), kpis=said)

    def _alerts(self, change: Change, key: str, kpis: Mapping[str, Any], report: Report) -> list[Message]:
        if change not in (Change.OPENED, Change.UNDECIDED) or self._pauses.snoozed():
            return []
        found = [f"{name} {k['verdict']}: {k['reason']}" for name, k in kpis.items()]
        rolled_up = report.rolled_up.to_json()
        undecided = [told_verdict(rolled_up), *told_waiting(rolled_up["not_judged"])]
        return [self._at.ledger.alert(key, change, "; ".join(found or undecided))]


def _key(change: Change, key: str, at: datetime) -> str:
    """One of its own where nothing is decided: the incident before it has paged already."""
    return f"undecided-{at:%Y%m%dT%H%M}" if change is Change.UNDECIDED else key


def _finding(key: str, report: Report, kpis: Mapping[str, Any], monitor: ChampionMonitor) -> dict[str, Any]:
    """Why the incident is open, with the distributions that a person wants to see."""
    columns = [{**finding.to_json(), "shape": shape.to_json()} for finding, shape in monitor.shapes(report)]
    return {"key": key, "at": report.at.isoformat(), "kpis": kpis, "columns": columns}


def _summary(report: Report, monitor: ChampionMonitor) -> dict[str, Any]:
    """What the last tick saw, for people who ask how things stand."""
    kpis = {name: kpi.to_json() for name, kpi in report.kpis.items()}
    shown = ("verdict", "value", "threshold", "bound", "window", "n", "reason", "judged_at")
    return {
        **report.rolled_up.to_json(),
        "labels": monitor.labels(report),
        "champion": monitor.champion.name,
        "kpis": {name: {key: kpi[key] for key in shown} for name, kpi in kpis.items()},
        "drifting": list(report.drifting[:10]),
        "drifting_columns": len(report.drifting),
        "worst": _worst(report),
    }


def _worst(report: Report) -> list[dict[str, Any]]:
    """The columns that drift most, each in the window where it does; then those with the largest PSI."""
    told = (one for one in report.features if one.n and math.isfinite(one.psi) and math.isfinite(one.distance))
    worst = dict[str, FeatureFinding]()
    for one in sorted(told, key=lambda one: (not one.drift, -one.psi)):
        worst.setdefault(one.name, one)
    shown = ("name", "psi", "distance", "drift", "window")
    columns = [one.to_json() for one in islice(worst.values(), MOST_COLUMNS)]
    return [{name: column[name] for name in shown} for column in columns]
