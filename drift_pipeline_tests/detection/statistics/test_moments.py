"""Tests on mean and variance: agree with scipy and keep their level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drift_pipeline.detection.statistics.moments import log_variance_ratio_p_value, welch_p_value

VARIANCES = st.floats(1e-3, 1e3)
SIZES = st.integers(2, 10_000)
MOMENTS = st.tuples(st.floats(-1e3, 1e3), VARIANCES, SIZES)


@given(MOMENTS, MOMENTS)
@settings(deadline=None, max_examples=60)
def test_welch_is_scipys(first: tuple[float, float, int], second: tuple[float, float, int]) -> None:
    (mean1, var1, n1), (mean2, var2, n2) = first, second
    exact = stats.ttest_ind_from_stats(mean1, var1**0.5, n1, mean2, var2**0.5, n2, equal_var=False).pvalue
    found = welch_p_value(*first, *second)
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-300)
    assert found == welch_p_value(*second, *first)
    assert welch_p_value(mean1, var1, n1, mean1, var2, n2) == 1


@given(VARIANCES, SIZES, VARIANCES, SIZES)
@settings(deadline=None, max_examples=40)
def test_the_variance_ratio_is_symmetric_and_equal_variances_do_not_differ(
    var1: float, n1: int, var2: float, n2: int
) -> None:
    found = log_variance_ratio_p_value(var1, n1, var2, n2)
    assert 0 <= found <= 1
    assert found == log_variance_ratio_p_value(var2, n2, var1, n1)
    assert log_variance_ratio_p_value(var1, n1, var1, n2) == 1


@pytest.mark.parametrize("ratio", [1.05, 1.1, 1.2])
def test_the_variance_ratio_of_normal_values_is_near_the_f_test(ratio: float) -> None:
    exact = 2 * stats.f.sf(ratio, 1999, 2999)
    assert log_variance_ratio_p_value(ratio, 2000, 1.0, 3000) == pytest.approx(exact, rel=0.1, abs=1e-4)


@pytest.mark.parametrize(("name", "kurtosis"), [("normal", 3.0), ("uniform", 1.8), ("logistic", 4.2)])
def test_the_variance_ratio_keeps_its_level_with_the_columns_kurtosis(name: str, kurtosis: float) -> None:
    random = np.random.default_rng(1)
    first, second = (getattr(random, name)(size=(2000, n)).var(axis=1, ddof=1) for n in (600, 400))
    pairs = zip(first, second, strict=True)
    p_values = np.array([log_variance_ratio_p_value(a, 600, b, 400, kurtosis) for a, b in pairs])
    assert np.mean(p_values <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_p_values_fall_with_the_difference_and_with_the_rows() -> None:
    means = [welch_p_value(0, 1, 100, shift, 1, 100) for shift in (0.1, 0.3, 0.6)]
    variances = [log_variance_ratio_p_value(1, 100, ratio, 100) for ratio in (1.1, 1.5, 3)]
    rows = [welch_p_value(0, 1, n, 0.1, 1, n) for n in (100, 400, 1600)]
    assert all(series == sorted(series, reverse=True) for series in (means, variances, rows))


def test_constant_columns_differ_or_do_not() -> None:
    assert welch_p_value(1, 0, 10, 1, 0, 10) == 1
    assert welch_p_value(1, 0, 10, 2, 0, 10) == 0
    assert log_variance_ratio_p_value(0, 10, 0, 10) == 1
    assert log_variance_ratio_p_value(0, 10, 1, 10) == 0


def test_tiny_variances_do_not_underflow() -> None:
    assert welch_p_value(0, 1e-200, 50, 1e-100, 1e-200, 50) == pytest.approx(welch_p_value(0, 1, 50, 1, 1, 50))


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows a side"):
        welch_p_value(1, 0, 1, 1, 1, 10)
    with pytest.raises(ValueError, match="both sides need rows"):
        log_variance_ratio_p_value(1, 0, 1, 10)
    with pytest.raises(ValueError, match="not below 0"):
        welch_p_value(1, -1, 10, 1, 1, 10)
    with pytest.raises(ValueError, match="never below 1"):
        log_variance_ratio_p_value(1, 10, 1, 10, kurtosis=0.5)
