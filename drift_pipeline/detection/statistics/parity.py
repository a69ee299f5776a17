"""Demographic parity: the widest gap between groups' rates of positive decisions, and how it changed.

DPD = max_a P(yhat = 1 | a) - min_a P(yhat = 1 | a). Agarwal et al., "A reductions approach to fair classification",
ICML 2018. Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", Review of
Economics and Statistics 90(3), 2008, on few blocks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array, checked_level


@dataclass(frozen=True)
class ParityChange:
    """delta = (1 - DPD now) - (1 - DPD of the reference): negative where the gap grew. `groups_used` are columns."""

    delta: float
    upper_bound: float
    dpd_reference: float
    dpd_current: float
    groups_used: tuple[int, ...]


def usable_groups(
    positives: npt.ArrayLike, totals: npt.ArrayLike, minimum: int = 100, minimum_each: int = 10
) -> npt.NDArray[np.bool_]:
    """Which groups (G,) have `minimum` rows and `minimum_each` of either decision; the rest is listed, not compared.

    >>> usable_groups(positives=[50, 5, 45], totals=[200, 300, 50]).tolist()
    [True, False, False]
    """
    p, n = _decisions(positives, totals)
    return np.asarray((n >= minimum) & (p >= minimum_each) & (n - p >= minimum_each))


def demographic_parity_difference(positives: npt.ArrayLike, totals: npt.ArrayLike) -> float:
    """DPD of the groups given (G,), from 0 (equal rates) to 1. One group has no gap: 0.

    >>> round(demographic_parity_difference(positives=[30, 40, 90], totals=[100, 100, 200]), 4)
    0.15

    Raises:
        ValueError: no group, a group without rows, or more positives than rows.
    """
    p, n = _decisions(positives, totals)
    if p.size == 0 or (n == 0).any():
        raise ValueError(f"every group needs rows for its rate, and there must be one: totals are {n.tolist()}")
    return float(np.ptp(p / n))


def parity_change(
    reference_positives: npt.ArrayLike,
    reference_totals: npt.ArrayLike,
    current_positives: npt.ArrayLike,
    current_totals: npt.ArrayLike,
    level: float = 0.99,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> ParityChange | None:
    """Change of 1 - DPD from the reference to now, with its one-sided upper confidence bound.

    Args are counts of shape (blocks, groups): consecutive blocks of time, the same groups on both sides. Groups that
    are not usable on both sides are left out; below two, None: there is nothing to compare.

    The bound is delta minus the (1 - level) quantile of e_ref - R_now, from seeded draws of the groups' rate errors
    d (see `_rate_errors`): R_now = max d - min d over the groups is how much chance alone widens the gap between
    equal rates, bias included; e_ref is the error of the reference's gap between its highest and its lowest group.
    The sample's DPD exceeds the true one by at most R_now and falls short by at most -e_ref whatever the true rates
    are, so the bound holds at equal rates, where the percentile and the basic bootstrap of max - min do not: they
    centre on a gap that is chance already and double or keep the bias. It is nearly exact at equal rates when the
    reference is much larger than the window, and cautious elsewhere.

    >>> reference = [[300, 290], [310, 305], [295, 300], [305, 300]], [[1000, 1000]] * 4
    >>> current = [[150, 90], [155, 85], [148, 95], [152, 88]], [[500, 500]] * 4
    >>> found = parity_change(*reference, *current)
    >>> round(found.delta, 4), round(found.upper_bound, 2)
    (-0.1198, -0.08)

    Raises:
        ValueError: shapes that do not fit, more positives than rows, or a level outside (0.5, 1).
    """
    sides = _decisions(reference_positives, reference_totals), _decisions(current_positives, current_totals)
    _require_same_groups(*(p.shape for p, _ in sides))
    used = np.logical_and(*(usable_groups(p.sum(axis=0), n.sum(axis=0)) for p, n in sides))
    if np.count_nonzero(used) < 2:
        return None
    random = np.random.default_rng(seed)
    errors = [_rate_errors(p[:, used], n[:, used], checked_level(level), draws, random) for p, n in sides]
    (reference, e_reference), (now, e_now) = errors
    dpd_reference, dpd_now = float(np.ptp(reference)), float(np.ptp(now))
    e_gap = e_reference[:, reference.argmax()] - e_reference[:, reference.argmin()]
    delta = dpd_reference - dpd_now
    bound = delta - float(np.quantile(e_gap - np.ptp(e_now, axis=1), 1 - level))
    return ParityChange(delta, bound, dpd_reference, dpd_now, tuple(np.flatnonzero(used).tolist()))


def _require_same_groups(reference: tuple[int, ...], current: tuple[int, ...]) -> None:
    if len(reference) != 2 or len(current) != 2 or reference[1] != current[1] or 0 in (reference[0], current[0]):
        raise ValueError(f"counts are (blocks, groups), the same groups on both sides, not {reference} and {current}")


def _rate_errors(p: Array, n: Array, level: float, draws: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The groups' rates (G,) and draws of their errors (draws, G).

    Blocks are drawn with replacement, so what moves whole blocks (a busy hour) is in the errors; each draw is the
    first-order change of the rate, which also stands when a draw misses all of a small group's blocks. K blocks know
    their own spread with K - 1 degrees of freedom: errors are widened by sqrt(K / (K-1)) t / z. Of one block nothing
    is known but its rows: there decisions are drawn binomially within each group, as if rows were independent.
    """
    from scipy.special import ndtri, stdtrit

    total, blocks = n.sum(axis=0), len(n)
    rate = p.sum(axis=0) / total
    if blocks == 1:
        return rate, random.binomial(total.astype(np.int64), rate, size=(draws, len(rate))) / total - rate
    weights = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws) - 1.0
    widen = (blocks / (blocks - 1)) ** 0.5 * max(1.0, stdtrit(blocks - 1, level) / ndtri(level))
    return rate, widen * (weights @ (p - rate * n)) / total


def _decisions(positives: npt.ArrayLike, totals: npt.ArrayLike) -> tuple[Array, Array]:
    p, n = np.asarray(positives, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if p.shape != n.shape or not np.all((p >= 0) & (p <= n) & np.isfinite(n)):
        raise ValueError(f"positives are part of totals, shape by shape: {p.shape} and {n.shape}")
    return p, n
