"""KS: the interval holds the exact D, the p-value is Kolmogorov's, bounds keep their level."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from drift_pipeline.detection.statistics.ks import (
    KsInterval,
    ks_interval,
    ks_lower_bound,
    ks_p_value,
    total_variation,
    total_variation_lower_bound,
)
from drift_pipeline_tests.detection.statistics import Pair, pairs_of_counts

Values = npt.NDArray[np.float64]


def binned(reference: Values, current: Values, bins: int, share: float = 0.1) -> KsInterval:
    """Bins (e_j, e_j+1] at reference quantiles; a value with at least `share` of the reference is an atom."""
    values, counts = np.unique(reference, return_counts=True)
    heavy = values[counts >= share * len(reference)]
    quantiles = np.quantile(reference, np.arange(1, bins) / bins)
    cuts = np.unique(np.concatenate((quantiles, heavy, np.nextafter(heavy, -np.inf))))
    atom = np.append(np.isin(cuts, heavy), False)
    sides = (
        np.bincount(np.searchsorted(cuts, side, side="left"), minlength=len(atom)) for side in (reference, current)
    )
    first, second = sides
    return ks_interval(first, second, atom)


def arrays(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Values]:
    return hnp.arrays(np.float64, st.integers(2, 80), elements=elements)


@given(arrays(st.floats(-100, 100)), arrays(st.floats(-100, 100)), st.integers(1, 20))
@settings(deadline=None, max_examples=100)
def test_the_exact_statistic_lies_in_the_interval(reference: Values, current: Values, bins: int) -> None:
    exact = stats.ks_2samp(reference, current, method="asymp").statistic
    interval = binned(reference, current, bins)
    assert 0 <= interval.low <= exact + 1e-12
    assert exact - 1e-12 <= interval.high <= 1 + 1e-12


@given(arrays(st.integers(0, 4).map(float)), arrays(st.integers(-1, 5).map(float)), st.integers(1, 20))
@settings(deadline=None, max_examples=100)
def test_the_exact_statistic_lies_in_the_interval_with_ties(reference: Values, current: Values, bins: int) -> None:
    exact = stats.ks_2samp(reference, current, method="asymp").statistic
    interval = binned(reference, current, bins)
    assert interval.low - 1e-12 <= exact <= interval.high + 1e-12


def test_the_interval_is_narrow_on_a_thousand_bins() -> None:
    random = np.random.default_rng(1)
    reference = np.where(random.random(50_000) < 0.3, 0.0, random.normal(size=50_000))
    current = np.where(random.random(5000) < 0.25, 0.0, random.normal(0.2, 1, 5000))
    interval = binned(reference, current, 1000, share=0.001)
    exact = stats.ks_2samp(reference, current, method="asymp").statistic
    assert interval.low <= exact <= interval.high
    assert interval.high - interval.low < 0.003


def test_atoms_alone_leave_no_doubt() -> None:
    """A column of few values, each isolated: the interval is the exact statistic."""
    found = ks_interval([0, 50, 0, 50, 0], [0, 80, 0, 20, 0], atom=[False, True, False, True, False])
    assert [found.low, found.high] == pytest.approx([0.3, 0.3])


def test_the_open_ends_count() -> None:
    """Nothing is known inside the first and the last bin, so D may be as large as their shares."""
    first = ks_interval([50, 50], [50, 50], atom=[False, True])
    last = ks_interval([50, 50], [50, 50], atom=[True, False])
    assert (first.low, first.high) == (last.low, last.high) == (0, 0.5)


def test_a_constant_column_has_distance_0() -> None:
    assert ks_interval([700], [3], atom=[True]) == KsInterval(0, 0)
    assert ks_interval([700], [3], atom=[False]) == KsInterval(0, 1)


@given(pairs_of_counts())
@settings(deadline=None, max_examples=50)
def test_equal_counts_have_distance_0_and_sides_are_symmetric(pair: Pair) -> None:
    atom = [index % 2 == 0 for index in range(len(pair[0]))]
    assert ks_interval(pair[0], pair[0], atom).low == 0
    assert ks_interval(*pair, atom) == ks_interval(*pair[::-1], atom)


def test_grows_with_the_shift() -> None:
    random = np.random.default_rng(2)
    reference = random.normal(size=20_000)
    lows = [binned(reference, random.normal(shift, 1, 5000), 100).low for shift in (0, 0.25, 0.5, 1)]
    assert lows == sorted(lows)
    assert lows[1:] == pytest.approx([2 * stats.norm.cdf(shift / 2) - 1 for shift in (0.25, 0.5, 1)], abs=0.02)


def test_atoms_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="each of the 2 bins"):
        ks_interval([1, 2], [2, 1], atom=[True])


@pytest.mark.parametrize(("n", "m"), [(40, 60), (200, 5000), (3000, 3000)])
def test_the_p_value_is_near_the_exact_one(n: int, m: int) -> None:
    distances = np.array([0.9, 1.2, 1.6, 2.0]) * np.sqrt(1 / n + 1 / m)
    exact = stats.kstwo.sf(distances, round(n * m / (n + m)))
    assert ks_p_value(distances, n, m) == pytest.approx(exact, rel=0.15, abs=1e-4)


def test_the_p_value_keeps_its_level_on_samples_of_one_distribution() -> None:
    random = np.random.default_rng(4)
    pairs = ((random.normal(size=400), random.normal(size=200)) for _ in range(2000))
    distances = np.array([stats.ks_2samp(*pair, method="asymp").statistic for pair in pairs])
    assert np.mean(ks_p_value(distances, 400, 200) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_the_p_value_of_arrays_is_that_of_their_elements() -> None:
    distances, sizes = np.array([0.0, 0.05, 1.0]), np.array([100.5, 1000.0, 77.0])
    together = ks_p_value(distances, sizes, 5000.0)
    alone = [ks_p_value(float(d), float(n), 5000.0) for d, n in zip(distances, sizes, strict=True)]
    assert together.tolist() == alone
    assert alone[0] == 1
    assert alone[2] == pytest.approx(0, abs=1e-30)


def test_sizes_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="both sides need rows"):
        ks_p_value(0.1, 0, 10)
    with pytest.raises(ValueError, match="both sides need rows"):
        ks_lower_bound(0.1, 10, 0)
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        ks_lower_bound(0.1, 10, 10, level=1)


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_the_lower_bound_of_ks_keeps_its_level(shift: float) -> None:
    random, true = np.random.default_rng(6), 2 * stats.norm.cdf(shift / 2) - 1
    pairs = ((random.normal(size=500), random.normal(shift, 1, 300)) for _ in range(1000))
    bounds = [ks_lower_bound(stats.ks_2samp(*pair, method="asymp").statistic, 500, 300) for pair in pairs]
    assert np.mean(np.array(bounds) > true) <= 0.01


def test_the_lower_bound_of_ks_comes_near_with_rows() -> None:
    assert ks_lower_bound(0.1, 1e8, 1e8) == pytest.approx(0.1, abs=5e-4)
    assert ks_lower_bound(0.1, 200, 50_000) == 0


@given(pairs_of_counts())
@settings(deadline=None, max_examples=50)
def test_total_variation_is_a_distance_from_0_to_1(pair: Pair) -> None:
    assert total_variation(pair[0], pair[0]) == 0
    assert 0 <= total_variation(*pair) <= 1 + 1e-12
    assert total_variation(*pair) == total_variation(*pair[::-1])
    assert total_variation(*pair) == pytest.approx(total_variation(pair[0][::-1], pair[1][::-1]))
    assert ks_interval(*pair, [True] * len(pair[0])).low <= total_variation(*pair) + 1e-12
    assert 0 <= total_variation_lower_bound(*pair) <= total_variation(*pair)


@pytest.mark.parametrize("moved", [0.0, 0.05, 0.2])
def test_the_lower_bound_of_total_variation_keeps_its_level(moved: float) -> None:
    random = np.random.default_rng(8)
    before = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    after = before + moved * np.array([-1, 0.5, 0, 0.5, 0, 0, 0])
    draws = zip(random.multinomial(5000, before, 2000), random.multinomial(500, after, 2000), strict=True)
    bounds = np.array([total_variation_lower_bound(*draw) for draw in draws])
    assert np.mean(bounds > moved) <= 0.01


def test_the_lower_bound_of_total_variation_knows_effective_sizes() -> None:
    counts = [50_000, 30_000, 20_000], [20_000, 30_000, 50_000]
    assert total_variation_lower_bound(*counts) == pytest.approx(0.3, abs=0.015)
    assert total_variation_lower_bound(*counts, n=400.0, m=400.0) == pytest.approx(0.3 - 0.05 - 0.1073, abs=1e-4)
    with pytest.raises(ValueError, match="both sides need rows"):
        total_variation_lower_bound(*counts, n=0)
