"""Latency check: Clopper and Pearson's bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drift_pipeline.detection.statistics.latency import ShareAbove, share_above


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_bound_is_scipys_exact_interval(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 5000))
    above = data.draw(st.integers(0, rows))
    found = share_above(above, rows)
    exact = stats.binomtest(above, rows, alternative="greater").proportion_ci(0.99, method="exact")
    assert found.lower_bound == pytest.approx(exact.low, abs=1e-9)
    assert 0 <= found.lower_bound <= found.share == above / rows


def test_nothing_above_is_0_and_all_above_is_the_roots_bound() -> None:
    assert share_above(0, 100) == ShareAbove(0.0, 0.0, 100)
    assert share_above(100, 100).lower_bound == pytest.approx(0.01 ** (1 / 100))


def test_grows_with_the_share_and_with_the_rows() -> None:
    bounds = [share_above(above, 500).lower_bound for above in (10, 25, 40, 80)]
    assert bounds == sorted(bounds)
    assert share_above(40, 500).lower_bound < share_above(400, 5000).lower_bound < 0.08
    assert share_above(40, 500, level=0.9).lower_bound > share_above(40, 500).lower_bound


def test_a_true_share_of_5_percent_seldom_shows_more() -> None:
    """The chance that the bound passes 5 % when the truth is 5 %, summed exactly over all counts."""
    false_alarm = sum(stats.binom.pmf(k, 500, 0.05) for k in range(501) if share_above(k, 500).lower_bound > 0.05)
    assert 0.003 < false_alarm <= 0.01


def test_effective_counts_need_not_be_whole() -> None:
    bounds = [share_above(above, 500 / 1.5).lower_bound for above in (26, 40 / 1.5, 27)]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize(("above", "rows"), [(0, 0), (3, 2), (-1, 2)])
def test_shares_that_cannot_be_are_refused(above: int, rows: int) -> None:
    with pytest.raises(ValueError, match="there must be rows"):
        share_above(above, rows)


def test_alpha_is_not_a_level() -> None:
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        share_above(1, 2, level=0.01)
