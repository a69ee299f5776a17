"""Is a day's snapshot fit to be judged? Great Expectations looks at it before anything is computed on it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import polars.selectors as cs

from drift_pipeline.clock import Window
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.tables.levels import CANONICAL

_LEAST_OF_FORM = 0.5  # of a column's values: fewer, and it is another column, or another producer's spelling
_NUMBERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64"]


@dataclass(frozen=True)
class Expectation:
    """One thing expected of the rows, or of one column, and what was seen, in words with numbers.

    Dagster keeps them for good, so that they tell nobody's values.
    """

    name: str
    column: str | None
    passed: bool
    observed: str


@dataclass(frozen=True)
class Quality:
    """All that was expected of one day's rows."""

    rows: int
    expectations: tuple[Expectation, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Each failed expectation in words: `_score is in 0..1: not so in 3 of 400 rows`."""
        return tuple(f"{e.column or 'snapshot'} {e.name}: {e.observed}" for e in self.expectations if not e.passed)


@dataclass(frozen=True)
class _Expected:
    """An expectation before it is looked at: its words, and Great Expectations' class and arguments."""

    name: str
    column: str | None
    kind: str
    arguments: dict[str, Any]


def check_snapshot(frame: pl.DataFrame, spec: ModelSpec, window: Window) -> Quality:
    """Check rows of the lake's `predictions`; whatever they are, it answers and does not raise.

    A column that is not there fails everything that is expected of it. Features and scores may have nulls (NaN counts
    as one) as long as something is there. Values that do not fit their column's form are told, and fail the day where
    they are more than half. Great Expectations takes 5-13 s of CPU to import the first time; it writes
    no file, shows no progress and reports to nobody.
    """
    expected = _expected(frame, spec, window)
    results = _validated(_prepared(frame), expected)
    return Quality(frame.height, tuple(_judged(e, results.get(at), frame.height) for at, e in enumerate(expected)))


def _expected(frame: pl.DataFrame, spec: ModelSpec, window: Window) -> list[_Expected]:
    def of(column: str, name: str, kind: str, **arguments: Any) -> _Expected:
        return _Expected(name, column, kind, {"column": column, **arguments})

    def some(column: str) -> _Expected:
        least = 0.5 / max(frame.height, 1)  # any share above 0 that one row reaches
        return of(column, "has values", "ExpectColumnValuesToNotBeNull", mostly=least)

    inside = {"min_value": window.start, "max_value": window.end, "strict_max": True}
    expected = [
        _Expected("has rows", None, "ExpectTableRowCountToBeBetween", {"min_value": 1}),
        of("_id", "has no nulls", "ExpectColumnValuesToNotBeNull"),
        of("_id", "is unique", "ExpectColumnValuesToBeUnique"),
        of("_time", "has no nulls", "ExpectColumnValuesToNotBeNull"),
        of("_time", "is inside the window", "ExpectColumnValuesToBeBetween", **inside),
    ]
    if spec.task == "binary_classification":
        expected.append(of("_score", "is in 0..1", "ExpectColumnValuesToBeBetween", min_value=0, max_value=1))
    expected.append(some("_score"))
    if "_latency_ms" in frame.columns:
        expected.append(of("_latency_ms", "is not negative", "ExpectColumnValuesToBeBetween", min_value=0))
    for column, kind in spec.watched.items():
        expected += [of(column, "exists", "ExpectColumnToExist"), some(column)]
        if kind == "numeric":
            expected.append(of(column, "holds numbers", "ExpectColumnValuesToBeInTypeList", type_list=_NUMBERS))
        elif (form := spec.forms.get(column, "text")) != "text":
            fits = {"regex": CANONICAL[form], "mostly": _LEAST_OF_FORM}
            expected.append(of(column, f"fits its form {form}", "ExpectColumnValuesToMatchRegex", **fits))
    return expected


def _prepared(frame: pl.DataFrame) -> pl.DataFrame:
    """Types that pandas has too: an all-null column without a type is a float one, and so are decimals."""
    return frame.with_columns(cs.by_dtype(pl.Null).cast(pl.Float64), cs.decimal().cast(pl.Float64))


def _validated(frame: pl.DataFrame, expected: list[_Expected]) -> dict[int, Any]:
    """Great Expectations' result by position; it returns them in an order of its own. None for a missing column."""
    known = [(at, e) for at, e in enumerate(expected) if e.column is None or e.column in frame.columns]
    with _great_expectations() as gx:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
        source = context.data_sources.add_pandas("lake").add_dataframe_asset("predictions")
        day = source.add_batch_definition_whole_dataframe("day").get_batch({"dataframe": frame.to_pandas()})
        checks = [getattr(gx.expectations, e.kind)(**e.arguments, meta={"at": at}) for at, e in known]
        found = day.validate(gx.ExpectationSuite("snapshot", expectations=checks)).results
    return {result.expectation_config.meta["at"]: result for result in found}


@contextmanager
def _great_expectations() -> Iterator[Any]:
    """The library without analytics; its warnings stay its own."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import great_expectations.expectations

        yield gx


def _judged(expected: _Expected, result: Any, rows: int) -> Expectation:
    if result is None:
        return Expectation(expected.name, expected.column, False, "there is no such column")
    raised = _raised(result.exception_info)
    observed = f"cannot be checked: {raised}" if raised else _observed(expected.kind, result.result, rows)
    return Expectation(expected.name, expected.column, bool(result.success), observed)


def _observed(kind: str, found: dict[str, Any], rows: int) -> str:
    if kind == "ExpectTableRowCountToBeBetween":
        return f"{rows:,} rows"
    if kind == "ExpectColumnToExist":
        return "it is there"
    if "observed_value" in found:
        return f"its type is {found['observed_value']}"
    wrong, nulls = found["unexpected_count"], found.get("missing_count", 0)
    if kind == "ExpectColumnValuesToNotBeNull":
        return f"{wrong:,} of {rows:,} rows are null"
    if wrong:
        return f"not so in {wrong:,} of {rows:,} rows"
    return f"so in {rows - nulls:,} of {rows:,} rows" + (f", {nulls:,} are null" if nulls else "")


def _raised(info: dict[str, Any]) -> str:
    """What Great Expectations stumbled over: told flat, or one entry a metric."""
    entries = [info] if "raised_exception" in info else list(info.values())
    return next((str(entry["exception_message"]) for entry in entries if entry["raised_exception"]), "")
