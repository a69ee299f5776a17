"""Demographic parity: the widest gap between groups' rates of positive decisions, and how it changed.

DPD = max_a P(yhat = 1 | a) - min_a P(yhat = 1 | a). Agarwal et al., "A reductions approach to fair classification",
ICML 2018. Cameron, Gelbach and Miller, "Bootstrap-based improvements for inference with clustered errors", Review of
Economics and Statistics 90(3), 2008, on few blocks. Clopper and Pearson, "The use of confidence or fiducial limits
illustrated in the case of the binomial", Biometrika 26(4), 1934.

Which groups are compared is decided here for all who compare: the monitor, `drift compare`, the release gate, the
shadow and the canary. A group of 100 rows is, whatever its decisions: one that is denied or granted entirely is the
gap that matters most.
"""

from collections.abc import Sequence
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


LEAST_OF_A_GROUP = 100
TOO_FEW_GROUPS = f"fewer than two groups have {LEAST_OF_A_GROUP} rows"
_TOLD = 5


def usable_groups(*totals: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which groups (G,) have 100 rows on every side; the rest is listed (`left_out`), not compared.

    >>> usable_groups([200, 300, 50]).tolist(), usable_groups([200, 300], [99, 100]).tolist()
    ([True, True, False], [False, True])
    """
    return np.asarray(np.all([np.asarray(side) >= LEAST_OF_A_GROUP for side in totals], axis=0))


def left_out(names: Sequence[str], now: npt.ArrayLike, before: npt.ArrayLike | None = None) -> str:
    """The groups that are not compared, by name with their rows (G,) of the window, those that are gone first.

    `before`: rows of the reference, where there is one; a group that neither side has is nobody's.

    >>> left_out(["a", "b", "c", "d"], [500, 0, 70, 80], before=[900, 400, 300, 0])
    'gone: b (400 rows in the reference, none now); not judged: c (70 rows), d (80 rows, none in the reference)'
    """
    current = np.asarray(now).astype(int).tolist()
    reference = current if before is None else np.asarray(before).astype(int).tolist()
    gone, few = [], []
    for name, n, m in zip(names, current, reference, strict=True):
        if n == 0 and m >= LEAST_OF_A_GROUP:
            gone.append(f"{name} ({m:,} rows in the reference, none now)")
        elif n + m > 0 and min(n, m) < LEAST_OF_A_GROUP:
            beside = "" if m == n or m >= LEAST_OF_A_GROUP else f", {m or 'none'} in the reference"
            few.append(f"{name} ({n:,} rows{beside})")
    parts = (("gone: ", gone), ("not judged: ", few))
    return "; ".join(word + _first(some) for word, some in parts if some)


def _first(some: Sequence[str]) -> str:
    more = f" and {len(some) - _TOLD} more" if len(some) > _TOLD else ""
    return ", ".join(some[:_TOLD]) + more


def one_sided(names: Sequence[str], positives: npt.ArrayLike, totals: npt.ArrayLike) -> str:
    """The groups (G,) of 100 rows that are denied or granted entirely, by name; nothing where there is none.

    >>> one_sided(["a", "b", "c"], positives=[0, 50, 400], totals=[300, 100, 400])
    'a is denied entirely (300 rows), c is granted entirely (400 rows)'
    """
    p, n = _decisions(positives, totals)
    some = [
        f"{name} is {'granted' if yes else 'denied'} entirely ({rows:,.0f} rows)"
        for name, yes, rows in zip(names, p.tolist(), n.tolist(), strict=True)
        if rows >= LEAST_OF_A_GROUP and yes in (0, rows)
    ]
    return _first(some)


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
    have not 100 rows on both sides are left out; below two, None: there is nothing to compare.

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
    used = usable_groups(*(n.sum(axis=0) for _, n in sides))
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
    their own spread with K - 1 degrees of freedom: errors are widened by sqrt(K / (K-1)) t / z.

    A rate is never surer than its rows: where blocks vary less than that, as those of a group do that is denied or
    granted entirely, and of one block, the errors are the exact ones of independent rows.
    """
    from scipy.special import ndtri, stdtrit

    blocks, yes, rows = len(n), p.sum(axis=0), n.sum(axis=0)
    exact = yes / rows - _clopper_pearson(yes, rows, draws, random)
    if blocks == 1:
        return yes / rows, exact
    weights = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws) - 1.0
    widen = (blocks / (blocks - 1)) ** 0.5 * max(1.0, stdtrit(blocks - 1, level) / ndtri(level))
    drawn = widen * (weights @ (p - yes / rows * n)) / rows
    return yes / rows, np.where((drawn**2).mean(axis=0) < (exact**2).mean(axis=0), exact, drawn)


def _clopper_pearson(yes: Array, rows: Array, draws: int, random: np.random.Generator) -> Array:
    """Draws (draws, G) of true shares whose quantiles are the exact one-sided bounds of `yes` of `rows` (G,).

    Of Beta(k, n - k + 1) the lower half, and of Beta(k + 1, n - k) the upper: 0 and 1 where k leaves no such share.
    """
    low, high = np.zeros((draws, len(yes))), np.ones((draws, len(yes)))
    some, not_all = yes > 0, yes < rows
    low[:, some] = random.beta(yes[some], (rows - yes + 1)[some], size=(draws, np.count_nonzero(some)))
    high[:, not_all] = random.beta((yes + 1)[not_all], (rows - yes)[not_all], size=(draws, np.count_nonzero(not_all)))
    half = draws // 2
    return random.permuted(np.concatenate([np.sort(low, axis=0)[:half], np.sort(high, axis=0)[half:]]), axis=0)


def _decisions(positives: npt.ArrayLike, totals: npt.ArrayLike) -> tuple[Array, Array]:
    p, n = np.asarray(positives, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if p.shape != n.shape or not np.all((p >= 0) & (p <= n) & np.isfinite(n)):
        raise ValueError(f"positives are part of totals, shape by shape: {p.shape} and {n.shape}")
    return p, n
