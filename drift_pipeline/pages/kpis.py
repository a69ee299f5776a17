"""The KPIs of a home's ticks: the one place that knows where they are kept."""

from datetime import datetime

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

SCHEMA = {
    "at": pl.Datetime("us", "UTC"),
    **dict.fromkeys(("model", "version", "name", "verdict", "window", "reason"), pl.String),
    **dict.fromkeys(("value", "threshold", "bound"), pl.Float64),
    "n": pl.Int64,
    "worst": pl.List(pl.String),
}


def ticks_of(settings: Settings, store: ControlReader, spec: ModelSpec, start: datetime, end: datetime) -> pl.DataFrame:
    """A row a tick and KPI of [start, end], in their order; columns as in `SCHEMA`."""
    path, window = settings.home / "kpis.parquet", Window(start, end)
    found = pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema=SCHEMA)
    return found.filter(pl.col("at").is_between(window.start, window.end)).sort("at", maintain_order=True)
