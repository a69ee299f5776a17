"""Levels that come up as time goes on: a healthy reference shows how many, and windows are held against that."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.counting.profile import profile_slices
from drift_pipeline.detection.judging.monitor import compare
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.new_levels import expected_later
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.detection.thresholds import FARTHER
from drift_pipeline_tests.detection.worlds import spec_of

DAYS, PER_DAY = 42, 600
LENGTHS = (HOUR, DAY, WEEK)
HEAVY = np.cumsum(np.arange(1.0, 20_001) ** -1.3)
NAMES = ("few", "heavy", "codes", "ids", "growing", "lives a month", "night")
STEADY = ("few", "heavy", "codes", "ids")
SPEC = spec_of(categorical=NAMES)


def visits(seed: int, first_day: float, days: float, per_day: int = PER_DAY) -> pl.DataFrame:
    """Rows in time order: columns without time, then merchants that come up by and by, ids of a month, odd nights."""
    rng = np.random.default_rng(seed)
    t = first_day + np.sort(rng.random(round(days * per_day))) * days
    n = len(t)
    levels = {
        "few": rng.integers(0, 4, n),
        "heavy": np.searchsorted(HEAVY / HEAVY[-1], rng.random(n)),
        "codes": rng.integers(0, 1200, n),
        "ids": rng.integers(0, 10**9, n),
        "growing": np.floor(rng.random(n) * (500 + 20 * t)),
        "lives a month": np.floor((t - 30 * rng.random(n)) * 10),
        "night": np.where((t % 1 < 0.25) & (rng.random(n) < 0.5), rng.integers(0, 10**9, n), -rng.integers(1, 6, n)),
    }
    since = pl.Series((t * 86_400e6).astype(np.int64)).cast(pl.Duration("us"))
    unscored = {"_score": pl.lit(None, pl.Float64), "_label": pl.lit(None, pl.Int8)}
    columns = {name: pl.Series(values.astype(np.int64)).cast(pl.String) for name, values in levels.items()}
    time = (pl.datetime(2026, 1, 5, time_zone="UTC") + pl.col("since")).alias("_time")
    return pl.DataFrame({"since": since, **columns}).select(time, *NAMES).with_columns(**unscored)


@pytest.fixture(scope="module")
def reference() -> Reference:
    frame = visits(0, 0, DAYS)
    return freeze(frame, frame, SPEC, LENGTHS)


def judged(reference: Reference, frame: pl.DataFrame, length: timedelta, after: float) -> dict[str, FeatureFinding]:
    end = reference.span.end + after * DAY
    profile = profile_slices(reference.binning, frame, np.zeros(frame.height, np.int64), 1)[0]
    return {found.name: found for found in compare(reference, profile, Window(end - length, end))}


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_without_time_have_no_more_levels_than_chance_brings_and_others_do(
    reference: Reference, length: timedelta
) -> None:
    more = reference.fresh[length]
    assert max((more.get(name, 0.0) for name in STEADY), default=0.0) < 0.01
    assert min(more["growing"], more["lives a month"]) > 0.03


def test_an_hour_of_the_night_may_have_what_healthy_nights_have(reference: Reference) -> None:
    """Half of its rows have a level of their own, an eighth of the day's."""
    assert 0.1 < reference.fresh[HOUR]["night"] < 0.5 - 0.125
    crowded = visits(1, 0, 28, 6000)
    assert freeze(crowded, crowded, spec_of(categorical=("night",)), (HOUR,)).fresh[HOUR]["night"] > 0.2


@pytest.mark.parametrize("after", [1, 7, 28])
def test_healthy_days_do_not_drift_to_new_levels_however_long_after_the_reference(
    reference: Reference, after: int
) -> None:
    found = [judged(reference, visits(seed, DAYS + after - 1, 1), DAY, after) for seed in range(10)]
    assert {finding.name for day in found for finding in day.values() if finding.drift} == set()


@pytest.mark.parametrize("name", ["few", "growing", "night"])
def test_a_day_in_which_most_levels_are_new_drifts_also_where_some_are_healthy(reference: Reference, name: str) -> None:
    taken_over = pl.when(pl.int_range(pl.len()) % 10 < 8).then(pl.lit("new")).otherwise(name).alias(name)
    found = judged(reference, visits(1, DAYS, 1).with_columns(taken_over), DAY, 1)
    assert {other for other, finding in found.items() if finding.drift} == {name}
    assert found[name].direction == "new levels"


def test_the_later_a_window_the_more_levels_may_be_new_and_never_more_than_all() -> None:
    span = Window(*(visits(0, at, 1 / 24)["_time"].dt.truncate("1h")[0] for at in (0, 28)))
    share = [expected_later(0.1, span, span.end + days * DAY) for days in (0, 14, 28, 1000)]
    assert share == pytest.approx([FARTHER * 0.1, FARTHER * 0.1, FARTHER * 0.2, 1.0])


def test_a_first_half_that_is_nearly_empty_tells_nothing() -> None:
    frame = pl.concat([visits(0, 0, 1, 50), visits(1, 14, 14)])
    assert freeze(frame, frame, SPEC, (DAY,)).fresh == {DAY: {}}
