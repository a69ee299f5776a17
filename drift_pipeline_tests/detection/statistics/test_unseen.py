"""The unseen share that a reference tells of itself, and exact bounds, against simulation and scipy."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from drift_pipeline.detection.statistics.ks import total_variation_lower_bound_rows, total_variation_rows
from drift_pipeline.detection.statistics.share_difference import (
    largest_difference_lower_bound_rows,
    share_difference_lower_bound,
    share_high,
    share_low,
)
from drift_pipeline.detection.statistics.unseen import unseen_lower_bound, unseen_mass, unseen_p_value

Floats = npt.NDArray[np.float64]


def shares_of(name: str) -> Floats:
    weights = {
        "equal": np.ones(1200),
        "zipf 1": np.arange(1.0, 1001) ** -1.0,
        "zipf 1.3": np.arange(1.0, 20_001) ** -1.3,
        "zipf 2": np.arange(1.0, 20_001) ** -2.0,
        "geometric": 0.99 ** np.arange(2000),
    }[name]
    return np.asarray(weights / weights.sum())


def drawn(name: str, m: int, n: int, pairs: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Levels once and twice among m rows, rows unseen by them of n more, and their true share; each (pairs,)."""
    rng, p = np.random.default_rng(m + n), shares_of(name)
    found = []
    for _ in range(pairs):
        before, after = rng.multinomial(m, p), rng.multinomial(n, p)
        found.append(((before == 1).sum(), (before == 2).sum(), after[before == 0].sum(), p[before == 0].sum()))
    once, twice, unseen, share = np.array(found, dtype=np.float64).T
    return once, twice, unseen, share


CELLS = [
    (name, m, n)
    for name in ("equal", "zipf 1", "zipf 1.3", "zipf 2", "geometric")
    for m, n in ((200, 50_000), (2000, 2000), (2000, 50_000), (20_000, 500))
]


@pytest.mark.parametrize(("name", "m", "n"), CELLS)
def test_rows_of_one_distribution_have_as_many_unseen_levels_as_its_reference_tells(name: str, m: int, n: int) -> None:
    """300 pairs: the mean within 4 standard errors, p below 1 % in at most 3 % of them, a bound above 0 in 2 %."""
    once, twice, unseen, _ = drawn(name, m, n, 300)
    share, effective = unseen_mass(once, twice, np.zeros(300), np.full(300, float(m)))
    sides = unseen, np.full(300, float(n)), share, effective
    difference = unseen / n - share
    assert abs(difference.mean()) < 4 * difference.std() / 300**0.5 + 1e-12
    assert (unseen_p_value(*sides) < 0.01).mean() <= 0.03
    assert (unseen_lower_bound(*sides) > 0).mean() <= 0.02


@pytest.mark.parametrize(("name", "m", "n"), CELLS)
@pytest.mark.parametrize("new", [0.05, 0.2])
def test_the_lower_bound_of_new_levels_exceeds_their_true_share_in_at_most_2_percent(
    name: str, m: int, n: int, new: float
) -> None:
    once, twice, unseen, share = drawn(name, m, n, 300)
    added = np.random.default_rng(0).binomial(n, new, 300)
    found = unseen_mass(once, twice, np.zeros(300), np.full(300, float(m)))
    lower = unseen_lower_bound(unseen * (1 - new) + added, np.full(300, float(n)), *found)
    assert (lower > new * (1 - share)).mean() <= 0.02


@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_where_nearly_every_row_has_a_level_of_its_own_unseen_ones_prove_nothing(repeated: int) -> None:
    sides = (np.array([float(x)]) for x in (2000 - 2 * repeated, repeated, 0, 2000))
    share, effective = unseen_mass(*sides)
    assert share[0] >= 0.997
    assert unseen_p_value(np.array([2000.0]), np.array([2000.0]), share, effective)[0] > 0.01
    assert unseen_lower_bound(np.array([2000.0]), np.array([2000.0]), share, effective)[0] == 0


def test_rows_counted_since_the_levels_were_frozen_tell_the_share_too() -> None:
    share, effective = unseen_mass(*(np.array([float(x)]) for x in (10, 0, 90, 1000)))
    assert (share[0], effective[0]) == (0.1, 1000.0)


@given(rows=st.integers(1, 5000), part=st.floats(0, 1), level=st.sampled_from([0.9, 0.99, 0.999]))
def test_bounds_of_a_share_are_clopper_and_pearsons(rows: int, part: float, level: float) -> None:
    count = round(part * rows)
    exact = binomtest(count, rows).proportion_ci(2 * level - 1, method="exact")
    sides = np.array([float(count)]), np.array([float(rows)])
    assert share_low(*sides, level)[0] == pytest.approx(exact.low, abs=1e-9)
    assert share_high(*sides, level)[0] == pytest.approx(exact.high, abs=1e-9)


@given(counts=st.tuples(*[st.integers(0, 300)] * 2))
def test_the_bound_of_a_difference_is_symmetric_and_below_it(counts: tuple[int, int]) -> None:
    first, second, rows = *(np.array([float(c)]) for c in counts), np.array([300.0])
    bound = share_difference_lower_bound(first, rows, second, rows)
    assert bound == share_difference_lower_bound(second, rows, first, rows)
    assert 0 <= bound[0] <= abs(counts[0] - counts[1]) / 300


@pytest.mark.parametrize("bins", [2, 6])
@pytest.mark.parametrize(("m", "n"), [(200, 200), (200, 50_000), (50_000, 500)])
@pytest.mark.parametrize("moved", [0.0, 0.05, 0.3])
def test_both_bounds_of_the_total_variation_together_miss_in_at_most_1_percent(
    bins: int, m: int, n: int, moved: float
) -> None:
    """2,000 pairs, of which the last bin has nothing before and what moved after."""
    rng = np.random.default_rng(bins + m + n)
    p = np.append(np.full(bins - 1, 1 / (bins - 1)), 0.0)
    q = (1 - moved) * p + moved * np.eye(bins)[-1]
    first, second = (rng.multinomial(size, share, 2000).astype(float) for size, share in ((m, p), (n, q)))
    number, sizes = np.full(2000, bins), (np.full(2000, float(m)), np.full(2000, float(n)))
    over_all = total_variation_lower_bound_rows(total_variation_rows(first, second), number, *sizes)
    lower = np.maximum(over_all, largest_difference_lower_bound_rows(first, second, number, *sizes))
    assert (lower > moved).mean() <= 0.01
    assert (lower <= total_variation_rows(first, second) + 1e-12).all()
