"""What a drift report draws: rows of both samples that fit into one picture."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.spec import ColumnType

DRAWN_ROWS = 20_000  # of each sample
DRAWN_LEVELS = 20
OTHER, MISSING = "(other levels)", "(missing)"
_CARRIED = 1e150  # numpy's histogram overflows above


def drawable(frame: pl.DataFrame, columns: Mapping[str, ColumnType]) -> pl.DataFrame:
    """At most DRAWN_ROWS rows, in their order, of the columns that the frame has: finite floats, or text."""
    if frame.height > DRAWN_ROWS:
        kept = pl.int_range(frame.height, eager=True).sample(DRAWN_ROWS, seed=0).sort()
        frame = frame[kept]
    return frame.select(
        _finite(name) if kind == "numeric" else pl.col(name).cast(pl.String)
        for name, kind in columns.items()
        if name in frame.columns
    )


def _finite(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number.clip(-_CARRIED, _CARRIED))


def why_undrawn(finding: FeatureFinding | None, name: str, before: pl.DataFrame, after: pl.DataFrame) -> str:
    """Why a column has no plot, in words; empty where it has one."""
    if finding is None:
        return "no finding in this window"
    for side, frame in (("reference", before), ("current", after)):
        if name not in frame.columns:
            return f"the {side} rows do not have the column"
        if frame[name].is_null().all():
            return f"no value in the {side} rows"
    return "" if finding.n else "nothing was compared"


def together(before: pl.DataFrame, after: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both sides as one picture: tails cut at the outer 0.1 %, rare levels pooled, missing levels named."""
    drawn = [
        _cut(name, before, after) if before[name].dtype.is_float() else _pooled(name, before, after)
        for name in before.columns
    ]
    return before.with_columns(drawn), after.with_columns(drawn)


def _cut(name: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.Expr:
    """One absurd value would leave a histogram of a single bar."""
    low, high = zip(
        *((_quantile(f[name], 0.001, "higher"), _quantile(f[name], 0.999, "lower")) for f in (before, after)),
        strict=True,
    )
    return pl.col(name).clip(min(low + high), max(low + high))


def _quantile(values: pl.Series, share: float, side: Any) -> float:
    found = values.drop_nulls().quantile(share, side)
    assert found is not None  # a column without values is not drawn
    return found


def _pooled(name: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.Expr:
    counts = (
        pl.concat([before[name], after[name]])
        .drop_nulls()
        .value_counts(name="n")
        .sort("n", name, descending=[True, False])
    )
    kept = counts[name].to_list()[:DRAWN_LEVELS]
    column = pl.col(name)
    return (
        pl.when(column.is_null())
        .then(pl.lit(MISSING))
        .when(column.is_in(kept))
        .then(column)
        .otherwise(pl.lit(OTHER))
        .alias(name)
    )
