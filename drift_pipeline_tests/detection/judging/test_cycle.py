"""Whole cycles: what a window is held against while it lacks a part of its day or week, or when it waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, Window
from drift_pipeline.detection.judging.cycle import cycle_of
from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.spec import ModelSpec
from drift_pipeline_tests.detection.worlds import World, spec_of

START = datetime(2025, 3, 3, tzinfo=UTC)  # a Monday
DAYS, AN_HOUR = 35, 40
SPEC = spec_of("x", outcome={"column": "y", "delay": "1d"})
QUICK = spec_of("x", outcome={"column": "y", "delay": "15m"})


def traffic(days: int, first_day: int = 0, seed: int = 0, an_hour: int = AN_HOUR) -> pl.DataFrame:
    """`x` follows the hour of the day, and at night the score says nothing of the label."""
    rng, n = np.random.default_rng([seed, first_day]), days * 24 * an_hour
    hour = np.arange(n) / an_hour
    of_day = hour % 24
    score = np.clip(0.5 + 0.45 * np.sin(of_day / 24 * 2 * np.pi) * (of_day > 8) + rng.normal(0, 0.04, n), 0.01, 0.99)
    times = ((first_day * 24 + hour) * 3_600_000_000).astype(np.int64) + int(START.timestamp() * 1e6)
    return pl.DataFrame(
        {
            "_time": pl.Series(times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "x": 3 * np.sin(of_day / 24 * 2 * np.pi) + rng.standard_normal(n),
            "_score": score,
            "_label": (rng.random(n) < score).astype(np.int8),
        }
    )


@pytest.fixture(scope="module")
def hourly() -> World:
    return World.on(traffic(DAYS), SPEC, HOUR)


def told(world: World, frame: pl.DataFrame, after: timedelta, name: str = "auroc") -> KpiResult:
    return world.again().land(frame).at(after).kpis[name]


# labels: after re-baselining


def test_labels_wait_until_they_fill_a_whole_day(hourly: World) -> None:
    """Of the night alone, which is all there is at first, the score says nothing: no fall, the day is not over."""
    frame = traffic(4, DAYS, 1)
    found = [
        told(hourly, frame.filter(pl.col("_time") < hourly.baseline_at + n * HOUR), n * HOUR) for n in (30, 36, 47)
    ]
    assert {kpi.verdict for kpi in found} == {Verdict.INCONCLUSIVE}
    known = hourly.baseline_at + 2 * DAY
    said = f"labels wait: the first whole 1d window of labels ends {known:%Y-%m-%d} 00:00 UTC"
    assert said in found[0].reason
    whole = told(hourly, frame, 48 * HOUR)
    assert (whole.verdict, whole.n) == (Verdict.OK, 24 * AN_HOUR)


@pytest.mark.parametrize("first_hour", [0, 5, 13])
def test_whenever_monitoring_begins_its_cohorts_hold_whole_days(hourly: World, first_hour: int) -> None:
    world = replace(hourly, baseline_at=hourly.baseline_at + first_hour * HOUR)
    frame = traffic(6, DAYS, 2).filter(pl.col("_time") >= world.baseline_at)
    for hours in (1, 26, 47, 48, 60, 97):
        kpi = told(world, frame.filter(pl.col("_time") < world.baseline_at + hours * HOUR), hours * HOUR)
        assert kpi.verdict is (Verdict.INCONCLUSIVE if hours < 48 else Verdict.OK), (hours, kpi)
        assert hours < 48 or kpi.n % (24 * AN_HOUR) == 0


@pytest.mark.parametrize("delay", ["36h", "3d", "10d"])
def test_labels_that_take_longer_than_hours_are_kept_are_held_day_by_day(delay: str) -> None:
    """When a day is folded, a window that slides by the hour would lose a part of it."""
    spec = spec_of("x", outcome={"column": "y", "delay": delay})
    world, frame = World.on(traffic(DAYS), spec, HOUR), traffic(16, DAYS, 3)
    for hours in range(16 * 24 - 28, 16 * 24, 9):
        now = world.baseline_at + hours * HOUR
        here = world.again().land(frame.filter(pl.col("_time") < now))
        here.slices.consolidate(now)
        kpi = here.at(hours * HOUR).kpis["auroc"]
        assert kpi.verdict is Verdict.OK, (hours, kpi)
        assert kpi.n % (24 * AN_HOUR) == 0


def test_a_regressions_errors_wait_for_the_whole_day_too() -> None:
    spec = ModelSpec.model_validate(
        {
            "name": "m",
            "owner": "o",
            "task": "regression",
            "features": {"x": "numeric"},
            "outcome": {"column": "y", "delay": "1d"},
        }
    )

    def minutes(days: int, first_day: int, seed: int) -> pl.DataFrame:
        frame, rng = traffic(days, first_day, seed), np.random.default_rng(seed)
        spread = pl.when(pl.col("_time").dt.hour() < 8).then(4.0).otherwise(1.0)
        noise = pl.Series(rng.standard_normal(frame.height))
        return frame.with_columns(_score=pl.lit(10.0) + pl.col("x"), _label=10 + pl.col("x") + spread * noise)

    world, later = World.on(minutes(DAYS, 0, 1), spec, HOUR), minutes(3, DAYS, 2)
    early = told(world, later.filter(pl.col("_time") < world.baseline_at + 30 * HOUR), 30 * HOUR, "mae")
    assert (early.verdict, early.value) == (Verdict.INCONCLUSIVE, None)
    assert "the first whole 1d window of labels ends" in early.reason
    for name in ("mae", "residuals"):
        assert told(world, later, 49 * HOUR, name).verdict is Verdict.OK


# labels that come within minutes: windows under a day


def test_a_window_of_an_hour_is_held_against_the_same_hours_of_the_held_out_rows() -> None:
    world = World.on(traffic(6, an_hour=1200), QUICK, MINUTE)
    frame = traffic(1, 6, 4, 1200)
    assert world.reference.auroc is not None
    assert world.reference.auroc.value > 0.6
    for hours in (3, 6, 14):
        now = world.baseline_at + hours * HOUR
        here = world.again()
        for start in (now - 2 * HOUR, now - HOUR):
            part = frame.filter(pl.col("_time").is_between(start, start + HOUR, closed="left"))
            here.slices.add(part, start + HOUR)
            here.slices.add_labels(part, start + HOUR)
        kpi = here.monitor.evaluate(now).kpis["auroc"]
        assert kpi.verdict is Verdict.OK, (hours, kpi)
        assert kpi.window in (HOUR, DAY)  # or what there is of the day
        if hours < 8:
            assert "against 0.5" in kpi.reason


def test_where_the_held_out_rows_of_these_hours_are_few_the_hours_about_them_are_taken_in() -> None:
    reference = World.on(traffic(8, an_hour=400), QUICK, MINUTE).reference
    assert reference.by_hour_of_day is not None
    least = min(int(side.sum(axis=1).min()) for side in reference.by_hour_of_day)
    rng = np.random.default_rng(0)  # about 80 of a class an hour, where 200 are needed
    few = tuple(rng.binomial(side, min(1.0, 80 / least)) for side in reference.by_hour_of_day)
    world = World(replace(reference, by_hour_of_day=(few[0], few[1])), QUICK, reference.span.end, MINUTE)
    now = world.baseline_at + 3 * HOUR
    part = traffic(1, 8, 5, 400).filter(pl.col("_time") < now)
    world.slices.add(part, now)
    world.slices.add_labels(part, now)
    kpi = world.monitor.evaluate(now).kpis["auroc"]
    assert kpi.verdict is Verdict.OK, kpi
    assert world.reference.auroc is not None
    assert float(kpi.reason.split("against ")[1].split()[0]) < world.reference.auroc.value - 0.03


# outages and maintenance


def outage(frame: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """Without the rows of hours first to last of its last day."""
    end = frame["_time"][-1]
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    return frame.filter(~pl.col("_time").is_between(midnight + first * HOUR, midnight + last * HOUR, closed="left"))


@pytest.mark.parametrize(("first", "last"), [(0, 8), (9, 17), (6, 24), (11, 12)])
def test_a_day_with_an_outage_drifts_no_more_than_a_whole_one(hourly: World, first: int, last: int) -> None:
    report = hourly.again().land(outage(traffic(3, DAYS, 6), first, last)).at(72 * HOUR)
    assert report.drifting == ()
    shifted = outage(traffic(3, DAYS, 6), first, last).with_columns(pl.col("x") + 2)
    assert "x" in hourly.again().land(shifted).at(72 * HOUR).drifting


def test_labels_of_a_day_of_which_an_outage_took_a_part_are_not_judged(hourly: World) -> None:
    frame = outage(traffic(2, DAYS, 7), 9, 24)
    reports = [hourly.again().land(frame).at(n * HOUR) for n in (72, 80)]
    world = World.on(traffic(DAYS), spec_of("x", outcome={"column": "y", "delay": "0s"}), HOUR)
    kpi = world.again().land(outage(traffic(1, DAYS, 7), 9, 24)).at(24 * HOUR).kpis["auroc"]
    assert (kpi.verdict, kpi.value) == (Verdict.INCONCLUSIVE, None)
    assert "part of the cycle is lost" in kpi.reason
    assert all(report.kpis["auroc"].verdict is not Verdict.BREACH for report in reports)


@pytest.mark.parametrize(("gone", "whole"), [((), True), ((2,), True), ((5, 6), False)])
def test_a_week_without_one_day_is_whole_and_without_two_it_is_not(
    hourly: World, gone: tuple[int, ...], whole: bool
) -> None:
    window = Window(hourly.baseline_at, hourly.baseline_at + WEEK)
    begun = [window.start + day * DAY for day in range(7) if day not in gone]
    cycle = cycle_of(hourly.reference, window, begun, len(begun) * 24 * AN_HOUR)
    assert cycle.whole is whole
    assert len(cycle.lost) == 24 * len(gone)


def test_hours_without_a_row_are_no_loss_where_few_rows_are_expected(hourly: World) -> None:
    """Seven rows a day leave most hours empty, and one row at noon says nothing of the others either."""
    window = Window(hourly.baseline_at, hourly.baseline_at + DAY)
    begun = [window.start + hour * HOUR for hour in (1, 4, 5, 9, 13, 20, 22)]
    cycle = cycle_of(hourly.reference, window, begun, 7)
    assert cycle.whole
    assert cycle.lost == frozenset()
    assert cycle_of(hourly.reference, window, [], 0).whole


# parity, estimates


def test_parity_leaves_out_the_day_on_which_the_baseline() -> None:
    spec = spec_of("x", protected={"group": "categorical"}, outcome={"column": "y", "delay": "1d"})

    def of(days: int, first_day: int, seed: int) -> pl.DataFrame:
        frame = traffic(days, first_day, seed)
        group = np.random.default_rng(seed).choice(["g", "h"], frame.height)
        return frame.with_columns(group=pl.Series(group))

    noon = World.on(of(DAYS, 0, 1), spec, HOUR)
    noon = replace(noon, baseline_at=noon.baseline_at + 12 * HOUR)
    frame = of(9, DAYS, 2).filter(pl.col("_time") >= noon.baseline_at)
    reports: list[Report] = [noon.again().land(frame).at(days * DAY + 12 * HOUR) for days in (7, 8)]
    six, seven = (report.kpis["demographic_parity"] for report in reports)
    assert (six.verdict, six.n) == (Verdict.OK, 7 * 24 * AN_HOUR)
    assert seven.n == 8 * 24 * AN_HOUR


def test_an_estimate_waits_for_its_first_day() -> None:
    spec = spec_of("x", outcome={"column": "y", "delay": "1d"}, kpis={"estimated_auroc": {"drop": 0.05}})
    world, frame = World.on(traffic(DAYS), spec, HOUR), traffic(2, DAYS, 8)
    early = told(world, frame.filter(pl.col("_time") < world.baseline_at + 8 * HOUR), 8 * HOUR, "estimated_auroc")
    assert (early.verdict, early.value) == (Verdict.INCONCLUSIVE, None)
    assert early.reason.startswith("the first whole 24 h window ends")
    assert told(world, frame, 25 * HOUR, "estimated_auroc").value is not None
