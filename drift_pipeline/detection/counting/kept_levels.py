"""Which levels of a categorical column get a bin of their own: the most frequent, unless chance alone chose them.

The most frequent of many levels that are equally frequent are those that had luck: kept for their counts and compared
with other rows, they are too few there, whatever the rows.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MOST_LEVELS = 20
LEAST_EXPECTED = 5
MOST_BIAS = 5.0
_CLEARLY = 3.0  # sd of a count


def kept_levels(levels: list[str], counts: Ints) -> list[str]:
    """At most 19 levels with an expected count of at least 5, the most frequent first.

    Args:
        levels: all of them, the most frequent first.
        counts: rows of each.

    Where choosing by count would lift chi2 by more than 5 (over 19 bins its mean is 19, its sd 6), only levels that
    stand out by 3 sd are chosen by count. Of those around the bar that are left, if their mean count is at least 5, the
    others are drawn by the hash of their names, which knows nothing of counts.
    """
    most = MOST_LEVELS - 1
    number = min(int((counts >= LEAST_EXPECTED).sum()), most)
    bar = int(counts[number - 1]) if number == most else LEAST_EXPECTED
    if number == len(counts) or not number or selection_bias(counts, bar) <= MOST_BIAS:
        return levels[:number]
    around = _CLEARLY * bar**0.5
    clear, near = int((counts > bar + around).sum()), int((counts >= bar - around).sum())
    if counts[clear:near].mean() < LEAST_EXPECTED:
        return levels[:clear]
    drawn = sorted(range(clear, near), key=lambda k: _hash(levels[k]))[: most - clear]
    return [levels[k] for k in (*range(clear), *sorted(drawn))]


def selection_bias(counts: Ints, bar: int) -> float:
    """How much larger chi2 against other rows is expected to be because levels were kept for a count of `bar` or more.

    X, the count of a level of rate r, is Poisson: E[((X - r)^2 / r - 1) 1(X >= bar)] = P(X = bar - 1) (bar - r), of the
    kept levels; and the pool of the others lacks what luck gave to the kept ones, E[(X - r) 1(X >= bar)] = r P(X = bar
    - 1) each, squared over its rows. The counts are taken for rates.

    >>> round(selection_bias(np.full(100, 20), bar=25), 1)
    34.1
    >>> round(selection_bias(np.array([500, 300, 12, 3]), bar=5), 3)
    0.406
    """
    from scipy.special import gammaln

    rates, times = np.unique(counts, return_counts=True)
    before_bar = times * np.exp((bar - 1) * np.log(rates) - rates - gammaln(bar))
    others = max(float(counts[counts < bar].sum()), 1.0)
    return float((before_bar * (bar - rates)).sum() + (before_bar * rates).sum() ** 2 / others)


def _hash(level: str) -> bytes:
    return hashlib.sha256(level.encode()).digest()
