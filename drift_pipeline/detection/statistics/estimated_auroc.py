"""AUROC expected from the scores alone, before labels come: what it would be if a score still meant what it meant.

Confidence-based performance estimation: P(y = 1 | score) is calibrated on held-out labels, and each current row counts
as that much of a positive and the rest of a negative. Blind to concept drift by construction: a change of
P(y = 1 | score) is what it assumes away. A low estimate is reason to WARN; a high one is no evidence of health.

Kivimäki, Białek, Nurminen and Kuberski, "Confidence-based estimators for predictive performance in model monitoring",
JAIR 82, 2025 (CBPE, as in NannyML). Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass
probability estimates", KDD 2002, on isotonic calibration.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.psi import Array, paired_counts

END_ROWS = 0.5


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
    return _isotonic(*paired_counts(positives, negatives, names=("positives", "negatives")))


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
    c*, rows m* with the window's shares, and labels of the window's rows, whose AUROC is A*:

        standard_error = rms(A(c*, m*) - A(c, m))        realised_error = rms(A(c*, m) - A*)

    `atom` (B,) marks bins of one score, as for the binned AUROC. Rows count as independent; for a dependent series
    multiply both errors by the root of its overdispersion. The calibration assumes P(y = 1 | score) not falling: of a
    score that ranks wrongly the estimate is about 1/2, not below.

    >>> found = estimated_auroc([5, 20, 75], [95, 80, 25], current=[100, 400, 100])
    >>> round(found.value, 3), round(found.standard_error, 3), found.n
    (0.745, 0.024, 600)

    Raises:
        ValueError: the reference is of one class, the window has no rows, or shapes that differ.
    """
    p, n = paired_counts(reference_positives, reference_negatives, names=("positives", "negatives"))
    total, rows = paired_counts(p + n, current)
    rate = _isotonic(p, n)
    expected = binned_auroc(rate * rows, (1 - rate) * rows, atom)

    random = np.random.default_rng(seed)
    whole, shape = np.rint(rows).astype(np.int64), (draws, len(rate))
    labels = random.binomial(np.rint(total).astype(np.int64), rate, size=shape).astype(np.float64)
    again = np.array([_isotonic(each, total - each) for each in labels])
    resampled = random.multinomial(whole.sum(), rows / rows.sum(), size=draws)
    realised = random.binomial(whole, rate, size=shape)

    standard = _auroc(again * resampled, (1 - again) * resampled) - expected.value
    against_labels = _auroc(again * rows, (1 - again) * rows) - _auroc(realised, whole - realised)
    return EstimatedAuroc(
        value=expected.value,
        standard_error=float(np.sqrt(np.mean(standard**2))),
        realised_error=float(np.sqrt(np.nanmean(against_labels**2))),
        slack=expected.slack,
        n=round(rows.sum()),
        extrapolated=float(rows[total == 0].sum() / rows.sum()),
    )


def _isotonic(positives: Array, negatives: Array) -> Array:
    from scipy.optimize import isotonic_regression

    filled = np.flatnonzero(positives + negatives)
    p, n = positives[filled], negatives[filled]
    p[0] += END_ROWS
    n[-1] += END_ROWS
    fitted = isotonic_regression(p / (p + n), weights=p + n).x
    return np.asarray(np.interp(np.arange(len(positives)), filled, fitted))


def _auroc(positives: npt.NDArray[Any], negatives: npt.NDArray[Any]) -> Array:
    """Binned AUROC along the last axis, (draws, B) -> (draws,); NaN where a draw has one class only."""
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
    ranked = (positives * below).sum(axis=-1)
    return np.asarray(np.divide(ranked, pairs, out=np.full(ranked.shape, np.nan), where=pairs > 0, dtype=np.float64))
