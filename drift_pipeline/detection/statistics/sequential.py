"""Bounds that hold at every look: of a share, of two shares, of an estimate with its standard error, of a parity gap.

A bound at a fixed level is right at one look; looked at again and again, a process exactly at its limit crosses it
almost surely. These cross it with probability alpha at most, however often and whenever one looks and stops.

Ville, "Etude critique de la notion de collectif", 1939. Robbins, "Statistical methods related to the law of the
iterated logarithm", Annals of Mathematical Statistics 41(5), 1970. Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), 2021. Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics
52(6), 2024 (arXiv 2103.06476).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.parity import usable_groups
from drift_pipeline.detection.statistics.psi import Array

_BISECTIONS = 40  # to 1e-12
_LEAST_OF_A_DECISION = 10  # below it a rate is no normal mean
_RARE = 0.1  # the part of alpha that such rates have


def share_log_e(above: npt.ArrayLike, rows: npt.ArrayLike, allowed: npt.ArrayLike) -> Array:
    """Log of the e-value against "the share is at most `allowed`", elementwise; the evidence grows with it.

    For k of n rows above and a allowed, e = mean of (p / a)^k ((1 - p) / (1 - a))^(n - k) over p in (a, 1), with log p
    uniform (twice the allowed share is as likely as four times), which is
    B(k, n - k + 1) (1 - I_a(k, n - k + 1)) / (ln(1 / a) a^k (1 - a)^(n - k)), with B and I the beta functions.
    Each row multiplies each term by a factor of mean 1 where its chance is a, and less below, so e is a supermartingale
    that begins at 1 whenever no row's chance, given the rows before, is above a (Robbins' mixture). By Ville's
    inequality it ever reaches 1 / alpha with probability alpha at most. -inf, which says no less than the number below
    1 that it stands for, where no row is above or e is too small for a float.

    >>> round(float(share_log_e(above=6, rows=40, allowed=0.05)), 4)
    1.6549

    Raises:
        ValueError: more above than rows, a count below 0, or an allowed share outside (0, 1).
    """
    from scipy.special import betaincc, betaln

    k, n, a = (np.asarray(side, dtype=np.float64) for side in (above, rows, allowed))
    if not np.all((k >= 0) & (k <= n)) or not np.all((a > 0) & (a < 1)):
        raise ValueError(f"no more above than rows, and a share inside (0, 1): {k} of {n}, {a} allowed")
    some = np.maximum(k, 1.0)
    rest = np.maximum(n - some, 0.0)
    with np.errstate(divide="ignore"):
        mixture = betaln(some, rest + 1) + np.log(betaincc(some, rest + 1, a)) - np.log(-np.log(a))
    return np.where(k > 0, mixture - some * np.log(a) - rest * np.log1p(-a), -np.inf)


def share_p_value(above: npt.ArrayLike, rows: npt.ArrayLike, allowed: npt.ArrayLike) -> Array:
    """min(1, 1 / e) of `share_log_e`: ever at or below alpha with probability alpha at most, at the allowed share.

    >>> round(float(share_p_value(above=15, rows=100, allowed=0.05)), 4)
    0.0044
    """
    return np.asarray(np.exp(np.minimum(0.0, -share_log_e(above, rows, allowed))))


def share_lower_bound(above: npt.ArrayLike, rows: npt.ArrayLike, alpha: float) -> Array:
    """The share below which every share is refuted: where the e-value against it is 1 / alpha; elementwise.

    a d log e / da = (1 - 1 / e) / ln(1 / a) - (k - n a) / (1 - a) is negative below a = (k - 1) / n, beyond which e is
    never above (k / (k - 1))^k <= 4, and of k = 1 it is negative throughout: bisection finds the one crossing. 0 where
    no row is above.

    >>> round(float(share_lower_bound(above=40, rows=500, alpha=0.01)), 4)
    0.043

    Raises:
        ValueError: more above than rows, or alpha outside (0, 1/4].
    """
    _check(alpha)
    k, n = (np.asarray(side, dtype=np.float64) for side in (above, rows))
    low, high = np.zeros(np.broadcast_shapes(k.shape, n.shape)), np.where(k > 0, k / np.maximum(n, 1.0), 1.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        refuted = share_log_e(k, n, middle) > -math.log(alpha)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def share_upper_bound(above: npt.ArrayLike, rows: npt.ArrayLike, alpha: float) -> Array:
    """The share above which every share is refuted; 1 of no rows.

    >>> round(float(share_upper_bound(above=0, rows=500, alpha=0.01)), 4)
    0.0129
    """
    k, n = (np.asarray(side, dtype=np.float64) for side in (above, rows))
    return np.asarray(1 - share_lower_bound(n - k, n, alpha))


def share_excess(
    first: tuple[npt.ArrayLike, npt.ArrayLike], second: tuple[npt.ArrayLike, npt.ArrayLike], alpha: float
) -> Array:
    """Lower bound of one share's excess over another, both (above, rows) of the same time; -1 .. 1, elementwise.

    The first's lower bound less the second's upper bound, each at alpha / 2: wrong only where one of both is, which
    has probability alpha at most, whatever their sizes and the order of their rows.

    >>> round(float(share_excess((45, 150), (13, 1350), alpha=0.01)), 3)
    0.152
    """
    return np.asarray(share_lower_bound(*first, alpha / 2) - share_upper_bound(*second, alpha / 2))


def mean_radius(standard_error: npt.ArrayLike, rows: float, alpha: float, tuned_for: float = 1000) -> Array:
    """How far an estimate is above or below (one of both) the truth at most, at every look: shape of the errors.

    se sqrt(2 (n r^2 + 1) / (n r^2) log(1 + sqrt(n r^2 + 1) / (2 alpha))), the one-sided asymptotic confidence sequence
    of Waudby-Smith et al. (2024): a mixture of Gaussian likelihood ratios over half a Gaussian, with
    Phi(x) >= 1 - exp(-x^2 / 2) to solve it; and their tuning
    r^2 = (-2 log(2 alpha) + log(1 - 2 log(2 alpha))) / `tuned_for`: narrowest where about as many rows have come. For
    any estimate that is a mean to first order (a mean, an AUROC, a ratio of means) of n rows. As every normal
    approximation it wants rows before the first look; the smaller alpha, the more.

    >>> [round(float(mean_radius(1.0, rows, alpha=0.01)), 2) for rows in (100, 1000, 10_000)]
    [4.13, 3.36, 3.55]

    Raises:
        ValueError: no rows, or alpha outside (0, 1/4].
    """
    _check(alpha)
    if rows <= 0 or tuned_for <= 0:
        raise ValueError(f"an estimate has rows, and is tuned for some, not {rows} and {tuned_for}")
    tail = -2 * math.log(2 * alpha)
    grown = rows * (tail + math.log1p(tail)) / tuned_for
    factor = math.sqrt(2 * (grown + 1) / grown * math.log1p(math.sqrt(grown + 1) / (2 * alpha)))
    return np.asarray(factor * np.asarray(standard_error, dtype=np.float64))


@dataclass(frozen=True)
class Widening:
    """How much wider the candidate's parity gap is than the champion's, both gaps, and the rows they rest on."""

    lower_bound: float
    candidate: float
    champion: float
    rows: int


def parity_widening(
    totals: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike, both: npt.ArrayLike, alpha: float
) -> Widening | None:
    """Of two models on the same rows: their positives, and those of both, by group (G,); None below two usable groups.

    With c_g, h_g the groups' rates, the widening is max over (a, b) of the min over (x, y) of
    (c_a - c_b) - (h_x - h_y). Each of these is a mean of paired rows with a `mean_radius` of its own. If the gap is not
    wider than said, some (a, b) has to be overrated against the (x, y) that truly are the champion's gap: alpha is
    shared among the G (G - 1) pairs (a, b) of all groups, usable or not, and needs no share for (x, y). Where models
    agree on most rows, the pairing cancels what both have in common.

    A rate with fewer than 10 rows of a decision is no normal mean, and at 0 or 1 it has no variance: it counts at its
    own `share_lower_bound` or `share_upper_bound`, unpaired. A tenth of alpha is shared by these bounds of all rates.

    >>> found = parity_widening([3000, 3000], candidate=[900, 600], champion=[900, 900], both=[850, 600], alpha=0.01)
    >>> round(found.candidate, 3), round(found.champion, 3), round(found.lower_bound, 3)
    (0.1, 0.0, 0.018)
    >>> denied = parity_widening([3000, 3000], candidate=[900, 0], champion=[900, 900], both=[850, 0], alpha=0.01)
    >>> round(denied.candidate, 3), round(denied.lower_bound, 2)
    (0.3, 0.23)

    Raises:
        ValueError: more positives than rows, more of both than of one, or shapes that differ.
    """
    n, c, h, b = (np.asarray(side, dtype=np.float64) for side in (totals, candidate, champion, both))
    fits = c.shape == h.shape == b.shape == n.shape
    if not fits or not np.all((b >= np.maximum(0, c + h - n)) & (b <= np.minimum(c, h))):
        raise ValueError(f"positives of both are part of either's: {b} of {c} and {h}, of {n} rows")
    used = usable_groups(n)
    if np.count_nonzero(used) < 2:
        return None
    pairs, rare = n.size * (n.size - 1), alpha * _RARE / (4 * n.size)
    n, c, h, b = (side[used] for side in (n, c, h, b))
    group = np.eye(len(n))
    ahead = (group[:, None] - group[None, :])[~group.astype(bool)]  # (ordered pairs, groups): +1 and -1
    mine, other = (_bounded(side, n, rare) for side in (c, h))
    estimate = _least_gap(ahead, mine)[:, None] + _least_gap(-ahead, other)[None, :]
    variance = _variance_of_pairs(ahead, mine, other, b / n, n)
    radius = mean_radius(np.sqrt(np.maximum(variance, 0.0)), float(n.sum()), alpha * (1 - _RARE) / pairs)
    bound = float((estimate - radius).min(axis=1).max())
    return Widening(bound, float(np.ptp(c / n)), float(np.ptp(h / n)), round(n.sum()))


@dataclass(frozen=True)
class _Rates:
    """Of each group (G,): the least and the largest rate it counts at; equal where it is `normal`, a mean with a
    variance."""

    lower: Array
    upper: Array
    normal: npt.NDArray[np.bool_]


def _bounded(positives: Array, n: Array, alpha: float) -> _Rates:
    rate, normal = positives / n, np.minimum(positives, n - positives) >= _LEAST_OF_A_DECISION
    if normal.all():
        return _Rates(rate, rate, normal)
    lower, upper = share_lower_bound(positives, n, alpha), share_upper_bound(positives, n, alpha)
    return _Rates(np.where(normal, rate, lower), np.where(normal, rate, upper), normal)


def _least_gap(ahead: Array, rates: _Rates) -> Array:
    """The least that rate a - rate b may be, of each pair (P, G)."""
    return np.asarray((ahead > 0) @ rates.lower - (ahead < 0) @ rates.upper)


def _variance_of_pairs(ahead: Array, mine: _Rates, other: _Rates, both: Array, n: Array) -> Array:
    """Of (c_a - c_b) - (h_x - h_y), (P, P), as far as it is made of normal rates."""
    alone = [ahead**2 @ (side.normal * side.lower * (1 - side.lower) / (n - 1)) for side in (mine, other)]
    common = mine.normal * other.normal * (both - mine.lower * other.lower) / (n - 1)
    return np.asarray(alone[0][:, None] + alone[1][None, :] - 2 * (ahead * common) @ ahead.T)


def _check(alpha: float) -> None:
    if not 0 < alpha <= 1 / 4:
        raise ValueError(f"alpha is the chance of a wrong bound, above 0 and at most 1/4, not {alpha}")
