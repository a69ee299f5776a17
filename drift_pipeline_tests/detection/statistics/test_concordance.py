"""Concordance: the AUROC of two classes, and deaf to every change of scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from drift_pipeline.detection.statistics.concordance import concordance

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30)


def brute_force(labels: list[int], predictions: list[int]) -> float:
    pairs = [
        (x, u)
        for y, x in zip(labels, predictions, strict=True)
        for v, u in zip(labels, predictions, strict=True)
        if y > v
    ]
    return sum(1.0 if x > u else 0.5 if x == u else 0.0 for x, u in pairs) / len(pairs) if pairs else math.nan


@given(PAIRS)
@settings(deadline=None)
def test_counts_every_pair_of_different_labels(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = (list(side) for side in zip(*pairs, strict=True))
    assert concordance(labels, predictions) == pytest.approx(brute_force(labels, predictions), nan_ok=True)


def test_of_two_classes_it_is_the_auroc() -> None:
    random = np.random.default_rng(0)
    labels = random.random(300) < 0.3
    scores = np.round(labels + random.normal(size=300), 1)
    assert concordance(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


@given(st.floats(0.1, 10), st.floats(-10, 10))
@settings(deadline=None)
def test_level_and_scale_do_not_move_it_and_turning_round_does(scale: float, level: float) -> None:
    random = np.random.default_rng(1)
    labels = random.normal(size=50)
    predictions = labels + random.normal(size=50)
    found = concordance(labels, predictions)
    assert concordance(labels, scale * np.arange(50)[np.argsort(np.argsort(predictions))] + level) == pytest.approx(
        found
    )
    assert concordance(labels, -predictions) == pytest.approx(1 - found)


@pytest.mark.parametrize(("sides", "message"), [(([1, 2], [1]), "of one length"), (([1, 2], [1, math.nan]), "is NaN")])
def test_what_cannot_be_told_is_refused(sides: tuple[list[float], list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        concordance(*sides)
