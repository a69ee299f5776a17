"""Concordance: how often the row with the larger label has the larger prediction. For two classes this is the AUROC.

Somers, "A new asymmetric measure of association for ordinal variables", American Sociological Review 27(6), 1962.
"""

import math

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array


def concordance(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """P(prediction of one row > that of another | its label is larger) + 1/2 P(equal predictions | as before).

    1/2 for a constant or any prediction that knows nothing, 1 for the right order, 0 for the order turned round. No
    change of level, scale or any other rising map of either side moves it. NaN where all labels are equal.

    With Kendall's tau-b and n0 pairs, of which n1 tie in the label and n2 in the prediction, concordant less
    discordant pairs are tau_b sqrt((n0 - n1)(n0 - n2)), and the concordance is (that / (n0 - n1) + 1) / 2.

    >>> concordance([1, 2, 3], [10, 20, 30]), concordance([1, 2, 3], [7, 7, 7]), concordance([0, 0, 1], [1, 3, 2])
    (1.0, 0.5, 0.5)

    Raises:
        ValueError: lengths that differ, or a number that is NaN.
    """
    from scipy.stats import kendalltau

    y, x = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if y.shape != x.shape or y.ndim != 1:
        raise ValueError(f"labels and predictions are of one length, not {[y.shape, x.shape]}")
    if np.isnan(y).any() or np.isnan(x).any():
        raise ValueError("a label or prediction is NaN: leave out such rows")
    pairs = len(y) * (len(y) - 1) / 2
    by_label, by_both = pairs - _ties(y), (pairs - _ties(y)) * (pairs - _ties(x))
    if by_label == 0:
        return math.nan
    if by_both == 0:
        return 0.5
    return float(kendalltau(y, x).statistic * math.sqrt(by_both) / by_label + 1) / 2


def _ties(values: Array) -> float:
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())
