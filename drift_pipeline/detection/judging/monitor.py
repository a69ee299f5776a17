"""The monitor: one tick over all windows and KPIs of one model; a function of reference, slices and time."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, Window
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.counting.windows import nominal, sliding
from drift_pipeline.detection.judging import kpis
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.cycle import cycle_of
from drift_pipeline.detection.judging.hints import Samples
from drift_pipeline.detection.judging.tick import Tick
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.detection.reference.reference import YEAR, Reference
from drift_pipeline.detection.thresholds import LEAST_WINDOWS, false_discovery_rate
from drift_pipeline.spec import ModelSpec

T = TypeVar("T")
QUARTER = 15 * MINUTE


def window_lengths(spec: ModelSpec, step: timedelta) -> tuple[timedelta, ...]:
    """15 min, 1 h, 24 h, 7 d and the PSI window in whole weeks, less those shorter than the time between two ticks."""
    long = max(WEEK, spec.kpis.psi.window // WEEK * WEEK) if spec.kpis.psi else 4 * WEEK
    return tuple(n for n in sorted({QUARTER, HOUR, DAY, WEEK, long}) if n >= step or n == long)


def lengths_of(reference: Reference, spec: ModelSpec, step: timedelta) -> tuple[timedelta, ...]:
    """Those of `window_lengths`, or of a model with few rows the windows that hold its last 200 and 1,000 rows."""
    return reference.sparse or window_lengths(spec, step)


class Monitor:
    """One champion's reference and slices under watch.

    A tick costs what is new: windows under a day move on by what enters and leaves them, and what is found in a
    longer one is kept until it slides, or late rows land in it.
    """

    def __init__(self, reference: Reference, spec: ModelSpec, baseline_at: datetime, step: timedelta) -> None:
        """
        Args:
            reference: frozen with the champion.
            spec: thresholds.
            baseline_at: since when the champion is watched; no window reaches further back.
            step: time between two ticks; windows shorter than it would leave gaps and are not evaluated.
        """
        self.reference, self.spec, self.step = reference, spec, step
        self.lengths = lengths_of(reference, spec, step)
        finest = MINUTE if step < HOUR and self.lengths[0] < DAY else HOUR
        self.slices = Slices(reference.binning, baseline_at, finest, reference.zone)
        self._kept: dict[str, tuple[object, object]] = {}

    def evaluate(self, now: datetime, samples: tuple[Samples, Samples] = ({}, {})) -> Report:
        """Everything that a tick has to say of the windows that end now.

        Args:
            samples: rows of reference days and of the last 14 days, where the spec asks for the multivariate check.
        """
        lengths, zone = self.lengths, self.slices.zone
        end = now if self.slices.by_minute else zone.floor(now, HOUR)
        windows = [w for n in lengths if (w := sliding(end, n, zone)).start >= self.slices.baseline_at]
        merged = {window.length: self.slices.merge(window) for window in windows if nominal(window) < DAY}
        findings: list[FeatureFinding] = []
        for window in windows:
            findings += self._findings(window, merged)
        tick = Tick(self.reference, self.slices, self.spec, end, lengths, merged, tuple(findings), self._keep, samples)
        return Report(now, kpis.evaluate(tick), tuple(findings), self.reference.provisional, lengths[0])

    def _findings(self, window: Window, merged: dict[timedelta, Profile]) -> list[FeatureFinding]:
        if window.length in merged:
            return compare(self.reference, merged[window.length], window)
        key = (window, self.slices.revision(window))

        def found() -> list[FeatureFinding]:
            return compare(self.reference, self.slices.merge(window), window, self.slices.begun(window))

        return self._keep(f"findings {nominal(window)}", key, found)

    def _keep(self, name: str, key: object, make: Callable[[], T]) -> T:
        """What was made under this key at an earlier tick, else made now."""
        if name not in self._kept or self._kept[name][0] != key:
            self._kept[name] = key, make()
        return self._kept[name][1]  # type: ignore[return-value]


def compare(
    reference: Reference, current: Profile, window: Window, begun: Iterable[datetime] | None = None
) -> list[FeatureFinding]:
    """Findings of one window against what the reference holds of its hours; of those that have `begun`, if given."""
    length = nominal(window)
    lost = frozenset[int]() if begun is None else cycle_of(reference, window, begun, current.rows).lost
    return ComparedColumns(
        before=reference.matched(window, lost),
        after=ColumnCounts.of(reference.layout, current),
        length=length,
        null=reference.nulls[length],
        missing_null=reference.missing_nulls[length],
        rate=false_discovery_rate(length),
        claim=_no_claim(reference, length),
        fresh=reference.expected_later(window),
    ).findings()


def _no_claim(reference: Reference, length: timedelta) -> str:
    windows = reference.nulls[length].windows
    if length >= 4 * WEEK and reference.span.length < YEAR:
        days = reference.span.length.days
        return f"a reference of {days} d, under a year, makes no claim about a window of {length.days} d"
    if windows < LEAST_WINDOWS:
        return f"only {windows} healthy windows of this length in the reference, {LEAST_WINDOWS} are needed"
    return ""
