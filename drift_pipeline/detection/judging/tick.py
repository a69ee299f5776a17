"""What the KPIs of one tick are taken from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.clock import DAY, Window
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.windows import Slices, nominal, sliding
from drift_pipeline.detection.judging.hints import Samples
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
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

    def window(self, length: timedelta) -> Window:
        """The window of this length that ends now."""
        return sliding(self.now, length, self.slices.zone)

    def whole_days(self, window: Window) -> Window:
        """Of a window of days those that began since monitoring did; of no length where there is none."""
        start = max(window.start, self.slices.zone.ceil(self.slices.armed_at, DAY))
        return Window(min(start, window.end), window.end)

    def profile(self, window: Window) -> Profile:
        if window.length in self.merged:
            return self.merged[window.length]
        key = (window, self.slices.revision(window))
        found: Profile = self.keep(f"profile {nominal(window)}", key, lambda: self.slices.merge(window))
        return found


def off(name: str, reason: str) -> KpiResult:
    return KpiResult(name, Verdict.NOT_CONFIGURED, None, None, None, None, 0, reason)


def why_off(spec: ModelSpec) -> str:
    """Of a KPI that only classifications have."""
    return "switched off in the spec" if spec.task == "binary_classification" else f"a {spec.task} has none"
