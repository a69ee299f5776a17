"""Estimated AUROC: right under covariate shift, its errors' coverage, and what it cannot see."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.estimated_auroc import calibrated_rates, estimated_auroc
from drift_pipeline_tests.detection.statistics import Pair, pairs_of_counts

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.bool_]


def rate_of(score: Values, slope: float = 2.0) -> Values:
    """P(y = 1 | score) of the simulations."""
    return 1 / (1 + np.exp(1 - slope * score))


def true_auroc(shift: float, slope: float = 2.0) -> float:
    """AUROC of scores that are normal around `shift`, by summation over a fine grid."""
    score = np.linspace(shift - 8, shift + 8, 20_001)
    density, rate = np.exp(-((score - shift) ** 2) / 2), rate_of(score, slope)
    return binned_auroc(density * rate, density * (1 - rate)).value


def binned(scores: Values, cuts: Values) -> Counts:
    return np.bincount(np.searchsorted(cuts, scores), minlength=len(cuts) + 1)


def drawn(random: np.random.Generator, n: int, m: int, bins: int, shift: float) -> tuple[list[Counts], Values, Labels]:
    """Reference positives, negatives and the window's rows over the reference's quantile bins; its scores, labels."""
    reference, window = random.normal(size=n), random.normal(shift, size=m)
    positive, labels = random.random(n) < rate_of(reference), random.random(m) < rate_of(window)
    cuts = np.quantile(reference, np.arange(1, bins) / bins)
    sides = [binned(scores, cuts) for scores in (reference[positive], reference[~positive], window)]
    return sides, window, labels


@given(pairs_of_counts())
@settings(deadline=None, max_examples=80)
def test_the_calibration_never_falls_and_stays_inside_0_and_1(pair: Pair) -> None:
    rates = calibrated_rates(*pair)
    assert rates.shape == (len(pair[0]),)
    assert (np.diff(rates) >= -1e-12).all()
    assert ((rates > 0) & (rates < 1)).all()


@given(pairs_of_counts())
@settings(deadline=None, max_examples=60)
def test_the_calibration_keeps_the_number_of_positives_and_mirrors_with_the_classes(pair: Pair) -> None:
    """But for the half row at either end."""
    rates, total = calibrated_rates(*pair), np.sum(pair, axis=0).astype(np.float64)
    filled = np.flatnonzero(total)
    for end in (0, -1):
        total[filled[end]] += 0.5
    assert rates @ total == pytest.approx(sum(pair[0]) + 0.5)
    assert calibrated_rates(pair[1][::-1], pair[0][::-1])[::-1] == pytest.approx(1 - rates)


def test_rates_that_rise_already_are_kept_and_others_are_pooled() -> None:
    rising = calibrated_rates([1000, 2000, 3000], [3000, 2000, 1000])
    assert rising == pytest.approx([0.25, 0.5, 0.75], abs=2e-4)
    assert calibrated_rates([1000, 3000, 2000], [3000, 1000, 2000]) == pytest.approx([0.25, 0.625, 0.625], abs=2e-4)
    falling = calibrated_rates([3000, 2000, 1000], [1000, 2000, 3000])
    assert falling == pytest.approx([0.5, 0.5, 0.5])


def test_empty_bins_are_interpolated_and_the_ends_continued() -> None:
    rates = calibrated_rates([0, 25, 0, 0, 0, 75, 0], [0, 75, 0, 0, 0, 25, 0])
    low, high = 25.5 / 100.5, 75 / 100.5
    assert rates == pytest.approx([low, *np.linspace(low, high, 5), high])


def test_rows_in_bins_without_reference_rows_are_counted_as_extrapolated() -> None:
    found = estimated_auroc([5, 0, 75, 0], [95, 0, 25, 0], current=[100, 60, 100, 140])
    assert found.extrapolated == 0.5
    assert estimated_auroc([5, 0, 75, 0], [95, 0, 25, 0], current=[100, 0, 100, 0]).extrapolated == 0


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(deadline=None, max_examples=40)
def test_the_estimate_is_the_auroc_of_rows_that_count_for_both_classes(seed: int, bins: int) -> None:
    """Each row twice, positive with weight c and negative with 1 - c; ordering rows within bins stays in the slack."""
    random = np.random.default_rng(seed)
    (positives, negatives, current), _, _ = drawn(random, 300, 80, bins, shift=0.5)
    found = estimated_auroc(positives, negatives, current, draws=2)
    place = np.repeat(np.arange(bins), current)
    expected = np.repeat(calibrated_rates(positives, negatives), current)
    labels, twice = np.repeat([1, 0], len(place)), np.tile(place, 2)
    direct = roc_auc_score(labels, twice, sample_weight=np.concatenate((expected, 1 - expected)))
    assert found.value == pytest.approx(direct)

    noise = random.random(len(place))
    noise -= (np.bincount(place, noise, bins) / np.maximum(current, 1))[place]
    fine = expected + noise * np.minimum(expected, 1 - expected)
    order = np.tile(place + random.random(len(place)), 2)
    unbinned = roc_auc_score(labels, order, sample_weight=np.concatenate((fine, 1 - fine)))
    assert abs(unbinned - found.value) <= found.slack + 1e-12


def test_atoms_add_no_slack() -> None:
    sides = [5, 20, 75], [95, 80, 25], [100, 400, 100]
    free, one, all_ = (estimated_auroc(*sides, atom, draws=2) for atom in (None, [False, True, False], [True] * 3))
    assert free.slack > one.slack > all_.slack == 0
    assert free.value == one.value == all_.value
    rates = calibrated_rates(*sides[:2])
    rows = np.array(sides[2])
    certified = binned_auroc(rates * rows, (1 - rates) * rows).slack
    assert free.slack == pytest.approx(certified)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 2.0])
def test_it_follows_the_true_auroc_of_shifted_scores_whose_meaning_is_unchanged(shift: float) -> None:
    """Of shifts down and up the AUROC is .879, .864, .864 and .880: not what the shift's sign would suggest."""
    (positives, negatives, current), _, _ = drawn(np.random.default_rng(5), 200_000, 100_000, 500, shift)
    found = estimated_auroc(positives, negatives, current, draws=50)
    assert found.value == pytest.approx(true_auroc(shift), abs=0.008)
    assert abs(found.value - true_auroc(shift)) <= 3 * found.standard_error + found.slack


def test_it_falls_where_the_window_is_of_rows_that_are_hard_to_tell_apart() -> None:
    reference = [5, 20, 50, 80, 95], [95, 80, 50, 20, 5]
    windows = [100, 100, 100, 100, 100], [50, 100, 200, 100, 50], [0, 50, 400, 50, 0], [0, 0, 500, 0, 0]
    values = [estimated_auroc(*reference, window, draws=2).value for window in windows]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.5


@pytest.mark.parametrize(("n", "m", "bins", "shift"), [(1000, 500, 100, 1.0), (2000, 1000, 1000, -0.5)])
def test_both_95_percent_intervals_cover_about_95_percent(n: int, m: int, bins: int, shift: float) -> None:
    random, truth = np.random.default_rng(17), true_auroc(shift)
    covered = []
    for seed in range(100):
        (positives, negatives, current), window, labels = drawn(random, n, m, bins, shift)
        found = estimated_auroc(positives, negatives, current, draws=60, seed=seed)
        off = found.value - truth, found.value - roc_auc_score(labels, window)
        covered.append([abs(off[0]) <= 1.96 * found.standard_error, abs(off[1]) <= 1.96 * found.realised_error])
    assert np.mean(covered, axis=0) == pytest.approx([0.95, 0.95], abs=0.05)


@pytest.mark.parametrize(("n", "m", "shift"), [(5000, 2000, 0.0), (1000, 500, -1.0)])
def test_the_errors_of_merged_bins_are_those_of_all_bins(
    n: int, m: int, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (positives, negatives, current), _, _ = drawn(np.random.default_rng(2), n, m, 2000, shift)
    merged = estimated_auroc(positives, negatives, current, draws=800)
    monkeypatch.setattr("drift_pipeline.detection.statistics.estimated_auroc.ERROR_BINS", 2000)
    whole = estimated_auroc(positives, negatives, current, draws=800)
    assert (merged.value, merged.slack) == (whole.value, whole.slack)
    errors = [[found.standard_error, found.realised_error] for found in (merged, whole)]
    assert errors[0] == pytest.approx(errors[1], rel=0.12)


def test_it_is_blind_to_concept_drift() -> None:
    """The same scores, whose labels have become noise: the estimate is the healthy one, the realised AUROC 1/2."""
    random = np.random.default_rng(3)
    (positives, negatives, current), window, labels = drawn(random, 20_000, 5000, 100, shift=0.0)
    noise = random.permutation(labels)
    found = estimated_auroc(positives, negatives, current)
    assert roc_auc_score(noise, window) == pytest.approx(0.5, abs=0.02)
    assert found.value == pytest.approx(roc_auc_score(labels, window), abs=0.02)
    assert found.value - roc_auc_score(noise, window) > 20 * found.realised_error


def test_a_score_that_ranks_wrongly_is_estimated_at_one_half_not_below() -> None:
    assert binned_auroc([75, 20, 5], [25, 80, 95]).value < 0.2
    assert estimated_auroc([75, 20, 5], [25, 80, 95], [100, 100, 100]).value == pytest.approx(0.5, abs=0.01)


def test_errors_shrink_with_rows_and_those_against_labels_do_not_vanish_with_the_reference() -> None:
    positives, negatives, window = np.array([5, 20, 75]), np.array([95, 80, 25]), np.array([100, 100, 100])
    few, more, most = (estimated_auroc(k * positives, k * negatives, k * window) for k in (1, 16, 256))
    assert few.standard_error / more.standard_error == pytest.approx(4, rel=0.25)
    assert more.standard_error / most.standard_error == pytest.approx(4, rel=0.25)
    known = estimated_auroc(10_000 * positives, 10_000 * negatives, window)
    assert known.realised_error == pytest.approx(binned_auroc([5, 20, 75], [95, 80, 25]).standard_error, rel=0.15)


@given(pairs_of_counts(bins=6, largest=20), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_it_is_repeatable_and_its_figures_are_possible(pair: Pair, seed: int) -> None:
    rows = np.sum(pair, axis=0)
    found = estimated_auroc(*pair, rows, draws=20, seed=seed)
    assert found == estimated_auroc(*pair, rows, draws=20, seed=seed)
    assert 0.5 - 1e-12 <= found.value <= 1
    assert found.n == rows.sum()
    assert found.extrapolated == 0
    assert 0 <= found.slack <= 0.5
    assert 0 <= found.standard_error < 1


def test_one_bin_is_one_half() -> None:
    found = estimated_auroc([40], [60], [500], atom=[True])
    assert (found.value, found.standard_error, found.realised_error, found.slack) == (0.5, 0, 0, 0)


def test_one_row_shows_no_auroc_that_the_estimate_could_be_held_against() -> None:
    found = estimated_auroc([5, 75], [95, 25], [0, 1])
    assert (found.value, found.n, found.realised_error) == (0.5, 1, math.inf)


def test_a_window_of_weights_below_one_row_still_has_an_estimate() -> None:
    found = estimated_auroc([5, 75], [95, 25], [0.2, 0.2])
    assert found.value == pytest.approx(estimated_auroc([5, 75], [95, 25], [200, 200]).value)
    assert found.realised_error == math.inf


@pytest.mark.parametrize(
    ("positives", "negatives", "current", "message"),
    [
        ([0, 0], [3, 4], [1, 1], r"positives: no rows \(n = 0\)"),
        ([3, 4], [0, 0], [1, 1], r"negatives: no rows \(n = 0\)"),
        ([3, 4], [1, 2], [0, 0], r"current: no rows \(n = 0\)"),
        ([3, 4], [1, 2, 3], [1, 1], r"positives and negatives are counts over the same bins"),
        ([3, 4], [1, 2], [1, 1, 1], r"shape \(B,\), not \(2,\) and \(3,\)"),
        ([3, -4], [1, 2], [1, 1], "positives: a count is finite"),
        ([3, 4], [1, 2], [1, math.nan], "current: a count is finite"),
    ],
)
def test_one_class_no_rows_and_other_shapes_are_refused(
    positives: list[int], negatives: list[int], current: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimated_auroc(positives, negatives, current)
