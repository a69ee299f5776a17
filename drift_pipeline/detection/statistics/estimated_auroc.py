"""AUROC expected from the scores alone, before labels come: what it would be if a score still meant what it meant.

Confidence-based performance estimation: P(y = 1 | score) is calibrated on held-out labels, and each current row counts
as that much of a positive and the rest of a negative. Blind to concept drift by construction: a change of
P(y = 1 | score) is what it assumes away. A low estimate is reason to WARN; a high one is no evidence of health.

Kivimäki, Białek, Nurminen and Kuberski, "Confidence-based estimators for predictive performance in model monitoring",
JAIR 82, 2025 (CBPE, as in NannyML). Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass
probability estimates", KDD 2002, on isotonic calibration.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.psi import Array, paired_counts

END_ROWS = 0.5
ERROR_BINS = 200


@dataclass(frozen=True)
class EstimatedAuroc:
    """The estimate with two errors, by what it is compared with; both hold only while the calibration does.

    standard_error: against the AUROC of the distribution that the window's rows come from (to compare with a baseline).
    realised_error: against the AUROC that these rows' own labels will show (to grade the estimate later).
    slack: the unbinned estimate lies within it. n: rows of the window. extrapolated: their share in bins without
    reference rows, where P(y = 1 | score) is read off the neighbours.
    """

    value: float
    standard_error: float
    realised_error: float
    slack: float
    n: int
    extrapolated: float


def calibrated_rates(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> Array:
    """P(y = 1 | bin) of shape (B,) from held-out counts (B,) over score bins in rising order: never falling, in (0, 1).

    Isotonic regression of p_b / (p_b + n_b), weighted by the rows (pool adjacent violators). Half a positive is added
    to the lowest bin with rows and half a negative to the highest, so that no rate is 0 or 1 by want of rows. A bin
    without rows gets the straight line between its neighbours; beyond the last rows the rate stays.

    >>> calibrated_rates(positives=[2, 0, 30, 20, 40], negatives=[97, 0, 70, 80, 9]).round(4).tolist()
    [0.0251, 0.1376, 0.25, 0.25, 0.8081]

    Raises:
        ValueError: one class only, or shapes that differ.
    """
    p, n = paired_counts(positives, negatives, names=("positives", "negatives"))
    return np.asarray(_isotonic(p[None], p + n)[0])


def estimated_auroc(
    reference_positives: npt.ArrayLike,
    reference_negatives: npt.ArrayLike,
    current: npt.ArrayLike,
    atom: npt.ArrayLike | None = None,
    *,
    draws: int = 200,
    seed: int = 0,
) -> EstimatedAuroc:
    """Expected AUROC of the window's rows `current` (B,), calibrated on the held-out reference counts (B,).

    With c = P(y = 1 | bin), row counts m_b make c_b m_b positives and (1 - c_b) m_b negatives; the estimate is their
    binned AUROC A(c, m). The errors are root mean squares over a seeded parametric bootstrap, so they hold the bias of
    monotone pooling (it takes the ROC's upper hull) too. It draws the reference's labels, which are calibrated anew as
    c*, rows m* with the window's shares, and labels of the window's rows, whose AUROC is A*, all over at most 200 bins:
    neighbours are merged, which moves the errors by about 2 %, less than the draws do (5 %).

        standard_error = rms(A(c*, m*) - A(c, m))        realised_error = rms(A(c*, m) - A*)

    `atom` (B,) marks bins of one score, as for the binned AUROC. Rows count as independent; for a dependent series
    multiply both errors by the root of its overdispersion. An error that no draw can tell (one row) is
    infinite. The calibration assumes P(y = 1 | score) not falling: of a score that ranks wrongly the estimate is about
    1/2, not below.

    >>> found = estimated_auroc([5, 20, 75], [95, 80, 25], current=[100, 400, 100])
    >>> round(found.value, 3), round(found.standard_error, 3), found.n
    (0.745, 0.025, 600)

    Raises:
        ValueError: the reference is of one class, the window has no rows, or shapes that differ.
    """
    p, n = paired_counts(reference_positives, reference_negatives, names=("positives", "negatives"))
    total, rows = paired_counts(p + n, current)
    rate = _isotonic(p[None], total)[0]
    expected = binned_auroc(rate * rows, (1 - rate) * rows, atom)
    standard, realised = _errors(*_merged(p, total, rows), draws, np.random.default_rng(seed))
    return EstimatedAuroc(
        value=expected.value,
        standard_error=standard,
        realised_error=realised,
        slack=expected.slack,
        n=round(rows.sum()),
        extrapolated=float(rows[total == 0].sum() / rows.sum()),
    )


def _merged(positives: Array, total: Array, rows: Array) -> tuple[Array, Array, Array]:
    """The same counts over at most ERROR_BINS bins: neighbours merged to about equal shares of both sides."""
    if len(rows) <= ERROR_BINS:
        return positives, total, rows
    share = total / total.sum() + rows / rows.sum()
    group = np.minimum((np.cumsum(share) - share / 2) / 2 * ERROR_BINS, ERROR_BINS - 1).astype(np.int64)
    p, t, m = (np.bincount(group, side, ERROR_BINS).astype(np.float64) for side in (positives, total, rows))
    return p, t, m


def _errors(
    positives: Array, total: Array, rows: Array, draws: int, random: np.random.Generator
) -> tuple[float, float]:
    """The bootstrap's standard and realised error; of bins (B,), `total` and `rows` are of either class."""
    rate = _isotonic(positives[None], total)[0]
    whole = np.rint(rows).astype(np.int64)
    again = _isotonic(_binomial(np.rint(total).astype(np.int64), rate, draws, random).astype(np.float64), total)
    resampled = random.multinomial(max(1, round(rows.sum())), rows / rows.sum(), size=draws)
    realised = _binomial(whole, rate, draws, random)

    standard = _auroc(again * resampled, (1 - again) * resampled) - _auroc(rate * rows, (1 - rate) * rows)
    against_labels = _auroc(again * rows, (1 - again) * rows) - _auroc(realised, whole - realised)
    return _root_mean_square(standard), _root_mean_square(against_labels[np.isfinite(against_labels)])


def _binomial(
    rows: npt.NDArray[np.int64], rate: Array, draws: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Positives (draws, B) among rows (B,); drawn bin by bin, since NumPy keeps what it sets up for a rate."""
    return random.binomial(rows[:, None], rate[:, None], size=(len(rows), draws)).T


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else math.inf


def _isotonic(positives: Array, total: Array) -> Array:
    """Never falling rates (draws, B) of the positives (draws, B) among the rows `total` (B,), all draws in one pass.

    Draw k is fitted at the height 2k, so that rates in [0, 1] of different draws are never pooled.
    """
    from scipy.optimize import isotonic_regression

    filled = np.flatnonzero(total)
    p, rows = positives[:, filled], total[filled]
    p[:, 0] += END_ROWS
    rows[[0, -1]] += END_ROWS if len(filled) > 1 else 2 * END_ROWS
    height = 2.0 * np.arange(len(p))[:, None]
    weights = np.broadcast_to(rows, p.shape).ravel()
    fitted = isotonic_regression((p / rows + height).ravel(), weights=weights).x.reshape(p.shape) - height
    place = np.interp(np.arange(len(total)), filled, np.arange(len(filled)))
    left = place.astype(np.int64)
    right, part = np.minimum(left + 1, len(filled) - 1), place - left
    return np.asarray(fitted[:, left] * (1 - part) + fitted[:, right] * part)


def _auroc(positives: npt.NDArray[Any], negatives: npt.NDArray[Any]) -> Array:
    """Binned AUROC along the last axis, (draws, B) -> (draws,); NaN where a draw has one class only."""
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
    ranked = (positives * below).sum(axis=-1)
    return np.asarray(np.divide(ranked, pairs, out=np.full(ranked.shape, np.nan), where=pairs > 0, dtype=np.float64))
