"""How a column is distributed in a window and in its reference, in few enough parts to draw."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drift_pipeline.detection.counting.binning import CategoricalBins, Floats, NumericBins
from drift_pipeline.detection.counting.profile import Profile

PARTS = 30
_TAIL = 0.005


@dataclass(frozen=True)
class Shape:
    """Shares of the usable rows, which sum to 1 on either side.

    Numbers: `edges` (parts + 1,) of equal width between the reference's 0.5 and 99.5 % quantiles; what lies outside is
    counted in the first and the last part. Levels: `levels` (parts,), the last of them `rare` and `new` where any are.
    """

    edges: tuple[float, ...]
    levels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) for name, value in asdict(self).items()}


def shape_of(name: str, reference: Profile, current: Profile) -> Shape:
    """The shape of a watched column (or the score) on both sides, from their counters; no row is read."""
    bins = reference.binning.columns[name]
    if isinstance(bins, CategoricalBins):
        return _levels(name, bins, reference, current)
    return _numbers(name, bins, reference, current)


def _levels(name: str, bins: CategoricalBins, reference: Profile, current: Profile) -> Shape:
    sides = [np.append(side.bins(name), side.unseen(name)) for side in (reference, current)]
    names = [*bins.levels, "rare", "new"]
    kept = [place for place in range(len(names)) if place < len(bins.levels) or sides[0][place] + sides[1][place]]
    shares = [_shares(side[kept].astype(np.float64)) for side in sides]
    return Shape((), tuple(names[place] for place in kept), *shares)


def _numbers(name: str, bins: NumericBins, reference: Profile, current: Profile) -> Shape:
    """Between two cuts rows count as evenly spread; there are about 1000 cuts, so a part is rarely off by a pixel."""
    if not len(bins.cuts):
        return Shape((), (), (), ())
    below = [np.cumsum(side.bins(name))[:-1] for side in (reference, current)]  # rows up to each cut
    total = [int(side.bins(name).sum()) for side in (reference, current)]
    low, high = (
        bins.cuts[min(int(np.searchsorted(below[0], q * total[0])), len(bins.cuts) - 1)] for q in (_TAIL, 1 - _TAIL)
    )
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, PARTS + 1)
    shares = []
    for cumulative, rows in zip(below, total, strict=True):
        inner = np.interp(edges[1:-1], bins.cuts, cumulative, left=0.0)
        shares.append(_shares(np.diff([0.0, *inner, float(rows)])))
    return Shape(tuple(float(f"{edge:.6g}") for edge in edges), (), *shares)


def _shares(counts: Floats) -> tuple[float, ...]:
    total = counts.sum()
    return tuple(round(float(count / total), 6) if total else 0.0 for count in counts)
