"""AUROC: agrees with scikit-learn and with DeLong pair by pair."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from drift_pipeline.detection.statistics.auroc import binned_auroc, paired_auroc_difference
from drift_pipeline_tests.detection.statistics import Pair, pairs_of_counts

Values = npt.NDArray[np.float64]


def kernel(positives: Values, negatives: Values) -> Values:
    """psi(x, y) of every pair, (P, N): 1 where the positive is above, 1/2 where equal."""
    return np.asarray(np.sign(positives[:, None] - negatives[None, :]) / 2 + 0.5)


def brute_force_variance(*pairs: Values) -> float:
    """DeLong's variance of the (difference of) mean kernel, from all P x N pairs."""
    table = pairs[0] - pairs[1] if len(pairs) == 2 else pairs[0]
    return float(table.mean(axis=1).var(ddof=1) / table.shape[0] + table.mean(axis=0).var(ddof=1) / table.shape[1])


def labelled(seed: int, n: int = 120) -> tuple[npt.NDArray[np.bool_], Values, Values]:
    """Labels and two models' scores with ties within and between them."""
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.4
    labels[:4] = [True, True, False, False]
    common = random.normal(size=n) + labels
    return labels, np.round(common + 0.5 * random.normal(size=n), 1), np.round(common + random.normal(size=n), 1)


@given(pairs_of_counts(bins=8, largest=30))
@settings(deadline=None, max_examples=60)
def test_is_delong_on_the_binned_scores(pair: Pair) -> None:
    table = kernel(*(np.repeat(np.arange(len(side), dtype=np.float64), side) for side in pair))
    found = binned_auroc(*pair)
    assert found.value == pytest.approx(table.mean())
    assert (found.positives, found.negatives) == table.shape
    if min(table.shape) > 1:
        assert found.standard_error**2 == pytest.approx(brute_force_variance(table), abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(deadline=None, max_examples=40)
def test_the_exact_auroc_lies_within_the_slack(seed: int, bins: int) -> None:
    labels, scores, _ = labelled(seed)
    cuts = np.quantile(scores, np.arange(1, bins) / bins)
    place = np.searchsorted(cuts, scores, side="left")
    sides = (np.bincount(place[labels == label], minlength=bins) for label in (True, False))
    positives, negatives = sides
    found = binned_auroc(positives, negatives)
    assert abs(roc_auc_score(labels, scores) - found.value) <= found.slack + 1e-12


@given(pairs_of_counts())
@settings(deadline=None, max_examples=40)
def test_the_classes_and_the_order_of_scores_mirror_it(pair: Pair) -> None:
    found = binned_auroc(*pair)
    assert 0 <= found.value <= 1
    assert binned_auroc(*pair[::-1]).value == pytest.approx(1 - found.value)
    assert binned_auroc(pair[0][::-1], pair[1][::-1]).value == pytest.approx(1 - found.value)
    assert binned_auroc(pair[0], pair[0]).value == pytest.approx(0.5)


def test_grows_with_the_distance_of_the_classes() -> None:
    values = [binned_auroc([10, 20 - lift, 20 + lift], [20, 20, 10]).value for lift in (0, 5, 10)]
    assert values == sorted(values)
    perfect = binned_auroc([0, 0, 50], [30, 20, 0])
    assert (perfect.value, perfect.standard_error, perfect.slack) == (1, 0, 0)


def test_atoms_add_no_slack_and_a_constant_score_is_one_half() -> None:
    assert binned_auroc([40], [60]).slack == 0.5
    constant = binned_auroc([40], [60], atom=[True])
    assert (constant.value, constant.standard_error, constant.slack) == (0.5, 0, 0)
    assert binned_auroc([5, 5], [5, 5], atom=[True, False]).slack == pytest.approx(0.125)


def test_one_row_of_a_class_tells_no_error() -> None:
    assert binned_auroc([0, 1], [30, 20]).standard_error == math.inf
    assert paired_auroc_difference([1, 0, 0], [3, 1, 2], [1, 2, 3]).standard_error == math.inf


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="positives: no rows"):
        binned_auroc([0, 0], [3, 4])
    with pytest.raises(ValueError, match="negatives: no rows"):
        binned_auroc([3, 4], [0, 0])
    with pytest.raises(ValueError, match="all 3 labels are of one class"):
        paired_auroc_difference([1, 1, 1], [1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="all 0 labels are of one class"):
        paired_auroc_difference([], [], [])


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="of one length"):
        paired_auroc_difference([0, 1], [1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="a score is NaN"):
        paired_auroc_difference([0, 1], [1, math.nan], [1, 2])


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_the_paired_difference_is_delong_pair_by_pair(seed: int) -> None:
    labels, candidate, champion = labelled(seed)
    found = paired_auroc_difference(labels, candidate, champion)
    assert found.candidate == pytest.approx(roc_auc_score(labels, candidate))
    assert found.champion == pytest.approx(roc_auc_score(labels, champion))
    assert found.delta == pytest.approx(found.candidate - found.champion)
    tables = [kernel(scores[labels], scores[~labels]) for scores in (candidate, champion)]
    assert found.standard_error**2 == pytest.approx(brute_force_variance(*tables), abs=1e-12)


def test_the_paired_difference_depends_on_ranks_only() -> None:
    labels, candidate, champion = labelled(1)
    found = paired_auroc_difference(labels, candidate, champion)
    assert paired_auroc_difference(labels, np.exp(candidate), 3 * champion - 7) == found
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = paired_auroc_difference(labels[order], candidate[order], champion[order])
    assert shuffled.delta == pytest.approx(found.delta)
    assert shuffled.standard_error == pytest.approx(found.standard_error)
    mirrored = paired_auroc_difference(labels, champion, candidate)
    assert [mirrored.delta, mirrored.standard_error] == pytest.approx([-found.delta, found.standard_error])


def test_a_model_against_itself_differs_by_nothing() -> None:
    labels, candidate, _ = labelled(2)
    found = paired_auroc_difference(labels, candidate, candidate)
    assert (found.delta, found.standard_error) == (0, 0)


def test_equally_good_models_are_told_apart_in_5_percent() -> None:
    random, significant = np.random.default_rng(9), 0
    for _ in range(1000):
        labels = random.random(300) < 0.3
        common = random.normal(size=300) + labels
        scores = common + random.normal(size=(2, 300))
        found = paired_auroc_difference(labels, *scores)
        significant += abs(found.delta) > 1.96 * found.standard_error
    assert significant / 1000 == pytest.approx(0.05, abs=0.02)
