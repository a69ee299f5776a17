"""The index: one row a model, worst first; a model that cannot be told shows why on its own row."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.home import reading
from drift_pipeline.loop.status import NOT_ADOPTED, standings
from drift_pipeline.pages.kept import Kept
from drift_pipeline.pages.kpis import ticks_of
from drift_pipeline.pages.live import Reader, standing_told
from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import TimeScale
from drift_pipeline.replays.page import Served, render
from drift_pipeline.replays.panels import points
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)
SPARK, SPARK_PX, SPARK_SECONDS = DAY, 150.0, 60.0
_ORDER = ("error", "BREACH", "WARN", "INCONCLUSIVE", "OK")


class Index:
    """Draws the page; the store is opened once for all rows, and a sparkline is drawn once a minute."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._sparks = reader, Kept[Mapping[str, Any]](SPARK_SECONDS)

    def page(self, models: Mapping[str, ModelSpec | str]) -> str:
        """The page as HTML. Raises as `loop.home.reading`."""
        now = self._reader.clock.now()
        with reading(self._reader.settings) as store:
            rows = sorted((self._row(store, name, spec, now) for name, spec in models.items()), key=_badness)
        drawn = {row["model"]: row.pop("spark") for row in rows}
        facts = {"home": str(self._reader.settings.home.absolute()), "models": rows, "dagster": self._reader.dagster}
        return render("index.html.j2", facts, served=Served(live=True), drawn=drawn)

    def _row(self, store: ControlReader, name: str, spec: ModelSpec | str, now: datetime) -> dict[str, Any]:
        """One model's row; `error` is empty where all could be told."""
        if isinstance(spec, str):
            return _broken(name, spec)
        try:
            return self._told(store, spec, now)
        except (DriftError, OSError) as error:
            return _broken(name, str(error))
        except Exception as error:  # the edge between models: one must not take the page from the others
            log.exception("%s cannot be told", name)
            return _broken(name, f"{type(error).__name__}: {error}; the log of the pages has more")

    def _told(self, store: ControlReader, spec: ModelSpec, now: datetime) -> dict[str, Any]:
        (standing,) = standings(store, [spec], now)
        row = {**standing.to_json(), **standing_told(standing, now, self._reader.late), **_NOTHING}
        if standing.champion == NOT_ADOPTED:
            return row | {"verdict": NOT_ADOPTED, "told": NOT_ADOPTED}
        return {**row, **self._sparks.get(spec.name, lambda: _sparkline(self._reader, store, spec, now))}


_NOTHING: Mapping[str, Any] = {"error": "", "kpi": None, "spark": ""}


def _broken(name: str, error: str) -> dict[str, Any]:
    return {**_NOTHING, "model": name, "error": error, "verdict": "error"}


def _sparkline(reader: Reader, store: ControlReader, spec: ModelSpec, now: datetime) -> Mapping[str, Any]:
    """Of the KPI that the task is judged by, or of the first that has values."""
    ticks = ticks_of(reader.settings, store, spec.name, now - SPARK, now)
    valued = ticks.filter(pl.col("value").is_not_null())["name"].unique(maintain_order=True).to_list()
    main = performance_of(spec).kpi
    if not valued:
        return _NOTHING
    name = main if main in valued else valued[0]
    rows = ticks.filter(pl.col("name") == name)
    known = rows.drop_nulls("value")
    limits = known["threshold"].drop_nulls()
    threshold = None if name == "range_z" or limits.is_empty() else float(limits[-1])
    label, scale = f"{name} over the last {SPARK // HOUR} h", TimeScale(rows["at"][0], now, 0, SPARK_PX)
    kpi = {"name": name, "value": known["value"].last(), "threshold": threshold, "ticks": rows.height}
    return {"kpi": kpi, "spark": charts.spark(points(rows, scale), scale, threshold, label)}


def _badness(row: Mapping[str, Any]) -> tuple[int, str]:
    """An open incident is as bad as a warning, whatever the last tick could judge."""
    verdict = row["verdict"]
    place = _ORDER.index(verdict) if verdict in _ORDER else len(_ORDER)
    return min(place, _ORDER.index("WARN")) if row.get("incident") else place, row["model"]
