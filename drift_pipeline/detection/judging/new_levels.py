"""Levels that the reference does not know, beside how many of them it lets expect: of each column of a window."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drift_pipeline.detection.counting.binning import Bools, CategoricalBins, Floats
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.statistics.unseen import unseen_lower_bound, unseen_mass, unseen_p_value


@dataclass(frozen=True)
class NewLevels:
    """Of the categorical columns, in the order of the layout, each (K,).

    rare: place of the bin of rare levels, after which that of unseen ones follows; expected: their share in rows of the
    reference's distribution; asked: whether any are expected, so that some prove nothing; p_value: chance of as many;
    lower: lower 99 % bound of how far their share exceeds what is expected.
    """

    rare: np.typing.NDArray[np.int64]
    expected: Floats
    asked: Bools
    p_value: Floats
    lower: Floats

    @classmethod
    def of(cls, before: ColumnCounts, after: ColumnCounts, phi: Floats, fresh: Mapping[str, float]) -> "NewLevels":
        """
        Args:
            phi: overdispersion of each column, by which rows are divided.
            fresh: share of rows with levels that came up since, beyond what rows without time let expect, by column.
        """
        first = before.layout.numeric
        names = before.layout.names[first:]
        columns = [bins for name in names if isinstance(bins := before.profile.binning.columns[name], CategoricalBins)]
        rare = np.array([len(bins.levels) for bins in columns], dtype=np.int64)
        known = np.array([(bins.once, bins.twice, bins.rows) for bins in columns], dtype=np.float64).reshape(-1, 3).T
        unseen, now = (side.coarse[np.arange(len(names)) + first, rare + 1] for side in (before, after))
        n = np.maximum(after.rows[first:], 1)
        rows = np.maximum(np.maximum(before.rows[first:], known[2]), 1)
        share, m = unseen_mass(known[0], known[1], unseen, rows)
        came = np.array([min(1.0, fresh.get(name, 0.0)) for name in names])
        more = np.maximum(now - came * n, 0.0) / phi[first:]
        sides = more, n / phi[first:], share, m / phi[first:]
        asked = (known[0] + unseen > 0) | (came > 0)
        return cls(rare, np.minimum(share + came, 1.0), asked, unseen_p_value(*sides), unseen_lower_bound(*sides))

    @property
    def exceed(self) -> Bools:
        """Whether there are more of them than the reference lets expect."""
        return np.asarray(self.lower > 0)

    def pooled(self, levels: Floats, where: Bools) -> Floats:
        """Counts (K, B) with unseen levels counted as rare ones in the columns `where`."""
        rows, found = np.flatnonzero(where), levels.copy()
        found[rows, self.rare[rows]] += found[rows, self.rare[rows] + 1]
        found[rows, self.rare[rows] + 1] = 0
        return found

    def as_expected(self, levels: Floats, where: Bools) -> Floats:
        """Counts (K, B) of the reference, as many of its rare rows counted as unseen as are expected, in columns
        `where`."""
        rows, found = np.flatnonzero(where), self.pooled(levels, where)
        unseen = np.minimum(self.expected[rows] * found[rows].sum(axis=1), found[rows, self.rare[rows]])
        found[rows, self.rare[rows] + 1] = unseen
        found[rows, self.rare[rows]] -= unseen
        return found
