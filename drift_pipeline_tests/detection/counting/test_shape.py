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
    for side, values in ((found.reference, before), (found.current, after)):
        clipped = np.clip(values.to_numpy(), edges[0], edges[-1])
        expected = np.histogram(clipped, edges)[0] / len(values)
        assert np.array(side) == pytest.approx(expected, abs=0.01)
        assert sum(side) == pytest.approx(1, abs=1e-4)


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


def test_a_window_without_rows_is_flat_at_nothing() -> None:
    assert set(shape(normal(1000), normal(0)).current) == {0.0}
