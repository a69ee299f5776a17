"""The summary of a replay: one JSON document that says what the loop saw, did and gained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.control.verifying import Verification
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.spec import ModelSpec

LEAST_ROWS_A_PERIOD = 100
Period = Literal["month", "quarter", "year"]
_EDGES = 2
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Retrain:
    """One training: `before` is the champion's performance, `after` the candidate's, both on the gate's block.

    `cost`: wall_seconds, cpu_seconds, rows and trials of the search and the fit.
    """

    at: datetime
    cause: str
    decision_id: str
    version: str
    accepted: bool
    before: float | None
    after: float | None
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a replay came to. `times`, `labels`, `frozen`, `loop` (n,) are the rows after the reference span.

    `history` is the digest of the rows, `served` who became champion when, the first one included.
    """

    spec: ModelSpec
    span: Window
    rows: int
    history: str
    options: dict[str, Any]
    served: tuple[tuple[str, datetime], ...]
    notes: tuple[str, ...]
    evaluations: int
    conclusive: int
    times: pl.Series
    labels: pl.Series
    frozen: Floats
    loop: Floats
    incidents: int
    decisions: dict[str, int]
    retrains: tuple[Retrain, ...]
    refused: tuple[str, ...]
    promotions: int
    rollbacks: int
    alerts: int
    audit_head: str | None
    verification: Verification
    wall_seconds: float
    partial: bool
    last: Mapping[str, Any] | None = None


def summarise(facts: Facts) -> dict[str, Any]:
    """The document of `summary.json`.

    Under the name of the task's KPI, `auroc` or `mae`, stands that performance. A month has one with at least 100
    labelled rows (and both classes), else null; the means are over months that have both sides. `frozen` are the
    recorded scores or the first model's, `loop` the scores as served. `worst_month` is the smallest gain of the loop:
    of AUROC in points, of MAE as a share of the frozen model's. `period` is what these months are: quarters or years
    where most months hold too few labels. `reigns` are the champions' times, with the performance of both sides on the
    same rows: what each promotion gained. `last` is the verdict of the last tick, with how many of the KPIs it is of,
    and why the others were not judged; null where there was no tick.
    """
    period, performance = period_of(facts), performance_of(facts.spec)
    months = by_month(facts, period)
    counted = [m for m in months if m["frozen"] is not None and m["loop"] is not None]
    return {
        "model": facts.spec.name,
        "rows": facts.rows,
        "history": facts.history,
        "options": facts.options,
        "spec": facts.spec.model_dump(mode="json"),
        "from": facts.span.start.isoformat(),
        "to": facts.span.end.isoformat(),
        "notes": list(facts.notes),
        "evaluations": facts.evaluations,
        "conclusive": facts.conclusive,
        "last": facts.last,
        performance.kpi: {
            "frozen": _mean([m["frozen"] for m in counted]),
            "loop": _mean([m["loop"] for m in counted]),
            "worst_month": min((round(performance.gain(m["frozen"], m["loop"]), 6) for m in counted), default=None),
            "period": period,
            "by_month": months,
        },
        "incidents": facts.incidents,
        "decisions": facts.decisions,
        "reigns": reigns(facts),
        "retrains": [_retrain(retrain, performance.kpi) for retrain in facts.retrains],
        "refused_trainings": {"count": len(facts.refused), "last": facts.refused[-1] if facts.refused else None},
        "promotions": facts.promotions,
        "rollbacks": facts.rollbacks,
        "rejected_candidates": sum(not retrain.accepted for retrain in facts.retrains),
        "alerts": facts.alerts,
        "training_cpu_seconds": round(sum(retrain.cost.get("cpu_seconds", 0.0) for retrain in facts.retrains), 3),
        "audit": {
            "records": facts.verification.records,
            "head": facts.audit_head,
            "verified": facts.verification.ok,
        },
        "wall_seconds": round(facts.wall_seconds, 1),
        "partial": facts.partial,
    }


def _retrain(retrain: Retrain, kpi: str) -> dict[str, Any]:
    """Of two sides `auroc_before` and `auroc_after`, or those of `mae`."""
    said = {**asdict(retrain), "at": retrain.at.isoformat()}
    return {(f"{kpi}_{name}" if name in ("before", "after") else name): value for name, value in said.items()}


def period_of(facts: Facts) -> Period:
    """The shortest of month, quarter and year of which at least half hold 100 labelled rows; else a month.

    What the history begins and ends with is seldom whole, and does not count where there are three or more.
    """
    known = _labelled(facts).filter(pl.col("label").is_not_null() & pl.col("frozen").is_finite())
    periods: tuple[Period, ...] = get_args(Period)
    for period in periods:
        rows = _named(known, facts, period).group_by("period", maintain_order=True).len()["len"].to_numpy()
        whole = rows[1:-1] if len(rows) >= _EDGES + 1 else rows
        if len(whole) and np.median(whole) >= LEAST_ROWS_A_PERIOD:
            return period
    return "month"


def by_month(facts: Facts, period: Period = "month") -> list[dict[str, Any]]:
    """Performance of both sides for each calendar month (or quarter, or year), by the clock on the wall."""
    frame = _named(_labelled(facts), facts, period)
    months = []
    for (name,), rows in frame.group_by("period", maintain_order=True):
        months.append({"month": name, **_sides(rows, facts)})
    return months


def _named(frame: pl.DataFrame, facts: Facts, period: Period) -> pl.DataFrame:
    """With the `period` of each row: 2026-01, 2026-Q1 or 2026."""
    time = pl.col("time").dt.convert_time_zone(facts.spec.timezone)
    year = time.dt.strftime("%Y")
    names = {"month": time.dt.strftime("%Y-%m"), "quarter": pl.format("{}-Q{}", year, time.dt.quarter()), "year": year}
    return frame.with_columns(names[period].alias("period"))


def reigns(facts: Facts) -> list[dict[str, Any]]:
    """From and to when each champion answered, its labelled rows, and the performance of both sides on them."""
    frame, ends = _labelled(facts), [*(at for _, at in facts.served[1:]), facts.span.end]
    told: list[dict[str, Any]] = []
    if not facts.served:  # interrupted before there was a first model
        return told
    for (version, start), end in zip(facts.served, ends, strict=True):
        rows = frame.filter(pl.col("time").is_between(start, end, closed="left"), pl.col("label").is_not_null())
        span = {"version": version, "from": start.isoformat(), "to": end.isoformat(), "rows": rows.height}
        told.append({**span, **_sides(rows, facts)})
    return told


def _labelled(facts: Facts) -> pl.DataFrame:
    sides = {"frozen": facts.frozen, "loop": facts.loop}
    return pl.DataFrame({"time": facts.times, "label": facts.labels, **sides})


def _sides(rows: pl.DataFrame, facts: Facts) -> dict[str, float | None]:
    return {side: _performance(rows, side, facts.spec) for side in ("frozen", "loop")}


def _performance(rows: pl.DataFrame, side: str, spec: ModelSpec) -> float | None:
    usable = rows.filter(pl.col("label").is_not_null(), pl.col(side).is_finite())
    if usable.height < LEAST_ROWS_A_PERIOD:
        return None
    found = performance_of(spec).of(usable["label"].to_numpy(), usable[side].to_numpy())
    return None if found is None else round(found, 6)


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
