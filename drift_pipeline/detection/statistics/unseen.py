"""Levels that a reference does not know: how many rows of one distribution have one, and whether there are more.

Levels frozen on the very rows that they are compared with have none unseen, whatever the distribution: the share that a
new sample of it will have is known from the levels that occur once (Good and Turing).

Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
"""

import numpy as np

from drift_pipeline.detection.statistics.psi import Array
from drift_pipeline.detection.statistics.share_difference import share_high, share_low


def unseen_mass(once: Array, twice: Array, unseen: Array, rows: Array) -> tuple[Array, Array]:
    """Share of rows to come whose level a reference lacks, and how many rows' worth of evidence that is, each (K,).

    With N1 levels of one row and N2 of two among the rows that froze them, and `unseen` further rows counted since,
    the share is u = (N1 + unseen) / rows. Its mean squared error is u (1 - u) / rows + 2 N2 / rows^2, which is that of
    a share counted on fewer rows: these. One row more of either kind, so that N2 tells also where u is 0 or 1.

    >>> share, effective = unseen_mass(*map(np.array, ([378.0], [315.0], [0.0], [2000.0])))
    >>> share.round(3).tolist(), effective.round().tolist()
    ([0.189], [656.0])
    """
    found = once + unseen
    spread = (found + 1) * (rows - found + 1) / rows
    return found / rows, rows * spread / (spread + 2 * twice)


def unseen_p_value(unseen: Array, n: Array, share: Array, m: Array) -> Array:
    """Chance that as many or more of `n` rows have an unseen level, of whose share `m` effective rows tell `share`.

    P(X >= unseen), X binomial of all unseen rows of both sides with n / (n + m) (the conditional test of two Poisson
    rates); counts need not be whole. None unseen gives 1.

    >>> p = unseen_p_value(*map(np.array, ([8.0, 0.0], [1000.0, 9.0], [0.001, 0.0], [1000.0, 9.0])))
    >>> p.round(4).tolist()
    [0.0195, 1.0]
    """
    from scipy.special import betainc

    return np.asarray(np.where(unseen > 0, betainc(np.maximum(unseen, 1e-9), share * m + 1, n / (n + m)), 1.0))


def unseen_lower_bound(unseen: Array, n: Array, share: Array, m: Array, level: float = 0.99) -> Array:
    """One-sided lower bound of how far the unseen share exceeds the expected one; never below 0.

    >>> unseen_lower_bound(*map(np.array, ([200.0], [2000.0], [0.0], [2000.0]))).round(3).tolist()
    [0.081]
    """
    each, found = (1 + level) / 2, np.zeros(len(unseen))
    more = unseen > share * n
    bounds = share_low(unseen[more], n[more], each) - share_high((share * m)[more], m[more], each)
    found[more] = np.maximum(0.0, bounds)
    return found
