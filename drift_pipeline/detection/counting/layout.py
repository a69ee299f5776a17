"""All watched columns of a profile side by side: padded tables on which one call of a statistic serves every column."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drift_pipeline.detection.counting.binning import Binning, Bools, CategoricalBins, Floats, Ints, NumericBins
from drift_pipeline.detection.counting.profile import Profile


@dataclass(frozen=True)
class Layout:
    """Where each column's counters stand in the flat vector; K columns, the N numeric ones first.

    Indices point into the counters with one more that is 0, to which all padding points. `fine` (N, W) and `atom`
    (N, W): the fine bins, padding counted as atoms; `ends` (N, 10): the last fine bin of each decile group; `levels`
    (K - N, L): levels, rare, unseen; `lacking` (K, 2): missing and not finite; `beyond` (K,).
    """

    names: tuple[str, ...]
    numeric: int
    fine: Ints
    atom: Bools
    ends: Ints
    levels: Ints
    lacking: Ints
    beyond: Ints

    @classmethod
    def of(cls, binning: Binning) -> "Layout":
        numbers = {name: bins for name, bins in binning.columns.items() if isinstance(bins, NumericBins)}
        categorical = {name: bins for name, bins in binning.columns.items() if isinstance(bins, CategoricalBins)}
        start, zero = {name: binning.slots[name].start for name in binning.columns}, binning.size
        atoms = [bins.atom for bins in numbers.values()]
        groups = [np.append(np.flatnonzero(np.diff(bins.coarse)), bins.bins - 1) for bins in numbers.values()]
        return cls(
            (*numbers, *categorical),
            len(numbers),
            _padded([start[name] + np.arange(bins.bins) for name, bins in numbers.items()], zero),
            _padded([a.astype(np.int64) for a in atoms], 1).astype(bool),
            _padded(groups, -1),
            _padded([start[name] + np.arange(bins.bins + 1) for name, bins in categorical.items()], zero),
            np.array(
                [(start[n] + bins.bins, start[n] + bins.bins + 1) for n, bins in numbers.items()]
                + [(start[n] + bins.bins + 1, zero) for n, bins in categorical.items()]
            ).reshape(-1, 2),
            np.array(
                [start[n] + bins.bins + 2 for n, bins in numbers.items()] + [zero] * len(categorical), dtype=np.int64
            ),
        )

    @cached_property
    def position(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}


def _padded(rows: list[Ints], filling: int) -> Ints:
    table = np.full((len(rows), max((len(row) for row in rows), default=1)), filling, dtype=np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


@dataclass(frozen=True)
class ColumnCounts:
    """One profile's columns. `coarse` (K, B): deciles, or levels with rare and unseen; `lacking`, `beyond` (K,): rows.

    `cumulated` (N, W): rows up to and with each fine bin.
    """

    layout: Layout
    profile: Profile
    cumulated: Floats
    coarse: Floats
    lacking: Floats
    beyond: Floats

    @classmethod
    def of(cls, layout: Layout, profile: Profile) -> "ColumnCounts":
        counts = np.append(profile.counts, 0)
        cumulated = np.cumsum(counts[layout.fine], axis=1)
        at_ends = np.take_along_axis(cumulated, layout.ends, axis=1)
        deciles, levels = np.diff(at_ends, axis=1, prepend=0), counts[layout.levels]
        coarse = np.zeros((len(layout.names), max(deciles.shape[1], levels.shape[1])))
        coarse[: layout.numeric, : deciles.shape[1]] = deciles
        coarse[layout.numeric :, : levels.shape[1]] = levels
        lacking = counts[layout.lacking].sum(axis=1)
        return cls(layout, profile, cumulated.astype(float), coarse, lacking.astype(float), counts[layout.beyond] + 0.0)

    @cached_property
    def rows(self) -> Floats:
        """Rows with a usable value (K,)."""
        return np.asarray(self.coarse.sum(axis=1))

    @cached_property
    def shares(self) -> Floats:
        """Cumulated shares of the numeric columns (N, W); a column without rows has 0 everywhere."""
        return self.cumulated / np.maximum(self.cumulated[:, -1:], 1)

    @cached_property
    def moments(self) -> Floats:
        """Mean and variance of each numeric column (N, 2), in reference sd, clipped to +-10; 0 without rows."""
        n = np.maximum(self.cumulated[:, -1], 1)
        mean, square = self.profile.sums[0::2] / n, self.profile.sums[1::2] / n
        return np.stack([mean, np.maximum(square - mean**2, 0.0)], axis=1)

    @cached_property
    def usable(self) -> Floats:
        """Rows with a usable value and without one (K, 2)."""
        return np.stack([self.rows, self.lacking], axis=1)
