"""Range check: Fisher's exact p, and what it takes to breach."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drift_pipeline.detection.statistics.range_z import RangeExcess, is_breach, range_excess


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_is_fishers_exact_test(data: st.DataObject) -> None:
    rows, reference_rows = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    outside, reference_outside = data.draw(st.integers(0, rows)), data.draw(st.integers(0, reference_rows))
    found = range_excess(outside, rows, reference_outside, reference_rows)
    table = [[outside, rows - outside], [reference_outside, reference_rows - reference_outside]]
    exact = stats.fisher_exact(table, alternative="greater").pvalue
    assert found.p_value == pytest.approx(exact, rel=1e-8, abs=1e-300)
    assert found.excess == outside / rows - reference_outside / reference_rows


@pytest.mark.parametrize(
    ("outside", "rows", "reference_outside", "reference_rows"),
    [(1200, 1_000_000, 60_000, 60_000_000), (900, 1_000_000, 60_000, 60_000_000), (5000, 10_000, 50, 1_000_000)],
)
def test_is_stable_on_many_rows(outside: int, rows: int, reference_outside: int, reference_rows: int) -> None:
    found = range_excess(outside, rows, reference_outside, reference_rows)
    total, marked = rows + reference_rows, outside + reference_outside
    exact = stats.hypergeom.sf(outside - 1, total, marked, rows)
    assert found.p_value == pytest.approx(exact, rel=1e-5, abs=1e-300)


def test_the_same_share_is_no_excess_and_more_rows_outside_are_less_likely() -> None:
    found = [range_excess(outside, 1000, 5, 1000) for outside in (0, 5, 10, 20, 40)]
    assert found[0].p_value == 1
    assert found[1].excess == 0
    assert found[1].p_value > 0.5
    p_values = [each.p_value for each in found]
    assert p_values == sorted(p_values, reverse=True)


@pytest.mark.parametrize(
    ("excess", "breach"),
    [
        (RangeExcess(0.01, 0.0, 0.01, 1e-6, outside=3), True),
        (RangeExcess(0.01, 0.0, 0.01, 1e-4, outside=3), True),
        (RangeExcess(0.01, 0.0, 0.01, 1e-3, outside=3), False),
        (RangeExcess(0.01, 0.0, 0.01, 1e-6, outside=2), False),
        (RangeExcess(0.001, 0.0, 0.001, 1e-6, outside=1000), False),
        (RangeExcess(0.002, 0.0005, 0.0015, 1e-6, outside=2000), True),
    ],
)
def test_a_breach_is_significant_and_large_and_more_than_two_rows(excess: RangeExcess, breach: bool) -> None:
    assert is_breach(excess, level=1e-4) is breach


def test_a_million_rows_with_the_references_own_tail_do_not_breach() -> None:
    """Per value, |z| > 4 always fires there: a normal has 63 rows outside in a million."""
    assert not is_breach(range_excess(63, 1_000_000, 63, 1_000_000), level=1e-4)


@pytest.mark.parametrize("arguments", [(0, 0, 0, 10), (0, 10, 0, 0), (11, 10, 0, 10), (-1, 10, 0, 10), (1, 10, 11, 10)])
def test_shares_that_cannot_be_are_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="rows outside"):
        range_excess(*arguments)
