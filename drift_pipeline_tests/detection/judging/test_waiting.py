"""Waiting: when what is not judged can be, whether it is overdue, and what can never be."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.detection.judging.monitor import lengths_of, window_lengths
from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.detection.judging.waiting import prospects
from drift_pipeline_tests.detection.worlds import SPEC, World, rows, spec_of

DAYS, PER_DAY = 40, 500
NONE = pl.lit(None, pl.Int8).alias("_label")


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return rows(np.random.default_rng(0), DAYS, PER_DAY)


def world(frame: pl.DataFrame, step: timedelta = DAY, **more: Any) -> World:
    return World.on(frame, spec_of(*_COLUMNS, **_REST, **more), step)


_COLUMNS = ("x", "w")
_REST: dict[str, Any] = {
    "categorical": ("kind",),
    "protected": {"group": "categorical"},
    "columns": {"latency_ms": "_latency_ms"},
}


def later(days: int, per_day: int = PER_DAY) -> pl.DataFrame:
    return rows(np.random.default_rng(1), days, per_day, DAYS)


def at(world: World, frame: pl.DataFrame, after: timedelta) -> Report:
    """What the monitor says when what came until then has landed, labels after their delay."""
    now = world.baseline_at + after
    landed = frame.filter(pl.col("_time") < now)
    known = pl.col("_time") < now - world.spec.outcome.delay
    return world.again().land(landed.with_columns(_label=pl.when(known).then("_label"))).at(after)


@pytest.mark.parametrize(
    ("after", "verdict", "said"),
    [
        (1 * DAY, "OK", "no label has come yet: the first whole 1d window of labels ends"),
        (42 * HOUR, "OK", "125 labels wait: the first whole 1d window of labels ends"),
        (3 * DAY, "OK", None),
    ],
    ids=["no label can have come", "labels came and their window is not whole", "judged"],
)
def test_labels_wait_for_their_first_whole_window(
    frame: pl.DataFrame, after: timedelta, verdict: str, said: str | None
) -> None:
    late = world(frame, outcome={"column": "y", "delay": "36h"})
    report = at(late, later(4), after)
    auroc = report.kpis["auroc"]
    assert report.verdict == verdict
    if said is None:
        assert auroc.judged
        return
    due = late.baseline_at + DAY + 36 * HOUR
    assert auroc.reason == f"{said} {due:%Y-%m-%d %H:%M} UTC"
    assert (auroc.judged_at, auroc.overdue) == (due, False)
    assert report.rolled_up.told() == "OK (3 of 5 judged)"
    assert set(report.rolled_up.to_json()["not_judged"]) == {"auroc", "demographic_parity"}


@pytest.mark.parametrize(
    ("labels", "days", "told"),
    [
        (NONE, 2, "INCONCLUSIVE (3 of 5 judged)"),
        (NONE, 10, "INCONCLUSIVE (4 of 5 judged)"),
        (pl.lit(1, pl.Int8).alias("_label"), 10, "INCONCLUSIVE (4 of 5 judged)"),
        (pl.when(pl.int_range(pl.len()) % 2 == 0).then("_label").alias("_label"), 10, "INCONCLUSIVE (4 of 5 judged)"),
        (pl.col("_label"), 10, "OK (5 of 5 judged)"),
    ],
    ids=["none after their day", "none for ever", "labels of one class", "half of the labels never come", "they come"],
)
def test_labels_that_do_not_come_make_a_model_inconclusive(
    frame: pl.DataFrame, labels: pl.Expr, days: int, told: str
) -> None:
    report = world(frame).land(later(days).with_columns(labels)).at(days * DAY)
    assert report.rolled_up.told() == told
    if "OK" not in told:
        auroc = report.kpis["auroc"]
        assert (auroc.verdict, auroc.overdue, auroc.judged_at) == (Verdict.INCONCLUSIVE, True, None)


def test_a_kpi_that_is_switched_off_is_not_waited_for(frame: pl.DataFrame) -> None:
    off = world(frame, kpis={"auroc": None, "demographic_parity": None})
    report = off.land(later(3).with_columns(NONE)).at(3 * DAY)
    assert report.rolled_up.told() == "OK (3 of 3 judged)"


def test_traffic_that_stops_makes_a_model_inconclusive(frame: pl.DataFrame) -> None:
    quiet = world(frame)
    assert quiet.at(HOUR).rolled_up.told() == "INCONCLUSIVE (0 of 5 judged)"
    assert quiet.at(40 * DAY).rolled_up.told() == "INCONCLUSIVE (0 of 5 judged)"
    assert {kpi.overdue for kpi in quiet.at(40 * DAY).kpis.values()} == {True}


@pytest.mark.parametrize(
    ("name", "after", "expected"),
    [
        ("psi", HOUR, 24 * HOUR),
        ("range_z", HOUR, 24 * HOUR),
        ("latency_p95_ms", HOUR, 24 * HOUR),
        ("auroc", HOUR, 24 * HOUR),
        ("demographic_parity", 3 * DAY, 7 * DAY),
    ],
)
def test_each_kpi_knows_from_when_it_can_be_judged(
    frame: pl.DataFrame, name: str, after: timedelta, expected: timedelta
) -> None:
    watched = world(frame)
    found = at(watched, later(3), after).kpis[name]
    assert (found.verdict, found.judged_at) == (Verdict.INCONCLUSIVE, watched.baseline_at + expected)


def test_faster_traffic_than_the_references_is_judged_sooner(frame: pl.DataFrame) -> None:
    """By the rows an hour so far; a window that healthy ones are known of it has to be, for drift."""
    watched = world(frame, MINUTE)
    busy = at(watched, later(1, per_day=40_000), 10 * MINUTE)
    assert busy.kpis["latency_p95_ms"].judged_at is None or busy.kpis["latency_p95_ms"].judged
    hour = at(watched, later(1, per_day=2_000), HOUR)
    assert hour.kpis["latency_p95_ms"].judged_at == watched.baseline_at + DAY
    assert hour.kpis["psi"].judged_at == watched.baseline_at + DAY


def sparse(per_day: int, days: int = 400) -> pl.DataFrame:
    return rows(np.random.default_rng(2), days, per_day)


@pytest.mark.parametrize(
    ("per_day", "days", "drift"),
    [
        (20_000, 30, "at 20,000 rows a day drift can be judged from windows of 15m on (4 of 4 columns)"),
        (6_000, 30, "at 6,000 rows a day drift can be judged from windows of 1h on (4 of 4 columns)"),
        (500, 40, "at 500 rows a day drift can be judged from windows of 1d on (4 of 4 columns)"),
        (50, 60, "at 50 rows a day drift can be judged from windows of 7d on (4 of 4 columns)"),
        (24, 400, "at 24 rows a day drift can be judged from windows of 28d on (4 of 4 columns)"),
        (
            5,
            400,
            "at 5.0 rows a day drift can be judged from windows of 49d on (3 of 4 columns)",
        ),
        (
            24,
            90,
            "at 24 rows a day psi, the drift of columns, can never be judged: the 90 d of the reference hold fewer "
            "than 5 healthy windows of any length with 200 effective rows",
        ),
    ],
    ids=["busy", "by the hour", "by the day", "by the week", "by the month", "by its last rows", "too short"],
)
def test_what_the_references_pace_lets_be_judged_is_its_first_line(per_day: int, days: int, drift: str) -> None:
    reference = World.on(sparse(per_day, days), SPEC, MINUTE).reference
    told = prospects(reference, SPEC, lengths_of(reference, SPEC, MINUTE))
    assert told[0] == drift


def test_a_psi_that_no_window_is_long_enough_for_says_so_at_each_tick() -> None:
    watched = World.on(sparse(24, 90), SPEC, MINUTE)
    psi = watched.at(30 * DAY).kpis["psi"]
    assert (psi.verdict, psi.judged_at) == (Verdict.INCONCLUSIVE, None)
    assert psi.reason == (
        "at 24 rows a day never: the 90 d of the reference hold fewer than 5 healthy windows of any length with 200 "
        "effective rows"
    )


def test_performance_that_can_never_be_judged_is_named() -> None:
    frame = sparse(24).with_columns(_label=(pl.int_range(pl.len()) % 200 == 0).cast(pl.Int8))
    lengths = window_lengths(SPEC, DAY)
    few = prospects(World.on(frame).reference, SPEC, lengths)[1:]
    assert few == [
        "at 24 rows a day auroc can never be judged: no window of up to 28d has 50 labels of each class and 200 labels"
    ]
    none = prospects(World.on(frame.with_columns(NONE)).reference, SPEC, lengths)[1:]
    assert none == ["auroc can never be judged: the held-out rows have no labels, or labels of one class"]
    off = spec_of(*_COLUMNS, kpis={"auroc": None})
    assert len(prospects(World.on(frame, off).reference, off, lengths)) == 1


# what is far beyond its threshold where nothing tells how much is healthy


def moved(frame: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    return frame.with_columns(**columns)


def of(found: KpiResult) -> tuple[str, bool]:
    return str(found.verdict), "times the threshold" in found.reason


FLIPPED = (1 - pl.col("_label")).cast(pl.Int8)


@pytest.mark.parametrize(
    ("name", "change", "rows_landed", "days", "expected"),
    [
        ("auroc", {}, 150, 1, ("INCONCLUSIVE", False)),
        ("auroc", {"_label": FLIPPED}, 150, 1, ("WARN", True)),
        ("auroc", {"_label": FLIPPED}, 30, 1, ("INCONCLUSIVE", False)),
        ("auroc", {"_label": pl.when(pl.int_range(pl.len()) % 3 > 0).then(FLIPPED)}, 1500, 3, ("WARN", True)),
        ("demographic_parity", {}, 2000, 4, ("INCONCLUSIVE", False)),
        (
            "demographic_parity",
            {"_score": pl.when(pl.col("group") == "h").then(0.0).otherwise("_score")},
            2000,
            4,
            ("WARN", True),
        ),
        (
            "demographic_parity",
            {"_score": pl.when(pl.col("group") == "h").then(0.0).otherwise("_score")},
            500,
            1,
            ("INCONCLUSIVE", False),
        ),
    ],
    ids=[
        "too few labels",
        "too few, and the ranking is the wrong way round",
        "far too few",
        "two thirds of the labels, the wrong way round",
        "four days",
        "four days in which a group is denied",
        "a single day",
    ],
)
def test_a_bound_far_beyond_the_threshold_warns_and_names_the_doubt(
    frame: pl.DataFrame,
    name: str,
    change: dict[str, pl.Expr],
    rows_landed: int,
    days: int,
    expected: tuple[str, bool],
) -> None:
    thinned = later(days).gather_every(days * PER_DAY // rows_landed)  # over the whole days
    report = world(frame).land(moved(thinned, **change)).at(days * DAY)
    assert of(report.kpis[name]) == expected


def day_effects(seed: int, days: int, per_day: int, sd: float, first_day: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    made = rows(rng, days, per_day, first_day)
    effect = np.repeat(rng.normal(0, sd, days), per_day)
    return made.with_columns(x=pl.col("x") + pl.Series(effect), w=pl.col("w") - pl.Series(effect))


def warned_in_doubt(sd: float, reference_days: int, runs: int, watched: int = 30) -> tuple[int, int]:
    """Of healthy series with day effects: the days with a warning, and the runs in which two lie side by side."""
    warned, lasting = 0, 0
    for seed in range(runs):
        series = World.on(day_effects(seed, reference_days, 600, sd))
        found = [
            "times the threshold" in report.kpis["psi"].reason
            for report in series.daily(day_effects(1000 + seed, watched, 600, sd, reference_days))
        ]
        warned += sum(found)
        lasting += any(first and second for first, second in pairwise(found))
    return warned, lasting


def test_healthy_days_that_differ_do_not_warn_in_doubt() -> None:
    assert warned_in_doubt(0.3, 14, 1) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("reference_days", "sd"), [(4, 0.3), (14, 0.3), (14, 0.5), (40, 0.5), (40, 1.0)])
def test_the_doubt_keeps_the_budget_of_false_incidents(reference_days: int, sd: float) -> None:
    """A WARN opens an incident where it lasts 24 h: two days side by side. Budget: 1 in a model and month."""
    runs = 40
    assert warned_in_doubt(sd, reference_days, runs)[1] <= 0.1 * runs


@pytest.mark.parametrize(
    ("after", "said"),
    [(30 * MINUTE, "yet"), (9 * HOUR, "yet"), (10 * HOUR, "no traffic since"), (3 * DAY, "no traffic since")],
    ids=["just begun", "200 rows take longer at this pace", "200 rows would have come by now", "days later"],
)
def test_where_traffic_has_stopped_nothing_is_awaited(frame: pl.DataFrame, after: timedelta, said: str) -> None:
    idle = world(frame)
    report = at(idle, later(4).head(0), after)
    waits = report.kpis["psi"], report.kpis["range_z"], report.kpis["latency_p95_ms"]
    assert [said in kpi.reason for kpi in waits] == [True] * 3, [kpi.reason for kpi in waits]
    if said != "yet":
        assert {kpi.reason for kpi in waits} == {f"no traffic since {idle.baseline_at:%Y-%m-%d %H:%M} UTC"}
        assert [kpi.judged_at for kpi in waits] == [None] * 3
        labels_wait = after < 2 * DAY  # their first whole window is not over
        assert ("no traffic" in report.kpis["auroc"].reason) != labels_wait, report.kpis["auroc"].reason


def test_the_end_of_traffic_is_told_by_its_last_row(frame: pl.DataFrame) -> None:
    stopped = later(4).filter(pl.col("_time") < world(frame).baseline_at + 2 * HOUR)
    last = stopped["_time"].to_list()[-1]
    report = at(world(frame), stopped, DAY)
    assert report.kpis["range_z"].reason == f"no traffic since {last:%Y-%m-%d %H:%M} UTC"
