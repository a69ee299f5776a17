"""Demographic parity: which groups count, and a bound that seldom cries wolf and still finds a gap."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.detection.statistics.parity import (
    ParityChange,
    demographic_parity_difference,
    one_sided,
    parity_change,
    usable_groups,
)

Counts = npt.NDArray[np.int64]


def side(
    random: np.random.Generator, rates: list[float], blocks: int, rows: int, block_sd: float = 0.0
) -> tuple[Counts, Counts]:
    """Decisions of `rows` a block and group; `block_sd` moves each group's rate from block to block."""
    totals = random.poisson(rows, (blocks, len(rates)))
    moved = np.clip(rates + block_sd * random.standard_normal(totals.shape), 0.01, 0.99)
    return random.binomial(totals, moved), totals


def change(*sides: tuple[Counts, Counts], draws: int = 300, seed: int = 0) -> ParityChange:
    found = parity_change(*sides[0], *sides[1], draws=draws, seed=seed)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("totals", "usable"),
    [([[100]], [True]), ([[99]], [False]), ([[0]], [False]), ([[500, 99], [99, 500]], [False, False])],
    ids=["enough", "a row too few", "none", "each side needs them"],
)
def test_a_group_needs_100_rows_on_every_side_and_no_decision(totals: list[list[int]], usable: list[bool]) -> None:
    assert usable_groups(*totals).tolist() == usable


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).filter(any), min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_the_difference_is_the_widest_gap_of_any_pair(groups: list[tuple[int, int]]) -> None:
    positives, totals = [yes for yes, _ in groups], [yes + no for yes, no in groups]
    rates = [yes / total for yes, total in zip(positives, totals, strict=True)]
    found = demographic_parity_difference(positives, totals)
    assert found == max(abs(a - b) for a in rates for b in rates)
    assert demographic_parity_difference(positives[::-1], totals[::-1]) == found
    assert 0 <= found <= 1


def test_equal_rates_and_a_single_group_have_no_gap() -> None:
    assert demographic_parity_difference([10, 20, 5], [100, 200, 50]) == 0
    assert demographic_parity_difference([10], [100]) == 0


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="every group needs rows"):
        demographic_parity_difference([0, 1], [0, 2])
    with pytest.raises(ValueError, match="there must be one"):
        demographic_parity_difference([], [])
    with pytest.raises(ValueError, match="part of totals"):
        demographic_parity_difference([3], [2])
    with pytest.raises(ValueError, match="part of totals"):
        one_sided(["a"], [3], [20, 20])
    with pytest.raises(ValueError, match="the same groups on both sides"):
        parity_change([[1, 2]], [[5, 5]], [[1, 2, 3]], [[5, 5, 5]])
    with pytest.raises(ValueError, match=r"counts are \(blocks, groups\)"):
        parity_change([1, 2], [5, 5], [1, 2], [5, 5])
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        parity_change([[30, 30]], [[200, 200]], [[30, 30]], [[200, 200]], level=0.01)


def test_the_same_decisions_have_not_changed() -> None:
    counts = side(np.random.default_rng(0), [0.3, 0.4, 0.5], blocks=24, rows=50)
    found = change(counts, counts)
    assert found.delta == 0
    assert found.upper_bound > 0
    assert found.dpd_reference == found.dpd_current == demographic_parity_difference(*(c.sum(axis=0) for c in counts))


def test_the_bound_is_seeded_and_the_order_of_blocks_is_no_matter_of_delta() -> None:
    random = np.random.default_rng(1)
    reference, current = side(random, [0.3, 0.3], 24, 50), side(random, [0.3, 0.2], 24, 30)
    found = change(reference, current)
    assert change(reference, current) == found
    turned = change(reference, (current[0][::-1], current[1][::-1]))
    assert turned.delta == found.delta
    assert turned.upper_bound == pytest.approx(found.upper_bound, abs=0.02)


def test_groups_unusable_on_either_side_are_left_out() -> None:
    reference = [[300, 300, 30, 300]], [[1000, 1000, 99, 1000]]
    current = [[150, 9, 150, 100]], [[500, 99, 500, 500]]
    found = parity_change(*reference, *current)
    assert found is not None
    assert found.groups_used == (0, 3)
    assert found.dpd_current == pytest.approx(0.1)
    assert found.delta == pytest.approx(-0.1)


def test_fewer_than_two_usable_groups_compare_nothing() -> None:
    assert parity_change([[300, 3]], [[1000, 99]], [[150, 150]], [[500, 500]]) is None
    assert parity_change([[300]], [[1000]], [[150]], [[500]]) is None


BREACH = -0.03


@pytest.mark.parametrize(
    ("reference", "current", "breaches"),
    [
        (([600, 500], [1000, 1000]), ([600, 0], [1000, 1000]), True),
        (([600, 500], [1000, 1000]), ([600, 1000], [1000, 1000]), True),
        (([600, 500, 550], [1000] * 3), ([600, 500, 0], [1000] * 3), True),
        (([60, 50], [100, 100]), ([60, 0], [100, 100]), True),
        (([600, 0], [1000, 1000]), ([600, 0], [1000, 1000]), False),
        (([600, 1000], [1000, 1000]), ([600, 1000], [1000, 1000]), False),
        (([1, 2], [1000, 1000]), ([1, 0], [1000, 1000]), False),
        (([600, 500], [1000, 1000]), ([0, 0], [1000, 1000]), False),
        (([600, 500], [1000, 1000]), ([1000, 1000], [1000, 1000]), False),
        (([0, 0], [1000, 1000]), ([0, 0], [1000, 1000]), False),
    ],
    ids=[
        "denied",
        "granted",
        "one of three denied",
        "denied, as few rows as are judged",
        "denied before and now",
        "granted before and now",
        "rates near 0, one of them none",
        "nobody is granted: no gap",
        "everybody is granted: no gap",
        "nobody, before and now",
    ],
)
@pytest.mark.parametrize("blocks", [1, 20])
def test_a_group_that_is_denied_or_granted_entirely_is_judged(
    reference: tuple[list[int], list[int]], current: tuple[list[int], list[int]], breaches: bool, blocks: int
) -> None:
    sides = [np.array(part) for side in (reference, current) for part in side]
    spread = [np.array([side // blocks + (number < side % blocks) for number in range(blocks)]) for side in sides]
    found = parity_change(spread[0], spread[1], spread[2], spread[3])
    assert found is not None
    assert (found.upper_bound <= BREACH) == breaches


@pytest.mark.parametrize("blocks", [1, 10])
@pytest.mark.parametrize("reference_rows", [300, 20_000])
def test_the_bound_of_a_denied_group_is_the_exact_binomial_one(blocks: int, reference_rows: int) -> None:
    """Of 200 rows none: the rate may be 1 - .01 ** (1 / 200) = 2.3 % at 99 %, however often blocks repeat the 0."""
    totals = np.full((blocks, 2), 200 // blocks)
    positives = np.column_stack([totals[:, 0], np.zeros(blocks, np.int64)])  # the other is granted entirely: exact, too
    half = np.full((1, 2), reference_rows // 2)
    found = parity_change(half, 2 * half, positives, totals, draws=20_000)
    assert found is not None
    assert found.delta == -1
    exact = 1 - 0.01 ** (1 / 200)
    assert -1 + exact < found.upper_bound < -1 + 2 * exact + 4 / reference_rows**0.5


def near_the_ends(runs: int, draws: int, rates: tuple[float, ...]) -> list[tuple[float, float]]:
    """Of healthy samples, how often the bound claims a wider gap at all, and one of 3 points."""
    random, told = np.random.default_rng(11), []
    for rate in rates:
        for groups, before, now in ((2, (48, 200), (28, 10)), (4, (48, 50), (7, 50)), (3, (1, 2000), (1, 150))):
            found = [
                parity_change(
                    *side_of(random, rate, groups, *before), *side_of(random, rate, groups, *now), draws=draws, seed=run
                )
                for run in range(runs)
            ]
            bounds = np.array([each.upper_bound for each in found if each is not None])
            told.append((float(np.mean(bounds < 0)), float(np.mean(bounds <= BREACH))))
    return told


def side_of(random: np.random.Generator, rate: float, groups: int, blocks: int, rows: int) -> tuple[Counts, Counts]:
    totals = random.poisson(rows, (blocks, groups))
    return random.binomial(totals, rate), totals


def test_equal_rates_near_0_and_1_seldom_claim_a_gap() -> None:
    assert max(max(pair) for pair in near_the_ends(150, 200, (0.005, 0.995))) <= 0.02


@pytest.mark.slow
def test_equal_rates_claim_a_gap_in_1_percent_at_most_wherever_they_lie() -> None:
    runs = 3000
    error = 3 * (0.01 / runs) ** 0.5
    for claimed, breached in near_the_ends(runs, 500, (0.001, 0.005, 0.02, 0.1, 0.5, 0.98, 0.995)):
        assert claimed <= 0.01 + error
        assert breached <= 0.01 + error


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_denied_or_granted_group_is_always_found(rate: float, end: float) -> None:
    """Where the gap is wide enough to matter: 10 points at the least, on 200 rows a group."""
    random = np.random.default_rng(12)
    for run in range(500):
        totals = random.poisson(10, (28, 3)) + 1
        positives = random.binomial(totals, rate)
        positives[:, 2] = totals[:, 2] * int(end)
        if abs(rate - end) < 0.2:
            continue
        found = parity_change(*side_of(random, rate, 3, 60, 50), positives, totals, draws=300, seed=run)
        assert found is not None
        assert found.upper_bound <= BREACH


def test_grows_with_the_gap() -> None:
    random = np.random.default_rng(2)
    reference = side(random, [0.3, 0.3, 0.3], 96, 200)
    found = [change(reference, side(random, [0.3, 0.3, rate], 24, 200)) for rate in (0.3, 0.25, 0.2, 0.1)]
    bounds = [each.upper_bound for each in found]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 0
    assert bounds[-1] < -0.1


@pytest.mark.parametrize(
    ("groups", "reference", "current", "block_sd"),
    [
        (2, (48, 200), (24, 10), 0.0),
        (4, (48, 200), (24, 10), 0.05),
        (4, (24, 40), (4, 50), 0.05),
        (6, (28, 100), (2, 100), 0.05),
        (3, (1, 500), (1, 150), 0.0),
    ],
)
def test_at_equal_rates_a_widened_gap_is_claimed_in_about_1_percent(
    groups: int, reference: tuple[int, int], current: tuple[int, int], block_sd: float
) -> None:
    """The raw delta is below 0 far more often: the gap of a small window is wider by chance."""
    random, rates = np.random.default_rng(3), [0.3] * groups
    found = [
        change(side(random, rates, *reference, block_sd), side(random, rates, *current, block_sd), draws=200, seed=run)
        for run in range(2000)
    ]
    assert np.mean([each.upper_bound < 0 for each in found]) <= 0.015
    assert np.mean([each.delta < 0 for each in found]) > 0.5


@pytest.mark.parametrize(("rows_reference", "rows_current"), [(200, 20), (20, 200)])
def test_at_unequal_rates_the_true_change_is_covered(rows_reference: int, rows_current: int) -> None:
    """Also when the reference is the smaller side, where its own chance gap must not pass for a real one."""
    random, before, now = np.random.default_rng(4), [0.3, 0.33, 0.36], [0.28, 0.33, 0.4]
    bounds = [
        change(side(random, before, 24, rows_reference), side(random, now, 24, rows_current), draws=200, seed=run)
        for run in range(1000)
    ]
    assert np.mean([each.upper_bound < 0.06 - 0.12 for each in bounds]) <= 0.015


def test_a_gap_of_10_points_is_found_on_a_window_of_usual_size() -> None:
    random = np.random.default_rng(5)
    reference = side(random, [0.3, 0.3, 0.3], 96, 200)
    found = [change(reference, side(random, [0.3, 0.3, 0.2], 24, 100), seed=run) for run in range(200)]
    assert np.mean([each.upper_bound <= -0.03 for each in found]) > 0.9
