"""What a window can still see: the smallest shift of a normal mean, in standard deviations, that is called drift."""

import numpy as np

from drift_pipeline.detection.counting.binning import COARSE_BINS, Floats
from drift_pipeline.detection.statistics.ks import ks_lower_bound, ks_p_value
from drift_pipeline.detection.statistics.psi import psi, psi_p_value
from drift_pipeline.detection.thresholds import FARTHER, LEAST_DISTANCE, LEAST_ROWS

_SHIFTS = np.arange(2, 400, 2) / 100


def visible_shift(phi: float, least_p: float, n: float, m: float, level: float) -> float | None:
    """The smallest shift in sd with a significant KS distance, its lower bound above 0.05, and PSI beyond healthy ones.

    `phi` is what the column's rows are divided by, 1 where they count as independent and NaN where it is not known;
    `least_p` the smallest tail of PSI that healthy windows reach, which binds where phi is above 1; n and m are rows.
    """
    if np.isnan(phi):
        return None
    n, m = n / phi, m / phi
    if min(n, m) < LEAST_ROWS:
        return None
    distance = ks_of_shift(_SHIFTS)
    seen = (ks_p_value(distance, n, m) <= level) & (
        ks_lower_bound(distance, np.full_like(distance, n), np.full_like(distance, m)) > LEAST_DISTANCE
    )
    if phi > 1:
        told = [psi_p_value(psi_of_shift(shift), COARSE_BINS, n, m) for shift in _SHIFTS]
        seen &= np.array(told) < least_p**FARTHER
    return float(_SHIFTS[seen.argmax()]) if seen.any() else None


def ks_of_shift(shift: Floats) -> Floats:
    """KS distance of two normal distributions whose means are this many sd apart.

    >>> ks_of_shift(np.array([0.25, 1.0])).round(3).tolist()
    [0.099, 0.383]
    """
    from scipy.special import ndtr

    return np.asarray(2 * ndtr(shift / 2) - 1)


def psi_of_shift(shift: float) -> float:
    """PSI on the deciles of a normal distribution of which the mean moved by this many sd.

    >>> [round(psi_of_shift(shift), 2) for shift in (0.25, 0.5, 1.0)]
    [0.06, 0.24, 0.93]
    """
    from scipy.special import ndtr, ndtri

    edges = ndtri(np.arange(1, 10) / 10)
    moved = np.diff(ndtr(edges - shift), prepend=0.0, append=1.0)
    return psi(np.full(10, 1e8), 1e9 * moved)


def shift_of_psi(threshold: float) -> float | None:
    """The smallest shift in sd whose PSI is above the threshold; None above 4 sd.

    >>> shift_of_psi(0.2)
    0.46
    """
    return next((round(float(shift), 2) for shift in _SHIFTS if psi_of_shift(shift) > threshold), None)
