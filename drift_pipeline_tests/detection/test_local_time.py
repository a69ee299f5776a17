"""Hours and days by the clock on the wall: what a change of the clocks does to slices, windows and verdicts."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, Window, Zone
from drift_pipeline.detection.counting.slices import Part, Slices
from drift_pipeline.detection.counting.stored import decode, encode
from drift_pipeline.detection.counting.windows import local_days, nominal, sliding
from drift_pipeline_tests.detection.worlds import World, spec_of

# zone, a day before its clocks change, and how long the day of the change is
CHANGES = [
    ("Europe/Berlin", "2025-03-29T23:00", 23),
    ("Europe/Berlin", "2025-10-25T22:00", 25),
    ("America/Sao_Paulo", "2017-10-15T03:00", 23),  # midnight itself is left out
    ("America/Havana", "2017-11-05T04:00", 25),  # midnight comes twice
    ("Australia/Adelaide", "2025-10-04T14:30", 23),
    ("Australia/Lord_Howe", "2025-10-04T13:30", 23.5),
    ("Australia/Lord_Howe", "2025-04-05T13:00", 24.5),
    ("Asia/Kolkata", "2025-03-29T18:30", 24),
    ("UTC", "2025-03-30T00:00", 24),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# the clock on the wall


@pytest.mark.parametrize(("name", "midnight", "hours"), CHANGES)
def test_a_day_begins_at_local_midnight_and_has_the_hours_that_it_has(name: str, midnight: str, hours: float) -> None:
    zone, start = Zone(name), utc(midnight)
    end = start + hours * HOUR
    for moment in (start, start + 5 * HOUR, end - timedelta(microseconds=1)):
        assert zone.floor(moment, DAY) == start
        assert zone.ceil(moment, DAY) == (start if moment == start else end)
    assert zone.floor(end, DAY) == end


@pytest.mark.parametrize(("name", "midnight", "hours"), CHANGES)
def test_hours_follow_each_other_and_none_is_longer_than_an_hour(name: str, midnight: str, hours: float) -> None:
    zone, start = Zone(name), utc(midnight)
    quarters = [start + k * 15 * MINUTE for k in range(int(hours * 4))]
    begun = [zone.floor(moment, HOUR) for moment in quarters]
    assert begun == sorted(begun)
    assert all(0 <= (moment - hour) / HOUR < 1 for moment, hour in zip(quarters, begun, strict=True))
    assert all(zone.floor(hour, HOUR) == hour for hour in begun)
    assert {zone.wall(hour).minute for hour in begun} <= {0, 30}
    assert all(after - before <= HOUR for before, after in pairwise(sorted(set(begun))))
    assert all(zone.hour_of_week(m) == zone.hour_of_week(h) for m, h in zip(quarters, begun, strict=True))


@pytest.mark.parametrize(
    ("cron", "now", "due"),
    [
        ("0 3 1 * *", "2025-04-01T00:59", "2025-03-01T02:00"),
        ("0 3 1 * *", "2025-04-01T01:00", "2025-04-01T01:00"),
        ("0 3 1 * *", "2025-11-01T02:00", "2025-11-01T02:00"),
        ("30 2 * * *", "2025-03-30T05:00", "2025-03-30T01:00"),  # left out: at the change
        ("30 2 * * *", "2025-10-26T05:00", "2025-10-26T00:30"),  # twice: the first time
        ("30 2 * * *", "2025-10-26T01:00", "2025-10-26T00:30"),
    ],
)
def test_a_retrain_is_due_by_the_clock_on_the_wall_and_once(cron: str, now: str, due: str) -> None:
    assert Zone("Europe/Berlin").last_due(cron, utc(now)) == utc(due)


# windows and slices


@pytest.mark.parametrize("length", [15 * MINUTE, HOUR, DAY, WEEK, 4 * WEEK])
@pytest.mark.parametrize(("name", "midnight", "hours"), CHANGES)
def test_windows_over_a_change_end_and_begin_at_the_same_time_of_day(
    name: str, midnight: str, hours: float, length: timedelta
) -> None:
    zone = Zone(name)
    for moment in (utc(midnight) + 3 * HOUR + 17 * MINUTE, utc(midnight) + hours * HOUR, utc(midnight) + 5 * DAY):
        window = sliding(moment, length, zone)
        assert window.end <= moment < window.end + (HOUR if length <= DAY else 25 * HOUR)
        assert nominal(window) == length
        if length < DAY:
            assert window.length == length
        else:
            assert abs(window.length - length) <= HOUR
        if length > DAY:
            assert zone.floor(window.start, DAY) == window.start
            assert zone.floor(window.end, DAY) == window.end


def every_ten_minutes(start: datetime, days: int) -> pl.DataFrame:
    n = days * 144
    times = [start + k * 10 * MINUTE for k in range(n)]
    return pl.DataFrame(
        {"_time": times, "x": np.arange(n) / n, "_score": np.full(n, 0.5), "_label": np.arange(n) % 2},
        schema_overrides={"_time": pl.Datetime("us", "UTC"), "_label": pl.Int8},
    )


@pytest.mark.parametrize(("name", "midnight", "hours"), CHANGES)
def test_slices_of_local_hours_fold_into_local_days_and_come_back_from_their_bytes(
    name: str, midnight: str, hours: float
) -> None:
    zone, start = Zone(name), utc(midnight) - DAY
    frame = every_ten_minutes(start - 2 * HOUR, 6)
    binning = World.on(frame, spec_of("x")).reference.binning
    slices, counted = Slices(binning, start, zone=zone), frame.filter(pl.col("_time") >= start)
    slices.add(counted)
    slices.add_labels(counted)
    per_day = np.unique(local_days(counted["_time"], zone), return_counts=True)[1].tolist()
    window = Window(start, start + 7 * DAY)
    assert [day.rows for day in slices.by_day(window)] == per_day
    assert per_day[1] == hours * 6
    slices.consolidate(utc(midnight) + 5 * DAY)
    assert [day.rows for day in slices.by_day(window)] == per_day
    again = Slices(binning, start, zone=zone)
    parts = slices.new_parts()
    folded = slices.folded_before(utc(midnight) + 5 * DAY)
    assert all((part.length == DAY) is (part.start < folded) for part in parts)  # a day is told once, not by its hours
    again.restore(Part(p.start, p.length, decode(binning, encode(p.profile)), p.labelled) for p in parts)
    assert [day.rows for day in again.by_day(window)] == per_day
    assert again.labelled.total() == slices.labelled.total() == counted.height
    noon = zone.ceil(utc(midnight), DAY) + 12 * HOUR
    assert again.labelled.since(noon) == slices.labelled.since(noon)


# verdicts


def rush_hours(zone: str, start: datetime, days: int, an_hour: int = 60, seed: int = 0) -> pl.DataFrame:
    """`x` follows the hour of the day there, steeply."""
    rng, n = np.random.default_rng(seed), days * 24 * an_hour
    times = pl.Series([start + k * (HOUR / an_hour) for k in range(n)], dtype=pl.Datetime("us", "UTC"))
    local = times.dt.convert_time_zone(zone)
    hour = local.dt.hour().to_numpy() + local.dt.minute().to_numpy() / 60
    return pl.DataFrame(
        {
            "_time": times,
            "x": 10 * np.sin(hour / 24 * 2 * np.pi) + rng.standard_normal(n),
            "_score": rng.random(n),
            "_label": rng.integers(0, 2, n).astype(np.int8),
        }
    )


def drifts(spec_zone: str, zone: str, change: datetime, days: int, step: timedelta, an_hour: int) -> int:
    """In how many ticks from before a change to two days after it, ten where they are hours, `x` drifts."""
    start = change - days * DAY
    frame = rush_hours(zone, start, days + 3, an_hour)
    before = frame.filter(pl.col("_time") < change - DAY)
    world = World.on(before, spec_of("x", timezone=spec_zone), step)
    world.land(frame.filter(pl.col("_time") >= world.baseline_at))
    ticks = range(-2, 9) if step == HOUR else range(1, 3)
    start = change if step == HOUR else world.baseline_at
    return sum("x" in world.monitor.evaluate(start + k * step).drifting for k in ticks)


@pytest.mark.parametrize(
    ("zone", "change", "days"),
    [
        ("Europe/Berlin", "2025-03-30T01:00", 35),
        ("Europe/Berlin", "2025-10-26T01:00", 16),
        ("Australia/Adelaide", "2025-10-04T16:30", 16),
    ],
)
def test_a_change_of_the_clocks_is_no_drift_of_a_model_that_says_where_it_is(zone: str, change: str, days: int) -> None:
    """By hour of the day (16 days of reference) and of the week; in UTC, every hour that follows alarms."""
    assert drifts(zone, zone, utc(change), days, HOUR, 220) == 0
    assert drifts("UTC", zone, utc(change), days, HOUR, 220) > 5


@pytest.mark.parametrize("step", [HOUR, DAY, WEEK])
def test_half_an_hour_less_is_no_drift_at_any_step(step: timedelta) -> None:
    assert drifts("Australia/Lord_Howe", "Australia/Lord_Howe", utc("2025-10-04T15:30"), 35, step, 220) == 0


def test_a_shift_is_found_on_the_day_of_the_change_too() -> None:
    change = utc("2025-03-30T01:00")
    frame = rush_hours("Europe/Berlin", change - 35 * DAY, 38)
    world = World.on(frame.filter(pl.col("_time") < change - DAY), spec_of("x", timezone="Europe/Berlin"), HOUR)
    world.land(frame.filter(pl.col("_time") >= world.baseline_at).with_columns(pl.col("x") + 5))
    assert world.at(30 * HOUR).drifting == ("x",)


def test_the_hours_of_a_reference_are_local_and_a_window_of_23_hours_touches_as_many() -> None:
    berlin = rush_hours("Europe/Berlin", utc("2025-02-16T23:00"), 35, 4)
    reference = World.on(berlin, spec_of("x", timezone="Europe/Berlin"), HOUR).reference
    walls = berlin["_time"].dt.convert_time_zone("Europe/Berlin")
    hours = (walls.dt.weekday().cast(pl.Int64) - 1) * 24 + walls.dt.hour()
    assert [profile.rows for profile in reference.by_hour] == np.bincount(hours, minlength=168).tolist()
    window = sliding(utc("2025-03-30T10:00"), DAY, reference.zone)
    assert window.length == 23 * HOUR
    touched = reference.touched(window)
    assert len(touched) == 23
    assert 6 * 24 + 2 not in touched
    at = datetime(2025, 3, 30, 1, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    assert reference.touched(Window(at, at + 2 * HOUR)) == {6 * 24 + 1, 6 * 24 + 3}
