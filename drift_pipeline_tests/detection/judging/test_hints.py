"""Hints: they warn where they see a fall, are silent about health, and say what they cannot see."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.detection.judging.hints import multivariate, sample_day, sampled_names
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline_tests.detection.worlds import Floats, World, rows, spec_of

SPEC = spec_of(
    "x",
    "w",
    categorical=("kind",),
    outcome={"column": "y", "delay": "7d"},
    kpis={"estimated_auroc": {"drop": 0.05}, "multivariate": {}},
)
REFERENCE_DAYS, PER_DAY = 28, 1000


@pytest.fixture(scope="module")
def healthy() -> World:
    return World.on(rows(np.random.default_rng(0), REFERENCE_DAYS, PER_DAY), SPEC)


def after(days: int, seed: int = 1) -> pl.DataFrame:
    return rows(np.random.default_rng(seed), days, PER_DAY, REFERENCE_DAYS)


def unsure(frame: pl.DataFrame) -> pl.DataFrame:
    """Scores near 1/2, and still right about their own chances: an honest fall of the AUROC."""
    score = 0.5 + (frame["_score"] - 0.5) * 0.4
    label = (np.random.default_rng(2).random(frame.height) < score.to_numpy()).astype(np.int8)
    return frame.with_columns(_score=score, _label=pl.Series(label))


def unlabelled(world: World, frame: pl.DataFrame, days: int) -> KpiResult:
    return replace(world).land(frame.with_columns(_label=pl.lit(None, pl.Int8))).at(days * DAY).kpis["estimated_auroc"]


def test_a_fall_that_the_scores_tell_is_a_warning_before_any_label(healthy: World) -> None:
    told = unlabelled(healthy, unsure(after(1)), 1)
    assert told.verdict is Verdict.WARN
    assert told.value is not None
    assert told.bound is not None
    assert told.value <= -0.05
    assert told.bound <= 0


def test_an_estimate_never_says_that_all_is_well(healthy: World) -> None:
    told = unlabelled(healthy, after(1), 1)
    assert told.verdict is Verdict.INCONCLUSIVE
    assert told.value == pytest.approx(0.0, abs=0.02)
    assert "no proof of health" in told.reason


def test_labels_that_mean_something_else_now_leave_the_estimate_where_it_was_and_later_hide_it(healthy: World) -> None:
    frame = after(15)
    wrong = frame.with_columns(_label=(1 - pl.col("_label")).cast(pl.Int8))
    world = replace(healthy).land(wrong)
    assert unlabelled(healthy, frame[:PER_DAY], 1).value == pytest.approx(0.0, abs=0.02)
    told = world.at(15 * DAY).kpis["estimated_auroc"]
    assert (told.verdict, told.value) == (Verdict.INCONCLUSIVE, None)
    assert told.reason.startswith("hidden: it said 0.8")


def test_hints_are_absent_unless_the_spec_asks_for_them() -> None:
    world = World.on(rows(np.random.default_rng(0), 8, 300), spec_of("x"))
    assert set(world.at(DAY).kpis) == {"psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"}


def days(rng: np.random.Generator, first: date, number: int, rho: float = 0.0) -> dict[date, Floats]:
    correlated = np.eye(5)
    correlated[0, 1] = correlated[1, 0] = rho
    normal = [rng.multivariate_normal(np.zeros(5), correlated, 200) for _ in range(number)]
    return {first + timedelta(days=k): part for k, part in enumerate(normal)}


def test_two_columns_that_begin_to_move_together_are_told_apart_and_named(healthy: World) -> None:
    rng, names = np.random.default_rng(0), sampled_names(healthy.reference.binning)
    before = days(rng, date(2026, 1, 1), 28)
    told = multivariate(healthy.reference.binning, before, days(rng, date(2026, 2, 1), 14, rho=0.6), 0.01)
    assert told.verdict is Verdict.WARN
    assert f"{names[0]} with {names[1]}" in told.reason
    same = multivariate(healthy.reference.binning, before, days(rng, date(2026, 2, 1), 14), 0.01)
    assert same.verdict is Verdict.INCONCLUSIVE
    assert same.value == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sides", [(7, 14), (28, 7)])
def test_below_eight_days_a_side_nothing_is_said(healthy: World, sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    before, now = (days(rng, date(2026, 1 + k, 1), number) for k, number in enumerate(sides))
    told = multivariate(healthy.reference.binning, before, now, 0.01)
    assert (told.verdict, told.reason) == (Verdict.INCONCLUSIVE, "7 days on one side, 8 are needed")


def test_a_days_sample_is_bounded_the_same_again_and_has_levels_as_numbers(healthy: World) -> None:
    frame, day = after(1), date(2026, 2, 1)
    binning = healthy.reference.binning
    sample = sample_day(binning, frame, day)
    assert sample.shape == (300, len(sampled_names(binning)))
    assert sampled_names(binning) == ["x", "w", "kind=a", "kind=b", "kind=c"]
    assert (sample == sample_day(binning, frame, day)).all()
    assert sample[:, 2:].sum(axis=1).tolist() == [1.0] * 300
    assert sample_day(binning, frame.clear(), day).shape == (0, 5)
