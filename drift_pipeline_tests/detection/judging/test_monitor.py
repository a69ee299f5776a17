"""The monitor on worlds whose drift is known."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.judging.monitor import window_lengths
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.telemetry.synthetic import seasonal_history
from drift_pipeline_tests.detection.worlds import SPEC, World, finding, rows, spec_of

REFERENCE_DAYS, PER_DAY = 90, 500
FEATURES = tuple(f"f{k}" for k in range(20))


def history(amplitude: float, seed: int, days: int = 210) -> pl.DataFrame:
    frame = seasonal_history(days=days, rows_per_day=PER_DAY, seed=seed, amplitude=amplitude)
    rng = np.random.default_rng(seed)
    return frame.rename({"ts": "_time", "y": "_label"}).with_columns(_score=pl.Series(rng.random(frame.height)))


@pytest.mark.parametrize("amplitude", [0.0, 0.3], ids=["stationary", "diurnal and weekly"])
def test_a_healthy_stream_of_20_features_never_drifts(amplitude: float) -> None:
    frame = history(amplitude, seed=3)
    world = World.on(frame[: REFERENCE_DAYS * PER_DAY], spec_of(*FEATURES))
    reports = list(world.daily(frame[REFERENCE_DAYS * PER_DAY :]))
    assert len(reports) == 120
    assert [r.drifting for r in reports if r.drifting] == []
    assert {r.kpis["psi"].verdict for r in reports} == {Verdict.OK}
    assert {r.kpis["range_z"].verdict for r in reports} == {Verdict.OK}
    assert not {f.drift for r in reports for f in r.features if f.window < 4 * WEEK} - {False}


def test_one_sd_in_one_of_20_features_is_drift_upwards_on_the_first_full_day() -> None:
    frame = history(0.0, seed=4, days=92)
    world = World.on(frame[: REFERENCE_DAYS * PER_DAY], spec_of(*FEATURES))
    shifted = frame[REFERENCE_DAYS * PER_DAY :].with_columns(pl.col("f7") + 1)
    first = next(world.daily(shifted))
    assert first.drifting == ("f7",)
    found = finding(first, "f7")
    assert (found.drift, found.direction) == (True, "up")
    assert first.kpis["psi"].verdict is Verdict.WARN
    assert "f7: up over 1d" in first.kpis["psi"].reason


@pytest.fixture(scope="module")
def healthy() -> World:
    return World.on(rows(np.random.default_rng(0), REFERENCE_DAYS, PER_DAY))


def day(world: World, change: Callable[[pl.DataFrame], pl.DataFrame], seed: int = 1) -> Report:
    frame = rows(np.random.default_rng(seed), 1, PER_DAY, REFERENCE_DAYS)
    return world.again().land(change(frame)).at(DAY)


def emptied(column: str, share: float, of: int) -> pl.Expr:
    gone = pl.Series(np.random.default_rng(of).random(PER_DAY) < share)
    return pl.when(gone).then(None).otherwise(pl.col(column)).alias(column)


@pytest.mark.parametrize(
    ("name", "changed", "direction"),
    [
        ("x", pl.col("x") + 1, "up"),
        ("x", pl.col("x") - 1, "down"),
        ("x", pl.col("x") * 3, "wider"),
        ("x", pl.col("x") / 4, "narrower"),
        ("x", pl.lit(0.3).alias("x"), "narrower"),
        ("x", emptied("x", 0.3, 5), "more missing"),
        ("x", emptied("x", 0.8, 5), "more missing"),
        ("kind", emptied("kind", 0.3, 6), "more missing"),
        ("_score", emptied("_score", 0.3, 7), "more missing"),
        ("_score", pl.col("_score") ** 3, "down"),
        ("kind", pl.col("kind").replace({"a": "new"}), "new levels"),
        ("kind", pl.col("kind").replace({"a": "c"}), "other mix"),
        ("group", pl.col("group").replace({"g": "h"}), "other mix"),
    ],
)
def test_each_change_is_drift_in_its_direction_and_of_its_column_alone(
    healthy: World, name: str, changed: pl.Expr, direction: str
) -> None:
    report = day(healthy, lambda frame: frame.with_columns(changed))
    assert report.drifting == (name,)
    assert finding(report, name).direction == direction
    assert report.kpis["psi"].verdict is Verdict.WARN


def test_values_that_were_missing_and_come_back_are_drift_too() -> None:
    reference = rows(np.random.default_rng(0), REFERENCE_DAYS, PER_DAY)
    gone = pl.Series(np.random.default_rng(1).random(reference.height) < 0.4)
    world = World.on(reference.with_columns(x=pl.when(gone).then(None).otherwise(pl.col("x"))))
    assert finding(day(world, lambda frame: frame), "x").direction == "fewer missing"
    assert day(world, lambda frame: frame.with_columns(emptied("x", 0.4, 9))).drifting == ()


def test_a_missing_share_that_always_varied_from_day_to_day_is_no_drift() -> None:
    rng = np.random.default_rng(2)
    reference = rows(rng, REFERENCE_DAYS, PER_DAY)
    share = np.repeat(rng.choice([0.0, 0.1, 0.3, 0.4], REFERENCE_DAYS), PER_DAY)
    gone = pl.Series(rng.random(reference.height) < share)
    world = World.on(reference.with_columns(x=pl.when(gone).then(None).otherwise(pl.col("x"))))
    for share_now in (0.0, 0.4):
        assert day(world, lambda frame, s=share_now: frame.with_columns(emptied("x", s, 9))).drifting == ()  # type: ignore[misc]


def test_a_column_that_loses_all_values_makes_no_claim_and_psi_is_inconclusive(healthy: World) -> None:
    for gone in (pl.lit(None, pl.Float64), pl.lit(float("nan")), pl.lit(float("inf"))):
        report = day(healthy, lambda frame, g=gone: frame.with_columns(x=g))  # type: ignore[misc]
        assert finding(report, "x").drift is None
        psi = report.kpis["psi"]
        assert (psi.verdict, psi.value) == (Verdict.INCONCLUSIVE, None)
        assert psi.reason == "x: no usable value in the window"


def test_a_column_that_is_not_in_the_window_at_all_is_inconclusive(healthy: World) -> None:
    psi = day(healthy, lambda frame: frame.drop("x")).kpis["psi"]
    assert (psi.verdict, psi.reason) == (Verdict.INCONCLUSIVE, "x: no usable value in the window")


def test_levels_all_unknown_are_drift_to_new_levels(healthy: World) -> None:
    report = day(healthy, lambda frame: frame.with_columns(kind=pl.lit("?")))
    found = finding(report, "kind")
    assert (report.drifting, found.direction, found.distance) == (("kind",), "new levels", 1.0)


def test_a_model_that_scores_nothing_is_inconclusive(healthy: World) -> None:
    psi = day(healthy, lambda frame: frame.with_columns(_score=pl.lit(None, pl.Float64))).kpis["psi"]
    assert (psi.verdict, psi.reason) == (Verdict.INCONCLUSIVE, "_score: no usable value in the window")


def test_a_reference_without_values_makes_no_claim_of_its_column() -> None:
    frame = rows(np.random.default_rng(0), 40, PER_DAY).with_columns(
        x=pl.lit(None, pl.Float64), kind=pl.lit(None, pl.String)
    )
    world = World.on(frame)
    now = rows(np.random.default_rng(1), 1, PER_DAY, 40)
    for change in (now, now.with_columns(x=pl.lit(None, pl.Float64), kind=pl.lit(None, pl.String))):
        report = world.again().land(change).at(DAY)
        assert {"x", "kind"}.isdisjoint(f.name for f in report.features)
        assert report.kpis["psi"].verdict is Verdict.OK


def test_a_constant_column_is_quiet_while_it_stays_and_drifts_either_way_when_it_leaves() -> None:
    world = World.on(rows(np.random.default_rng(0), 40, PER_DAY).with_columns(x=pl.lit(5.0), kind=pl.lit("k")))
    now = rows(np.random.default_rng(1), 1, PER_DAY, 40).with_columns(x=pl.lit(5.0), kind=pl.lit("k"))
    assert world.again().land(now).at(DAY).drifting == ()
    for value, direction in ((5.1, "up"), (4.9, "down")):
        report = world.again().land(now.with_columns(x=pl.lit(value))).at(DAY)
        assert (report.drifting, finding(report, "x").direction) == (("x",), direction)


def test_an_empty_window_has_no_findings_and_nothing_is_ok(healthy: World) -> None:
    report = healthy.again().at(DAY)
    assert report.features == ()
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {kpi.verdict for kpi in report.kpis.values()} == {Verdict.INCONCLUSIVE}
    assert {kpi.value for kpi in report.kpis.values()} == {None}


def test_below_200_effective_rows_there_is_no_claim(healthy: World) -> None:
    report = day(healthy, lambda frame: frame[:199].with_columns(pl.col("x") + 3))
    assert {f.drift for f in report.features} == {None}
    assert report.kpis["psi"].verdict is Verdict.INCONCLUSIVE
    assert finding(report, "x").reason == "199 effective rows, 200 are needed"
    assert day(healthy, lambda frame: frame[:200].with_columns(pl.col("x") + 3)).drifting == ("x",)


def test_a_thin_reference_of_these_hours_makes_no_claim(healthy: World) -> None:
    by_hour = [replace(p, counts=p.counts // 40) for p in healthy.reference.by_hour]
    thin = replace(healthy, reference=replace(healthy.reference, by_hour=by_hour))
    found = finding(day(thin, lambda frame: frame.with_columns(kind=pl.lit("a"))), "kind")
    assert found.drift is None
    assert "of these hours in the reference" in found.reason


def test_28_days_under_a_year_of_reference_make_no_claim_and_a_psi_above_the_threshold_is_inconclusive(
    healthy: World,
) -> None:
    world, rng = healthy.again(), np.random.default_rng(5)
    world.land(rows(rng, 21, PER_DAY, REFERENCE_DAYS).with_columns(pl.col("x") + 3))
    report = world.land(rows(rng, 7, PER_DAY, REFERENCE_DAYS + 21)).at(28 * DAY)
    long = [f for f in report.features if f.window == 4 * WEEK]
    assert {f.drift for f in long} == {None}
    assert "under a year, makes no claim about a window of 28 d" in long[0].reason
    assert report.drifting == ()
    psi = report.kpis["psi"]
    assert (psi.verdict, psi.window) == (Verdict.INCONCLUSIVE, 4 * WEEK)
    assert psi.value is not None
    assert psi.value > 0.2


def test_windows_that_began_before_the_baseline_are_not_judged(healthy: World) -> None:
    world = healthy.again().land(rows(np.random.default_rng(5), 3, PER_DAY, REFERENCE_DAYS))
    assert {f.window for f in world.at(3 * DAY).features} == {DAY}


def test_a_protected_column_is_compared_with_as_many_rows_as_the_reference_has(healthy: World) -> None:
    whole = healthy.reference.matched(Window(healthy.baseline_at, healthy.baseline_at + WEEK)).profile
    assert whole.bins("group").sum() == whole.bins("kind").sum() == whole.rows == REFERENCE_DAYS * PER_DAY
    assert whole.bins("_score").sum() == whole.rows


def test_days_that_always_differed_are_no_drift() -> None:
    rng = np.random.default_rng(8)
    level = np.repeat(rng.normal(0, 0.5, 120), PER_DAY)
    frame = rows(rng, 120, PER_DAY).with_columns(pl.col("x") + pl.Series(level))
    world = World.on(frame[: REFERENCE_DAYS * PER_DAY])
    assert world.reference.nulls[DAY].phi["x"] > 10
    assert world.reference.nulls[DAY].phi["w"] < 1.5
    drifting = [r.drifting for r in world.again().daily(frame[REFERENCE_DAYS * PER_DAY :])]
    assert [names for names in drifting if names] == []


@pytest.mark.parametrize(
    ("window", "step", "hours"),
    [
        ("30d", HOUR, [1, 24, 168, 672]),
        ("30d", DAY, [24, 168, 672]),
        ("3d", DAY, [24, 168]),
        ("60d", 2 * WEEK, [1344]),
        ("30d", timedelta(minutes=1), [0.25, 1, 24, 168, 672]),
        ("30d", timedelta(hours=6), [24, 168, 672]),
    ],
)
def test_windows_are_whole_weeks_and_none_is_shorter_than_the_step(
    window: str, step: timedelta, hours: list[int]
) -> None:
    spec = spec_of("x", kpis={"psi": {"window": window}})
    assert [length / HOUR for length in window_lengths(spec, step)] == hours
    assert window_lengths(SPEC, step)[-1] == 4 * WEEK
