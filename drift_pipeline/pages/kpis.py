"""The KPIs of a home's ticks: the one place that knows where pages find them."""

from datetime import datetime, timedelta

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake


def ticks_of(settings: Settings, store: ControlReader, model: str, start: datetime, end: datetime) -> pl.DataFrame:
    """A row a tick and KPI of [start, end], in their order; columns as `read_kpis` says."""
    lake = Lake(settings.lake / model, source="pages")
    return read_kpis(store, lake, model, Window(start, end + timedelta(microseconds=1)))
