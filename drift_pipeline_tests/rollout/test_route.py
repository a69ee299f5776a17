"""The split is sticky, even, and the same one by one as all at once."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from drift_pipeline.rollout.route import in_canary, split

KEYS = pl.Series([f"user-{number}" for number in range(20_000)])
percents = st.integers(0, 100)


@given(st.lists(st.text(), max_size=20), st.text(), percents)
def test_the_vector_answers_as_the_single_key_does(keys: list[str], rollout_id: str, percent: int) -> None:
    found = split(pl.Series(keys, dtype=pl.String), rollout_id, percent)
    assert found.dtype == np.bool_
    assert found.tolist() == [in_canary(key, rollout_id, percent) for key in keys]


@given(st.text(), st.text(), percents, percents)
def test_growing_the_weight_keeps_its_members(key: str, rollout_id: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert in_canary(key, rollout_id, low) <= in_canary(key, rollout_id, high)


@given(st.text(), st.text())
def test_nobody_is_in_at_zero_and_everybody_at_a_hundred(key: str, rollout_id: str) -> None:
    assert (in_canary(key, rollout_id, 0), in_canary(key, rollout_id, 100)) == (False, True)


@pytest.mark.parametrize("rollout_id", ["r1", "r2", "fraud|sha256:ab|1"])
def test_the_keys_spread_evenly_over_the_percents(rollout_id: str) -> None:
    members = [int(split(KEYS, rollout_id, percent).sum()) for percent in range(0, 101, 5)]
    assert chisquare(np.diff(members)).pvalue > 0.001


@pytest.mark.parametrize("percent", [5, 10, 50])
def test_who_is_in_one_rollout_says_nothing_about_the_next(percent: int) -> None:
    first, second = split(KEYS, "r1", percent), split(KEYS, "r2", percent)
    table = [[int((first & second).sum()), int((first & ~second).sum())]]
    table.append([int((~first & second).sum()), int((~first & ~second).sum())])
    assert chi2_contingency(table).pvalue > 0.001


def test_the_split_is_the_same_on_every_machine_and_in_every_release() -> None:
    assert np.flatnonzero(split(KEYS[:60], "r1", 10)).tolist() == [2, 4, 33, 48, 51, 52]


def test_the_id_and_the_key_do_not_run_into_each_other() -> None:
    first = [in_canary(f"b{number}", "a", 50) for number in range(64)]
    assert first != [in_canary(f"{number}", "ab", 50) for number in range(64)]


def test_keys_that_are_no_text_are_taken_as_polars_writes_them() -> None:
    assert split(pl.Series([1, 2, 3]), "r1", 50).tolist() == [in_canary(key, "r1", 50) for key in "123"]


def test_half_a_surrogate_pair_is_routed() -> None:
    assert in_canary("\ud800", "r1", 100)


def test_a_null_key_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 keys are null"):
        split(pl.Series(["a", None]), "r1", 50)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_weight_that_is_no_percentage_is_refused(percent: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        in_canary("a", "r1", percent)
    with pytest.raises(ValueError, match="from 0 to 100"):
        split(pl.Series(["a"]), "r1", percent)
