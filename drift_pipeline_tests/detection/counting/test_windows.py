"""Slices of time and the windows that are merged of them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, Window
from drift_pipeline.detection.counting.binning import Binning, freeze_binning
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.counting.windows import floor, sliding
from drift_pipeline.spec import ModelSpec

START = datetime(2026, 1, 5, tzinfo=UTC)
SPEC = ModelSpec.model_validate(
    {
        "name": "m",
        "owner": "o",
        "task": "binary_classification",
        "features": {"x": "numeric"},
        "outcome": {"column": "y"},
    }
)


def rows(*times: datetime) -> pl.DataFrame:
    return pl.DataFrame(
        {"_time": list(times), "x": [0.1 * k for k in range(len(times))], "_score": [0.5] * len(times)},
        schema_overrides={"_time": pl.Datetime("us", "UTC")},
    )


def hours(begin: int, end: int) -> pl.DataFrame:
    return rows(*(START + hour * HOUR + timedelta(minutes=7) for hour in range(begin, end)))


@pytest.fixture(scope="module")
def binning() -> Binning:
    frame = hours(0, 500)
    return freeze_binning(frame, frame["_score"], SPEC)


@pytest.mark.parametrize(
    ("length", "end"),
    [
        (15 * MINUTE, "2026-01-09T13:59"),
        (HOUR, "2026-01-09T13:59"),
        (DAY, "2026-01-09T13:00"),
        (2 * DAY, "2026-01-09"),
        (WEEK, "2026-01-09"),
    ],
)
def test_a_window_slides_by_the_minute_a_days_by_the_hour_and_a_longer_one_by_the_day(
    length: timedelta, end: str
) -> None:
    window = sliding(datetime(2026, 1, 9, 13, 59, 59, tzinfo=UTC), length)
    assert window.end == datetime.fromisoformat(end).replace(tzinfo=UTC)
    assert window.length == length


def test_floor_keeps_a_whole_hour_and_a_whole_day() -> None:
    moment = START + 3 * HOUR
    assert floor(moment, HOUR) == moment
    assert floor(moment + timedelta(microseconds=-1), HOUR) == START + 2 * HOUR
    assert floor(moment, DAY) == floor(START, DAY) == START


@given(step_hours=st.integers(3, 40), lengths=st.sampled_from([(1, 24, 168), (24, 72), (5, 672)]))
@settings(deadline=None, max_examples=8)
def test_consolidation_changes_no_window_that_is_asked_later(step_hours: int, lengths: tuple[int, ...]) -> None:
    frame = hours(0, 400)
    binning = freeze_binning(frame, frame["_score"], SPEC)
    folded, whole = Slices(binning, START), Slices(binning, START)
    done = 0
    while done < 400:
        done = min(done + step_hours, 400)
        now = START + done * HOUR
        part = frame[done - step_hours : done] if done >= step_hours else frame[:done]
        part = part.filter(pl.col("_time") < now)
        folded.add(part)
        whole.add(part)
        folded.consolidate(now)
        for length in lengths:
            window = sliding(now, length * HOUR)
            one, other = folded.merge(window), whole.merge(window)
            assert one.rows == other.rows
            assert (one.counts == other.counts).all()
            assert np.allclose(one.sums, other.sums, rtol=1e-12, atol=1e-9)


@given(seed=st.integers(0, 10_000), lengths=st.sampled_from([(15, 60), (1, 7), (60, 15)]))
@settings(deadline=None, max_examples=15)
def test_a_window_that_moves_by_minutes_is_what_its_rows_make_anew(seed: int, lengths: tuple[int, ...]) -> None:
    """Ticks at random, rows that come late, and labels: counters exactly, sums to 1e-12."""
    rng = np.random.default_rng(seed)
    frame = hours(0, 500)
    binning = freeze_binning(frame, frame["_score"], SPEC)
    slices, landed, now = Slices(binning, START, finest=MINUTE), [], START + HOUR
    for _ in range(25):
        now += int(rng.integers(1, 40)) * MINUTE
        times = [now - float(rng.exponential(20)) * MINUTE for _ in range(int(rng.integers(0, 30)))]
        new = rows(*sorted(time for time in times if time >= START))
        new = new.with_columns(_label=pl.lit(1, pl.Int8), x=pl.col("x").cast(pl.Float64), _score=pl.lit(0.5))
        slices.add(new, now)
        slices.add_labels(new, now)
        slices.consolidate(now)
        landed.append(new.filter(pl.col("_time") >= now - 2 * HOUR))
        for length in lengths:
            for end in (now, now - 30 * MINUTE):
                window = sliding(end, length * MINUTE)
                inside = pl.concat(landed).filter(pl.col("_time").is_between(window.start, window.end, closed="left"))
                fresh = Slices(binning, START)
                fresh.add(inside)
                fresh.add_labels(inside)
                one, other = slices.merge(window), fresh.merge(Window(START, START + 400 * HOUR))
                assert (one.rows, one.counts.tolist()) == (other.rows, other.counts.tolist())
                assert np.allclose(one.sums, other.sums, rtol=1e-12, atol=1e-9)


def test_a_late_row_lands_in_its_own_hour_or_in_its_folded_day(binning: Binning) -> None:
    slices = Slices(binning, START)
    slices.add(hours(0, 240))
    now = START + 10 * DAY
    recent = now - 5 * HOUR
    slices.add(rows(recent))
    assert slices.merge(Window(recent, recent + HOUR)).rows == 2
    slices.consolidate(now)
    old = START + DAY + 3 * HOUR
    slices.add(rows(old))
    slices.consolidate(now)
    assert slices.merge(Window(START + DAY, START + 2 * DAY)).rows == 25
    assert slices.merge(Window(START, START + DAY)).rows == 24
    assert slices.merge(Window(START, now)).rows == 242


def test_a_late_row_of_a_day_without_rows_is_counted_too(binning: Binning) -> None:
    slices = Slices(binning, START)
    slices.add(hours(48, 240))
    slices.consolidate(START + 10 * DAY)
    slices.add(rows(START + HOUR))
    assert slices.merge(Window(START, START + DAY)).rows == 1
    slices.consolidate(START + 10 * DAY)
    assert slices.merge(Window(START, START + DAY)).rows == 1


def test_labels_land_in_the_hour_of_their_prediction_and_add_no_rows(binning: Binning) -> None:
    slices = Slices(binning, START)
    slices.add(hours(0, 3))
    labels = hours(0, 3).with_columns(_label=pl.Series([1, 0, 1], dtype=pl.Int8))
    slices.add_labels(labels)
    first = slices.merge(Window(START, START + HOUR))
    assert (first.rows, [int(side.sum()) for side in first.labelled_scores()]) == (1, [1, 0])
    whole = slices.merge(Window(START, START + DAY))
    assert (whole.rows, [int(side.sum()) for side in whole.labelled_scores()]) == (3, [2, 1])


@pytest.mark.parametrize("folded", [False, True])
def test_what_ends_before_the_moment_is_forgotten_and_nothing_else(binning: Binning, folded: bool) -> None:
    slices = Slices(binning, START)
    slices.add(hours(0, 96))
    if folded:
        slices.consolidate(START + 10 * DAY)
    slices.forget(START + 2 * DAY)
    assert slices.merge(Window(START, START + 2 * DAY)).rows == 0
    assert slices.merge(Window(START, START + 4 * DAY)).rows == 48


def test_by_day_is_a_profile_for_each_day_with_rows_in_order(binning: Binning) -> None:
    slices = Slices(binning, START)
    slices.add(pl.concat([hours(72, 100), hours(0, 30)]))
    expected = [24, 6, 24, 4]
    assert [day.rows for day in slices.by_day(Window(START, START + WEEK))] == expected
    slices.consolidate(START + 4 * DAY)
    assert [day.rows for day in slices.by_day(Window(START, START + WEEK))] == expected
    assert [day.rows for day in slices.by_day(Window(START + DAY, START + 4 * DAY))] == [6, 24]


def test_no_rows_are_no_slices(binning: Binning) -> None:
    slices = Slices(binning, START)
    slices.add(hours(0, 0))
    slices.add_labels(hours(0, 0))
    window = Window(START, START + DAY)
    assert slices.merge(window).rows == 0
    assert slices.by_day(window) == []
