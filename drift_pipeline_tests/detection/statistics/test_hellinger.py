"""Hellinger distance: properties, and its square is unbiased."""

import numpy as np
import pytest
from hypothesis import given, settings

from drift_pipeline.detection.statistics.hellinger import hellinger
from drift_pipeline.detection.statistics.psi import psi
from drift_pipeline_tests.detection.statistics import Pair, pairs_of_counts


@given(pairs_of_counts())
@settings(deadline=None, max_examples=60)
def test_lies_between_0_and_1_and_is_symmetric(pair: Pair) -> None:
    assert 0 <= hellinger(*pair) <= 1
    assert hellinger(*pair) == pytest.approx(hellinger(*pair[::-1]), abs=1e-7)
    assert hellinger(*pair) == pytest.approx(hellinger(pair[0][::-1], pair[1][::-1]), abs=1e-7)


@given(pairs_of_counts(bins=6))
@settings(deadline=None, max_examples=20)
def test_equal_counts_have_no_distance(pair: Pair) -> None:
    assert hellinger(pair[0], pair[0]) == pytest.approx(0, abs=1e-7)


def test_no_bin_in_common_is_1_but_for_the_bias() -> None:
    assert hellinger([10**9, 0], [0, 10**9]) == pytest.approx(1)


def test_a_constant_column_has_no_distance() -> None:
    assert hellinger([70], [3]) == 0


def test_grows_with_the_shift_and_psi_is_about_8_squares() -> None:
    reference = np.full(10, 1e7)
    tilted = [reference * (1 + tilt * np.linspace(-1, 1, 10)) for tilt in (0.05, 0.1, 0.2)]
    distances = [hellinger(reference, current) for current in tilted]
    assert distances == sorted(distances)
    for distance, current in zip(distances, tilted, strict=True):
        assert 8 * distance**2 == pytest.approx(psi(reference, current), rel=0.02)


def test_the_square_has_no_bias_between_samples_of_one_distribution() -> None:
    """Without the correction its mean would be (B-1)(1/n + 1/m) / 8 = 0.0012; the positive parts stay below half."""
    random = np.random.default_rng(5)
    draws = random.multinomial(1000, np.full(10, 0.1), (2000, 2))
    squares = [hellinger(reference, current) ** 2 for reference, current in draws]
    assert np.median(squares) <= 1e-4
    assert np.mean(squares) < 9 * 0.002 / 8 / 3


def test_a_side_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="current: no rows"):
        hellinger([1, 2], [0, 0])
