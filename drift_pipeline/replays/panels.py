"""The KPIs of a page: each tick's, or as many as can be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import polars as pl

from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import Point, TimeScale
from drift_pipeline.replays.told import Told

_UNSCALED = ("range_z",)  # its threshold is in standard deviations, its value a share of rows
_WORST = ("BREACH", "WARN", "OK", "INCONCLUSIVE", "NOT_CONFIGURED")


@dataclass(frozen=True)
class Kpi:
    """One KPI's rows, and the panel that draws them."""

    rows: pl.DataFrame
    panel: charts.Panel

    def at_width(self, scale: TimeScale) -> charts.Panel:
        """The panel with the points that are seen at this width."""
        return replace(self.panel, points=points(self.rows, scale))

    def facts(self, drawn: charts.Panel) -> dict[str, Any]:
        """`points` are [ms since 1970, lowest, highest, verdict, bound]; `now` is the last tick."""
        rows = self.rows
        said = dict(rows["verdict"].value_counts().iter_rows())
        values = rows["value"].drop_nulls()
        return {
            "name": self.panel.name,
            "about": self.panel.about,
            "threshold": rows["threshold"].drop_nulls().last()
            if rows["threshold"].null_count() < rows.height
            else None,
            "ticks": rows.height,
            "drawn": len(drawn.points),
            "verdicts": {verdict: said.get(verdict, 0) for verdict in _WORST[:-1]},
            "lowest": values.min(),
            "highest": values.max(),
            "last": rows["value"].last() if rows.height else None,
            "now": _last(rows),
            "points": [
                [p.at.timestamp() * 1000, _digits(p.low), _digits(p.high), p.verdict, _digits(p.bound)]
                for p in drawn.points
            ],
        }


def kpis_of(told: Told) -> list[Kpi]:
    """Those that were configured at any tick, in the order of the matrix."""
    found = []
    for (name,), rows in told.ticks.group_by("name", maintain_order=True):
        if not (rows["verdict"] == "NOT_CONFIGURED").all():
            thresholds = rows["threshold"].drop_nulls()
            threshold = None if name in _UNSCALED or thresholds.is_empty() else float(thresholds[-1])
            found.append(Kpi(rows, charts.Panel(str(name), about(str(name), told.kpis), threshold, ())))
    return found


def not_configured(ticks: pl.DataFrame) -> list[str]:
    grouped = ticks.group_by("name", maintain_order=True)
    return [str(name) for (name,), rows in grouped if (rows["verdict"] == "NOT_CONFIGURED").all()]


def about(name: str, kpis: Mapping[str, Any]) -> str:
    """What a KPI's value is."""
    declared = kpis.get(name) or {}
    limit = declared.get("threshold")
    return {
        "psi": "largest PSI of a column against its reference",
        "range_z": f"share of rows beyond {limit} sd, over the reference's; every significant excess is a breach",
        "auroc": "AUROC minus what this champion had on held-out rows",
        "latency_p95_ms": f"share of rows above {limit} ms",
        "demographic_parity": "parity between groups minus the reference's",
        "mae": "rise of the MAE over what this champion had on held-out rows, as a share of it",
        "residuals": "KS distance of labels minus predictions from held-out rows, at least",
        "estimated_auroc": "AUROC read off the scores before labels come, minus the held-out one",
        "multivariate": "AUROC of telling recent days from the reference's; 0.5 is alike",
    }.get(name, "")


def points(rows: pl.DataFrame, scale: TimeScale) -> list[Point]:
    """As they are where they are few; else one a pixel, that keeps both extremes and the worst verdict."""
    places = max(int(scale.right - scale.left), 1)
    if rows.height <= places:
        told = rows.select("at", "value", "verdict", "reason", "bound").iter_rows()
        return [Point(at, value, value, verdict, reason, bound) for at, value, verdict, reason, bound in told]
    length = max((scale.end - scale.start) // timedelta(microseconds=1), 1)
    place = ((pl.col("at") - scale.start).dt.total_microseconds() * places // length).clip(0, places)
    ranks = {verdict: rank for rank, verdict in enumerate(_WORST)}
    rank = pl.col("verdict").replace_strict(ranks, default=len(_WORST), return_dtype=pl.Int8)
    worst = (pl.col(name).sort_by("_rank", maintain_order=True).first() for name in ("verdict", "reason", "bound"))
    value = pl.col("value")
    thinned = (
        rows.with_columns(place.alias("_place"), rank.alias("_rank"))
        .group_by("_place", maintain_order=True)
        .agg(pl.col("at").first(), value.min().alias("low"), value.max().alias("high"), *worst, pl.len().alias("ticks"))
        .sort("at")
    )
    return [
        Point(*row) for row in thinned.select("at", "low", "high", "verdict", "reason", "bound", "ticks").iter_rows()
    ]


def _last(rows: pl.DataFrame) -> dict[str, Any]:
    row = rows.row(-1, named=True)
    told = {
        name: row.get(name) for name in ("verdict", "value", "bound", "threshold", "window", "n", "reason", "version")
    }
    return {**told, "at": row["at"].isoformat(), "worst": list(row.get("worst") or ())}


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
