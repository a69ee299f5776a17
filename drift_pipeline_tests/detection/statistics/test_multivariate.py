"""Domain classifier: its level with dependent rows, what it finds, and which odd columns it must survive."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from drift_pipeline.detection.statistics import multivariate
from drift_pipeline.detection.statistics.multivariate import DomainShift, domain_shift

Values = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.intp]


def series(random: np.random.Generator, blocks: int, shared: float, rows: int = 10, d: int = 3) -> Values:
    """Rows in blocks: normal, with what a block's rows share of `shared` sd."""
    return random.normal(size=(blocks * rows, d)) + shared * np.repeat(random.normal(size=(blocks, d)), rows, axis=0)


def blocks_of(rows: int, size: int) -> Blocks:
    return np.arange(rows) // size


def shift(reference: Values, current: Values, size: int = 20, **options: Any) -> DomainShift:
    return domain_shift(reference, current, blocks_of(len(reference), size), blocks_of(len(current), size), **options)


def correlated(random: np.random.Generator, n: int = 600, d: int = 6, rho: float = 0.7) -> tuple[Values, Values]:
    """Two sides of standard normal columns; of the current one, columns 1 and 4 are correlated."""
    reference, current = random.normal(size=(2, n, d))
    current[:, 4] = rho * current[:, 1] + math.sqrt(1 - rho**2) * current[:, 4]
    return reference, current


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_p_values_of_a_healthy_series_are_about_uniform_with_rows_that_share_their_blocks_mood(shared: float) -> None:
    random = np.random.default_rng(11)
    p_values = np.array(
        [
            shift(series(random, 8, shared), series(random, 8, shared), size=10, draws=99, seed=seed).p_value
            for seed in range(200)
        ]
    )
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(p_values <= 0.05) <= 0.09
    assert np.mean(p_values <= 0.2) == pytest.approx(0.2, abs=0.08)


def test_rows_exchanged_one_by_one_would_alarm_on_nearly_every_healthy_series_of_blocks() -> None:
    random = np.random.default_rng(12)
    alarms = [
        shift(series(random, 8, 0.7), series(random, 8, 0.7), size=1, draws=99, seed=seed).p_value <= 0.05
        for seed in range(40)
    ]
    assert np.mean(alarms) > 0.6


def test_finds_a_changed_correlation_that_no_column_shows() -> None:
    marginal: list[float] = []
    for seed in range(8):
        reference, current = correlated(np.random.default_rng(seed))
        found = shift(reference, current, draws=199, seed=seed)
        assert found.p_value == found.smallest_p == 1 / 200
        assert found.auroc > 0.6
        assert (found.terms[0].kind, found.terms[0].columns) == ("product", (1, 4))
        assert found.terms[0].coefficient > 0
        marginal += [stats.ks_2samp(reference[:, i], current[:, i]).pvalue for i in range(6)]
    assert min(marginal) * len(marginal) > 0.05


def test_a_correlation_that_went_has_a_coefficient_below_0() -> None:
    current, reference = correlated(np.random.default_rng(0))
    found = shift(reference, current, draws=19)
    assert (found.terms[0].columns, found.terms[0].coefficient < 0) == ((1, 4), True)


def test_grows_with_the_change() -> None:
    sides = [correlated(np.random.default_rng(5), rho=rho) for rho in (0.0, 0.3, 0.6, 0.9)]
    found = [shift(*side, draws=99) for side in sides]
    assert all(less.auroc < more.auroc for less, more in pairwise(found))
    assert found[0].auroc == pytest.approx(0.5, abs=0.05)
    assert found[0].p_value > 0.05 >= found[-1].p_value


def test_names_what_changed() -> None:
    """A mean, a variance, a missing value: each is the largest term of its kind."""
    random = np.random.default_rng(5)
    reference, moved = random.normal(size=(2, 800, 4))
    spread, gone = moved.copy(), moved.copy()
    moved = moved + np.array([0, 1, 0, 0])
    spread[:, 2] *= 2
    gone[random.random(800) < 0.2, 3] = np.nan
    tops = [shift(reference, current, draws=19, top=1).terms for current in (moved, spread, gone)]
    assert [(term.kind, term.columns) for (term,) in tops] == [("mean", (1,)), ("square", (2,)), ("missing", (3,))]
    assert all(term.coefficient > 0 for (term,) in tops)


@pytest.mark.parametrize("outlier", [1e9, -1e9, 1e300, math.inf, math.nan])
def test_one_absurd_value_changes_next_to_nothing(outlier: float) -> None:
    reference, current = correlated(np.random.default_rng(6))
    clean = shift(reference, current, draws=99)
    reference[7, 4] = outlier
    found = shift(reference, current, draws=99)
    assert found.auroc == pytest.approx(clean.auroc, abs=0.01)
    assert (found.p_value, found.terms[0].columns) == (clean.p_value, (1, 4))


def test_one_absurd_value_does_not_hide_a_shift_of_a_column_that_is_mostly_0() -> None:
    """Its MAD is 0; a scale that the outlier sets would make all else 0."""
    random = np.random.default_rng(7)
    reference, current = random.normal(size=(2, 600, 2))
    reference[:, 0], current[:, 0] = random.random(600) < 0.05, random.random(600) < 0.4
    reference[3, 0] = 1e9
    found = shift(reference, current, draws=99)
    assert (found.p_value, found.terms[0].columns) == (0.01, (0,))
    assert found.auroc > 0.62


def test_constant_and_wholly_missing_columns_are_left_out() -> None:
    reference, current = correlated(np.random.default_rng(8))
    idle = np.tile([3.0, 1e9, 0.1, np.nan], (600, 1))
    plain, padded = (
        shift(*sides, draws=99, top=100)
        for sides in ((reference, current), (np.hstack((reference, idle)), np.hstack((current, idle))))
    )
    assert padded.auroc == pytest.approx(plain.auroc, abs=1e-4)
    assert [term.columns for term in padded.terms[:5]] == [term.columns for term in plain.terms[:5]]
    assert len(padded.terms) == len(plain.terms) == 6 + 6 + 15


def test_nothing_to_tell_the_sides_by_is_one_half() -> None:
    found = shift(np.full((80, 3), 0.1), np.full((80, 3), 0.1), size=10, draws=19)
    assert (found.auroc, found.p_value, found.terms) == (0.5, 1, ())


def test_the_cap_leaves_out_the_products_of_the_least_correlated_pairs() -> None:
    reference, current = correlated(np.random.default_rng(9))
    reference[0, 0] = np.nan
    whole, few, none = (shift(reference, current, draws=19, max_terms=cap, top=100).terms for cap in (250, 14, 5))
    assert len(whole) == 6 + 6 + 15 + 1
    assert len(few) == 14
    assert [term.columns for term in few if term.kind == "product"] == [(1, 4)]
    assert {term.kind for term in none} == {"mean", "square", "missing"}
    assert len(none) == 13


def test_a_seed_repeats_it_and_another_draws_anew() -> None:
    random = np.random.default_rng(10)
    sides = series(random, 12, 0.5), series(random, 12, 0.5)
    first, again, other = (shift(*sides, size=10, draws=99, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.auroc != other.auroc
    assert [term.columns for term in first.terms] == [term.columns for term in other.terms]
    coefficients = [[term.coefficient for term in found.terms] for found in (first, other)]
    assert coefficients[0] == pytest.approx(coefficients[1], abs=1e-5)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_the_order_of_rows_does_not_matter_nor_do_the_units_of_columns_or_the_names_of_blocks(seed: int) -> None:
    random = np.random.default_rng(seed)
    reference, current = random.normal(size=(2, 200, 3)) + np.array([0, 5, -2])
    blocks = blocks_of(200, 10)
    plain = domain_shift(reference, current, blocks, blocks, draws=49)
    order = random.permutation(200)
    shuffled = domain_shift(reference[order], current, blocks[order], blocks, draws=49)
    scaled = domain_shift(
        1e6 * reference - 3, 1e6 * current - 3, blocks * 24, [f"day {b:03}" for b in blocks], draws=49
    )
    for found in (shuffled, scaled):
        assert found.auroc == pytest.approx(plain.auroc, abs=2e-3)
        assert found.p_value == pytest.approx(plain.p_value, abs=0.041)
        assert found.terms[0].columns == plain.terms[0].columns
        assert found.terms[0].coefficient == pytest.approx(plain.terms[0].coefficient, abs=1e-3)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_the_auroc_on_a_grid_is_nearly_scikit_learns_and_mirrors(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(3, 200)).astype(np.float32)
    positive = random.random((3, 200)) < 0.4
    found = multivariate._aurocs(scores, positive)
    exact = [roc_auc_score(*row) for row in zip(positive, scores, strict=True)]
    assert found == pytest.approx(exact, abs=2e-3)
    assert multivariate._aurocs(-scores, positive) == pytest.approx(1 - found, abs=1e-3)
    assert multivariate._aurocs(scores, ~positive) == pytest.approx(1 - found)


def test_the_fit_is_ridge_least_squares_fold_by_fold() -> None:
    """The factors are multiplied for all labellings at once; here is one labelling, in the order of the formula."""
    random = np.random.default_rng(13)
    values = np.vstack((np.ones(240), random.normal(size=(4, 240)))).astype(np.float32)
    block, fold_of_block = np.repeat(np.arange(24), 10), np.repeat([0, 1, 2], 8)
    labels = np.where(random.random((24, 5)) < 0.5, -1, 1).astype(np.float32)
    labels[::8], labels[1::8] = -1, 1
    aurocs, weights = multivariate._fitted(values, block, fold_of_block, labels)
    X, Y, fold = values.T.astype(np.float64), labels[block], fold_of_block[block]

    def fit(inside: npt.NDArray[np.bool_]) -> Values:
        ridge = 0.02 * inside.sum() * np.diag([0, 1, 1, 1, 1])
        return np.asarray(np.linalg.solve(X[inside].T @ X[inside] + ridge, X[inside].T @ Y[inside]))

    scores = [(X[fold == k] @ fit(fold != k), Y[fold == k] > 0) for k in range(3)]
    direct = [np.mean([roc_auc_score(y[:, draw], s[:, draw]) for s, y in scores]) for draw in range(5)]
    assert aurocs == pytest.approx(direct, abs=3e-3)
    assert weights == pytest.approx(fit(fold >= 0)[:, 0], abs=1e-5)


def test_few_blocks_bound_the_p_value_from_below() -> None:
    """2 folds of 2 + 2 blocks: 6 x 6 labellings, of which each has the AUROC of its mirror image."""
    random = np.random.default_rng(14)
    reference, current = random.normal(size=(2, 80, 2))
    found = shift(reference, current + 5, size=20, folds=2, draws=2000)
    assert found.smallest_p == 2 / 36
    assert found.auroc == pytest.approx(1)
    assert found.p_value == pytest.approx(2 / 36, abs=0.02)
    uneven = shift(reference, np.tile(current, (2, 1)) + 5, size=20, folds=2, draws=2000)
    assert uneven.smallest_p == 1 / (15 * 15)
    assert uneven.blocks == (4, 8)


@pytest.mark.parametrize("side", [0, 1])
def test_too_few_blocks_are_refused(side: int) -> None:
    sizes = [80, 80]
    sizes[side] = 70
    with pytest.raises(ValueError, match="4 folds need at least 8 blocks a side"):
        shift(np.zeros((sizes[0], 2)), np.zeros((sizes[1], 2)), size=10)
    with pytest.raises(ValueError, match="at least 4 blocks a side"):
        shift(np.zeros((80, 2)), np.zeros((80, 2)), size=10, folds=1)
    with pytest.raises(ValueError, match=r"not \(0, 8\)"):
        shift(np.zeros((0, 2)), np.zeros((80, 2)), size=10)


def test_shapes_that_do_not_fit_are_refused() -> None:
    blocks = blocks_of(80, 10)
    with pytest.raises(ValueError, match="the same columns"):
        domain_shift(np.zeros((80, 2)), np.zeros((80, 3)), blocks, blocks)
    with pytest.raises(ValueError, match="the same columns"):
        domain_shift(np.zeros(80), np.zeros(80), blocks, blocks)
    with pytest.raises(ValueError, match="a row has one block"):
        domain_shift(np.zeros((80, 2)), np.zeros((80, 2)), blocks, blocks[:-1])
