"""Models with few rows: windows of the last 200 and 1,000 rows, in whole weeks, where 28 days hold fewer than 200."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK
from drift_pipeline.detection.calibration.healthy import Healthy
from drift_pipeline.detection.judging.monitor import lengths_of, window_lengths
from drift_pipeline.detection.judging.verdict import Verdict
from drift_pipeline.detection.reference.encoded import decode_reference, encode_reference
from drift_pipeline.detection.reference.null import Null
from drift_pipeline.detection.thresholds import block_days, sparse_lengths
from drift_pipeline_tests.detection.worlds import SPEC, World, finding, rows

YEARS = 1100


def midnights(days: int, first_day: int = 0, seed: int = 0) -> pl.DataFrame:
    """A row a day, stamped at midnight."""
    frame = rows(np.random.default_rng([seed, first_day]), days, 1, first_day)
    return frame.with_columns(pl.col("_time").dt.truncate("1d"))


@pytest.fixture(scope="module")
def daily() -> World:
    return World.on(midnights(YEARS))


@pytest.mark.parametrize(
    ("per_day", "days", "expected", "block"),
    [
        (1, YEARS, (224, 728), 56),
        (5, 400, (49, 224), 14),
        (7, 400, (35, 161), 14),  # 196 rows in 28 days
        (8, 400, (), 1),
        (30, 90, (), 1),
        (1 / 7, 5000, (728,), 357),  # one a week: two years hold 104
        (15_000, 30, (), 1),
    ],
)
def test_windows_hold_as_many_rows_as_can_be_judged(
    per_day: float, days: int, expected: tuple[int, ...], block: int
) -> None:
    number, span = round(per_day * days), days * DAY
    assert tuple(length.days for length in sparse_lengths(number, span)) == expected
    assert all(length % WEEK == timedelta() for length in sparse_lengths(number, span))
    assert block_days(number, span) == block


@pytest.mark.parametrize("step", [MINUTE, HOUR, DAY, WEEK, 30 * DAY])
def test_a_model_with_few_rows_has_these_windows_at_any_step_and_others_have_theirs(
    daily: World, step: timedelta
) -> None:
    assert [length.days for length in lengths_of(daily.reference, SPEC, step)] == [224, 728]
    assert not replace(daily, step=step).monitor.slices.by_minute
    many = replace(daily.reference, rows=90_000)
    assert lengths_of(many, SPEC, step) == window_lengths(SPEC, step)


def test_its_reference_comes_back_from_its_bytes(daily: World) -> None:
    again = decode_reference(encode_reference(daily.reference))
    assert again.sparse == daily.reference.sparse
    assert again.nulls.keys() == daily.reference.nulls.keys() == set(daily.reference.sparse)


def test_nothing_is_judged_before_the_last_200_rows_are_there(daily: World) -> None:
    world = daily.again().land(midnights(260, YEARS, 1))
    for day in (1, 28, 180):
        assert world.at(day * DAY).verdict is Verdict.INCONCLUSIVE
    report = world.at(240 * DAY)
    for name in ("psi", "range_z", "auroc"):
        assert report.kpis[name].verdict is Verdict.OK, report.kpis[name]
    assert report.kpis["psi"].reason.endswith("(last 224 rows, 224 d)")
    assert "(last 239 rows, 239 d)" in report.kpis["auroc"].reason


def test_a_shift_is_drift_and_a_worse_score_a_breach(daily: World) -> None:
    frame = midnights(760, YEARS, 2)
    lot = pl.Series(np.random.default_rng(3).integers(0, 2, frame.height).astype(np.int8))
    report = daily.again().land(frame.with_columns(pl.col("x") + 1.0, _label=lot)).at(750 * DAY)
    assert finding(report, "x", 224 * DAY).drift
    assert finding(report, "x", 728 * DAY).drift
    assert not finding(report, "w", 728 * DAY).drift
    assert report.kpis["psi"].verdict is Verdict.BREACH
    assert report.kpis["psi"].window == 728 * DAY
    assert report.kpis["auroc"].verdict is Verdict.BREACH


def test_parity_and_latency_reach_back_as_far(daily: World) -> None:
    frame = midnights(760, YEARS, 4)
    unfair = frame.with_columns(
        _score=pl.col("_score") * pl.when(pl.col("group") == "h").then(0.6).otherwise(1.0), _latency_ms=pl.lit(400.0)
    )
    for days in (300, 750):
        kpis = daily.again().land(frame).at(days * DAY).kpis
        bad = daily.again().land(unfair).at(days * DAY).kpis
        assert (kpis["latency_p95_ms"].verdict, bad["latency_p95_ms"].verdict) == (Verdict.OK, Verdict.BREACH)
        parity = kpis["demographic_parity"], bad["demographic_parity"]
        expected = (Verdict.INCONCLUSIVE,) * 2 if days == 300 else (Verdict.OK, Verdict.BREACH)
        assert tuple(kpi.verdict for kpi in parity) == expected, parity
    assert daily.again().land(frame).at(300 * DAY).kpis["demographic_parity"].reason.endswith("392 are needed")


def test_gaps_between_rows_are_no_lost_cycle() -> None:
    """A row on working days alone, and none in some weeks."""
    week = pl.col("_time").dt.weekday() <= 5
    frame = midnights(1500).filter(week)
    world = World.on(frame)
    later = midnights(500, 1500, 5).filter(week & (pl.col("_time").dt.week() % 9 != 0))
    kpi = world.land(later).at(490 * DAY).kpis["auroc"]
    assert kpi.verdict is Verdict.OK, kpi


@pytest.mark.parametrize("per_day", [5, 30])
def test_few_rows_a_day_are_judged_in_the_windows_that_hold_200(per_day: int) -> None:
    """Of 30 a day the week has 210; of 5 a day seven weeks have 245."""
    days = 400 if per_day == 5 else 90
    rng = np.random.default_rng(6)
    world = World.on(rows(rng, days, per_day))
    report = world.land(rows(rng, 60, per_day, days).with_columns(pl.col("x") + 1.0)).at(60 * DAY)
    speaking = {f.window.days for f in report.features if f.drift}
    assert speaking == ({49} if per_day == 5 else {7})


def test_phi_of_longer_windows_grows_at_most_with_their_length() -> None:
    null = Null(19, {"a": 1.5, "b": 0.9, "c": float("nan")}, 1e-3).stretched(4)
    assert (null.phi["a"], null.phi["b"]) == (3.0, 1.0)
    assert np.isnan(null.phi["c"])


def test_calibration_measures_the_windows_that_such_a_model_has() -> None:
    healthy = Healthy(midnights(YEARS), SPEC, window_lengths(SPEC, DAY))
    assert [length.days for length in healthy.lengths] == [224, 728]


@pytest.mark.slow
@pytest.mark.parametrize("dependent", [0.0, 0.5])
def test_healthy_years_have_less_than_one_false_incident_in_a_month(dependent: float) -> None:
    """Six models over five years each; rows may depend on those of the day before."""
    from drift_pipeline.policy.incident import Incident, step

    months, opened = 0.0, 0
    for seed in range(6):
        frame = midnights(YEARS + 5 * 365, 0, seed)
        if dependent:
            x = frame["x"].to_numpy().copy()
            for day in range(1, len(x)):
                x[day] = dependent * x[day - 1] + (1 - dependent**2) ** 0.5 * x[day]
            frame = frame.with_columns(x=pl.Series(x))
        world = World.on(frame[:YEARS])
        world.land(frame[YEARS:])
        incident, keys = Incident(reference="m"), set()
        for day in range(1, 5 * 365, 7):
            incident, _ = step(incident, world.at(day * DAY))
            keys |= {incident.key} if incident.open else set()
        opened, months = opened + len(keys), months + 5 * 365 / 30
    assert opened / months <= 0.1
