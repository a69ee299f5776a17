"""Population stability index of two sides' bin counts, its null distribution and its lower bound.

PSI = sum_j (p_j - q_j) ln(p_j / q_j), the Jeffreys divergence of the two sides' shares p and q over B bins
that were frozen with the reference (deciles, or pooled levels). A zero would make it infinite, so a share is
(c + 0.5) / (n + 0.5 B).

Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
Validation 14(4), 2020.
"""

from typing import overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SMOOTHING = 0.5
_NOTHING = 1e-300


def paired_counts(
    reference: npt.ArrayLike, current: npt.ArrayLike, names: tuple[str, str] = ("reference", "current")
) -> tuple[Array, Array]:
    """Both sides' counts over the same bins, checked; `names` is what a message calls the sides.

    Raises:
        ValueError: not one-dimensional, shapes that differ, a negative or non-finite count, or a side without rows.
    """
    sides = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape:
        shapes = f"{sides[0].shape} and {sides[1].shape}"
        raise ValueError(f"{names[0]} and {names[1]} are counts over the same bins, shape (B,), not {shapes}")
    for name, counts in zip(names, sides, strict=True):
        if not np.all(np.isfinite(counts) & (counts >= 0)):
            raise ValueError(f"{name}: a count is finite and not below 0")
        if counts.sum() == 0:
            raise ValueError(f"{name}: no rows (n = 0), so it has no shares")
    return sides


def require_rows(n: npt.ArrayLike, m: npt.ArrayLike) -> None:
    """Raises ValueError unless both (effective) sizes are above 0."""
    if not (np.all(np.asarray(n) > 0) and np.all(np.asarray(m) > 0)):
        raise ValueError(f"both sides need rows: n = {n!r}, m = {m!r}")


def psi(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """PSI of two count vectors of shape (B,), in nats: 0 for equal shares, symmetric, without upper limit.

    Equal counts give 0; equal shares from different n give nearly 0, since the smoothing weighs less on the larger
    side. One bin (a constant column) gives 0.

    >>> round(psi([100, 100, 100, 100], [130, 110, 90, 70]), 4)
    0.0509

    Raises:
        ValueError: a side has no rows, or the shapes differ.
    """
    return float(_divergence(*_smoothed(*paired_counts(reference, current))))


def psi_rows(reference: npt.ArrayLike, current: npt.ArrayLike) -> Array:
    """PSI of many pairs of count vectors at once: shapes (W, B) or what broadcasts to it, returns (W,).

    A bin that neither side of a row has is none of that row's, so rows of fewer bins may be padded with zeros. A side
    without rows is not refused: its shares are the smoothing's.

    >>> psi_rows([[100, 100, 0], [100, 100, 0]], [[100, 100, 0], [150, 50, 0]]).round(4).tolist()
    [0.0, 0.2716]
    """
    p, q = _smoothed(reference, current, padded=True)
    return _divergence(p, q)


def occupied_bins(reference: npt.ArrayLike, current: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """How many bins (W,) of count vectors (W, B) at least one side has, and at least 1.

    >>> occupied_bins([[5, 0, 0]], [[3, 2, 0]]).tolist()
    [2]
    """
    some = np.asarray(reference) + np.asarray(current) > 0
    return np.asarray(np.maximum(some.sum(axis=-1), 1), dtype=np.int64)


@overload
def psi_p_value(value: float, bins: int, n: float, m: float, phi: float = 1.0) -> float: ...
@overload
def psi_p_value(value: Array, bins: npt.NDArray[np.int64], n: Array, m: Array, phi: Array) -> Array: ...
def psi_p_value(value, bins, n, m, phi=1.0):  # type: ignore[no-untyped-def]
    """Share of same-distribution samples whose PSI is at least `value`: PSI / ((1/n + 1/m) phi) ~ chi2(B-1).

    Right from n >= 500 with at least 5 expected rows a bin; below, `psi_p_value_monte_carlo`. `phi` is the
    overdispersion of a dependent series: mean of PSI over its i.i.d. null mean, on healthy reference windows.
    One bin gives 1. Arrays (W,) are taken element by element.

    >>> round(psi_p_value(0.0173, bins=10, n=1000, m=50_000), 4)
    0.0493

    Raises:
        ValueError: no bin, a side without rows, or phi not above 0.
    """
    from scipy.special import gammaincc

    require_rows(n, m)
    if np.any(np.asarray(bins) < 1):
        raise ValueError(f"PSI is over at least one bin, not {bins}")
    freedom = np.asarray(bins, dtype=np.float64) - 1
    chi2 = np.maximum(value, 0.0) / ((1 / n + 1 / m) * _positive(phi))
    p_value = np.where(freedom > 0, gammaincc(np.maximum(freedom, 1) / 2, chi2 / 2), 1.0)
    return p_value if isinstance(value, np.ndarray) else float(p_value)


def psi_p_value_monte_carlo(value: float, reference: npt.ArrayLike, n: int, draws: int = 9999, seed: int = 0) -> float:
    """The p-value of a PSI of `n` current rows against the counts `reference` (B,), by seeded simulation.

    Both sides are drawn anew from the reference's smoothed shares, multinomially. p = (1 + #{null >= value}) /
    (1 + draws) (Davison and Hinkley 1997), so it is never below 1 / (1 + draws). For i.i.d. rows, where n < 500.

    >>> round(psi_p_value_monte_carlo(0.25, [100] * 10, n=60), 2)
    0.09

    Raises:
        ValueError: a side has no rows.
    """
    counts, _ = paired_counts(reference, reference)
    require_rows(counts.sum(), n)
    random = np.random.default_rng(seed)
    share, _ = _smoothed(counts, counts)
    first, second = (random.multinomial(int(rows), share, size=draws) for rows in (counts.sum(), n))
    # equal tables may differ in the last bit
    null = _divergence(*_smoothed(first, second))
    return float((1 + np.count_nonzero(null >= value * (1 - 1e-12))) / (1 + draws))


def psi_lower_bound(reference: npt.ArrayLike, current: npt.ArrayLike, level: float = 0.99, phi: float = 1.0) -> float:
    """One-sided lower confidence bound of the PSI between the two distributions; never below 0.

    max(0, PSI - phi (B-1)(1/n + 1/m) - z_level sqrt(phi V)). V is the delta method's variance: with the gradients

        g_j = dPSI/dp_j = ln(p_j/q_j) + 1 - q_j/p_j        h_j = dPSI/dq_j = ln(q_j/p_j) + 1 - p_j/q_j

    and multinomial shares, V = (sum p g^2 - (sum p g)^2) / n + (sum q h^2 - (sum q h)^2) / m. The second term is the
    estimate's bias, exact to second order where p = q. There V is itself noise of the right order, which makes the
    bound cautious near 0 and nearly exact for shifts worth an alarm.

    >>> round(psi_lower_bound([500] * 4, [650, 550, 450, 350]), 4)
    0.015

    Raises:
        ValueError: a side has no rows, the shapes differ, or a level outside (0.5, 1).
    """
    counts = paired_counts(reference, current)
    p, q = _smoothed(*counts)
    n, m = (np.asarray(side.sum()) for side in counts)
    return float(_lower_bounds(p, q, n, m, len(p), np.asarray(_positive(phi)), level))


def psi_lower_bound_rows(reference: Array, current: Array, phi: Array, level: float = 0.99) -> Array:
    """`psi_lower_bound` of many pairs of count vectors at once: shapes (W, B), phi (W,), returns (W,).

    A bin that neither side of a row has is none of that row's. Every side must have rows.
    """
    p, q = _smoothed(reference, current, padded=True)
    n, m = reference.sum(axis=-1), current.sum(axis=-1)
    return _lower_bounds(p, q, n, m, occupied_bins(reference, current), phi, level)


def _lower_bounds(
    p: Array, q: Array, n: Array, m: Array, bins: int | npt.NDArray[np.int64], phi: Array, level: float
) -> Array:
    from scipy.special import ndtri

    log_ratio = np.log(p / q)
    variance = _variance(p, log_ratio + 1 - q / p) / n + _variance(q, 1 - p / q - log_ratio) / m
    divergence = ((p - q) * log_ratio).sum(axis=-1)
    bias = phi * (bins - 1) * (1 / n + 1 / m)
    return np.asarray(np.maximum(0.0, divergence - bias - float(ndtri(checked_level(level))) * np.sqrt(phi * variance)))


def checked_level(level: float) -> float:
    """Raises ValueError unless the level lies in (0.5, 1), so that alpha is not taken for 1 - alpha."""
    if not 0.5 < level < 1:
        raise ValueError(f"a confidence level lies between 0.5 and 1, such as 0.99, not {level}")
    return level


def _smoothed(reference: npt.ArrayLike, current: npt.ArrayLike, padded: bool = False) -> tuple[Array, Array]:
    """Shares along the last axis, none of them 0; of `padded` counts a bin that neither side has weighs nothing."""
    sides = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    some = sides[0] + sides[1] > 0 if padded else np.ones(sides[0].shape[-1:], dtype=bool)
    first, second = (np.where(some, side + SMOOTHING, _NOTHING) for side in sides)
    return first / first.sum(axis=-1, keepdims=True), second / second.sum(axis=-1, keepdims=True)


def _divergence(p: Array, q: Array) -> Array:
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def _variance(share: Array, values: Array) -> Array:
    """Variance of `values` under the distribution `share`, along the last axis; rounding cannot make it negative."""
    mean = (share * values).sum(axis=-1, keepdims=True)
    return np.asarray((share * (values - mean) ** 2).sum(axis=-1))


def _positive(phi: float | Array) -> float | Array:
    if not np.all(np.asarray(phi) > 0):
        raise ValueError(f"overdispersion phi is above 0 (1 = independent rows), not {phi}")
    return phi
