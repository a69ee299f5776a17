"""How the columns of two tables are read where no spec says it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables.infer import Column, Tables
from drift_pipeline.telemetry.tables.table import Table

N = 300
FLOATS = np.random.default_rng(0).standard_normal(N)
TIMES = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(N)]
SHUFFLED = np.random.default_rng(1).permutation(N) * 37


def read(values: object, now: object = None, name: str = "x") -> Column:
    before = pl.DataFrame({name: values})
    after = before if now is None else pl.DataFrame({name: now})
    return next(Tables(Table.of(before), Table.of(after), before, after).infer())


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (FLOATS, "numeric", "numeric: float"),
        ([str(value) for value in FLOATS], "numeric", "numeric: float"),
        ([0.0, 1.0] * 150, "categorical", "categorical: 2 distinct integers"),
        (["1.0", "2.0", None] * 100, "categorical", "categorical: 2 distinct integers"),
        ([1, 2, 3] * 100, "categorical", "categorical: 3 distinct integers"),
        (["1", "2"] * 150, "categorical", "categorical: 2 distinct integers"),
        ([7] * N, "categorical", "categorical: 1 distinct integer"),
        ([value % 50 for value in range(N)], "numeric", "numeric: integer, 50 distinct"),
        (SHUFFLED, "numeric", "numeric: integer, 300 distinct"),
        (range(N), None, "left out: whole numbers, all distinct: an id or a row number"),
        (["a", "b", None] * 100, "categorical", "categorical: 2 distinct texts"),
        ([True, False] * 150, "categorical", "categorical: true or false"),
        ([f"user {number}" for number in range(N)], None, "left out: text, 300 distinct in 300: ids, or free text"),
        (TIMES, None, "left out: times"),
        ([time.isoformat() for time in TIMES], None, "left out: times"),
        ([None] * N, None, "left out: no value on either side"),
        ([[1, 2]] * N, None, "left out: no order and no levels"),
    ],
)
def test_a_column_is_read_by_its_values(values: object, kind: str | None, why: str) -> None:
    found = read(values)
    assert (found.kind, found.why) == (kind, why)


@pytest.mark.parametrize("name", ["id", "user_id", "userId", "uuid"])
def test_distinct_whole_numbers_named_as_an_id_are_one(name: str) -> None:
    assert read(SHUFFLED, name=name).kind is None


def test_whole_seconds_since_1970_are_times_by_name_and_size() -> None:
    seconds = [int(time.timestamp()) // 7200 for time in TIMES]
    assert read([1_700_000_000 + s for s in seconds], name="created_at").kind is None
    assert read([s % 60 for s in seconds], name="created_at").kind == "numeric"


def test_a_name_with_an_underscore_in_front_is_left_out() -> None:
    assert read(FLOATS, name="_score").kind is None


def test_few_whole_numbers_are_levels_also_where_a_side_writes_them_with_a_point() -> None:
    assert read([1, 2, 3] * 100, [1.0, 2.0, None] * 100).kind == "categorical"


def test_few_whole_numbers_beside_fractions_stay_numbers() -> None:
    assert read([1, 2, 3] * 100, [1.5, 2.0, None] * 100).kind == "numeric"


@pytest.mark.parametrize(
    ("values", "now"), [(FLOATS, ["low"] * N), (["low"] * N, FLOATS), ([True] * N, [7] * N), ([1] * N, TIMES)]
)
def test_columns_of_two_natures_are_refused_by_name(values: object, now: object) -> None:
    with pytest.raises(InputError, match=r"column 'x' holds .* in the table and .* in the table"):
        read(values, now)


def test_a_column_that_is_empty_now_is_read_as_the_reference_says() -> None:
    assert read(FLOATS, [None] * N).kind == "numeric"
