"""The empirical null: how far healthy windows went, and what has to go further."""

import numpy as np
import pytest

from drift_pipeline.detection.reference.null import Distances, independent, null_of


def healthy(bins: int, ratio: float, windows: int = 40) -> Distances:
    """Windows of 1000 rows against 100,000: each at twice the i.i.d. mean, and one at `ratio` times phi."""
    mean = (bins - 1) * (1 / 1000 + 1 / 100_000)
    values = np.full(windows, 2 * mean)
    values[0] = 2 * ratio * mean
    return Distances(values, np.full(windows, bins), np.full(windows, 1000.0), np.full(windows, 1e5))


def counts(bins: int, rows: int, moved: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    share = np.full(bins, 1 / bins)
    share[:2] += moved / bins, -moved / bins
    return share * rows


def test_a_column_of_two_levels_that_went_far_does_not_raise_the_bar_for_one_of_ten_bins() -> None:
    """Twelve times its mean is p = 5e-4 for one degree of freedom; eight times it is 1e-11 for nine."""
    null = null_of({"pair": healthy(2, 12.0), "ten": healthy(10, 1.5)})
    assert 1e-4 < null.least_p < 1e-2
    before = counts(10, 100_000, 0.0)
    assert null.exceeds("ten", before, counts(10, 1000, 0.95))
    assert not null.exceeds("ten", before, counts(10, 1000, 0.3))


def test_rows_that_count_as_independent_need_exceed_nothing() -> None:
    assert independent(("x",)).exceeds("x", counts(10, 1000, 0.0), counts(10, 1000, 0.0))


@pytest.mark.parametrize(("windows", "known"), [(4, False), (5, True)])
def test_below_five_windows_phi_is_not_known_and_sets_no_bar(windows: int, known: bool) -> None:
    null = null_of({"x": healthy(10, 1.0, windows)})
    assert (not np.isnan(null.phi["x"]), null.least_p < 1, null.windows) == (known, known, windows)
