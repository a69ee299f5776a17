"""PSI: properties, the null of i.i.d. samples, the lower bound's coverage."""

from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drift_pipeline.detection.statistics.psi import (
    psi,
    psi_lower_bound,
    psi_p_value,
    psi_p_value_monte_carlo,
)
from drift_pipeline_tests.detection.statistics import Pair, pairs_of_counts

DECILES = np.full(10, 0.1)


def normal_deciles(shift: float) -> npt.NDArray[np.float64]:
    """Shares of a normal, shifted by `shift` sd, over the standard normal's deciles."""
    edges = np.concatenate(([-np.inf], stats.norm.ppf(np.arange(1, 10) / 10), [np.inf]))
    return np.diff(stats.norm.cdf(edges - shift))


def divergence(shares: npt.NDArray[np.float64]) -> float:
    """PSI of the shares themselves against deciles."""
    return float(((DECILES - shares) * np.log(DECILES / shares)).sum())


@given(pairs_of_counts())
@settings(deadline=None, max_examples=60)
def test_is_the_formula_symmetric_and_not_negative(pair: Pair) -> None:
    first, second = ((np.array(side) + 0.5) / (sum(side) + 0.5 * len(side)) for side in pair)
    assert psi(*pair) == pytest.approx(stats.entropy(first, second) + stats.entropy(second, first), abs=1e-12)
    assert psi(*pair) == pytest.approx(psi(*pair[::-1]))
    assert psi(*pair) >= 0
    assert 0 <= psi_lower_bound(*pair) <= psi(*pair)


@given(pairs_of_counts(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_the_order_of_bins_does_not_matter(pair: Pair, random: Random) -> None:
    order = np.argsort([random.random() for _ in pair[0]])
    assert psi(np.array(pair[0])[order], np.array(pair[1])[order]) == pytest.approx(psi(*pair))


@given(pairs_of_counts())
@settings(deadline=None, max_examples=20)
def test_equal_counts_have_no_divergence(pair: Pair) -> None:
    assert psi(pair[0], pair[0]) == 0


def test_a_constant_column_never_drifts() -> None:
    assert psi([1000], [30]) == 0
    assert psi_p_value(0.0, bins=1, n=1000, m=30) == 1
    assert psi_lower_bound([1000], [30]) == 0
    assert psi_p_value_monte_carlo(0.0, [1000], n=30, draws=99) == 1


def test_grows_with_the_shift_and_has_the_known_figures() -> None:
    shifts = [0.0, 0.25, 0.5, 1.0]
    values = [psi(DECILES * 1e6, normal_deciles(shift) * 1e6) for shift in shifts]
    assert np.round(values, 2).tolist() == [0.0, 0.06, 0.24, 0.93]
    bounds = [psi_lower_bound(DECILES * 50_000, normal_deciles(shift) * 2000) for shift in shifts]
    assert bounds == sorted(bounds)


def test_one_extreme_value_does_not_move_it() -> None:
    """Bins are frozen with the reference: an outlier is one row of the last bin."""
    current = normal_deciles(0.5) * 50_000
    spoiled = current + np.eye(10)[9]
    assert psi(DECILES * 50_000, spoiled) == pytest.approx(psi(DECILES * 50_000, current), rel=1e-3)


@pytest.mark.parametrize(("n", "shares"), [(500, DECILES), (5000, 1 / np.arange(1, 21) / (1 / np.arange(1, 21)).sum())])
def test_the_chi_squared_null_keeps_its_level_from_500_rows_on(n: int, shares: npt.NDArray[np.float64]) -> None:
    random = np.random.default_rng(7)
    draws = zip(random.multinomial(50_000, shares, 4000), random.multinomial(n, shares, 4000), strict=True)
    values = [psi(reference, current) for reference, current in draws]
    p_values = np.array([psi_p_value(value, len(shares), n, 50_000) for value in values])
    assert np.mean(values) == pytest.approx((len(shares) - 1) * (1 / n + 1 / 50_000), rel=0.05)
    assert np.mean(p_values <= 0.1) == pytest.approx(0.1, abs=0.015)
    assert np.mean(p_values <= 0.01) == pytest.approx(0.01, abs=0.005)


def test_the_simulated_null_keeps_its_level_below_500_rows() -> None:
    random = np.random.default_rng(11)
    reference = random.multinomial(1000, DECILES)
    currents = random.multinomial(60, DECILES, 400)
    p_values = [psi_p_value_monte_carlo(psi(reference, c), reference, n=60, draws=499) for c in currents]
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.04)


def test_the_simulated_null_agrees_with_chi_squared_on_many_rows() -> None:
    value = 0.005
    simulated = psi_p_value_monte_carlo(value, [2000] * 10, n=5000, draws=9999)
    assert simulated == pytest.approx(psi_p_value(value, 10, 5000, 20_000), abs=0.02)
    assert simulated == psi_p_value_monte_carlo(value, [2000] * 10, n=5000, draws=9999)
    assert psi_p_value_monte_carlo(10.0, [2000] * 10, n=5000, draws=99) == 0.01


def test_overdispersion_is_a_smaller_sample() -> None:
    assert psi_p_value(0.02, 10, 4500, 45_000, phi=4.5) == pytest.approx(psi_p_value(0.02, 10, 1000, 10_000))
    assert psi_p_value(0.02, 10, 1000, 1e9) == pytest.approx(stats.chi2.sf(20, 9), rel=1e-4)


@pytest.mark.parametrize(("shift", "n"), [(0.0, 500), (0.25, 500), (0.25, 5000), (0.5, 500), (0.5, 5000), (1.0, 5000)])
def test_the_lower_bound_exceeds_the_truth_in_no_more_than_1_percent(shift: float, n: int) -> None:
    random, shares = np.random.default_rng(3), normal_deciles(shift)
    draws = zip(random.multinomial(50_000, DECILES, 2000), random.multinomial(n, shares, 2000), strict=True)
    above = [psi_lower_bound(*draw) > divergence(shares) for draw in draws]
    assert np.mean(above) <= 0.013


def test_the_lower_bound_is_sharp_on_many_rows_and_lower_with_overdispersion() -> None:
    counts = DECILES * 1e7, normal_deciles(0.5) * 1e7
    assert psi_lower_bound(*counts) == pytest.approx(psi(*counts), rel=0.01)
    assert psi_lower_bound(*counts, phi=12) < psi_lower_bound(*counts)


@pytest.mark.parametrize(
    ("reference", "current", "message"),
    [
        ([0, 0], [1, 2], r"reference: no rows \(n = 0\)"),
        ([1, 2], [0, 0], r"current: no rows \(n = 0\)"),
        ([1, 2], [1, 2, 3], r"shape \(B,\), not \(2,\) and \(3,\)"),
        ([[1, 2]], [[1, 2]], r"shape \(B,\)"),
        ([1, -2], [1, 2], "reference: a count is finite"),
        ([1, 2], [1, float("nan")], "current: a count is finite"),
    ],
)
def test_what_are_no_counts_is_refused(reference: list[int], current: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        psi(reference, current)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one bin"):
        psi_p_value(0.1, 0, 10, 10)
    with pytest.raises(ValueError, match="both sides need rows"):
        psi_p_value(0.1, 10, 0, 10)
    with pytest.raises(ValueError, match="phi is above 0"):
        psi_p_value(0.1, 10, 10, 10, phi=0)
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        psi_lower_bound([1, 2], [2, 1], level=0.01)
