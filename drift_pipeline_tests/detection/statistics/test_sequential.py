"""Sequential bounds: wrong with probability alpha at most over all looks together, and yet they find what is there."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from drift_pipeline.detection.statistics.parity import demographic_parity_difference
from drift_pipeline.detection.statistics.sequential import (
    mean_radius,
    parity_widening,
    share_excess,
    share_log_e,
    share_lower_bound,
    share_p_value,
    share_upper_bound,
)

ALPHA = 0.01
shares = st.floats(0.001, 0.999)
alphas = st.floats(1e-4, 0.25)


@given(st.integers(1, 200), shares, st.floats(0, 1))
def test_the_e_value_is_one_on_average_at_the_allowed_share_and_less_below(
    rows: int, allowed: float, part: float
) -> None:
    above = np.arange(rows + 1)
    log_e = share_log_e(above, rows, allowed)
    for share in (allowed, part * allowed):
        assert np.exp(binom.logpmf(above, rows, share) + log_e).sum() <= 1 + 1e-9


@given(st.integers(1, 300), st.integers(0, 300), shares)
def test_at_the_allowed_share_no_row_is_expected_to_change_the_evidence(above: int, below: int, allowed: float) -> None:
    rows = above + below
    before = share_log_e(above, rows, allowed)
    assume(before > -20)  # far below, floats end before the evidence does
    up, down = np.exp(share_log_e([above + 1, above], rows + 1, allowed) - before)
    assert allowed * up + (1 - allowed) * down == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("allowed", [0.01, 0.05, 0.3])
def test_a_share_at_its_limit_is_refuted_with_probability_alpha_at_most_in_200_looks(allowed: float) -> None:
    """Exactly, without simulation: the distribution of the counts that were never refuted, carried from look to look.

    The fixed-level rule refutes it several times as often.
    """
    ever = [_ever_refuted(allowed, refute) for refute in (_anytime, _fixed_level)]
    assert ever[0] <= ALPHA
    assert ever[1] > 5 * ALPHA


def _anytime(above: npt.NDArray[np.int64], rows: int, allowed: float) -> npt.NDArray[np.bool_]:
    return share_p_value(above, rows, allowed) <= ALPHA


def _fixed_level(above: npt.NDArray[np.int64], rows: int, allowed: float) -> npt.NDArray[np.bool_]:
    return np.asarray(binom.sf(above - 1, rows, allowed) <= ALPHA)


def _ever_refuted(
    allowed: float, refute: Callable[..., npt.NDArray[np.bool_]], looks: int = 200, each: int = 20
) -> float:
    step, alive = binom.pmf(np.arange(each + 1), each, allowed), np.ones(1)
    for look in range(1, looks + 1):
        alive = np.convolve(alive, step)
        alive[refute(np.arange(alive.size), look * each, allowed)] = 0.0
    return 1 - float(alive.sum())


@given(st.integers(0, 3000), st.integers(0, 3000), alphas, shares)
def test_the_bound_is_where_the_evidence_turns(above: int, below: int, alpha: float, allowed: float) -> None:
    rows = above + below
    bound = float(share_lower_bound(above, rows, alpha))
    refuted = float(share_log_e(above, rows, allowed)) > -math.log(alpha)
    assert (allowed < bound) == refuted or allowed == pytest.approx(bound, abs=1e-9)
    assert 0 <= bound <= above / max(rows, 1)
    assert share_lower_bound(above + 1, rows + 1, alpha) >= bound
    assert share_upper_bound(below, rows, alpha) == pytest.approx(1 - bound)


def test_bounds_close_in_on_the_share() -> None:
    rows = np.array([100, 1000, 10_000, 1_000_000])
    assert share_lower_bound(rows // 10, rows, ALPHA) == pytest.approx([0.0267, 0.0682, 0.0884, 0.0986], abs=1e-4)
    assert share_upper_bound(rows // 10, rows, ALPHA) == pytest.approx([0.2304, 0.1371, 0.1118, 0.1013], abs=1e-3)


def test_without_rows_nothing_is_known() -> None:
    assert share_lower_bound(0, 0, ALPHA) == 0
    assert share_upper_bound(0, 0, ALPHA) == 1
    assert share_excess((0, 0), (0, 0), ALPHA) == -1
    assert share_p_value(0, 0, 0.5) == 1


def test_equal_shares_are_told_apart_in_one_of_a_hundred_runs_at_most() -> None:
    random = np.random.default_rng(1)
    rows = np.arange(40, 1201, 40)
    first = random.binomial(40, 0.08, size=(300, rows.size)).cumsum(axis=1)
    second = random.binomial(360, 0.08, size=(300, rows.size)).cumsum(axis=1)
    ever = (share_excess((first, rows), (second, 9 * rows), ALPHA) > 0).any(axis=1)
    assert ever.mean() <= ALPHA
    assert (share_excess((2 * first, rows), (second, 9 * rows), ALPHA)[:, -1] > 0).mean() > 0.95


def test_a_mean_at_its_limit_is_missed_in_one_of_a_hundred_runs_at_most() -> None:
    """Skewed rows, first looked at after 100 of them; looked at every 20 rows, z misses ten times as often."""
    random = np.random.default_rng(2)
    values = random.exponential(size=(1000, 4000)) - 1
    rows = np.arange(100, 4001, 20)
    mean = values.cumsum(axis=1)[:, rows - 1] / rows
    error = np.sqrt(((values**2).cumsum(axis=1)[:, rows - 1] / rows - mean**2) / (rows - 1))
    radius = np.column_stack([mean_radius(error[:, i], float(n), ALPHA) for i, n in enumerate(rows)])
    assert (mean - radius > 0).any(axis=1).mean() <= ALPHA
    assert (mean + radius < 0).any(axis=1).mean() <= 2 * ALPHA
    assert (mean + 2.326 * error < 0).any(axis=1).mean() > 5 * ALPHA


@pytest.mark.parametrize("tuned_for", [100, 1000, 20_000])
@pytest.mark.parametrize("alpha", [0.0025, 0.01, 0.1])
def test_the_radius_is_narrowest_near_where_it_is_tuned_for(tuned_for: float, alpha: float) -> None:
    tuned = mean_radius(1.0, tuned_for, alpha, tuned_for)
    others = [float(mean_radius(1.0, tuned_for, alpha, tuned_for * factor)) for factor in np.geomspace(0.02, 50, 41)]
    assert tuned <= 1.02 * min(others)
    assert min(others[0], others[-1]) > 1.02 * tuned


def test_an_unknown_error_has_no_end_and_no_error_has_no_radius() -> None:
    assert mean_radius([0.0, math.inf], 100, ALPHA).tolist() == [0.0, math.inf]


groups = st.lists(
    st.tuples(st.integers(10, 500), st.integers(0, 10), st.integers(0, 10), st.integers(10, 500)),
    min_size=2,
    max_size=5,
)


@given(groups)
def test_a_widening_is_bounded_from_below_and_no_order_of_the_groups_counts(
    counts: list[tuple[int, int, int, int]],
) -> None:
    both, mine, other, neither = (np.array(side) for side in zip(*counts, strict=True))
    totals = 100 + both + mine + other + neither
    found = parity_widening(totals, both + mine, both + other, both, ALPHA)
    assert found is not None
    assert found.candidate == pytest.approx(demographic_parity_difference(both + mine, totals))
    assert found.champion == pytest.approx(demographic_parity_difference(both + other, totals))
    assert found.lower_bound <= found.candidate - found.champion + 1e-12
    back = slice(None, None, -1)
    turned = parity_widening(totals[back], (both + mine)[back], (both + other)[back], both[back], ALPHA)
    assert turned is not None
    assert turned.lower_bound == pytest.approx(found.lower_bound)
    same = parity_widening(totals, both + mine, both + mine, both + mine, ALPHA)
    assert same is not None
    assert same.lower_bound <= 0


@pytest.mark.parametrize("truth", ["champion has a gap", "champion has none", "three groups"])
def test_a_gap_at_its_limit_is_called_wider_in_one_of_a_hundred_runs_at_most(truth: str) -> None:
    champion, candidate = {
        "champion has a gap": ([0.47, 0.40], [0.50, 0.40]),
        "champion has none": ([0.40, 0.40], [0.43, 0.40]),
        "three groups": ([0.47, 0.40, 0.45], [0.50, 0.42, 0.40]),
    }[truth]
    limit = np.ptp(candidate) - np.ptp(champion)
    random, failed = np.random.default_rng(3), 0
    for _ in range(300):
        uniform = random.random((len(champion), 60, 40))
        flips = random.random((len(champion), 60, 40))
        h = uniform < np.reshape(champion, (-1, 1, 1))
        gain, rate = np.subtract(candidate, champion), np.asarray(champion)
        up, down = np.maximum(gain, 0) / (1 - rate), np.maximum(-gain, 0) / rate
        c = np.where(h, flips >= down[:, None, None], flips < up[:, None, None])
        totals, mine, other, both = (
            side.sum(axis=2).cumsum(axis=1) for side in (np.ones_like(h, dtype=int), c, h, c & h)
        )
        looks = (parity_widening(totals[:, i], mine[:, i], other[:, i], both[:, i], ALPHA) for i in range(5, 60))
        failed += any(found is not None and found.lower_bound > limit for found in looks)
    assert failed <= 300 * ALPHA


def test_small_groups_are_not_compared() -> None:
    assert parity_widening([500, 99], [250, 50], [250, 50], [250, 50], ALPHA) is None
    assert parity_widening([500], [250], [250], [250], ALPHA) is None
    wider = [
        parity_widening([500, 500, n], [400, 100, n // 2], [250, 250, n // 2], [250, 100, n // 2], ALPHA)
        for n in (9, 500)
    ]
    assert [found and found.rows for found in wider] == [1000, 1500]
    assert all(found is not None and found.lower_bound > 0.4 for found in wider)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no more above than rows"):
        share_log_e(2, 1, 0.5)
    with pytest.raises(ValueError, match="share inside"):
        share_log_e(1, 2, 1.0)
    for alpha in (0.0, 0.3):
        with pytest.raises(ValueError, match="alpha is the chance"):
            share_lower_bound(1, 2, alpha)
        with pytest.raises(ValueError, match="alpha is the chance"):
            mean_radius(1.0, 10, alpha)
    with pytest.raises(ValueError, match="an estimate has rows"):
        mean_radius(1.0, 0, ALPHA)
    with pytest.raises(ValueError, match="positives of both"):
        parity_widening([200, 200], [100, 100], [100, 100], [101, 50], ALPHA)
