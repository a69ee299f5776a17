"""Sampling: rows of whole days, for the check that looks at columns together."""

from collections.abc import Mapping
from datetime import date, datetime

import polars as pl

from drift_pipeline.clock import DAY, WEEK, Window
from drift_pipeline.detection.counting.binning import Floats
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.hints import SAMPLED_DAYS, Samples, sample_day
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline
from drift_pipeline.telemetry.lake import Lake


class DailySamples:
    """Each day is read once, however many ticks ask for it."""

    def __init__(self, baseline: MonitoringBaseline, lake: Lake) -> None:
        self._baseline, self._lake = baseline, lake
        self._days: dict[date, Floats] = {}
        self._of_reference: Samples | None = None

    def until(self, now: datetime, versions: Mapping[str, int]) -> tuple[Samples, Samples]:
        """Samples of the reference's days and of the last whole days before now.

        Args:
            versions: the Delta version of `predictions` to read; none = as it is now.
        """
        reference = self._baseline.reference
        if self._of_reference is None:
            span = self._baseline.span
            newest = Window(max(span.start, span.end - 4 * WEEK - DAY), span.end)
            self._of_reference = _days_sampled(reference, self._lake.read("predictions", newest))
        end = floor(now, DAY)
        days = [end - (back + 1) * DAY for back in reversed(range(SAMPLED_DAYS))]
        kept, self._days = self._days, {}
        for start in (day for day in days if day >= self._baseline.since):
            if start.date() not in kept:
                frame = self._lake.read("predictions", Window(start, start + DAY), versions.get("predictions"))
                kept[start.date()] = sample_day(reference.binning, frame, start.date())
            self._days[start.date()] = kept[start.date()]
        return self._of_reference, {day: rows for day, rows in self._days.items() if len(rows)}


def _days_sampled(reference: Reference, frame: pl.DataFrame) -> dict[date, Floats]:
    """Samples of the reference's newest four weeks, by day."""
    newest = frame.filter(pl.col("_time") >= reference.span.end - 4 * WEEK)
    days = newest.with_columns(_day=pl.col("_time").dt.date()).partition_by("_day", as_dict=True, include_key=False)
    return {day: sample_day(reference.binning, rows, day) for (day,), rows in sorted(days.items())}
