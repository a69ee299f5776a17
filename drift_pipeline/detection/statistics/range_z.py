"""Range check: is the share of values far from the reference's mean larger than the reference's own share?

A row is outside when |x - mean_ref| / sd_ref > 4 (mean and sd winsorised, frozen with the reference). A single value
proves nothing: among a million rows some always are.
"""

from dataclasses import dataclass

import numpy as np

from drift_pipeline.detection.statistics.psi import Array

SMALLEST_EXCESS = 0.001
FEWEST_ROWS = 3


@dataclass(frozen=True)
class RangeExcess:
    """Shares of rows outside, now and in the reference; `outside` counts the rows behind `share`."""

    share: float
    reference_share: float
    excess: float
    p_value: float
    outside: int


def range_excess(outside: int, rows: int, reference_outside: int, reference_rows: int) -> RangeExcess:
    """How far the share of rows outside exceeds the reference's, with the one-sided p of Fisher's exact test.

    p = P(X >= outside), X hypergeometric: `rows` drawn from all rows of both sides, of which outside +
    reference_outside lie outside. No row outside gives p = 1.

    >>> found = range_excess(outside=8, rows=2000, reference_outside=6, reference_rows=50_000)
    >>> round(found.excess, 5), f"{found.p_value:.2e}"
    (0.00388, '1.15e-08')

    Fisher, "The Design of Experiments", 1935.

    Raises:
        ValueError: a side without rows, or more rows outside than rows.
    """
    for name, part, whole in (("current", outside, rows), ("reference", reference_outside, reference_rows)):
        if not 0 <= part <= whole or whole == 0:
            raise ValueError(
                f"{name}: {part} of {whole} rows outside; there must be rows, and no more outside than all"
            )
    share, reference_share = outside / rows, reference_outside / reference_rows
    p_value = _at_least(outside, rows, outside + reference_outside, rows + reference_rows)
    return RangeExcess(share, reference_share, share - reference_share, p_value, outside)


def may_breach(outside: int, rows: int, reference_outside: int, reference_rows: int) -> bool:
    """Whether `is_breach` could be, before the costly p-value: enough rows outside, and enough more of them."""
    return outside >= FEWEST_ROWS and outside / rows - reference_outside / reference_rows > SMALLEST_EXCESS


def is_breach(excess: RangeExcess, level: float) -> bool:
    """Significant at `level`, from 3 rows on, and more than 0.1 percentage points above the reference.

    >>> is_breach(range_excess(outside=8, rows=2000, reference_outside=6, reference_rows=50_000), level=1e-4)
    True
    """
    enough = excess.outside >= FEWEST_ROWS and excess.excess > SMALLEST_EXCESS
    return enough and excess.p_value <= level


def _at_least(k: int, drawn: int, marked: int, total: int) -> float:
    """P(X >= k) for X marked rows among `drawn` out of `total`, summed in logarithms."""
    from scipy.special import logsumexp

    lowest, highest = max(0, drawn + marked - total), min(drawn, marked)
    if k <= lowest:
        return 1.0
    mean = drawn * marked / total
    # the probabilities are log-concave: 40 sd beyond the mean, or beyond k, nothing is left that a float would show
    reach = 60 + 40 * (mean * (1 - marked / total) * (1 - drawn / total)) ** 0.5
    x = np.arange(max(k, int(mean - reach)), min(highest, int(max(k, mean) + reach)) + 1, dtype=np.float64)

    log_p = _log_choose(marked, x) + _log_choose(total - marked, drawn - x)
    return min(1.0, float(np.exp(logsumexp(log_p) - _log_choose(total, np.asarray(float(drawn))))))


def _log_choose(of: int, some: Array) -> Array:
    from scipy.special import gammaln

    return np.asarray(gammaln(of + 1) - gammaln(some + 1) - gammaln(of - some + 1))
