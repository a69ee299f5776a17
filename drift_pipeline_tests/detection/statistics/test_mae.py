"""MAE: agrees with the plain formulae, adds up, and its errors are as wide as simulation says."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.detection.statistics.mae import Mae, mae_of_sums, mae_overdispersion, mae_rise, paired_mae_gain

Values = npt.NDArray[np.float64]
NUMBERS = st.floats(-1e6, 1e6)
SCALES = st.floats(0.01, 1000)


def of(errors: Values) -> Mae:
    absolute = np.abs(errors)
    return mae_of_sums(len(errors), float(absolute.sum()), float((absolute**2).sum()))


@given(st.lists(NUMBERS, min_size=2, max_size=50))
def test_is_the_mean_and_its_standard_error(errors: list[float]) -> None:
    absolute = np.abs(np.array(errors))
    found = of(np.array(errors))
    assert found.value == pytest.approx(absolute.mean())
    scale = max(1.0, float(absolute.max()))
    assert found.standard_error == pytest.approx(absolute.std(ddof=1) / math.sqrt(len(errors)), abs=1e-6 * scale)


def test_of_one_row_nothing_is_certain_and_of_none_there_is_nothing() -> None:
    assert mae_of_sums(1, 2.0, 4.0) == Mae(2.0, math.inf, 1)
    with pytest.raises(ValueError, match="no row"):
        mae_of_sums(0, 0.0, 0.0)


@given(st.floats(0.1, 100), st.floats(0.1, 100), SCALES)
def test_a_rise_is_a_share_whatever_the_unit(now: float, before: float, scale: float) -> None:
    found = mae_rise(Mae(now, 0.1, 9), Mae(before, 0.2, 9))
    scaled = mae_rise(Mae(now * scale, 0.1 * scale, 9), Mae(before * scale, 0.2 * scale, 9))
    assert found.value == pytest.approx(now / before - 1)
    assert (scaled.value, scaled.standard_error) == pytest.approx((found.value, found.standard_error))


def test_from_a_perfect_model_every_error_is_an_infinite_rise() -> None:
    perfect, some = Mae(0.0, 0.0, 9), Mae(1.0, 0.1, 9)
    assert mae_rise(some, perfect).value == math.inf
    assert mae_rise(perfect, perfect).value == 0


@pytest.mark.parametrize("rows", [200, 2000])
def test_the_standard_error_of_a_rise_is_what_samples_show(rows: int) -> None:
    random = np.random.default_rng(0)
    rises = [mae_rise(of(random.laplace(size=rows)), of(random.laplace(size=3 * rows))) for _ in range(400)]
    spread = np.std([rise.value for rise in rises])
    assert np.mean([rise.standard_error for rise in rises]) == pytest.approx(spread, rel=0.12)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40))
def test_equal_predictions_gain_exactly_nothing(pairs: list[tuple[float, float]]) -> None:
    labels, predictions = np.array(pairs).T
    found = paired_mae_gain(labels, predictions, predictions)
    assert found.gain == 0
    assert found.candidate == found.champion == pytest.approx(np.abs(labels - predictions).mean())
    assert len(pairs) == 1 or found.standard_error == 0


@given(SCALES, st.floats(-1000, 1000))
def test_a_gain_knows_neither_unit_nor_level(scale: float, level: float) -> None:
    random = np.random.default_rng(1)
    labels = random.normal(size=60)
    sides = [labels + width * random.normal(size=60) for width in (0.5, 0.7)]
    plain = paired_mae_gain(labels, *sides)
    moved = paired_mae_gain(*(scale * side + level for side in (labels, *sides)))
    assert (moved.gain, moved.standard_error) == pytest.approx((plain.gain, plain.standard_error), rel=1e-5, abs=1e-7)


def test_the_standard_error_of_a_gain_is_what_samples_show() -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(400):
        labels, shared = random.normal(size=(2, 500))
        sides = (labels + shared + 0.3 * random.normal(size=500) for _ in range(2))
        found.append(paired_mae_gain(labels, *sides))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(
        np.std([one.gain for one in found]), rel=0.12
    )


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (([], [], []), "no row"),
        (([1.0], [1.0], [1.0, 2.0]), "of one length"),
        (([1.0, 2.0], [1.0, math.nan], [1.0, 2.0]), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(sides: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_mae_gain(*sides)


def test_against_a_perfect_champion_every_error_is_a_loss() -> None:
    assert paired_mae_gain([1, 2], [1, 3], [1, 2]).gain == -math.inf
    assert paired_mae_gain([1, 2], [1, 2], [1, 2]).gain == 0


def test_independent_rows_are_not_overdispersed_and_days_that_differ_are() -> None:
    random = np.random.default_rng(3)
    days = np.repeat(np.arange(100), 50)
    errors = random.normal(size=5000)
    assert mae_overdispersion(errors, days) == pytest.approx(1, abs=0.35)
    assert mae_overdispersion(errors * (1 + 0.3 * random.normal(size=100))[days], days) > 4
    assert math.isnan(mae_overdispersion(errors, np.zeros(5000)))
    assert math.isnan(mae_overdispersion(np.ones(5000), days))
