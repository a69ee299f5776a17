"""The KPI history: what every tick said of each KPI. Those of whole hours are in the lake, the others in the store."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from drift_pipeline.clock import HOUR, Window
from drift_pipeline.control.store import ControlReader
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.loop.ledger import Ledger, kpis_prefix
from drift_pipeline.telemetry.lake import Lake

_FIRST = datetime(1, 1, 1, tzinfo=UTC)  # batches are numbered by the time of their last tick, and none is below 0
_WORST = 3  # columns named with a KPI that is of columns
_KEPT: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "_time": pl.Datetime("us", "UTC"),
    "_version": pl.String,
    "name": pl.String,
    "verdict": pl.String,
    "window": pl.String,
    "reason": pl.String,
    "value": pl.Float64,
    "threshold": pl.Float64,
    "bound": pl.Float64,
    "n": pl.Int64,
    "worst": pl.List(pl.String),
}
_TOLD = tuple(_KEPT)[3:]


def told(report: Report, version: str) -> dict[str, Any]:
    """What a tick said of each KPI, as JSON.

    `worst`: the columns with the largest PSI, or the most rows out of range, of the KPI that is about these.
    """
    worst = {"psi": _worst(report, lambda found: found.psi), "range_z": _worst(report, lambda found: found.beyond)}
    kpis = [{**kpi.to_json(), "worst": worst.get(kpi.name, [])} for kpi in report.kpis.values()]
    rows = [[kpi[name] for name in _TOLD] for kpi in kpis]
    return {"at": report.at.isoformat(), "version": version, "kpis": rows}


class KpiHistory:
    """Of one model, as its ticks write it; whichever process ticks, a tick is told once."""

    def __init__(self, ledger: Ledger, lake: Lake) -> None:
        self._ledger, self._lake = ledger, lake
        self._settled: datetime | None = None

    def settle(self, now: datetime) -> None:
        """Move what was told before this hour to the lake, and what a killed process left; once an hour.

        Raises:
            ConflictError, UnavailableError: the lake does not take it; the next tick tries again.
        """
        hour = floor(now, HOUR)
        if self._settled == hour:
            return
        before = [(name, body) for name, body in self._ledger.kpis() if datetime.fromisoformat(body["at"]) < hour]
        if before:
            there = self._lake.last_batch("kpis")
            new = [(name, body) for name, body in before if _batch(body) > there]
            if new:
                self._lake.append("kpis", _frame(new), max(_batch(body) for _, body in new))
            else:  # taken, and then the disk or another process was in the way, or this one was killed
                self._lake.flush("kpis")
            self._ledger.forget([name for name, _ in before])
        self._settled = hour


def read_kpis(store: ControlReader, lake: Lake, model: str, window: Window) -> pl.DataFrame:
    """What the ticks of the window said: one row a tick and KPI, in order of time.

    Columns: `at`, `model`, `version` (the champion then), `name`, `verdict`, `window` (such as 1d), `reason`, `value`,
    `threshold`, `bound` (what decided; all in the unit of the KPI), `n` (rows or labels), `worst` (columns).
    """
    kept = lake.read("kpis", window)
    pending = [(record.key, record.body) for record in store.recalled(kpis_prefix(model))]
    recent = _frame(pending).filter((pl.col("_time") >= window.start) & (pl.col("_time") < window.end))
    rows = (
        pl.concat([kept.select(list(_KEPT)), recent]) if kept.height else recent
    )  # one that lies in both is in the lake
    rows = rows.unique("_id", keep="first", maintain_order=True).sort("_time", maintain_order=True)
    return rows.select(
        pl.col("_time").alias("at"), pl.lit(model).alias("model"), pl.col("_version").alias("version"), *_TOLD
    )


def _frame(told: Iterable[tuple[str, Mapping[str, Any]]]) -> pl.DataFrame:
    rows = [
        (f"{name} {place:02d} {kpi[0]}", datetime.fromisoformat(body["at"]), body["version"], *kpi)
        for name, body in told
        for place, kpi in enumerate(body["kpis"])
    ]
    return pl.DataFrame(rows, schema=_KEPT, orient="row")


def _batch(body: Mapping[str, Any]) -> int:
    return (datetime.fromisoformat(body["at"]) - _FIRST) // timedelta(microseconds=1)


def _worst(report: Report, by: Callable[[FeatureFinding], float]) -> list[str]:
    found = sorted(report.features, key=by, reverse=True)
    return list(dict.fromkeys(one.name for one in found if by(one) > 0))[:_WORST]
