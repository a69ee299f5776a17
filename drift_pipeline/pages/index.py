"""The index: one row a model, worst first; a model that cannot be told shows why on its own row."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.status import NOT_ADOPTED
from drift_pipeline.pages.live import Reader, standing_told
from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import TimeScale
from drift_pipeline.replays.page import Served, render
from drift_pipeline.replays.panels import points
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)
SPARK, SPARK_PX = DAY, 150.0
_ORDER = ("error", "BREACH", "WARN", "INCONCLUSIVE", "OK")


def index_page(reader: Reader, models: Mapping[str, ModelSpec | str]) -> str:
    """The page as HTML."""
    rows = sorted((row_of(reader, name, spec) for name, spec in models.items()), key=_badness)
    drawn = {row["model"]: row.pop("spark") for row in rows}
    facts = {"home": str(reader.settings.home.absolute()), "models": rows, "dagster": reader.dagster}
    return render("index.html.j2", facts, served=Served(live=True), drawn=drawn)


def row_of(reader: Reader, name: str, spec: ModelSpec | str) -> dict[str, Any]:
    """One model's row; `error` is empty where all could be told."""
    if isinstance(spec, str):
        return _broken(name, spec)
    try:
        return _row(reader, spec)
    except (DriftError, OSError) as error:
        return _broken(name, str(error))
    except Exception as error:  # the edge between models: one must not take the page from the others
        log.exception("%s cannot be told", name)
        return _broken(name, f"{type(error).__name__}: {error}; the log of the pages has more")


def _broken(name: str, error: str) -> dict[str, Any]:
    return {"model": name, "error": error, "verdict": "error", "kpi": None, "spark": ""}


def _row(reader: Reader, spec: ModelSpec) -> dict[str, Any]:
    standing, now = reader.standing(spec)
    row = {**standing.to_json(), **standing_told(standing, now, reader.late), "error": "", "kpi": None, "spark": ""}
    if standing.champion == NOT_ADOPTED:
        return row | {"verdict": NOT_ADOPTED, "told": NOT_ADOPTED}
    return row | _sparkline(reader, spec)


def _sparkline(reader: Reader, spec: ModelSpec) -> dict[str, Any]:
    """Of the KPI that the task is judged by, or of the first that has values."""
    ticks, start, end = reader.ticks(spec, SPARK)
    valued = ticks.filter(pl.col("value").is_not_null())["name"].unique(maintain_order=True).to_list()
    main = performance_of(spec).kpi
    if not valued:
        return {}
    name = main if main in valued else valued[0]
    rows = ticks.filter(pl.col("name") == name)
    known = rows.drop_nulls("value")
    limits = known["threshold"].drop_nulls()
    threshold = None if name == "range_z" or limits.is_empty() else float(limits[-1])
    label = f"{name} over the last {SPARK // timedelta(hours=1)} h"
    scale = TimeScale(start, end, 0, SPARK_PX)
    kpi = {"name": name, "value": known["value"].last(), "threshold": threshold, "ticks": rows.height}
    return {"kpi": kpi, "spark": charts.spark(points(rows, scale), scale, threshold, label)}


def _badness(row: Mapping[str, Any]) -> tuple[int, str]:
    verdict = row["verdict"]
    return (_ORDER.index(verdict) if verdict in _ORDER else len(_ORDER), row["model"])
