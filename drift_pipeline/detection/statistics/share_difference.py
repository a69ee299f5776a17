"""Exact bounds of a share, and of the difference between two samples' shares.

Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika
26(4), 1934.
"""

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array


def share_low(count: Array, rows: Array, level: npt.ArrayLike) -> Array:
    """One-sided lower bound of a share: the 1 - level quantile of Beta(count, rows - count + 1).

    Effective counts need not be whole.

    >>> share_low(np.array([200.0, 0.0]), np.array([2000.0, 2000.0]), 0.99).round(3).tolist()
    [0.085, 0.0]
    """
    from scipy.special import betaincinv

    bound = betaincinv(np.maximum(count, 1e-9), rows - count + 1, 1 - np.asarray(level))
    return np.asarray(np.where(count > 0, bound, 0.0))


def share_high(count: Array, rows: Array, level: npt.ArrayLike) -> Array:
    """One-sided upper bound of a share: 1 where all rows count.

    >>> share_high(np.array([0.0]), np.array([2000.0]), 0.99).round(4).tolist()
    [0.0023]
    """
    return 1 - share_low(rows - count, rows, level)


def share_difference_lower_bound(
    reference: Array, m: Array, current: Array, n: Array, level: npt.ArrayLike = 0.99
) -> Array:
    """Lower bound of |p - q|, of shares `reference` of m rows and `current` of n; never below 0.

    The gap between the two exact intervals, each side's bound at (1 + level) / 2.

    >>> counts = [np.array([x]) for x in (0.0, 2000.0, 200.0, 2000.0)]
    >>> share_difference_lower_bound(*counts).round(3).tolist()
    [0.081]
    """
    each = (1 + np.asarray(level)) / 2
    rise = share_low(current, n, each) - share_high(reference, m, each)
    fall = share_low(reference, m, each) - share_high(current, n, each)
    return np.asarray(np.maximum(0.0, np.maximum(rise, fall)))


def largest_difference_lower_bound_rows(
    reference: Array,
    current: Array,
    bins: npt.NDArray[np.int64],
    m: Array,
    n: Array,
    least: float = 0.0,
    level: float = 0.99,
) -> Array:
    """Lower bound of max_j |p_j - q_j|, and so of the total variation, of counts (W, B); returns (W,).

    Of each bin the exact bound at 1 - alpha / B (Bonferroni), or of two bins, which move together, at 1 - alpha. m and
    n (W,) are effective sizes; every side has rows. Bins whose shares differ by `least` or less are not asked.

    >>> sides = np.array([[1000.0, 1000.0, 0.0]]), np.array([[900.0, 900.0, 200.0]])
    >>> sizes = np.array([3]), np.array([2000.0]), np.array([2000.0])
    >>> largest_difference_lower_bound_rows(*sides, *sizes).round(3).tolist()
    [0.078]
    """
    p, q = (side / side.sum(axis=-1, keepdims=True) for side in (reference, current))
    asked = np.nonzero(np.abs(p - q) > least)
    row, found = asked[0], np.zeros(p.shape)
    each = 1 - (1 - level) / np.where(bins > 2, bins, 1)
    found[asked] = share_difference_lower_bound(p[asked] * m[row], m[row], q[asked] * n[row], n[row], each[row])
    return np.asarray(found.max(axis=-1, initial=0.0))
