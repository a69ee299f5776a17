"""Counting on frozen cuts: one pass over a column's values gives its bins, its extremes and its moments.

A uniform grid maps a value to a cell that only a few cuts share, so a step or two find its bin where a binary search
over 1000 cuts needs ten. Many rows are counted by numba, few by numpy; both give the same counters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOMENT_CLIP = 10.0
KERNEL_ROWS = 50_000  # below, importing numba (0.6 s, once a process) costs more than it saves
_CELLS = 4096
_TRIMS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.2)  # shares of the cuts left outside the grid at each end
_STEPS = 8  # a cell with more cuts is searched by halves first
_NOWHERE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Grid:
    """Cell (x - low) * scale of a value, held within 0..CELLS-1; `first[cell]` cuts lie in the cells before it.

    cuts (K + 1,) ascending, the last infinite; first (CELLS + 1,). The map only needs to be monotone: rounding,
    overflow and values outside the grid cost steps, never give a wrong bin.
    """

    cuts: Floats
    first: npt.NDArray[np.int32]
    low: float
    scale: float


def grid(cuts: Floats) -> Grid:
    """The grid over the inner cuts that leaves the fewest steps: one over all of them degenerates with long tails."""
    if not len(cuts):
        return Grid(np.array([np.inf]), np.zeros(_CELLS + 1, np.int32), 0.0, 1.0)
    return min((_over(cuts, int(trim * (len(cuts) - 1))) for trim in _TRIMS), key=_steps)


def _over(cuts: Floats, trimmed: int) -> Grid:
    low, high = float(cuts[trimmed]), float(cuts[len(cuts) - 1 - trimmed])
    half = high / 2 - low / 2  # high - low may overflow
    scale = min(_CELLS / 2 / half, np.finfo(np.float64).max) if half > 0 else 1.0
    with np.errstate(over="ignore"):
        cells = np.clip((cuts - low) * scale, 0.0, _CELLS - 1.0).astype(np.int64)
    first = np.searchsorted(cells, np.arange(_CELLS + 1), side="left").astype(np.int32)
    return Grid(np.append(cuts, np.inf), first, low, scale)


def _steps(candidate: Grid) -> float:
    """Expected steps of a value: cuts are quantiles, so a cell is as likely as it has cuts."""
    inside = np.diff(candidate.first)
    return float(inside @ np.log2(1.0 + inside))


def count(
    on: Grid, x: Floats, slices: Ints, number: int, mean: float = 0.0, sd: float = 1.0, z_threshold: float = np.inf
) -> tuple[Ints, Floats]:
    """Counters (number, K + 4) and sums (number, 2) of the values of each slice.

    Counters: K + 1 bins (c_j-1, c_j] with open ends; 0, left for missing; not finite; beyond z_threshold. Sums: of z
    and z^2 over the finite values, z = (x - mean) / sd held within +-MOMENT_CLIP.

    Args:
        x: values, shape (rows,).
        slices: which slice each value belongs to, shape (rows,), values in 0..number-1.
    """
    counts, sums = np.zeros((number, len(on.cuts) + 3), np.int64), np.zeros((number, 2))
    loop = _count_few if len(x) < KERNEL_ROWS else _compiled()
    loop(x, slices, on.cuts, on.first, on.low, on.scale, mean, sd, z_threshold, counts, sums, _NOWHERE)
    return counts, sums


def locate(on: Grid, x: Floats) -> Ints:
    """Bin of each value, shape (rows,): how many cuts lie below it; K + 2 where it is not finite."""
    places = np.empty(len(x), np.int64)
    if len(x) < KERNEL_ROWS:
        places[:] = np.searchsorted(on.cuts, x, side="left")
        places[~np.isfinite(x)] = len(on.cuts) + 1
        return places
    counts, sums, slices = np.zeros((1, len(on.cuts) + 3), np.int64), np.zeros((1, 2)), np.zeros(len(x), np.int64)
    _compiled()(x, slices, on.cuts, on.first, on.low, on.scale, 0.0, 1.0, np.inf, counts, sums, places)
    return places


@cache
def _compiled() -> Callable[..., None]:
    """The loop as machine code, kept on disk where there is a folder that can be written."""
    import numba

    try:
        kernel = numba.njit(nogil=True, error_model="numpy", cache=True)(_count_many)
    except RuntimeError:  # no such folder: compiled anew in each process
        kernel = numba.njit(nogil=True, error_model="numpy")(_count_many)
    return kernel


def _count_few(
    x: Floats,
    slices: Ints,
    cuts: Floats,
    _first: npt.NDArray[np.int32],
    _low: float,
    _scale: float,
    mean: float,
    sd: float,
    z_threshold: float,
    counts: Ints,
    sums: Floats,
    _places: Ints,
) -> None:
    """What the loop does, in numpy."""
    number, width = counts.shape
    finite = np.isfinite(x)
    place = np.where(finite, np.searchsorted(cuts, x, side="left"), width - 2)
    counts += np.bincount(slices * width + place, minlength=number * width).reshape(number, width)
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.where(finite, (x - mean) / sd, 0.0)
    counts[:, -1] = np.bincount(slices[np.abs(z) > z_threshold], minlength=number)
    z = np.clip(z, -MOMENT_CLIP, MOMENT_CLIP)
    sums[:, 0] = np.bincount(slices, z, number)
    sums[:, 1] = np.bincount(slices, z * z, number)


def _count_many(
    x: Floats,
    slices: Ints,
    cuts: Floats,
    first: npt.NDArray[np.int32],
    low: float,
    scale: float,
    mean: float,
    sd: float,
    z_threshold: float,
    counts: Ints,
    sums: Floats,
    places: Ints,
) -> None:
    """The loop that numba compiles: one pass; `places` (rows,) is written where it is not empty.

    A mispredicted branch costs as much as all the rest, so the usual one or two steps are added, not jumped. Sums
    are carried in registers along a run of one slice: adding to memory at each row would wait for the last row.
    """
    width, top, rare = counts.shape[1], len(first) - 2.0, min(z_threshold, MOMENT_CLIP)
    last, far, z_sum, z_square = np.int64(0), np.int64(0), 0.0, 0.0
    for i in range(len(x)):
        value = x[i]
        if slices[i] != last:
            counts[last, width - 1] += far
            sums[last, 0] += z_sum
            sums[last, 1] += z_square
            last, far, z_sum, z_square = slices[i], np.int64(0), 0.0, 0.0
        place = np.int64(width - 2)
        if np.isfinite(value):
            at = (value - low) * scale
            at = at if at > 0.0 else 0.0
            at = at if at < top else top
            cell = np.uint32(np.int32(at))
            place, end = np.int64(first[cell]), np.int64(first[cell + 1])
            while end - place > _STEPS:
                middle = (place + end) >> 1
                if cuts[middle] < value:
                    place = middle + 1
                else:
                    end = middle
            place += np.int64(cuts[place] < value)
            place += np.int64(cuts[place] < value)
            while cuts[place] < value:
                place += 1
            z = (value - mean) / sd
            if abs(z) > rare:
                far += np.int64(abs(z) > z_threshold)
                z = min(max(z, -MOMENT_CLIP), MOMENT_CLIP)
            z_sum += z
            z_square += z * z
        counts[last, place] += 1
        if len(places):
            places[i] = place
    counts[last, width - 1] += far
    sums[last, 0] += z_sum
    sums[last, 1] += z_square
