"""What passes, what fails, and what nobody can tell."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.detection.judging.performance import PERFORMANCE
from drift_pipeline.training.gates import (
    GateResult,
    Gates,
    Outcome,
    latency_gate,
    parity_gate,
    performance_gate,
    poison_floor,
)
from drift_pipeline.training.trainers import TRAINERS, fit
from drift_pipeline_tests.training.worlds import history, spec

AUROC, MAE = PERFORMANCE["binary_classification"], PERFORMANCE["regression"]
Array = npt.NDArray[np.float64]
PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN


def _block(rows: int = 2000, seed: int = 0) -> tuple[npt.NDArray[np.bool_], Array, Array]:
    """Labels, a signal that tells them with an AUROC of about 0.84, and noise."""
    random = np.random.default_rng(seed)
    labels = random.random(rows) < 0.4
    return labels, labels * 1.4 + random.normal(size=rows), random.normal(size=rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("candidate", "champion", "scheduled", "after_a_fall"),
    [
        ((1, 0.0), (1, 1.0), PASS, PASS),  # much better
        ((1, 1.0), (1, 0.0), FAIL, FAIL),  # much worse
        ((1, 0.0), (1, 0.0), PASS, FAIL),  # the same: no harm, and no help
        ((-1, 0.0), (1, 0.0), FAIL, FAIL),  # turned round
        ((1, 0.0), (-1, 0.0), PASS, PASS),  # against a champion that the world turned against
    ],
)
def test_a_better_model_passes_and_a_worse_one_fails(
    candidate: tuple[int, float], champion: tuple[int, float], scheduled: Outcome, after_a_fall: Outcome, seed: int
) -> None:
    labels, signal, noise = _block(seed=seed)
    scores = [sign * signal + weight * noise for sign, weight in (candidate, champion)]
    assert performance_gate(AUROC, labels, *scores, cause_is_performance=False).outcome is scheduled
    assert performance_gate(AUROC, labels, *scores, cause_is_performance=True).outcome is after_a_fall


def test_a_small_block_cannot_prove_that_a_noisy_model_is_no_worse() -> None:
    labels, _, noise = _block(rows=200)
    found = performance_gate(AUROC, labels, noise, noise[::-1], cause_is_performance=False)
    assert found.outcome is FAIL
    assert found.bound is not None
    assert found.bound < -0.02


def test_a_first_model_is_above_chance_or_fails() -> None:
    labels, signal, noise = _block(rows=500)
    good = performance_gate(AUROC, labels, signal, None, cause_is_performance=False)
    assert (good.outcome, good.limit) == (PASS, 0.0)
    assert good.value is not None
    assert good.bound is not None
    assert 0 < good.bound < good.value < 0.4
    assert performance_gate(AUROC, labels, noise, None, cause_is_performance=False).outcome is FAIL
    assert performance_gate(AUROC, labels, np.zeros(500), None, cause_is_performance=False).outcome is FAIL


def test_labels_that_cannot_tell_are_unknown() -> None:
    labels, signal, noise = _block()
    few = np.arange(2000) < 49
    enough = np.arange(2000) < 50
    assert performance_gate(AUROC, few, signal, noise, cause_is_performance=False).outcome is UNKNOWN
    assert performance_gate(AUROC, ~few, signal, None, cause_is_performance=True).outcome is UNKNOWN
    assert performance_gate(AUROC, enough, enough + 0.0, noise, cause_is_performance=True).outcome is PASS
    assert performance_gate(AUROC, [], [], [], cause_is_performance=False).outcome is UNKNOWN
    for bad in (np.where(few, np.nan, signal), signal[1:]):
        assert performance_gate(AUROC, labels, bad, noise, cause_is_performance=False).outcome is UNKNOWN
        assert performance_gate(AUROC, labels, signal, bad, cause_is_performance=False).outcome is UNKNOWN


def _decisions(**groups: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], pl.Series]:
    """Group name -> (positives, rows)."""
    decisions = [row < positives for positives, rows in groups.values() for row in range(rows)]
    return np.array(decisions), pl.Series([name for name, (_, rows) in groups.items() for _ in range(rows)])


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        ((60, 200), (60, 200), PASS),  # gap 0.00 after 0.05
        ((60, 200), (44, 200), PASS),  # 0.08: exactly what is allowed, within a float
        ((60, 200), (40, 200), FAIL),  # 0.10
        ((40, 200), (60, 200), FAIL),  # the other way round is a gap too
        ((60, 200), (0, 200), FAIL),  # nobody of a group
        ((0, 200), (0, 200), PASS),
    ],
)
def test_a_gap_may_grow_by_what_is_allowed(a: tuple[int, int], b: tuple[int, int], outcome: Outcome) -> None:
    champion, groups = _decisions(a=(60, 200), b=(50, 200))
    candidate, _ = _decisions(a=a, b=b)
    found = parity_gate(candidate, champion, groups, allowed_drop=0.0300001, column="region")
    assert (found.name, found.outcome) == ("parity:region", outcome)


def test_small_and_unknown_groups_are_not_compared() -> None:
    champion, groups = _decisions(a=(60, 200), b=(60, 200), c=(30, 99), unknown=(30, 200))
    candidate, _ = _decisions(a=(60, 200), b=(60, 200), c=(0, 99), unknown=(0, 200))
    named = groups.replace("unknown", None)
    assert parity_gate(candidate, champion, named, allowed_drop=0.03, column="x").outcome is PASS
    assert parity_gate(candidate, champion, groups, allowed_drop=0.03, column="x").outcome is FAIL


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a", None], "300 rows without a group"),
        ([1.0, float("nan")], "300 rows without a group"),
        ([True, None], "300 rows without a group"),
        ([7, None], "300 rows without a group"),
    ],
    ids=["text", "a float's NaN", "booleans", "whole numbers"],
)
def test_rows_without_a_group_are_no_group_but_counted(groups: list[object], said: str) -> None:
    named = pl.Series([groups[0]] * 300 + [groups[1]] * 300, strict=False)
    decided = np.r_[np.ones(300, bool), np.zeros(300, bool)]
    found = parity_gate(decided, decided, named, allowed_drop=0.03, column="x")
    assert found.outcome is UNKNOWN
    assert said in found.reason


def test_a_denied_group_and_a_small_one_are_told_by_name() -> None:
    champion, groups = _decisions(a=(60, 200), b=(60, 200), c=(30, 99))
    candidate, _ = _decisions(a=(60, 200), b=(0, 200), c=(0, 99))
    found = parity_gate(candidate, champion, groups, allowed_drop=0.03, column="x")
    assert found.outcome is FAIL
    assert found.reason.endswith("over 2 groups; b is denied entirely (200 rows); not judged: c (99 rows)")


def test_one_group_is_nothing_to_compare_and_a_first_model_is_the_reference() -> None:
    champion, groups = _decisions(a=(60, 400), b=(6, 99))
    alone = parity_gate(champion, champion, groups, allowed_drop=0.03, column="x")
    assert alone.outcome is UNKNOWN
    assert alone.reason.startswith("fewer than two groups have 100 rows; not judged: b (99 rows);")
    assert (
        parity_gate(champion, None, pl.Series([None] * 499, dtype=pl.String), allowed_drop=0.03, column="x").outcome
        is UNKNOWN
    )
    decisions, groups = _decisions(a=(60, 200), b=(20, 200))
    first = parity_gate(decisions, None, groups, allowed_drop=0.03, column="x")
    assert first.outcome is PASS
    assert first.value == pytest.approx(0.2)


@pytest.mark.parametrize(("slow", "outcome"), [(3, PASS), (4, FAIL)])
def test_latency_is_the_95th_percentile_after_the_warm_up(slow: int, outcome: Outcome) -> None:
    """3 slow ones of 60 lie beyond the percentile, a fourth reaches into it; the warm-up's do not count."""
    train = history(200)
    pipeline = fit(TRAINERS["logistic_regression"].build({}, spec(), 0), train, spec().features)
    durations = [9.0] * 5 + [0.2] * slow + [0.01] * (60 - slow)
    found = latency_gate(pipeline, train[:7], spec().features, limit_ms=100, clock=_ticks(durations).__next__)
    assert found.outcome is outcome
    real = latency_gate(pipeline, train, spec().features, limit_ms=60_000)
    assert real.value is not None
    assert 0.1 < real.value < 60_000
    assert latency_gate(pipeline, train[:0], spec().features, limit_ms=100).outcome is UNKNOWN


def _ticks(durations: list[float]) -> Iterator[float]:
    now = 0.0
    for duration in durations:
        yield now
        now += duration
        yield now


def test_the_floor_stops_inverted_labels_and_lets_an_aged_model_pass() -> None:
    labels, signal, noise = _block()
    aged = poison_floor(labels, signal + 2 * noise)
    assert aged.value is not None
    assert (aged.outcome, aged.value < 0.75) == (PASS, True)
    poisoned = poison_floor(labels, -signal)
    assert poisoned.outcome is FAIL
    assert "a person has to decide" in poisoned.reason
    for given in ((None, None), ([], []), (labels, None), ([1, 1], [0.1, 0.2]), ([0, 1], [0.1, np.nan])):
        assert poison_floor(*given).outcome is UNKNOWN


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [((PASS, PASS), True), ((PASS, FAIL), False), ((PASS, UNKNOWN), False), ((UNKNOWN,), False), ((), False)],
)
def test_only_passes_pass(outcomes: tuple[Outcome, ...], passed: bool) -> None:
    gates = Gates(tuple(GateResult("g", outcome, 0.5, None, None, "because") for outcome in outcomes))
    assert gates.passed is passed
    document = read_canonical(canonical(gates.to_json()))
    assert document["passed"] is passed
    assert [result["outcome"] for result in document["results"]] == [str(outcome) for outcome in outcomes]
