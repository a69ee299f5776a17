"""Day partitions: hours live in the profiles, so that a backfill of a month is 30 runs and not 720."""

from contextlib import suppress
from datetime import UTC, date, datetime

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.home import reading
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec


def days_of(spec: ModelSpec, first: date | None = None) -> dg.DailyPartitionsDefinition:
    """Every UTC day that is over, from the spec's `since` on, or from the `first` that can have a report."""
    return dg.DailyPartitionsDefinition(start_date=(first or spec.since).isoformat(), timezone="UTC")


def watched_since(store: ControlReader, model: str) -> date | None:
    """The UTC day on which the model began to be watched, the first that can have a report; None before that."""
    begun = [datetime.fromisoformat(record.body["at"]) for record in store.find("reference", f"{model}/")]
    return min(begun).astimezone(UTC).date() if begun else None


def first_day(spec: ModelSpec) -> date:
    """Where the model's partitions begin as this code location is loaded: with its history, so that no day is missing
    that could not be made; with `since` while nobody adopted it."""
    with suppress(DriftError), reading(Settings()) as store:
        begun = watched_since(store, spec.name)
        if begun is not None and begun <= system_clock().now().date():
            return max(spec.since, begun)
    return spec.since
