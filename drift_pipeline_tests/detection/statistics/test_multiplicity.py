"""Benjamini-Hochberg: agrees with scipy; NaN is not tested."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(P_VALUES, st.floats(0.001, 0.5))
@settings(deadline=None, max_examples=80)
def test_rejects_what_scipys_adjusted_p_values_reject(p_values: list[float], q: float) -> None:
    adjusted = stats.false_discovery_control(p_values)
    clear = np.abs(adjusted - q) > 1e-12
    assert (benjamini_hochberg(p_values, q) == (adjusted <= q))[clear].all()


@given(P_VALUES, st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_what_is_not_tested_neither_counts_nor_is_rejected(p_values: list[float], untested: int) -> None:
    rejected = benjamini_hochberg([*p_values, *[float("nan")] * untested], q=0.1)
    assert rejected.tolist() == [*benjamini_hochberg(p_values, q=0.1).tolist(), *[False] * untested]


@given(P_VALUES)
@settings(deadline=None, max_examples=40)
def test_the_order_does_not_matter_and_a_larger_q_rejects_no_less(p_values: list[float]) -> None:
    few, many = benjamini_hochberg(p_values, 0.01), benjamini_hochberg(p_values, 0.2)
    assert not (few & ~many).any()
    assert benjamini_hochberg(p_values[::-1], 0.2).tolist() == many[::-1].tolist()


def test_nothing_tested_rejects_nothing() -> None:
    assert benjamini_hochberg([], q=0.1).tolist() == []
    assert benjamini_hochberg([float("nan")], q=0.1).tolist() == [False]


def test_a_larger_p_value_passes_on_the_rank_of_others() -> None:
    """The step is up: 0.02 alone fails q / 4 = 0.0125 but passes 2 q / 4 with 0.024 behind it."""
    assert benjamini_hochberg([0.02, 0.024, 0.5, 0.9], q=0.05).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("p_values", "q"), [([0.1], 0), ([0.1], 1), ([1.1], 0.1), ([-0.1], 0.1), ([[0.1]], 0.1)])
def test_what_are_no_p_values_is_refused(p_values: list[float], q: float) -> None:
    with pytest.raises(ValueError, match=r"p-values \(k,\) lie in"):
        benjamini_hochberg(p_values, q)
