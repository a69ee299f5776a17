"""Compared columns: each watched column of a window beside its reference, its statistics and the verdict on it.

One p-value a column goes into Benjamini-Hochberg over the columns, never the minimum over statistics. The live loop,
replay, `drift compare` and `drift calibrate` all come here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import numpy as np

from drift_pipeline.detection.counting.binning import Bools, Floats, Ints
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.judging.verdict import FeatureFinding, told_p
from drift_pipeline.detection.reference.null import Null
from drift_pipeline.detection.statistics.hellinger import hellinger_rows
from drift_pipeline.detection.statistics.ks import (
    ks_interval_rows,
    ks_lower_bound,
    ks_p_value,
    total_variation_lower_bound_rows,
    total_variation_rows,
)
from drift_pipeline.detection.statistics.moments import log_variance_ratio_p_value, welch_p_value
from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg
from drift_pipeline.detection.statistics.psi import occupied_bins, psi_lower_bound_rows, psi_p_value, psi_rows
from drift_pipeline.detection.thresholds import LEAST_DISTANCE, LEAST_ROWS

MISSING_DIRECTIONS = ("more missing", "fewer missing")


@dataclass(frozen=True)
class ComparedColumns:
    """A window beside what the reference holds of the same hours, and how much both vary by themselves.

    `rate`: false discovery rate over the columns; `claim`: why no claim is made of this window, or nothing.
    """

    before: ColumnCounts
    after: ColumnCounts
    length: timedelta
    null: Null
    missing_null: Null
    rate: float
    claim: str = ""

    def findings(self) -> list[FeatureFinding]:
        """Statistics and verdict of every column that the reference has values of."""
        found = [finding for name in self._in_order() if (finding := self._finding(name)) is not None]
        testable = [f.p_value if f.drift is not None else math.nan for f in found]
        if not found or all(map(math.isnan, testable)):
            return found
        significant = benjamini_hochberg(testable, self.rate)
        return [self._confirmed(f) if hit else f for f, hit in zip(found, significant, strict=True)]

    def _in_order(self) -> Iterator[str]:
        return iter(self.before.profile.binning.columns)

    # every column at once; K columns, the N numeric ones first

    @cached_property
    def _phi(self) -> Floats:
        return self.null.overdispersion(self.before.layout.names)

    @cached_property
    def _sizes(self) -> tuple[Floats, Floats]:
        """Rows of the reference and of the window (K,), at least 1 so that an empty side divides by no 0."""
        return np.maximum(self.before.rows, 1), np.maximum(self.after.rows, 1)

    @cached_property
    def _filled(self) -> tuple[Floats, Floats]:
        """Coarse counts; of a column that one side has no row of, one row in the first bin, which nobody reads."""
        empty = (self.before.rows == 0) | (self.after.rows == 0)
        first, second = self.before.coarse.copy(), self.after.coarse.copy()
        for side in (first, second):
            side[empty] = 0
            side[empty, 0] = 1
        return first, second

    @cached_property
    def _bins(self) -> Ints:
        return occupied_bins(*self._filled)

    @cached_property
    def psi(self) -> Floats:
        return psi_rows(*self._filled)

    @cached_property
    def _psi_lower(self) -> Floats:
        return psi_lower_bound_rows(*self._filled, self._phi)

    @cached_property
    def _hellinger(self) -> Floats:
        return hellinger_rows(*self._filled, self._bins)

    @cached_property
    def _ks(self) -> tuple[Floats, Floats]:
        """KS interval of the numeric columns (N,)."""
        return ks_interval_rows(self.before.shares, self.after.shares, self.before.layout.atom)

    @cached_property
    def _values(self) -> "_Tests":
        """Kolmogorov-Smirnov of numbers, chi2 and total variation of levels."""
        m, n = (size / self._phi for size in self._sizes)
        k = self.before.layout.numeric
        low = self._ks[0]
        chi2 = psi_p_value(self.psi[k:], self._bins[k:], m[k:], n[k:], np.ones(len(m) - k))
        moved = total_variation_rows(self._filled[0][k:], self._filled[1][k:])
        return _Tests(
            np.concatenate([ks_p_value(low, n[:k], m[:k]), chi2]),
            np.concatenate([low, moved]),
            np.concatenate(
                [
                    ks_lower_bound(low, n[:k], m[:k]),
                    total_variation_lower_bound_rows(moved, self._bins[k:], m[k:], n[k:]),
                ]
            ),
            n,
            m,
        )

    @cached_property
    def _missing(self) -> "_Tests | None":
        """Chi2 on the share of rows without a usable value; None where no row of any column misses one."""
        before, after = self.before.usable, self.after.usable
        if not (before[:, 1] + after[:, 1]).any():
            return None
        phi = self.missing_null.overdispersion(self.before.layout.names)
        m, n = (np.maximum(side.sum(axis=1), 1) / phi for side in (before, after))
        first, second = (np.where(side.sum(axis=1, keepdims=True) > 0, side, [[1, 0]]) for side in (before, after))
        bins, moved = occupied_bins(first, second), total_variation_rows(first, second)
        p_value = psi_p_value(psi_rows(first, second), bins, m, n, np.ones(len(m)))
        return _Tests(p_value, moved, total_variation_lower_bound_rows(moved, bins, m, n), n, m)

    @cached_property
    def _has_missing(self) -> Bools:
        return np.asarray(self.before.lacking + self.after.lacking > 0)

    # one column

    def _finding(self, name: str) -> FeatureFinding | None:
        """`drift` is False where it may be tested, None where no claim is made."""
        k = self.before.layout.position[name]
        if self.before.rows[k] == 0:
            return None
        if self.after.rows[k] == 0:
            return self._without_values(name, k)
        values, missing, numeric = self._values, self._missing, k < self.before.layout.numeric
        p_value, of_missing = float(values.p_value[k]), False
        if missing is not None and self._has_missing[k]:
            of_missing = bool(missing.lower[k] > values.lower[k])
            p_value = min(1.0, 2 * min(p_value, float(missing.p_value[k])))
        test = missing if missing is not None and of_missing else values
        reason = self.claim or _too_few(float(test.n[k]), float(test.m[k]))
        if not reason and math.isnan(self.null.phi[name]):
            reason = "how much this column varies by itself is not known: too few healthy windows with enough rows"
        return FeatureFinding(
            name,
            self.length,
            int(self.after.rows[k]),
            float(test.n[k]),
            float(self.psi[k]),
            float(self._psi_lower[k]),
            float(self._hellinger[k]),
            float(self._ks[0][k]) if numeric else None,
            float(self._ks[1][k]) if numeric else None,
            p_value,
            float(test.distance[k]),
            float(test.lower[k]),
            int(self.after.beyond[k]),
            None if reason else False,
            self._missing_direction(k) if of_missing else self._direction(name, k),
            reason,
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
        if finding.distance_lower <= LEAST_DISTANCE:
            return replace(finding, reason=f"significant, but the difference may be below {LEAST_DISTANCE}")
        k, of_missing = self.before.layout.position[finding.name], finding.direction in MISSING_DIRECTIONS
        if not of_missing and k < self.before.layout.numeric and not self._seconded(finding, k):
            return replace(finding, reason="significant, but neither PSI nor the moments second it")
        null = self.missing_null if of_missing else self.null
        before, after = (
            (self.before.usable[k], self.after.usable[k]) if of_missing else (self._filled[0][k], self._filled[1][k])
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
        if psi_p_value(finding.psi, int(self._bins[k]), n, m, phi) <= self.rate:
            return True
        (mean_ref, var_ref), (mean_now, var_now) = self.before.moments[k].tolist(), self.after.moments[k].tolist()
        sizes = (m / phi, n / phi)
        tests = [welch_p_value(mean_ref, var_ref, sizes[0], mean_now, var_now, sizes[1])]
        if min(var_ref, var_now) > 0:
            tests.append(log_variance_ratio_p_value(var_ref, sizes[0], var_now, sizes[1]))
        return min(tests) <= self.rate / 2

    def _missing_direction(self, k: int) -> str:
        before, after = (side.lacking[k] / (side.lacking[k] + side.rows[k]) for side in (self.before, self.after))
        return MISSING_DIRECTIONS[0] if after > before else MISSING_DIRECTIONS[1]

    def _direction(self, name: str, k: int) -> str:
        """What moved most, in words: up, down, wider, narrower, new levels, other mix."""
        if k >= self.before.layout.numeric:
            return "new levels" if self.after.profile.unseen(name) > 0.01 * self.after.rows[k] else "other mix"
        (mean_ref, var_ref), (mean_now, var_now) = self.before.moments[k].tolist(), self.after.moments[k].tolist()
        shift, ratio = mean_now - mean_ref, (var_now + 1e-12) / (var_ref + 1e-12)
        if abs(shift) >= abs(ratio**0.5 - 1):
            return "up" if shift > 0 else "down"
        return "wider" if ratio > 1 else "narrower"


@dataclass(frozen=True)
class _Tests:
    """Of each column (K,): p-value, distance with its lower 99 % bound, effective rows of the window and reference."""

    p_value: Floats
    distance: Floats
    lower: Floats
    n: Floats
    m: Floats


def _too_few(n: float, m: float) -> str:
    if n < LEAST_ROWS:
        return f"{n:.0f} effective rows, {LEAST_ROWS} are needed"
    if m < LEAST_ROWS:
        return f"{m:.0f} effective rows of these hours in the reference, {LEAST_ROWS} are needed"
    return ""
