"""AUROC with its standard error: of one model from bin counts, and of two models on the same rows.

AUROC = P(score of a positive > score of a negative) + 1/2 P(equal).

DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic
curves", Biometrics 44(3), 1988. Sun and Xu, "Fast implementation of DeLong's algorithm", IEEE Signal Processing
Letters 21(11), 2014.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array, paired_counts


@dataclass(frozen=True)
class Auroc:
    """The binned AUROC; the exact one lies within `slack` of `value`. `positives` and `negatives` count rows."""

    value: float
    standard_error: float
    slack: float
    positives: int
    negatives: int

    @property
    def rows(self) -> int:
        return self.positives + self.negatives


@dataclass(frozen=True)
class PairedDifference:
    """delta = candidate's AUROC - champion's, on the same rows."""

    delta: float
    standard_error: float
    candidate: float
    champion: float


def binned_auroc(positives: npt.ArrayLike, negatives: npt.ArrayLike, atom: npt.ArrayLike | None = None) -> Auroc:
    """AUROC of counts of shape (B,) a class over score bins in rising order; rows of one bin count as ties.

    slack = 1/2 sum_i p_i n_i / (P N): whatever the order within the bins, the exact AUROC is no further away. Bins
    that `atom` (B,) marks hold one score only and add none. The standard error is DeLong's on the binned scores; it
    is infinite when a class has one row, of which no variance can be told.

    >>> found = binned_auroc(positives=[5, 10, 25], negatives=[30, 20, 10])
    >>> round(found.value, 4), round(found.standard_error, 4), round(found.slack, 4)
    (0.7708, 0.0459, 0.125)

    Raises:
        ValueError: one class only (AUROC is undefined), or shapes that differ.
    """
    p, n = paired_counts(positives, negatives, names=("positives", "negatives"))
    above = (np.cumsum(n) - n / 2) / n.sum()
    below = 1 - (np.cumsum(p) - p / 2) / p.sum()
    value = float(p @ above / p.sum())
    error = math.sqrt(_variance_of_mean(above, p) + _variance_of_mean(below, n))
    inside = np.ones(p.shape) if atom is None else 1.0 - np.asarray(atom, dtype=bool)
    slack = float(inside @ (p * n) / (2 * p.sum() * n.sum()))
    return Auroc(value, error, slack, round(p.sum()), round(n.sum()))


def paired_auroc_difference(
    labels: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike
) -> PairedDifference:
    """Difference of two models' AUROC on the same rows, with DeLong's standard error of correlated curves.

    labels (n,) are true for positives; the scores (n,) need no common scale. O(n log n): a row's structural component
    comes from its rank among the other class (Sun and Xu's midrank difference). Identical scores give exactly 0 with
    a standard error of 0; one row of a class gives an infinite one.

    >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> found = paired_auroc_difference(labels, [1, 2, 3, 5, 4, 6, 7, 8], [1, 6, 3, 5, 4, 2, 7, 8])
    >>> round(found.delta, 4), round(found.standard_error, 4)
    (0.25, 0.2041)

    Raises:
        ValueError: one class only, lengths that differ, or a score that is not a number.
    """
    positive = np.asarray(labels).astype(bool)
    scores = [np.asarray(side, dtype=np.float64) for side in (candidate, champion)]
    if positive.ndim != 1 or any(side.shape != positive.shape for side in scores):
        raise ValueError(f"labels and scores are of one length, not {[positive.shape, *(s.shape for s in scores)]}")
    if any(np.isnan(side).any() for side in scores):
        raise ValueError("a score is NaN: leave out the rows that a model did not score, for both models")
    if positive.all() or not positive.any():
        raise ValueError(f"AUROC is undefined: all {positive.size} labels are of one class")
    above, below = zip(*(_components(side[positive], side[~positive]) for side in scores), strict=True)
    error = math.sqrt(_variance_of_mean(above[0] - above[1]) + _variance_of_mean(below[0] - below[1]))
    first, second = float(above[0].mean()), float(above[1].mean())
    return PairedDifference(first - second, error, first, second)


def auroc_overdispersion(labels: npt.ArrayLike, scores: npt.ArrayLike, blocks: npt.ArrayLike) -> float:
    """How much more the AUROC varies than independent rows would let it: its variance clustered by block over DeLong's.

    Rows of one block (a day) share whatever that day was like; each block's sum of influences (V10 - A)/P and
    (V01 - A)/N is one draw, so the variance is K/(K-1) times the sum of their squares (Obuchowski, "Nonparametric
    analysis of clustered ROC curve data", Biometrics 53(2), 1997). About 1 for independent rows, with a relative error
    of sqrt(2/K); NaN for fewer than two blocks.

    labels (n,) are true for positives, scores (n,), blocks (n,) are integers.

    >>> auroc_overdispersion([0, 1] * 4, [1, 2, 1, 2, 2, 1, 2, 1], [0, 0, 0, 0, 1, 1, 1, 1]) > 2
    True

    Raises:
        ValueError: one class only.
    """
    positive, given = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    names, block = np.unique(np.asarray(blocks), return_inverse=True)
    if positive.all() or not positive.any():
        raise ValueError(f"AUROC is undefined: all {positive.size} labels are of one class")
    if len(names) < 2:
        return math.nan
    above, below = _components(given[positive], given[~positive])
    influence = np.empty(given.shape)
    influence[positive] = (above - above.mean()) / len(above)
    influence[~positive] = (below - below.mean()) / len(below)
    clustered = len(names) / (len(names) - 1) * float((np.bincount(block, influence) ** 2).sum())
    independent = _variance_of_mean(above) + _variance_of_mean(below)
    return clustered / independent if 0 < independent < math.inf else math.nan


def _components(positives: Array, negatives: Array) -> tuple[Array, Array]:
    """DeLong's V10 (P,) and V01 (N,): each row's share of the other class that it is ranked rightly against."""
    return _share_below(positives, np.sort(negatives)), 1 - _share_below(negatives, np.sort(positives))


def _share_below(scores: Array, others: Array) -> Array:
    """Share of the sorted `others` below each score, ties one half."""
    ranks = np.searchsorted(others, scores, side="left") + np.searchsorted(others, scores, side="right")
    return np.asarray(ranks / (2 * len(others)))


def _variance_of_mean(values: Array, weights: Array | None = None) -> float:
    """s^2 / n of values (k,) that stand for `weights` rows each; infinite for one row."""
    weights = np.ones(values.shape) if weights is None else weights
    n = float(weights.sum())
    if n <= 1:
        return math.inf
    return float(weights @ (values - weights @ values / n) ** 2 / (n - 1) / n)
