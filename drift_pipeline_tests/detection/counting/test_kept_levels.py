"""Levels get a bin for their share, never for their luck."""

import numpy as np
import pytest

from drift_pipeline.detection.counting.kept_levels import MOST_BIAS, kept_levels, selection_bias

Counts = list[int]


def kept(counts: Counts) -> list[int]:
    """Counts of the kept levels, of levels named by their place."""
    names = [f"level {place}" for place in range(len(counts))]
    return [counts[names.index(name)] for name in kept_levels(names, np.array(counts))]


COUNTRIES = [29170, 643, 583, 198, 137, 121, 114, 106, 100, 95, 90, 81, 80, 75, 73, 70, 67, 64, 62, 60, 59, 51, 44, 43]
COUNTRIES += [37, 34, 31, 29, 29, 28, 24, 20, 19, 19, 18, 18, 16, 14, 13, 13, 12, 1]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([70, 50, 5, 4], [70, 50, 5], id="few, and a rare one"),
        pytest.param([300] * 7, [300] * 7, id="few equal ones"),
        pytest.param([100] * 19, [100] * 19, id="as many equal ones as there are bins"),
        pytest.param([4, 3, 1], [], id="all rare"),
        pytest.param([], [], id="none"),
        pytest.param(COUNTRIES, COUNTRIES[:19], id="countries of a census"),
        pytest.param([600, 400, 200, *[1] * 800], [600, 400, 200], id="a few and ids"),
    ],
)
def test_levels_whose_counts_tell_them_apart_are_kept_by_frequency(counts: Counts, expected: Counts) -> None:
    assert kept(counts) == expected


@pytest.mark.parametrize(("levels", "rows"), [(40, 2000), (100, 2000), (100, 20_000), (300, 5000)])
def test_of_many_equal_levels_those_that_are_kept_are_no_more_frequent_than_the_others(levels: int, rows: int) -> None:
    """Chosen by count they would be by 0.8 to 2 sd; 200 samples tell 0.07 sd."""
    rng, excess = np.random.default_rng(levels), []
    for _ in range(200):
        counts = rng.multinomial(rows, np.full(levels, 1 / levels))
        order = np.argsort(-counts, kind="stable")
        found = kept_levels([str(place) for place in order], counts[order])
        assert 0 < len(found) <= 19
        excess.append((np.mean(counts[[int(name) for name in found]]) - rows / levels) / (rows / levels) ** 0.5)
    assert abs(np.mean(excess)) < 0.15


def test_of_levels_that_are_all_too_few_for_a_bin_none_is_kept_for_its_luck() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = np.sort(rng.multinomial(2000, np.full(1200, 1 / 1200)))[::-1]
        assert counts[0] >= 5
        assert kept(counts[counts > 0].tolist()) == []


@pytest.mark.parametrize("name", ["equal", "heavy"])
def test_the_bias_is_what_chi2_of_levels_kept_by_count_has_too_much(name: str) -> None:
    """Within a factor of two, as the counts stand for the rates; where it is small it is small."""
    rng = np.random.default_rng(1)
    shares = np.full(100, 0.01) if name == "equal" else np.arange(1.0, 1001) ** -1.0
    rates = 20_000 * shares / shares.sum()
    true, told = [], []
    for _ in range(200):
        counts = rng.poisson(rates)
        top = np.argsort(-counts, kind="stable")[:19]
        rest, expected = counts.sum() - counts[top].sum(), rates.sum() - rates[top].sum()
        parts = ((counts[top] - rates[top]) ** 2 / rates[top]).sum() + (rest - expected) ** 2 / expected
        true.append(parts - 20)
        told.append(selection_bias(counts[counts > 0], int(counts[top].min())))
    if name == "equal":
        assert 0.5 < np.mean(told) / np.mean(true) < 2
        assert min(told) > MOST_BIAS
    else:
        assert abs(np.mean(true)) < 2
        assert max(told) < MOST_BIAS
