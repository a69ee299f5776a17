"""Statistics of every watched column of a window beside its reference, all columns at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

import numpy as np

from drift_pipeline.detection.counting.binning import Bools, Floats, Ints
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.judging.new_levels import NewLevels
from drift_pipeline.detection.reference.null import Null
from drift_pipeline.detection.statistics.hellinger import hellinger_rows
from drift_pipeline.detection.statistics.ks import (
    ks_interval_rows,
    ks_lower_bound,
    ks_p_value,
    total_variation_lower_bound_rows,
    total_variation_rows,
)
from drift_pipeline.detection.statistics.psi import occupied_bins, psi_lower_bound_rows, psi_p_value, psi_rows
from drift_pipeline.detection.statistics.share_difference import largest_difference_lower_bound_rows
from drift_pipeline.detection.thresholds import LEAST_DISTANCE


@dataclass(frozen=True)
class ColumnTests:
    """Of each column (K,): p-value, distance with its lower 99 % bound, effective rows of the window and reference."""

    p_value: Floats
    distance: Floats
    lower: Floats
    n: Floats
    m: Floats


@dataclass(frozen=True)
class ColumnStatistics:
    """A window beside what the reference holds of the same hours, and how much both vary by themselves.

    Of K columns, the N numeric ones first.

    `rate`: false discovery rate over the columns; `claim`: why no claim is made of this window, or nothing; `fresh`: by
    column, the share of levels that came up since the reference, beyond what rows without time let expect.
    """

    before: ColumnCounts
    after: ColumnCounts
    length: timedelta
    null: Null
    missing_null: Null
    rate: float
    claim: str = ""
    fresh: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def _phi(self) -> Floats:
        return self.null.overdispersion(self.before.layout.names)

    @cached_property
    def _sizes(self) -> tuple[Floats, Floats]:
        """Rows of the reference and of the window (K,), at least 1 so that an empty side divides by no 0."""
        return np.maximum(self.before.rows, 1), np.maximum(self.after.rows, 1)

    @cached_property
    def new(self) -> NewLevels:
        return NewLevels.of(self.before, self.after, self._phi, self.fresh)

    @cached_property
    def _tested(self) -> tuple[Floats, Floats]:
        """Coarse counts; unseen levels count as rare ones where chance alone brings some. Both sides have rows."""
        return self._filled(*self._pooled(self.new.asked))

    @cached_property
    def shown(self) -> tuple[Floats, Floats]:
        """Coarse counts of which PSI, Hellinger and total variation are told: the tested ones, but that unseen levels
        have a bin of their own where there are more than expected, and the reference the expected ones in it."""
        new, k = self.new, self.before.layout.numeric
        before, after = self._pooled(new.asked & ~new.exceed)
        before[k:] = new.as_expected(before[k:], new.asked & new.exceed)
        return self._filled(before, after)

    def _pooled(self, where: Bools) -> tuple[Floats, Floats]:
        first, second, k = self.before.coarse.copy(), self.after.coarse.copy(), self.before.layout.numeric
        for side in (first, second):
            side[k:] = self.new.pooled(side[k:], where)
        return first, second

    def _filled(self, first: Floats, second: Floats) -> tuple[Floats, Floats]:
        """Of a column that one side has no row of, one row in the first bin, which nobody reads."""
        empty = (self.before.rows == 0) | (self.after.rows == 0)
        for side in (first, second):
            side[empty] = 0
            side[empty, 0] = 1
        return first, second

    @cached_property
    def bins(self) -> Ints:
        return occupied_bins(*self.shown)

    @cached_property
    def psi(self) -> Floats:
        return psi_rows(*self.shown)

    @cached_property
    def psi_lower(self) -> Floats:
        return psi_lower_bound_rows(*self.shown, self._phi)

    @cached_property
    def hellinger(self) -> Floats:
        return hellinger_rows(*self.shown, self.bins)

    @cached_property
    def ks(self) -> tuple[Floats, Floats]:
        """KS interval of the numeric columns (N,)."""
        return ks_interval_rows(self.before.shares, self.after.shares, self.before.layout.atom)

    @cached_property
    def values(self) -> ColumnTests:
        """Kolmogorov-Smirnov of numbers; of levels chi2, or that more are new than is expected, and total variation."""
        m, n = (size / self._phi for size in self._sizes)
        k, new = self.before.layout.numeric, self.new
        first, second = self._tested[0][k:], self._tested[1][k:]
        bins = occupied_bins(first, second)
        chi2 = psi_p_value(psi_rows(first, second), bins, m[k:], n[k:], np.ones(len(m) - k))
        of_levels = np.where(new.asked & (new.p_value < 1), np.minimum(1.0, 2 * np.minimum(chi2, new.p_value)), chi2)
        low = self.ks[0]
        lower = np.maximum(_moved_at_least(first, second, bins, m[k:], n[k:]), new.lower)
        moved = total_variation_rows(self.shown[0][k:], self.shown[1][k:])
        return ColumnTests(
            np.concatenate([ks_p_value(low, n[:k], m[:k]), of_levels]),
            np.concatenate([low, moved]),
            np.concatenate([ks_lower_bound(low, n[:k], m[:k]), lower]),
            n,
            m,
        )

    @cached_property
    def missing(self) -> ColumnTests | None:
        """Chi2 on the share of rows without a usable value; None where no row of any column misses one."""
        before, after = self.before.usable, self.after.usable
        if not (before[:, 1] + after[:, 1]).any():
            return None
        phi = self.missing_null.overdispersion(self.before.layout.names)
        m, n = (np.maximum(side.sum(axis=1), 1) / phi for side in (before, after))
        first, second = (np.where(side.sum(axis=1, keepdims=True) > 0, side, [[1, 0]]) for side in (before, after))
        bins, moved = occupied_bins(first, second), total_variation_rows(first, second)
        p_value = psi_p_value(psi_rows(first, second), bins, m, n, np.ones(len(m)))
        return ColumnTests(p_value, moved, _moved_at_least(first, second, bins, m, n), n, m)

    @cached_property
    def has_missing(self) -> Bools:
        return np.asarray(self.before.lacking + self.after.lacking > 0)


def _moved_at_least(first: Floats, second: Floats, bins: Ints, m: Floats, n: Floats) -> Floats:
    """Lower 99 % bound of the total variation: the larger of a bound over all bins and the exact ones of each bin.

    McDiarmid's misses in fewer than 1 of 10,000 samples, so that both together keep 99 %.
    """
    over_all = total_variation_lower_bound_rows(total_variation_rows(first, second), bins, m, n)
    return np.maximum(over_all, largest_difference_lower_bound_rows(first, second, bins, m, n, LEAST_DISTANCE))
