"""Figures of each group of rows, from fairlearn's MetricFrame: the one place that knows it.

Weerts et al., "Fairlearn: assessing and improving fairness of AI systems", JMLR 24(257), 2023. What it would answer
wrongly without a word is not asked: groups are given as whole numbers, so that none is missing (it drops or refuses
those) and none is made up of levels that no row has; a rate of no row is NaN here, where fairlearn says 0; an AUROC of
one class is NaN, where scikit-learn warns.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Figures = Mapping[str, npt.NDArray[np.float64]]


def group_figures(
    member: npt.ArrayLike, labels: npt.ArrayLike, decided: npt.ArrayLike, scores: npt.ArrayLike
) -> Figures:
    """`rows, positives, selection_rate, true_positive_rate, false_positive_rate, auroc` of each group (G,).

    A rate of positive decisions: of all rows, of those with a positive label, of those with a negative one; NaN where
    there is no such row. AUROC is NaN where one label is not there.

    >>> found = group_figures([0, 0, 0, 1], [True, False, False, True], [1, 1, 0, 0], [0.9, 0.7, 0.2, 0.4])
    >>> {name: values.tolist() for name, values in found.items() if name in ("rows", "false_positive_rate", "auroc")}
    {'rows': [3.0, 1.0], 'false_positive_rate': [0.5, nan], 'auroc': [1.0, nan]}

    Args:
        member: which group a row (n,) is of, 0 .. G - 1; each has a row.
        labels, decided: true for positives (n,).
        scores: finite (n,).
    """
    from fairlearn import metrics

    groups, known = np.asarray(member), np.asarray(labels, dtype=np.int8)
    frame = metrics.MetricFrame(
        metrics={
            "selection_rate": metrics.selection_rate,
            "true_positive_rate": _true_positive_rate,
            "false_positive_rate": _false_positive_rate,
            "auroc": _auroc,
        },
        y_true=known,
        y_pred=np.asarray(decided, dtype=np.int8),
        sensitive_features=groups,
        sample_params={"auroc": {"scores": np.asarray(scores, dtype=np.float64)}},
    )
    found = {"rows": np.bincount(groups), "positives": np.bincount(groups, known)}
    found |= {name: frame.by_group[name].to_numpy() for name in frame.by_group}
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def selection_gap(member: npt.ArrayLike, decided: npt.ArrayLike) -> float:
    """The widest gap between the groups' rates of positive decisions: `demographic_parity_difference`, from 0 to 1.

    >>> round(selection_gap([0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0]), 4)
    0.25
    """
    from fairlearn import metrics

    decisions = np.asarray(decided, dtype=np.int8)
    groups = np.asarray(member)
    return float(metrics.demographic_parity_difference(decisions, decisions, sensitive_features=groups))


def _true_positive_rate(labels: npt.NDArray[np.int8], decided: npt.NDArray[np.int8]) -> float:
    from fairlearn import metrics

    return float(metrics.true_positive_rate(labels, decided, pos_label=1)) if (labels == 1).any() else math.nan


def _false_positive_rate(labels: npt.NDArray[np.int8], decided: npt.NDArray[np.int8]) -> float:
    from fairlearn import metrics

    return float(metrics.false_positive_rate(labels, decided, pos_label=1)) if (labels == 0).any() else math.nan


def _auroc(labels: npt.NDArray[np.int8], _: npt.NDArray[np.int8], scores: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else math.nan
