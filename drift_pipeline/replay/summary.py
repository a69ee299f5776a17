"""The summary of a replay: one JSON document that says what the loop saw, did and gained."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.control.audit import Verification
from drift_pipeline.loop import auroc_of
from drift_pipeline.spec import ModelSpec

LEAST_ROWS_A_MONTH = 100
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Retrain:
    """One training: `auroc_before` is the champion's, `auroc_after` the candidate's, both on the gate's block."""

    at: datetime
    cause: str
    decision_id: str
    version: str
    accepted: bool
    auroc_before: float | None
    auroc_after: float | None


@dataclass(frozen=True)
class Facts:
    """What a replay came to. `times`, `labels`, `frozen`, `loop` (n,) are the rows after the reference span."""

    spec: ModelSpec
    span: Window
    rows: int
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
    promotions: int
    rollbacks: int
    alerts: int
    audit_head: str | None
    verification: Verification
    wall_seconds: float
    partial: bool


def summarise(facts: Facts) -> dict[str, Any]:
    """The document of `summary.json`.

    A month has an AUROC with at least 100 labelled rows and both classes, else null; the means are over months that
    have both. `frozen` are the recorded scores or the first model's, `loop` the scores as served.
    """
    months = by_month(facts)
    counted = [m for m in months if m["frozen"] is not None and m["loop"] is not None]
    return {
        "model": facts.spec.name,
        "rows": facts.rows,
        "from": facts.span.start.isoformat(),
        "to": facts.span.end.isoformat(),
        "notes": list(facts.notes),
        "evaluations": facts.evaluations,
        "conclusive": facts.conclusive,
        "auroc": {
            "frozen": _mean([m["frozen"] for m in counted]),
            "loop": _mean([m["loop"] for m in counted]),
            "worst_month": min((round(m["loop"] - m["frozen"], 6) for m in counted), default=None),
            "by_month": months,
        },
        "incidents": facts.incidents,
        "decisions": facts.decisions,
        "retrains": [{**asdict(retrain), "at": retrain.at.isoformat()} for retrain in facts.retrains],
        "promotions": facts.promotions,
        "rollbacks": facts.rollbacks,
        "rejected_candidates": sum(not retrain.accepted for retrain in facts.retrains),
        "alerts": facts.alerts,
        "audit": {
            "records": facts.verification.records,
            "head": facts.audit_head,
            "verified": facts.verification.ok,
        },
        "wall_seconds": round(facts.wall_seconds, 1),
        "partial": facts.partial,
    }


def by_month(facts: Facts) -> list[dict[str, Any]]:
    """AUROC of both sides for each calendar month (UTC) that has a row."""
    frame = pl.DataFrame(
        {
            "month": facts.times.dt.strftime("%Y-%m"),
            "label": facts.labels,
            "frozen": facts.frozen,
            "loop": facts.loop,
        }
    )
    months = []
    for (month,), rows in frame.group_by("month", maintain_order=True):
        known = rows.filter(pl.col("label").is_not_null())
        sides = {side: _auroc(known, side) for side in ("frozen", "loop")}
        months.append({"month": month, **sides})
    return months


def _auroc(rows: pl.DataFrame, side: str) -> float | None:
    usable = rows.filter(pl.col(side).is_finite())
    if usable.height < LEAST_ROWS_A_MONTH:
        return None
    found = auroc_of(usable["label"].to_numpy(), usable[side].to_numpy())
    return None if found is None else round(found, 6)


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
