"""A day's snapshot is checked in words with numbers, whatever it holds."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, Window
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.quality import Expectation, Quality, check_snapshot
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.worlds import rows, spec_of

SPEC = spec_of("x", "w", categorical=("kind",), protected={"group": "categorical"})
WINDOW = Window(START, START + DAY)
GONE = "there is no such column"
ROW = pl.int_range(pl.len())

Change = Callable[[pl.DataFrame], pl.DataFrame]


def snapshot(n: int = 400) -> pl.DataFrame:
    served = rows(np.random.default_rng(0), 1, n).drop("_label")
    return served.with_columns(_id="p" + ROW.cast(pl.String), _version=pl.lit("v1"), _route=pl.lit("stable"))


def observed(quality: Quality) -> dict[tuple[str | None, str], str]:
    return {(e.column, e.name): e.observed for e in quality.expectations}


def test_a_healthy_day_meets_every_expectation() -> None:
    quality = check_snapshot(snapshot(), SPEC, WINDOW)
    assert (quality.passed, quality.failures, quality.rows) == (True, (), 400)
    assert list(observed(quality)) == [
        (None, "has rows"),
        ("_id", "has no nulls"),
        ("_id", "is unique"),
        ("_time", "has no nulls"),
        ("_time", "is inside the window"),
        ("_score", "is in 0..1"),
        ("_score", "has values"),
        ("_latency_ms", "is not negative"),
        ("x", "exists"),
        ("x", "has values"),
        ("x", "holds numbers"),
        ("w", "exists"),
        ("w", "has values"),
        ("w", "holds numbers"),
        ("kind", "exists"),
        ("kind", "has values"),
        ("group", "exists"),
        ("group", "has values"),
    ]
    assert observed(quality)["_score", "is in 0..1"] == "so in 400 of 400 rows"


@pytest.mark.parametrize(
    ("change", "failures"),
    [
        (
            lambda f: f.with_columns(_score=pl.when(ROW < 3).then(ROW + 1.7).otherwise("_score")),
            ["_score is in 0..1: not so in 3 of 400 rows"],
        ),
        (
            lambda f: f.with_columns(_score=pl.when(ROW == 7).then(float("inf")).otherwise("_score")),
            ["_score is in 0..1: not so in 1 of 400 rows"],
        ),
        (lambda f: f.with_columns(_score=float("nan")), ["_score has values: 400 of 400 rows are null"]),
        (lambda f: f.drop("_score"), [f"_score is in 0..1: {GONE}", f"_score has values: {GONE}"]),
        (
            lambda f: f.with_columns(_id=pl.when(ROW < 2).then(pl.lit("p9")).when(ROW > 2).then("_id")),
            ["_id has no nulls: 1 of 400 rows are null", "_id is unique: not so in 3 of 400 rows"],
        ),
        (
            lambda f: f.with_columns(_time=pl.when(ROW == 399).then(WINDOW.end).when(ROW > 0).then("_time")),
            [
                "_time has no nulls: 1 of 400 rows are null",
                "_time is inside the window: not so in 1 of 400 rows",
            ],
        ),
        (
            lambda f: f.with_columns(pl.col("_time").dt.replace_time_zone(None)),
            ["_time is inside the window: cannot be checked: can't compare offset-naive and offset-aware datetimes"],
        ),
        (
            lambda f: f.with_columns(_latency_ms=pl.when(ROW == 3).then(-0.25).otherwise("_latency_ms")),
            ["_latency_ms is not negative: not so in 1 of 400 rows"],
        ),
        (lambda f: f.with_columns(x=pl.lit("many")), ["x holds numbers: its type is str"]),
        (
            lambda f: f.with_columns(x=pl.lit(None), kind=pl.lit(None, dtype=pl.String)),
            ["x has values: 400 of 400 rows are null", "kind has values: 400 of 400 rows are null"],
        ),
        (lambda f: f.drop("group"), [f"group exists: {GONE}", f"group has values: {GONE}"]),
        (lambda f: f.clear(), ["snapshot has rows: 0 rows"]),
    ],
    ids=[
        "score above 1",
        "score inf",
        "score all NaN",
        "no score",
        "ids",
        "times",
        "naive times",
        "latency",
        "text",
        "all null",
        "a column gone",
        "no rows",
    ],
)
def test_what_is_wrong_is_told_with_its_numbers_and_nothing_else_fails(change: Change, failures: list[str]) -> None:
    quality = check_snapshot(change(snapshot()), SPEC, WINDOW)
    assert quality.failures == tuple(failures)
    assert not quality.passed


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.drop("_latency_ms", "_version", "_route"),
        lambda f: f.with_columns(x=pl.when(ROW == 5).then("x"), _score=pl.when(ROW == 5).then("_score")),
        lambda f: f.with_columns(x=ROW.cast(pl.Int16), w=pl.col("w") > 0, _latency_ms=pl.when(ROW > 5).then(0)),
        lambda f: f.with_columns(x=ROW.cast(pl.Decimal(10, 2)), w=pl.when(ROW > 3).then(float("inf")), _id=ROW),
        lambda f: f.with_columns(
            kind=pl.col("kind").cast(pl.Categorical), _time=pl.col("_time").dt.cast_time_unit("ms")
        ),
        lambda f: f.with_columns(_time=pl.when(ROW == 0).then(WINDOW.start).otherwise("_time")),
        lambda f: f.head(1),
    ],
    ids=[
        "no optional column",
        "one value each",
        "ints and bools",
        "decimals, inf",
        "levels",
        "the first moment",
        "one row",
    ],
)
def test_what_is_no_fault_passes(change: Change) -> None:
    assert check_snapshot(change(snapshot()), SPEC, WINDOW).failures == ()


def test_a_day_without_anything_fails_in_words_and_does_not_raise() -> None:
    quality = check_snapshot(pl.DataFrame(), SPEC, WINDOW)
    assert quality.rows == 0
    assert not any(e.passed for e in quality.expectations)
    assert quality.failures[0] == "snapshot has rows: 0 rows"
    assert {e.observed for e in quality.expectations[1:]} == {GONE}


def test_nulls_that_are_allowed_are_told() -> None:
    frame = snapshot().with_columns(_score=pl.when(ROW > 11).then("_score"))
    told = observed(check_snapshot(frame, SPEC, WINDOW))
    assert told["_score", "is in 0..1"] == "so in 388 of 400 rows, 12 are null"
    assert told["_score", "has values"] == "12 of 400 rows are null"


def test_the_same_day_is_judged_the_same_twice_and_leaves_no_file_output_or_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    first, again = (check_snapshot(snapshot(), SPEC, WINDOW) for _ in range(2))
    assert first == again
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_what_the_lake_gives_back_of_a_day_passes_and_of_another_day_is_empty(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.append("predictions", snapshot(), 0)
    assert check_snapshot(lake.read("predictions", WINDOW), SPEC, WINDOW).passed
    later = Window(WINDOW.end, WINDOW.end + timedelta(days=1))
    assert check_snapshot(lake.read("predictions", later), SPEC, later).failures[0] == "snapshot has rows: 0 rows"


def test_a_quality_passes_unless_an_expectation_fails() -> None:
    met = Expectation("exists", "x", True, "it is there")
    assert Quality(1, (met,)).passed
    assert Quality(1, (met, replace(met, passed=False))).failures == ("x exists: it is there",)


def test_a_regression_predicts_any_number() -> None:
    served = snapshot().with_columns(_score=pl.col("_score") * 1000 - 500)
    assert check_snapshot(served, spec_of("x", "w", task="regression"), WINDOW).passed
    assert not check_snapshot(served, spec_of("x", "w"), WINDOW).passed


@pytest.mark.parametrize(
    ("off", "passed", "told"),
    [
        (0, True, "so in 400 of 400 rows"),
        (3, True, "not so in 3 of 400 rows"),
        (200, True, "not so in 200 of 400 rows"),
        (201, False, "not so in 201 of 400 rows"),
    ],
)
def test_values_that_do_not_fit_a_form_are_told_and_fail_where_they_are_most(off: int, passed: bool, told: str) -> None:
    spec = SPEC.model_copy(update={"forms": {"kind": "integer", "group": "text"}})
    served = snapshot().with_columns(kind=pl.when(off > ROW).then(pl.lit("many")).otherwise(pl.lit("12")))
    quality = check_snapshot(served, spec, WINDOW)
    assert quality.passed is passed
    assert observed(quality)["kind", "fits its form integer"] == told
    assert not any(column == "group" and "form" in name for column, name in observed(quality))
