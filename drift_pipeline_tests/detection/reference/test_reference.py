"""The reference: what it holds, what it compares with what, and how much it varied by itself."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.reference.reference import Reference, freeze, held_out_auroc
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.worlds import SPEC, rows

LENGTHS = (DAY, WEEK, 4 * WEEK)
DAYS, PER_DAY = 56, 480
FRAME = rows(np.random.default_rng(0), DAYS, PER_DAY)


def frozen(frame: pl.DataFrame, lengths: tuple[timedelta, ...] = LENGTHS) -> Reference:
    return freeze(frame, frame, SPEC, lengths)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return frozen(FRAME)


@pytest.mark.parametrize(
    ("start_hours", "hours", "expected"),
    [
        (8 * 24 + 5, 1, [1 * 24 + 5]),
        (8 * 24 + 5, 24, list(range(29, 53))),
        (6 * 24 + 12, 24, [*range(12), *range(156, 168)]),
        (24, 168, list(range(168))),
        (24, 672, list(range(168))),
    ],
)
def test_a_window_is_compared_with_the_same_hours_of_the_week(
    reference: Reference, start_hours: int, hours: int, expected: list[int]
) -> None:
    start = START + start_hours * HOUR
    matched = reference.matched(Window(start, start + hours * HOUR)).profile
    hour_of_week = (FRAME["_time"].dt.weekday().cast(pl.Int64) - 1) * 24 + FRAME["_time"].dt.hour()
    assert matched.rows == hour_of_week.is_in(expected).sum() == len(expected) * 8 * PER_DAY / 24
    assert (matched.counts == sum(reference.by_hour[hour].counts for hour in expected)).all()
    assert matched.sums == pytest.approx(sum(reference.by_hour[hour].sums for hour in expected), abs=1e-9)


def test_below_four_weeks_the_same_hours_of_the_day_are_compared() -> None:
    short = frozen(FRAME[: 20 * PER_DAY])
    assert len(short.by_hour) == 24
    assert short.matched(Window(START, START + HOUR)).profile.rows == 20 * PER_DAY / 24
    assert short.matched(Window(START, START + DAY)).profile.rows == 20 * PER_DAY
    assert short.provisional


def test_every_row_is_counted_once_protected_columns_and_scores_included(reference: Reference) -> None:
    side = reference.matched(Window(START, START + WEEK))
    whole = side.profile
    assert side.usable.sum(axis=1).tolist() == [FRAME.height] * len(side.layout.names)
    positives, totals = whole.group_decisions("group")
    assert totals.sum() == FRAME.height
    assert positives.sum() == (FRAME["_score"] >= 0.5).sum()


def test_scores_are_those_of_the_scored_rows_alone() -> None:
    scored = FRAME[-2000:]
    whole = freeze(FRAME, scored, SPEC, LENGTHS).matched(Window(START, START + WEEK)).profile
    assert (whole.bins("_score").sum(), whole.bins("group").sum()) == (2000, FRAME.height)


@pytest.mark.parametrize("name", ["x", "w", "kind", "group", "_score"])
def test_phi_of_independent_rows_is_about_1(reference: Reference, name: str) -> None:
    """Also of two levels: a bin for rare ones that the reference leaves empty is no degree of freedom."""
    null = reference.nulls[DAY]
    assert null.windows == DAYS
    assert null.phi[name] == pytest.approx(1, abs=0.35)
    assert 1e-6 < null.least_p < 0.05


def test_phi_is_large_where_days_differ_and_only_in_that_column() -> None:
    shift = np.repeat(np.random.default_rng(1).normal(0, 0.3, DAYS), PER_DAY)
    null = frozen(FRAME.with_columns(pl.col("x") + pl.Series(shift))).nulls[DAY]
    assert null.phi["x"] > 3
    assert null.phi["w"] < 1.5


def test_a_daily_cycle_is_no_overdispersion() -> None:
    cycle = np.sin(2 * np.pi * np.arange(FRAME.height) / PER_DAY)
    nulls = frozen(FRAME.with_columns(pl.col("x") + pl.Series(cycle))).nulls
    assert nulls[DAY].phi["x"] < 1.5


def test_below_five_healthy_windows_phi_is_not_known(reference: Reference) -> None:
    assert reference.nulls[4 * WEEK].windows == 2
    assert all(math.isnan(phi) for phi in reference.nulls[4 * WEEK].phi.values())
    assert reference.nulls[WEEK].windows == 8
    assert not any(math.isnan(phi) for phi in reference.nulls[WEEK].phi.values())
    four_days = frozen(FRAME[: 4 * PER_DAY], (DAY,))
    assert all(math.isnan(phi) for phi in four_days.nulls[DAY].phi.values())


def test_windows_below_200_rows_tell_nothing() -> None:
    null = frozen(rows(np.random.default_rng(2), 40, 199), (DAY,)).nulls[DAY]
    assert null.windows == 0
    assert math.isnan(null.phi["x"])


def test_a_constant_column_never_varied_and_an_empty_one_is_not_known() -> None:
    nulls = frozen(FRAME.with_columns(x=pl.lit(3.0), w=pl.lit(None, pl.Float64))).nulls[DAY]
    assert nulls.phi["x"] == 1.0
    assert math.isnan(nulls.phi["w"])


def test_the_missing_share_has_its_own_null() -> None:
    rng = np.random.default_rng(3)
    gone = pl.Series(rng.random(FRAME.height) < np.repeat(rng.choice([0.0, 0.3], DAYS), PER_DAY))
    found = frozen(FRAME.with_columns(x=pl.when(gone).then(None).otherwise(pl.col("x"))))
    assert found.missing_nulls[DAY].phi["x"] > 10
    assert found.missing_nulls[DAY].phi["w"] == 1
    assert found.nulls[DAY].phi["x"] < 1.5


def test_the_aurocs_phi_is_about_1_and_larger_where_days_differ(reference: Reference) -> None:
    assert reference.auroc is not None
    assert 1 <= reference.auroc_phi < 1.5
    rng = np.random.default_rng(4)
    upside_down = np.repeat(rng.random(DAYS) < 0.3, PER_DAY)
    labels = pl.Series(np.where(upside_down, 1 - FRAME["_label"].to_numpy(), FRAME["_label"].to_numpy()))
    assert frozen(FRAME.with_columns(_label=labels)).auroc_phi > 3


def test_the_baseline_needs_both_classes_among_rows_with_a_score(reference: Reference) -> None:
    binning = reference.binning
    assert held_out_auroc(binning, FRAME.with_columns(_label=pl.lit(1))) is None
    assert held_out_auroc(binning, FRAME.with_columns(_label=pl.lit(None, pl.Int8))) is None
    scoreless = pl.when(pl.col("_label") == 1).then(None).otherwise(pl.col("_score")).alias("_score")
    assert held_out_auroc(binning, FRAME.with_columns(scoreless)) is None
    found = held_out_auroc(binning, FRAME)
    assert found is not None
    assert found.positives + found.negatives == FRAME.height


def test_freezing_is_deterministic_and_the_digest_follows_the_edges(reference: Reference) -> None:
    again = frozen(FRAME)
    assert again.binning.digest == reference.binning.digest
    assert str(again.nulls) == str(reference.nulls)  # NaN is not NaN
    assert all((a.counts == b.counts).all() for a, b in zip(again.by_hour, reference.by_hour, strict=True))
    for changed in (
        FRAME.with_columns(pl.col("x") * 1.001),
        FRAME.with_columns(pl.col("_score") * 0.999),
        FRAME.with_columns(pl.col("kind").replace({"a": "d"})),
    ):
        assert frozen(changed).binning.digest != reference.binning.digest


def test_decisions_by_day_are_those_of_the_scored_rows(reference: Reference) -> None:
    positives, totals = reference.group_days["group"]
    assert totals.shape == (DAYS, reference.binning.columns["group"].size)
    assert totals.sum(axis=1).tolist() == [PER_DAY] * DAYS
    assert positives.sum() == (FRAME["_score"] >= 0.5).sum()


def test_four_weeks_and_10_000_rows_are_no_longer_provisional() -> None:
    assert not frozen(FRAME[: 28 * PER_DAY], (DAY,)).provisional
    assert frozen(FRAME[: 27 * PER_DAY], (DAY,)).provisional
    assert frozen(rows(np.random.default_rng(5), 40, 240), (DAY,)).provisional
