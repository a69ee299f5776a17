"""A shape shows how a column is distributed on both sides, and nothing of any single row."""

import numpy as np
import polars as pl
import pytest

from drift_pipeline.detection.counting.binning import Binning, categorical_bins, numeric_bins
from drift_pipeline.detection.counting.profile import Profile, profile_slices
from drift_pipeline.detection.counting.shape import PARTS, Shape, shape_of


def shape(before: pl.Series, after: pl.Series) -> Shape:
    bins = numeric_bins(before, 4.0) if before.dtype.is_numeric() else categorical_bins(before)
    binning = Binning({"x": bins}, (), np.empty(0), np.zeros(1, bool), 0.5, np.array([1.0]))

    def profile(values: pl.Series) -> Profile:
        return profile_slices(binning, values.to_frame("x"), np.zeros(len(values), np.int64), 1)[0]

    return shape_of("x", profile(before), profile(after))


def normal(n: int, mean: float = 0.0, seed: int = 0) -> pl.Series:
    return pl.Series("x", np.random.default_rng(seed).normal(mean, 1, n))


def test_numbers_come_close_to_numpys_histogram() -> None:
    before, after = normal(20_000), normal(5_000, 0.7, seed=1)
    found = shape(before, after)
    edges = np.array(found.edges)
    assert len(edges) == PARTS + 1
    assert not found.whole
    for place, (side, values) in enumerate(((found.reference, before), (found.current, after))):
        expected = np.histogram(values.to_numpy(), edges)[0] / len(values)
        assert np.array(side) == pytest.approx(expected, abs=0.01)
        outside = [found.below[place], found.above[place]]
        counted = [(values < edges[0]).sum() / len(values), (values > edges[-1]).sum() / len(values)]
        assert outside == pytest.approx(counted, abs=0.003)
        assert sum(side) + sum(outside) == pytest.approx(1, abs=1e-6)
    assert found.rows == (20_000, 5_000)


def test_a_value_that_many_rows_share_stays_in_one_part() -> None:
    values = pl.Series("x", [0.0] * 500 + list(np.linspace(1, 10, 500)))
    found = shape(values, values)
    place = int(np.searchsorted(found.edges, 0.0, side="right")) - 1
    assert found.reference[max(place, 0)] == pytest.approx(0.5, abs=0.05)


def test_levels_are_named_with_rare_and_new_only_where_there_are_any() -> None:
    before, after = pl.Series("x", ["a"] * 60 + ["b"] * 40), pl.Series("x", ["a"] * 50 + ["b"] * 30 + ["z"] * 20)
    assert shape(before, before).levels == ("a", "b")
    found = shape(before, after)
    assert found.levels == ("a", "b", "new")
    assert (found.reference, found.current) == ((0.6, 0.4, 0.0), (0.5, 0.3, 0.2))


@pytest.mark.parametrize("values", [[1.0] * 50, [None] * 50, []])
def test_a_constant_an_empty_and_an_all_null_column_have_a_shape_as_well(values: list[float | None]) -> None:
    found = shape(pl.Series("x", values, dtype=pl.Float64), pl.Series("x", values, dtype=pl.Float64))
    assert len(found.reference) == len(found.current)
    assert sum(found.reference) == pytest.approx(1.0 if values[:1] == [1.0] else 0.0)


RANDOM = np.random.default_rng(3)
DATES = np.array([int(str(np.datetime64("2011-01-01") + day).replace("-", "")) for day in range(730)])
WHOLE = {
    "0 and 1": (RANDOM.integers(0, 2, 1000), 1),
    "months": (RANDOM.integers(1, 13, 5000), 1),
    "hours": (RANDOM.integers(0, 24, 5000), 1),
    "negative": (RANDOM.integers(-20, -3, 5000), 1),
    "on both sides of 0": (RANDOM.integers(-40, 41, 5000), 5),
    "one value": (np.full(100, 7), 1),
    "a rare value far away": (np.append(RANDOM.integers(0, 10, 20_000), 1000), 1),
    "counts with a heavy tail": (np.floor(np.exp(RANDOM.normal(3, 1.2, 20_000))), 20),
    "up to a million": (RANDOM.integers(0, 1_000_001, 50_000), 50_000),
    "dates as numbers": (RANDOM.choice(DATES, 20_000), 500),
    "only even": (2 * RANDOM.integers(0, 200, 5000), 20),
    "beyond what a float tells apart": (RANDOM.integers(0, 10**17, 3000) * 10, 5 * 10**16),
}


@pytest.mark.parametrize("kind", [*WHOLE])
def test_whole_numbers_have_bins_of_equally_many_whole_numbers(kind: str) -> None:
    numbers, width = WHOLE[kind][0].astype(np.float64), WHOLE[kind][1]
    found = shape(pl.Series("x", numbers), pl.Series("x", numbers))
    edges = np.array(found.edges)
    assert found.whole
    assert len(found.reference) <= PARTS
    assert np.diff(edges) == pytest.approx(width)
    if width < 10**12:
        assert np.all(edges - np.floor(edges) == 0.5)
        assert np.all((edges + 0.5) % width == 0)
    exact = np.histogram(numbers, edges)[0] / len(numbers)
    spread = (
        1e-9 if len(np.unique(numbers)) <= 60 else 0.002
    )  # between two of the 1000 cuts rows count as evenly spread
    assert np.array(found.reference) == pytest.approx(exact, abs=spread)
    assert found.below[0] == pytest.approx((numbers < edges[0]).mean(), abs=spread)
    assert found.above[0] == pytest.approx((numbers > edges[-1]).mean(), abs=spread)


def test_each_month_has_its_bar_and_no_gap_is_shown_where_no_value_is_missing() -> None:
    found = shape(pl.Series("x", np.tile(np.arange(1.0, 13.0), 50)), pl.Series("x", [3.0] * 20 + [13.0] * 20 + [0.0]))
    assert found.edges == tuple(month + 0.5 for month in range(13))
    assert found.reference == pytest.approx([1 / 12] * 12)
    assert found.current == pytest.approx([0, 0, 20 / 41] + [0] * 9)
    assert [*found.below, *found.above] == pytest.approx([0, 1 / 41, 0, 20 / 41])


@pytest.mark.parametrize("numbers", [np.linspace(0, 10, 1000), np.append(np.zeros(500), np.linspace(0.1, 9, 500))])
def test_a_column_with_some_whole_numbers_is_not_one_of_whole_numbers(numbers: np.ndarray) -> None:
    assert not shape(pl.Series("x", numbers), pl.Series("x", numbers)).whole


def test_a_window_with_fractions_is_drawn_on_the_whole_numbers_of_its_reference() -> None:
    found = shape(pl.Series("x", RANDOM.integers(0, 5, 900) * 1.0), pl.Series("x", [0.5, 1.5, 2.5, 3.5] * 50))
    assert found.whole
    assert sum(found.current) + found.below[1] + found.above[1] == pytest.approx(1)


def test_a_window_without_rows_is_flat_at_nothing() -> None:
    assert set(shape(normal(1000), normal(0)).current) == {0.0}
