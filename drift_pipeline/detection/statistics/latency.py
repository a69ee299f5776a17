"""Latency check: is more than 5 % of the requests slower than the threshold, beyond chance?

A p95 over the threshold proves less: with a true p95 of 140 ms it exceeds 150 ms in 6 % of windows of 500 requests.
"""

from dataclasses import dataclass

from drift_pipeline.detection.statistics.psi import checked_level


@dataclass(frozen=True)
class ShareAbove:
    """Share of rows above the threshold with its one-sided lower confidence bound."""

    share: float
    lower_bound: float
    rows: float


def share_above(above: float, rows: float, level: float = 0.99) -> ShareAbove:
    """above / rows and its exact lower bound: the share at which seeing `above` or more has probability 1 - level.

    The 1 - level quantile of Beta(above, rows - above + 1) (Clopper and Pearson, Biometrika 26(4), 1934); 0 when
    nothing is above. Effective counts need not be whole.

    >>> found = share_above(above=40, rows=500)
    >>> round(found.share, 4), round(found.lower_bound, 4)
    (0.08, 0.0542)

    Raises:
        ValueError: no rows, more above than rows, or a level outside (0.5, 1).
    """
    from scipy.special import betaincinv

    alpha = 1 - checked_level(level)
    if not 0 <= above <= rows or rows == 0:
        raise ValueError(f"{above} of {rows} rows above; there must be rows, and no more above than all")
    bound = float(betaincinv(above, rows - above + 1, alpha)) if above else 0.0
    return ShareAbove(above / rows, bound, rows)
