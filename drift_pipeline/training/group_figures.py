"""Figures of each group of rows, from fairlearn's MetricFrame: the one place that knows it.

Weerts et al., "Fairlearn: assessing and improving fairness of AI systems", JMLR 24(257), 2023. What it would answer
wrongly without a word is not asked: groups are given as whole numbers, so that none is missing (it drops or refuses
those) and none is made up of levels that no row has; one row is given twice, for it takes it for none; a rate of no row
is NaN here, where it says 0; an AUROC of one class is NaN, where scikit-learn warns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Figures = Mapping[str, npt.NDArray[np.float64]]
Ints = npt.NDArray[np.int64]


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
    from fairlearn.metrics import MetricFrame, selection_rate

    groups, known, yes = (np.asarray(each, dtype=np.int64) for each in (member, labels, decided))
    cells = _cells(groups, known, yes)
    measures = {
        "selection_rate": selection_rate,
        "true_positive_rate": _true_positive_rate,
        "false_positive_rate": _false_positive_rate,
    }
    weighted = {name: {"sample_weight": cells.rows} for name in measures}
    rates = MetricFrame(
        metrics=measures,
        y_true=cells.labels,
        y_pred=cells.decided,
        sensitive_features=cells.groups,
        sample_params=weighted,
    ).by_group
    twice = np.tile(np.arange(len(groups)), 2 if len(groups) == 1 else 1)
    given = {"y_true": known[twice], "y_pred": np.asarray(scores)[twice], "sensitive_features": groups[twice]}
    ranked = MetricFrame(metrics={"auroc": _auroc}, **given).by_group
    found = {"rows": np.bincount(groups), "positives": np.bincount(groups, known)}
    found |= {name: rates[name].to_numpy() for name in measures} | {"auroc": ranked["auroc"].to_numpy()}
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def selection_gap(member: npt.ArrayLike, decided: npt.ArrayLike) -> float:
    """The widest gap between the groups' rates of positive decisions: `demographic_parity_difference`, from 0 to 1.

    >>> round(selection_gap([0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0]), 4)
    0.25
    """
    from fairlearn.metrics import demographic_parity_difference

    groups, yes = (np.asarray(each, dtype=np.int64) for each in (member, decided))
    cells = _cells(groups, yes, yes)
    given = {"sensitive_features": cells.groups, "sample_weight": cells.rows}
    return float(demographic_parity_difference(cells.labels, cells.decided, **given))


@dataclass(frozen=True)
class _Cells:
    """Four a group, by label and decision, with how many rows are so: MetricFrame is slow by row."""

    groups: Ints
    labels: Ints
    decided: Ints
    rows: Ints


def _cells(groups: Ints, labels: Ints, decided: Ints) -> _Cells:
    there, group = np.unique(groups, return_inverse=True)
    cell = np.arange(4 * len(there))
    rows = np.bincount(4 * group + 2 * labels + decided, minlength=len(cell))
    return _Cells(cell // 4, cell // 2 % 2, cell % 2, rows)


def _true_positive_rate(labels: Ints, decided: Ints, sample_weight: Ints) -> float:
    from fairlearn.metrics import true_positive_rate

    told = {"sample_weight": sample_weight, "pos_label": 1}
    return float(true_positive_rate(labels, decided, **told)) if sample_weight[labels == 1].any() else math.nan


def _false_positive_rate(labels: Ints, decided: Ints, sample_weight: Ints) -> float:
    from fairlearn.metrics import false_positive_rate

    told = {"sample_weight": sample_weight, "pos_label": 1}
    return float(false_positive_rate(labels, decided, **told)) if sample_weight[labels == 0].any() else math.nan


def _auroc(labels: Ints, scores: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else math.nan
