"""Compared columns: each watched column of a window beside its reference, its statistics and the verdict on it.

One p-value a column goes into Benjamini-Hochberg over the columns, never the minimum over statistics. The live loop,
replay, `drift compare` and `drift calibrate` all come here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.judging.column_statistics import ColumnStatistics
from drift_pipeline.detection.judging.verdict import FeatureFinding, told_p
from drift_pipeline.detection.statistics.moments import log_variance_ratio_p_value, welch_p_value
from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg
from drift_pipeline.detection.statistics.psi import psi_p_value
from drift_pipeline.detection.thresholds import LEAST_DISTANCE, LEAST_NEW_LEVELS, LEAST_ROWS

MISSING_DIRECTIONS = ("more missing", "fewer missing")
UNKNOWN = "how much this column varies by itself is not known: too few healthy windows with enough rows"


@dataclass(frozen=True)
class ComparedColumns(ColumnStatistics):
    """A window beside what the reference holds of the same hours: what is found of each column, and if it drifts."""

    def findings(self) -> list[FeatureFinding]:
        """Statistics and verdict of every column that the reference has rows of in these hours."""
        found = [finding for name in self._in_order() if (finding := self._finding(name)) is not None]
        testable = [f.p_value if f.drift is not None else math.nan for f in found]
        if not found or all(map(math.isnan, testable)):
            return found
        significant = benjamini_hochberg(testable, self.rate)
        return [self._confirmed(f) if hit else f for f, hit in zip(found, significant, strict=True)]

    def _in_order(self) -> Iterator[str]:
        return iter(self.before.profile.binning.columns)

    # one column

    def _finding(self, name: str) -> FeatureFinding | None:
        """`drift` is False where it may be tested, None where no claim is made."""
        k = self.before.layout.position[name]
        if self.before.rows[k] == 0 or self.after.rows[k] == 0:
            return self._one_sided(name, k)
        values, missing, numeric = self.values, self.missing, k < self.before.layout.numeric
        p_value, of_missing = float(values.p_value[k]), False
        if missing is not None and self.has_missing[k]:
            of_missing = bool(missing.lower[k] > values.lower[k])
            p_value = min(1.0, 2 * min(p_value, float(missing.p_value[k])))
        test = missing if missing is not None and of_missing else values
        reason = self.claim or _too_few(float(test.n[k]), float(test.m[k]))
        if not reason and math.isnan(self.null.phi[name]):
            reason = UNKNOWN
        return FeatureFinding(
            name,
            self.length,
            int(self.after.rows[k]),
            float(test.n[k]),
            float(self.psi[k]),
            float(self.psi_lower[k]),
            float(self.hellinger[k]),
            float(self.ks[0][k]) if numeric else None,
            float(self.ks[1][k]) if numeric else None,
            p_value,
            float(test.distance[k]),
            float(test.lower[k]),
            int(self.after.beyond[k]),
            None if reason else False,
            self._missing_direction(k) if of_missing else self._direction(k),
            reason,
        )

    def _one_sided(self, name: str, k: int) -> FeatureFinding | None:
        """A side without a usable value: what can be told is that they are missing, or that they came.

        None where there is no row to tell it by, and of a score that nobody gives.
        """
        before, after = self.before.rows[k] > 0, self.after.rows[k] > 0
        if not self.before.usable[k].any() or (not (before or after) and name == SCORE):
            return None
        if not self.after.usable[k].any() or self.missing is None:
            return self._without_values(name, k)
        of, told = self.missing, partial(self._told_of_missing, name, k)
        reason = self.claim or _too_few(float(of.n[k]), float(of.m[k]))
        if not (before or after):
            return told("", reason or "no value on either side: nothing to compare", None if reason else False)
        if not after and (reason or of.lower[k] <= LEAST_DISTANCE):
            return self._without_values(name, k)
        if not reason and math.isnan(self.missing_null.phi[name]):
            reason = UNKNOWN
        return told(self._missing_direction(k), reason or "no usable value in the reference", None if reason else False)

    def _told_of_missing(self, name: str, k: int, direction: str, reason: str, drift: bool | None) -> FeatureFinding:
        """Of all rows, with a usable value and without one; none of its statistics of values is a measurement."""
        of = self.missing
        assert of is not None
        numbers = float(of.p_value[k]), float(of.distance[k]), float(of.lower[k])
        return FeatureFinding(
            name, self.length, 0, float(of.n[k]), 0.0, 0.0, 0.0, None, None, *numbers, 0, drift, direction, reason
        )

    def _without_values(self, name: str, k: int) -> FeatureFinding | None:
        """No claim, and said, where the reference lets expect enough values; else the next longer window speaks."""
        usable, missing = self.before.usable[k]
        if self.after.profile.rows * usable / (usable + missing) < LEAST_ROWS:
            return None
        reason = "no usable value in the window"
        return FeatureFinding(name, self.length, 0, 0.0, 0.0, 0.0, 0.0, None, None, 1.0, 0.0, 0.0, 0, None, "", reason)

    def _confirmed(self, finding: FeatureFinding) -> FeatureFinding:
        """DRIFT: significant, matters, seconded by PSI or the moments, and beyond what healthy windows ever showed."""
        k, of_missing = self.before.layout.position[finding.name], finding.direction in MISSING_DIRECTIONS
        if finding.distance_lower <= LEAST_DISTANCE and not self._has_new_levels(k):
            return replace(finding, reason=f"significant, but the difference may be below {LEAST_DISTANCE}")
        if not of_missing and k < self.before.layout.numeric and not self._seconded(finding, k):
            return replace(finding, reason="significant, but neither PSI nor the moments second it")
        null = self.missing_null if of_missing else self.null
        before, after = (
            (self.before.usable[k], self.after.usable[k]) if of_missing else (self.shown[0][k], self.shown[1][k])
        )
        if not null.exceeds(finding.name, before, after):
            return replace(finding, reason="within what healthy windows of the reference showed")
        known = not null.windows or null.windows * self.rate >= 1
        level = "" if known else f" (level extrapolated from {null.windows} healthy windows)"
        return replace(finding, drift=True, reason=f"{told_p(finding.p_value)}, distance {finding.distance:.3f}{level}")

    def _seconded(self, finding: FeatureFinding, k: int) -> bool:
        """Numbers only: of levels, and of the missing share, chi2 is the one test there is."""
        phi = finding.n / finding.n_effective
        n, m = float(self.after.rows[k]), float(self.before.rows[k])
        if psi_p_value(finding.psi, int(self.bins[k]), n, m, phi) <= self.rate:
            return True
        (mean_ref, var_ref), (mean_now, var_now) = self.before.moments[k].tolist(), self.after.moments[k].tolist()
        sizes = (m / phi, n / phi)
        tests = [welch_p_value(mean_ref, var_ref, sizes[0], mean_now, var_now, sizes[1])]
        if min(var_ref, var_now) > 0:
            tests.append(log_variance_ratio_p_value(var_ref, sizes[0], var_now, sizes[1]))
        return min(tests) <= self.rate / 2

    def _has_new_levels(self, k: int) -> bool:
        """Whether more rows have a level that the reference lacks than it lets expect, by more than matters."""
        place = k - self.before.layout.numeric
        return place >= 0 and bool(self.new.lower[place] > LEAST_NEW_LEVELS)

    def _missing_direction(self, k: int) -> str:
        before, after = (side.lacking[k] / (side.lacking[k] + side.rows[k]) for side in (self.before, self.after))
        return MISSING_DIRECTIONS[0] if after > before else MISSING_DIRECTIONS[1]

    def _direction(self, k: int) -> str:
        """What moved most, in words: up, down, wider, narrower, new levels, other mix."""
        if k >= self.before.layout.numeric:
            return "new levels" if self._has_new_levels(k) else "other mix"
        (mean_ref, var_ref), (mean_now, var_now) = self.before.moments[k].tolist(), self.after.moments[k].tolist()
        shift, ratio = mean_now - mean_ref, (var_now + 1e-12) / (var_ref + 1e-12)
        if abs(shift) >= abs(ratio**0.5 - 1):
            return "up" if shift > 0 else "down"
        return "wider" if ratio > 1 else "narrower"


def _too_few(n: float, m: float) -> str:
    if n < LEAST_ROWS:
        return f"{n:.0f} effective rows, {LEAST_ROWS} are needed"
    if m < LEAST_ROWS:
        return f"{m:.0f} effective rows of these hours in the reference, {LEAST_ROWS} are needed"
    return ""
