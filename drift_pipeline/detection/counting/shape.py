"""How a column is distributed in a window and in its reference, in few enough parts to draw."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drift_pipeline.detection.counting.binning import CategoricalBins, Floats, Ints, NumericBins
from drift_pipeline.detection.counting.profile import Profile

PARTS = 30
_TAIL = 0.005
_NOBODY = (0.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """Shares of the usable `rows` (reference, current), which with `below` and `above` sum to 1 on either side.

    Numbers: `edges` (parts + 1,) of equal width about the reference's 0.5 to 99.5 % quantiles; a part holds what is
    above its lower edge (the first one's is in it), up to and with its upper one. What lies outside is `below` and
    `above`, as (reference, current). Where the reference has whole numbers only (`whole`) each part holds equally many
    whole numbers, and the edges lie in the middle between two. Levels: `levels`
    (parts,), the last of them `rare` and `new` where any are.
    """

    edges: tuple[float, ...]
    levels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    whole: bool = False
    below: tuple[float, float] = _NOBODY
    above: tuple[float, float] = _NOBODY
    rows: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


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
    before, after = (_shares(side[kept].astype(np.float64)) for side in sides)
    return Shape((), tuple(names[place] for place in kept), before, after, rows=_rows(*sides))


def _numbers(name: str, bins: NumericBins, reference: Profile, current: Profile) -> Shape:
    """Between two cuts rows count as evenly spread; there are about 1000 cuts, so a part is rarely off by a pixel."""
    if not len(bins.cuts):
        return Shape((), (), (), ())
    whole, sides = _are_whole(bins.cuts), (reference, current)
    cuts = np.floor(bins.cuts) if whole else bins.cuts  # a cut just below 3 has counted all that is up to 2
    counts = [side.bins(name) for side in sides]
    below = [np.cumsum(side)[:-1].astype(np.float64) for side in counts]  # rows up to each cut
    low, high = (_quantile(bins.cuts, below[0], float(counts[0].sum()), q) for q in (_TAIL, 1 - _TAIL))
    edges = _whole_edges(low, high, bins.cuts) if whole else _even_edges(low, high)
    shares, outside = [], []
    for cumulative, side in zip(below, counts, strict=True):
        up_to = _up_to(np.floor(edges) if whole else _closed(edges), cuts, cumulative)
        told = _shares(np.diff([0.0, *up_to, float(side.sum())]))
        shares.append(told[1:-1])
        outside.append((told[0], told[-1]))
    (before, after), (under, over) = shares, zip(*outside, strict=True)
    return Shape(tuple(float(f"{edge:.12g}") for edge in edges), (), before, after, whole, under, over, _rows(*counts))


def _are_whole(cuts: Floats) -> bool:
    """Whether a reference has whole numbers only: each cut is one, or is the last float below one."""
    return bool(((cuts == np.floor(cuts)) | (np.nextafter(cuts, np.inf) == np.floor(cuts) + 1)).all())


def _up_to(edges: Floats, cuts: Floats, cumulative: Floats) -> Floats:
    """Rows up to each edge; of equal cuts the last one has counted all."""
    last = np.append(np.diff(cuts) > 0, True)
    return np.asarray(np.interp(edges, cuts[last], cumulative[last], left=0.0))


def _quantile(cuts: Floats, below: Floats, total: float, q: float) -> float:
    return float(cuts[min(int(np.searchsorted(below, q * total)), len(cuts) - 1)])


def _even_edges(low: float, high: float) -> Floats:
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, PARTS + 1)


def _closed(edges: Floats) -> Floats:
    """The first part has its lower edge too, which many rows may have as their value."""
    return np.append(np.nextafter(edges[0], -np.inf), edges[1:])


def _whole_edges(low: float, high: float, cuts: Floats) -> Floats:
    """In the middle between whole numbers; parts of 1, 2, 5, 10, ... of them, that begin at a multiple of as many.

    Where all that the reference has fits, nothing of it is cut off.
    """
    first, last = math.ceil(low), math.ceil(high)
    if math.ceil(cuts[-1]) - math.ceil(cuts[0]) < PARTS:
        first, last = math.ceil(cuts[0]), math.ceil(cuts[-1])
    width = next(
        times * 10**power
        for power in range(400)
        for times in (1, 2, 5)
        if (last - first) // (times * 10**power) < PARTS
    )
    start = first // width * width
    count = (last - start) // width + 1
    return np.array([float(start + number * width) for number in range(count + 1)]) - 0.5


def _rows(before: Ints, after: Ints) -> tuple[int, int]:
    return int(before.sum()), int(after.sum())


def _shares(counts: Floats) -> tuple[float, ...]:
    total = counts.sum()
    return tuple(round(float(count / total), 9) if total else 0.0 for count in counts)
