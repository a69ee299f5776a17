"""Frozen bins: where a reference puts its edges."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.detection.counting.binning import (
    CategoricalBins,
    Floats,
    NumericBins,
    categorical_bins,
    numeric_bins,
)
from drift_pipeline.detection.counting.kept_levels import MOST_LEVELS
from drift_pipeline.detection.statistics.psi import psi

RNG = np.random.default_rng(1)
NORMAL = RNG.standard_normal(50_000)


def frozen(values: Sequence[float] | Floats) -> NumericBins:
    return numeric_bins(pl.Series("x", values, dtype=pl.Float64), 4.0)


def deciles(bins: NumericBins, values: Floats) -> list[int]:
    index = bins.index(pl.Series(values))
    counts = np.bincount(bins.coarse[index[index < bins.bins]], minlength=int(bins.coarse.max()) + 1)
    return [int(count) for count in counts]


def test_a_continuous_column_has_about_1000_bins_of_equal_counts_and_ten_deciles() -> None:
    bins = frozen(NORMAL)
    counts = np.bincount(bins.index(pl.Series(NORMAL)), minlength=bins.bins)
    assert bins.bins == 1000
    assert not bins.atom.any()
    assert counts.min() >= 48
    assert counts.max() <= 52
    assert np.allclose(deciles(bins, NORMAL), 5000, atol=60)
    assert (bins.mean, bins.sd) == pytest.approx((0, 1), abs=0.02)


def test_one_absurd_value_in_the_window_does_not_move_the_psi() -> None:
    """Bins refitted on both sides fall from 0.25 to 0.025 here."""
    bins = frozen(NORMAL)
    window = RNG.standard_normal(50_000) + 0.5
    clean, spoilt = (psi(deciles(bins, NORMAL), deciles(bins, x)) for x in (window, np.append(window, 1e4)))
    assert clean == pytest.approx(0.24, abs=0.015)
    assert spoilt == pytest.approx(clean, rel=0.01)


@pytest.mark.parametrize(
    ("values", "atoms"),
    [
        (np.where(RNG.random(5000) < 0.6, 0.0, RNG.exponential(size=5000)), [0.0]),
        (RNG.integers(0, 5, 5000).astype(float), [0.0, 1.0, 2.0, 3.0, 4.0]),
        (np.full(300, 7.5), [7.5]),
        (np.r_[np.full(500, -1e100), np.full(500, 1e100)], [-1e100, 1e100]),
        (np.r_[np.full(500, 2.0), np.full(9, np.inf), np.full(9, -np.inf)], [2.0]),
    ],
    ids=["zero-inflated", "discrete", "constant", "huge", "with inf"],
)
def test_an_atom_has_a_bin_of_its_own(values: Floats, atoms: list[float]) -> None:
    bins = frozen(values)
    for atom in atoms:
        below, at, above = bins.index(pl.Series([np.nextafter(atom, -np.inf), atom, np.nextafter(atom, np.inf)]))
        assert below < at < above
        assert bins.atom[at]
    assert bins.atom.sum() == len(atoms)


def test_without_a_value_there_is_one_bin_and_everything_is_counted_as_missing() -> None:
    for nothing in (pl.Series("x", [None, None]), pl.Series("x", [np.nan, np.inf]), pl.Series("x", [], dtype=pl.Int64)):
        bins = numeric_bins(nothing, 4.0)
        assert (bins.bins, bins.mean, bins.sd) == (1, 0.0, 1.0)
        assert set(bins.index(nothing)) <= {1, 2}
        assert bins.index(pl.Series([3.0]))[0] == 0


@given(
    reference=st.lists(st.floats(-1e6, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=200),
    values=st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=50),
)
@settings(deadline=None, max_examples=100)
def test_every_value_has_exactly_one_counter_and_deciles_nest(
    reference: list[float], values: list[float | None]
) -> None:
    bins = frozen(reference)
    index = bins.index(pl.Series(values, dtype=pl.Float64))
    assert np.all(np.diff(bins.cuts) > 0)
    assert np.all(np.diff(bins.coarse) >= 0)
    assert len(bins.coarse) == len(bins.atom) == bins.bins
    for value, place in zip(values, index, strict=True):
        if value is None:
            assert place == bins.bins
        elif not np.isfinite(value):
            assert place == bins.bins + 1
        else:
            assert 0 <= place < bins.bins
            assert place == 0 or bins.cuts[place - 1] < value
            assert place == bins.bins - 1 or value <= bins.cuts[place]


def test_integers_booleans_and_nulls_are_numbers_too() -> None:
    for values in (pl.Series("x", [0, 1, None], dtype=pl.Int8), pl.Series("x", [False, True, None])):
        bins = numeric_bins(values, 4.0)
        assert bins.index(values)[2] == bins.bins
        assert bins.index(values)[0] < bins.index(values)[1] < bins.bins


def test_mean_and_sd_are_of_values_winsorised_so_that_one_row_cannot_carry_them() -> None:
    bins = frozen(np.append(NORMAL, [1e12, -1e15]))
    assert (bins.mean, bins.sd) == pytest.approx((0, 1), abs=0.02)


def test_a_value_too_far_for_a_float_is_infinitely_many_sd_away_and_no_missing_one() -> None:
    bins = frozen(NORMAL * 1e-10)
    z = bins.standardised(pl.Series([1e308, -1e308, None, np.nan, np.inf]))
    assert z[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(z[2:]).all()


@pytest.mark.parametrize("name", ["level", "n", "count", ""])
def test_levels_are_kept_by_frequency_rare_ones_pooled_whatever_the_column_is_called(name: str) -> None:
    values = ["a"] * 50 + ["b"] * 70 + ["c"] * 5 + ["d"] * 4 + [None] * 9
    bins = categorical_bins(pl.Series(name, values))
    assert bins.levels == ("b", "a", "c")
    assert bins.rare == {"d"}
    assert bins.index(pl.Series(["b", "c", "d", "new", None])).tolist() == [0, 2, 3, 4, 5]


def test_there_are_at_most_20_bins_of_levels() -> None:
    bins = categorical_bins(pl.Series("x", [f"level {k}" for k in range(40) for _ in range(10 + k)]))
    assert bins.bins == MOST_LEVELS
    assert "level 39" in bins.levels
    assert len(bins.rare) == 40 - 19
    assert set(bins.levels).isdisjoint(bins.rare)


def test_levels_of_other_types_are_read_as_text_and_ties_are_broken_by_name() -> None:
    assert categorical_bins(pl.Series("x", [2, 1] * 5)).levels == ("1", "2")
    assert categorical_bins(pl.Series("x", [True] * 6 + [False] * 5)).levels == ("true", "false")
    assert categorical_bins(pl.Series("x", ["u", "v"] * 5, dtype=pl.Categorical)).levels == ("u", "v")


def test_a_reference_without_levels_knows_none() -> None:
    bins = categorical_bins(pl.Series("x", [None, None], dtype=pl.String))
    assert bins == CategoricalBins((), frozenset())
    assert bins.index(pl.Series(["a", None])).tolist() == [1, 2]


def test_values_below_a_constant_reference_have_a_decile_group_of_their_own() -> None:
    bins = numeric_bins(pl.Series([3.0] * 100), 4.0)
    groups = bins.coarse[bins.index(pl.Series([2.0, 3.0, 4.0]))]
    assert len(set(groups.tolist())) == 3
