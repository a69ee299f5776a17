"""The summary: which months count, and what the means are over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from drift_pipeline.clock import Window
from drift_pipeline.control.verifying import Verification
from drift_pipeline.replays.summary import Facts, Retrain, by_month, summarise
from drift_pipeline_tests.training.worlds import spec

JANUARY, FEBRUARY = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 2, 5, tzinfo=UTC)


def rows(start: datetime, n: int, *, label: int | None = None) -> tuple[list[datetime], list[int | None]]:
    """A row a minute, the labels 0 and 1 in turn or all the same."""
    return [start + timedelta(minutes=i) for i in range(n)], [i % 2 if label is None else label for i in range(n)]


def facts(
    *parts: tuple[list[datetime], list[int | None]], loop: npt.NDArray[np.float64] | None = None, **changed: object
) -> Facts:
    """The frozen model is right about three rows of four, the loop about all."""
    times, labels = [t for part in parts for t in part[0]], [y for part in parts for y in part[1]]
    n = len(times)
    truth = np.array([0.5 if y is None else float(y) for y in labels])
    turned = np.where(np.arange(n) % 4 < 3, truth, 1 - truth)
    base = Facts(
        spec=spec(),
        span=Window(JANUARY, FEBRUARY),
        rows=n,
        history="sha256:ab",
        options={"seed": 0},
        served=(("recorded", JANUARY),),
        notes=("a note",),
        evaluations=3,
        conclusive=2,
        times=pl.Series(times, dtype=pl.Datetime("us", "UTC")),
        labels=pl.Series(labels, dtype=pl.Int8),
        frozen=turned,
        loop=truth if loop is None else loop,
        incidents=1,
        decisions={"retrain": 1},
        retrains=(),
        refused=(),
        promotions=1,
        rollbacks=0,
        alerts=1,
        audit_head="ab",
        verification=Verification(True, 7, "ab"),
        wall_seconds=1.26,
        partial=False,
    )
    return replace(base, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "counts"), [(100, True), (99, False)])
def test_a_month_counts_from_a_hundred_labelled_rows_on(n: int, counts: bool) -> None:
    nothing: list[int | None] = [None] * 500
    unlabelled = ([JANUARY + timedelta(days=2)] * 500, nothing)
    (month,) = by_month(facts(rows(JANUARY, n), unlabelled))
    assert month["month"] == "2026-01"
    assert (month["loop"] == 1.0) is counts
    assert (month["frozen"] is not None) is counts


def test_a_month_of_one_class_has_no_auroc() -> None:
    (month,) = by_month(facts(rows(JANUARY, 300, label=1)))
    assert month == {"month": "2026-01", "frozen": None, "loop": None}


def test_the_means_are_over_months_and_not_over_rows() -> None:
    many, few = rows(JANUARY, 1000), rows(FEBRUARY, 200)
    loop = np.array([float(y or 0) for y in many[1]] + [0.5] * 200)
    summary = summarise(facts(many, few, loop=loop))
    assert [m["loop"] for m in summary["auroc"]["by_month"]] == [1.0, 0.5]
    assert summary["auroc"]["loop"] == 0.75


def test_a_month_that_one_side_lacks_is_in_neither_mean() -> None:
    january, february = rows(JANUARY, 200), rows(FEBRUARY, 200)
    loop = np.array([np.nan] * 200 + [float(y or 0) for y in february[1]])
    summary = summarise(facts(january, february, loop=loop))
    first, second = summary["auroc"]["by_month"]
    assert first["loop"] is None
    assert first["frozen"] is not None
    assert summary["auroc"]["frozen"] == second["frozen"]
    assert summary["auroc"]["worst_month"] == second["loop"] - second["frozen"]


def test_nothing_to_judge_is_null_and_not_a_number() -> None:
    summary = summarise(facts(rows(JANUARY, 10), audit_head=None))
    assert summary["auroc"]["frozen"] is summary["auroc"]["loop"] is summary["auroc"]["worst_month"] is None
    assert summary["audit"]["head"] is None


def test_a_retrain_is_told_with_its_time_in_iso_and_a_rejection_is_counted() -> None:
    retrain = Retrain(JANUARY, "drift", "m-3", "v2", False, 0.6, None, {"cpu_seconds": 2.5})
    summary = summarise(facts(rows(JANUARY, 100), retrains=(retrain,)))
    assert summary["retrains"] == [
        {
            "at": "2026-01-05T00:00:00+00:00",
            "cause": "drift",
            "decision_id": "m-3",
            "version": "v2",
            "accepted": False,
            "auroc_before": 0.6,
            "auroc_after": None,
            "cost": {"cpu_seconds": 2.5},
        }
    ]
    assert summary["training_cpu_seconds"] == 2.5
    assert summary["rejected_candidates"] == 1
    assert summary["wall_seconds"] == 1.3


def test_a_reign_has_the_auroc_of_both_sides_on_the_rows_that_its_champion_answered() -> None:
    middle = JANUARY + timedelta(minutes=150)
    made = facts(rows(JANUARY, 400), served=(("recorded", JANUARY), ("v2", middle)))
    first, second = summarise(made)["reigns"]
    assert (first["version"], first["rows"], second["version"], second["rows"]) == ("recorded", 150, "v2", 250)
    assert first["to"] == second["from"] == middle.isoformat()
    assert second["to"] == FEBRUARY.isoformat()
    assert second["loop"] == 1.0 > second["frozen"] > 0.5


def test_without_a_first_model_nobody_reigned() -> None:
    assert summarise(facts(rows(JANUARY, 100), served=()))["reigns"] == []


def spread(days: int, rows: int) -> tuple[list[datetime], list[int | None]]:
    """So many rows at equal distances over days from January 2026 on."""
    return [JANUARY + timedelta(days=days * k / rows) for k in range(rows)], [k % 2 for k in range(rows)]


@pytest.mark.parametrize(
    ("days", "count", "period", "first"),
    [
        (730, 730 * 4, "month", "2026-01"),  # 120 a month
        (730, 730 * 2, "quarter", "2026-Q1"),  # 60 a month, 180 a quarter
        (3650, 3650, "year", "2026"),  # one a day
        (3650, 400, "month", "2026-01"),  # 40 a year: too few in any of them
        (20, 150, "month", "2026-01"),
    ],
)
def test_months_are_pooled_where_most_hold_too_few_labels(days: int, count: int, period: str, first: str) -> None:
    summary = summarise(facts(spread(days, count)))["auroc"]
    assert summary["period"] == period
    assert summary["by_month"][0]["month"] == first
    assert (summary["loop"] is None) == (count == 400)


def test_months_are_those_of_the_clock_on_the_wall() -> None:
    late = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    made = facts(rows(late, 29))
    berlin = replace(made, spec=made.spec.model_copy(update={"timezone": "Europe/Berlin"}))
    assert [[month["month"] for month in by_month(one)] for one in (made, berlin)] == [["2026-01"], ["2026-02"]]
