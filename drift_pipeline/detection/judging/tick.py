"""What the KPIs of one tick are taken from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.clock import DAY, WEEK, Window
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.counting.windows import nominal, sliding
from drift_pipeline.detection.judging.cycle import Cycle, cycle_of
from drift_pipeline.detection.judging.hints import Samples
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.thresholds import block_days
from drift_pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Tick:
    """What the KPIs of one tick are taken from.

    `lengths`: of the windows, rising; `merged`: profiles of the windows under a day; `keep(name, key, make)`: what an
    earlier tick made under the same key, else made now. `samples`: rows of reference days and of recent ones.
    """

    reference: Reference
    slices: Slices
    spec: ModelSpec
    now: datetime
    lengths: Sequence[timedelta]
    merged: Mapping[timedelta, Profile]
    findings: Sequence[FeatureFinding]
    keep: Callable[[str, object, Callable[[], Any]], Any]
    samples: tuple[Samples, Samples] = ({}, {})

    @property
    def psi_window(self) -> timedelta:
        """The one that PSI breaches in: the spec's in whole weeks, or the longest of a model with few rows."""
        sparse = self.reference.sparse
        if sparse and sparse[-1] in self.lengths:
            return sparse[-1]
        return max(WEEK, self.spec.kpis.psi.window // WEEK * WEEK) if self.spec.kpis.psi else 4 * WEEK

    @property
    def block_days(self) -> int:
        """How many days are one block of time: 1, or more of a model with few rows."""
        return block_days(self.reference.rows, self.reference.span.length)

    def of_few_rows(self, found: KpiResult) -> KpiResult:
        """The result, which says how far a window reaches back of a model with few rows."""
        if not self.reference.sparse or found.window is None or found.value is None:
            return found
        return replace(found, reason=f"{found.reason} ({last_rows(found.n, found.window)})")

    def window(self, length: timedelta) -> Window:
        """The window of this length that ends now."""
        return sliding(self.now, length, self.slices.zone)

    def cycle(self, window: Window, rows: int) -> Cycle:
        """What the window, which holds so many rows, has of its cycle."""
        return cycle_of(self.reference, window, self.slices.begun(window), rows)

    def whole_days(self, window: Window) -> Window:
        """Of a window of days those that began since monitoring did; of no length where there is none."""
        start = max(window.start, self.slices.zone.ceil(self.slices.baseline_at, DAY))
        return Window(min(start, window.end), window.end)

    def profile(self, window: Window) -> Profile:
        if window.length in self.merged:
            return self.merged[window.length]
        key = (window, self.slices.revision(window))
        found: Profile = self.keep(f"profile {nominal(window)}", key, lambda: self.slices.merge(window))
        return found


def last_rows(rows: int, length: timedelta) -> str:
    """
    >>> last_rows(1024, timedelta(days=728))
    'last 1,024 rows, 728 d'
    """
    return f"last {rows:,} rows, {length.days} d"


def off(name: str, reason: str) -> KpiResult:
    return KpiResult(name, Verdict.NOT_CONFIGURED, None, None, None, None, 0, reason)


def why_off(spec: ModelSpec) -> str:
    """Of a KPI that only classifications have."""
    return "switched off in the spec" if spec.task == "binary_classification" else f"a {spec.task} has none"
