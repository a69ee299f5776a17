"""Demographic parity of a watched model and of two tables: whatever a group's decisions; who is left out, by name."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.detection.comparing.comparison import compare_files
from drift_pipeline.detection.counting.binning import CategoricalBins
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline_tests.detection.worlds import World, rows, spec_of

DAYS, PER_DAY, AFTER = 30, 400, 14
SPEC = spec_of(
    "x",
    protected={"group": "categorical"},
    prediction={"score": "_score"},
    kpis={"psi": None, "range_z": None, "auroc": None},
)
DENIED = pl.when(pl.col("group") == "h").then(0.1 * pl.col("_score")).otherwise("_score").alias("_score")
GRANTED = pl.when(pl.col("group") == "h").then(1 - 0.1 * pl.col("_score")).otherwise("_score").alias("_score")
NOBODY = (0.1 * pl.col("_score")).alias("_score")
GONE = pl.lit("g").alias("group")


def renamed(**names: str) -> pl.Expr:
    return pl.col("group").replace(names).alias("group")


def part(share: float, level: str | None) -> pl.Expr:
    """This share of the rows, spread evenly, in another group or in none."""
    moved = (pl.int_range(pl.len()) * 7919 % 10_000) < 10_000 * share
    return pl.when(moved).then(pl.lit(level, pl.String)).otherwise("group").alias("group")


CASES = [
    ((), (DENIED,), "BREACH", "h is denied entirely (2,"),
    ((), (GRANTED,), "BREACH", "h is granted entirely (2,"),
    ((DENIED,), (DENIED,), "OK", "-> 0.493; h is denied entirely"),
    ((), (NOBODY,), "OK", "-> 0.000; h is denied entirely (2,839 rows), g is denied entirely"),
    ((), (GONE,), "INCONCLUSIVE", "fewer than two groups have 100 rows; gone: h (6,"),
    ((part(0.3, "k"),), (), "OK", "gone: k (3,602 rows in the reference, none now)"),
    ((part(0.3, "k"),), (part(0.01, "k"),), "OK", "not judged: k (57 rows)"),
    ((), (part(0.3, "new"),), "OK", "1,680 rows of groups that the reference does not know"),
    ((part(0.1, None),), (part(0.2, None),), "OK", "1,121 rows without a group"),
    ((renamed(g="1", h="0"),), (renamed(g="1", h="0"),), "OK", "group: gap 0.0"),
    ((renamed(g="True", h="False"),), (renamed(g="True", h="False"), pl.lit(0.9).alias("_score")), "OK", "entirely"),
]


@pytest.mark.parametrize(
    ("before", "after", "verdict", "said"),
    CASES,
    ids=[
        "denied",
        "granted",
        "denied in the reference, too",
        "nobody is granted any more",
        "a group is gone, and one is left",
        "a group is gone, and two are left",
        "a group is too small now",
        "a group that the reference does not know",
        "rows without a group",
        "whole numbers",
        "booleans, everybody granted",
    ],
)
@pytest.mark.parametrize("door", ["monitor", "compare"])
def test_every_group_of_a_hundred_rows_is_judged_and_the_others_are_named(
    tmp_path: Path, before: tuple[pl.Expr, ...], after: tuple[pl.Expr, ...], verdict: str, said: str, door: str
) -> None:
    reference = changed(rows(np.random.default_rng(0), DAYS, PER_DAY), before)
    current = changed(rows(np.random.default_rng(1), AFTER, PER_DAY, DAYS), after)
    found = watched(reference, current) if door == "monitor" else compared(tmp_path, reference, current)
    assert (found.verdict, said in found.reason) == (verdict, True), found.reason


def changed(frame: pl.DataFrame, changes: tuple[pl.Expr, ...]) -> pl.DataFrame:
    for change in changes:
        frame = frame.with_columns(change)
    return frame


def watched(reference: pl.DataFrame, current: pl.DataFrame) -> KpiResult:
    return World.on(reference, SPEC).land(current).at(AFTER * DAY).kpis["demographic_parity"]


def compared(folder: Path, reference: pl.DataFrame, current: pl.DataFrame) -> KpiResult:
    reference.write_parquet(before := folder / "reference.parquet")
    current.write_parquet(after := folder / "current.parquet")
    return compare_files(before, after, SPEC).kpis["demographic_parity"]


def test_levels_beyond_the_nineteen_commonest_are_judged_together_and_said_to_be() -> None:
    def spread(frame: pl.DataFrame) -> pl.DataFrame:
        level = pl.int_range(pl.len()) * 7919 % 25
        return frame.with_columns(group=pl.format("g{}", pl.min_horizontal(level, pl.lit(24))))

    reference = spread(rows(np.random.default_rng(0), DAYS, PER_DAY))
    bins = World.on(reference, SPEC).reference.binning.columns["group"]
    assert isinstance(bins, CategoricalBins)
    denied = pl.when(pl.col("group").is_in(sorted(bins.rare))).then(0.0).otherwise("_score").alias("_score")
    current = spread(rows(np.random.default_rng(1), AFTER, PER_DAY, DAYS))
    found = watched(reference, current.with_columns(denied))
    assert found.verdict is Verdict.BREACH
    assert f"the {len(bins.rare)} rarer levels pooled is denied entirely" in found.reason


def test_of_several_protected_columns_the_worst_is_told() -> None:
    spec = spec_of("x", protected={"group": "categorical", "kind": "categorical"}, prediction={"score": "_score"})
    world = World.on(rows(np.random.default_rng(0), DAYS, PER_DAY), spec)
    current = rows(np.random.default_rng(1), AFTER, PER_DAY, DAYS).with_columns(
        pl.when(pl.col("kind") == "a").then(0.0).otherwise("_score").alias("_score")
    )
    found = world.land(current).at(AFTER * DAY).kpis["demographic_parity"]
    assert found.verdict is Verdict.BREACH
    assert found.reason.startswith("kind: gap ")
    assert "a is denied entirely" in found.reason


def test_a_group_that_is_denied_stays_a_breach_when_the_window_holds_nothing_else() -> None:
    world = World.on(rows(np.random.default_rng(0), DAYS, PER_DAY), SPEC)
    after = rows(np.random.default_rng(1), 40, PER_DAY, DAYS)
    denied = pl.when(pl.int_range(pl.len()) < 5 * PER_DAY).then("_score").otherwise(DENIED)
    verdicts = [report.kpis["demographic_parity"].verdict for report in world.daily(after.with_columns(denied))]
    assert set(verdicts[20:]) == {Verdict.BREACH}
