"""A level is the same text whatever type it has; one value and a column of values are brought to it alike."""

from datetime import time, timedelta
from typing import Literal

import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.errors import InputError
from drift_pipeline.spec import Form
from drift_pipeline.telemetry.tables.frames import as_frame, united
from drift_pipeline.telemetry.tables.levels import form_of, level, levels, off_form

FORMS: tuple[Form, ...] = ("text", "integer", "decimal", "boolean")
TEXTS = st.one_of(
    st.text(max_size=6),
    st.text("\x1c \xa0\u200b\t1.e", max_size=4),
    st.sampled_from(
        ["1", "1.0", "01", "-0", "True", "FALSE", " a ", "1e3", "1E5", "0.50", "-1.5", "", " ", "NA", "+1"]
    ),
    st.integers().map(str),
    st.floats(allow_nan=False).map(repr),
)


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=12), st.sampled_from(FORMS))
def test_a_column_of_texts_is_what_its_values_are(texts: list[str | None], form: Form) -> None:
    assert levels(pl.Series(texts, dtype=pl.String), form).to_list() == [level(text, form) for text in texts]


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**40), 2**40).map(float)), max_size=12))
def test_a_column_of_floats_is_what_its_values_are(values: list[float | None]) -> None:
    for form in FORMS:
        known = levels(pl.Series(values, dtype=pl.Float64), form).to_list()
        assert known == [level(value, form) for value in values]


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=12))
def test_whole_numbers_are_one_level_in_every_type(values: list[int]) -> None:
    wanted = [str(value) for value in values]
    doors = [
        pl.Series(values, dtype=pl.Int64),
        pl.Series([float(value) for value in values]),
        pl.Series([str(value) for value in values]),
        pl.Series([f"{value}.0" for value in values]),
        pl.Series([str(value) for value in values], dtype=pl.Categorical),
    ]
    for door in doors:
        assert form_of(door) == "integer"
        assert levels(door, "integer").to_list() == wanted
        assert levels(door, "decimal").to_list() == wanted


@pytest.mark.parametrize(
    "spelling", [[True, False], ["True", "False"], ["true", "FALSE"], [1, 0], [1.0, 0.0], ["1", "0.0"]]
)
def test_truth_values_are_one_level_in_every_spelling(spelling: list[object]) -> None:
    door = pl.Series(spelling)
    assert levels(door, "boolean").to_list() == ["true", "false"]
    assert levels(door, "integer").to_list() == ["1", "0"]


@given(st.lists(TEXTS, min_size=1), st.sampled_from(FORMS))
def test_a_level_is_its_own_level(texts: list[str], form: Form) -> None:
    """What was brought to the form once, such as what the lake holds, stays as it is."""
    once = levels(pl.Series(texts), form)
    assert levels(once, form).to_list() == once.to_list()


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["01", "1"], "text"),
        (["1", "x"], "text"),
        (["1", "1.0", "2"], "integer"),
        (["0.5", "1"], "decimal"),
        (["1e3", "2"], "decimal"),
        (["True", "false"], "boolean"),
        ([None, ""], "text"),
        (["true", "1"], "text"),
    ],
)
def test_the_form_is_the_narrowest_that_all_values_fit(values: list[str | None], form: Form) -> None:
    assert form_of(pl.Series(values, dtype=pl.String)) == form


def test_all_values_of_a_reference_fit_its_form_and_what_does_not_keeps_its_text() -> None:
    reference = pl.Series(["1", "2.0", None])
    assert off_form(levels(reference, form_of(reference)), "integer").to_list() == [False, False, None]
    assert off_form(levels(pl.Series(["1", "x", "01"]), "integer"), "integer").to_list() == [False, True, True]


def test_missing_is_what_is_listed_whatever_its_spelling() -> None:
    assert level(-999, "integer", ["-999"]) is None
    assert level("-999.0", "integer", ["-999"]) is None
    assert levels(pl.Series([-999.0, 1.0]), "integer", ["-999"]).to_list() == [None, "1"]
    assert level("NA", "text") == "NA"


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_time_is_one_level_in_whatever_unit_it_is_stored(unit: Literal["ms", "us", "ns"]) -> None:
    texts = pl.Series(["2025-01-02 00:00:00", "2025-01-02 03:04:05.6"])
    times = texts.str.to_datetime().cast(pl.Datetime(unit))
    assert levels(times, "text").to_list() == texts.to_list()
    zoned = times.dt.replace_time_zone("Europe/Berlin")
    assert levels(zoned, "text").to_list() == ["2025-01-02 00:00:00+01:00", "2025-01-02 03:04:05.6+01:00"]
    assert levels(pl.Series([timedelta(hours=2), None], dtype=pl.Duration(unit)), "text").to_list() == ["PT2H", None]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (pl.Series([0.1], dtype=pl.Float32), pl.Series([0.1]), ["0.1", "0.1"]),
        (pl.Series([2**53 + 1]), pl.Series([2**63 + 1], dtype=pl.UInt64), [str(2**53 + 1), str(2**63 + 1)]),
        (pl.Series([1]), pl.Series([timedelta(hours=2)]), ["1", "PT2H"]),
    ],
)
def test_files_of_two_types_keep_their_values(first: pl.Series, second: pl.Series, wanted: list[str]) -> None:
    assert levels(united([first, second]), "decimal").to_list() == wanted


def test_a_time_of_day_keeps_its_fraction() -> None:
    assert levels(pl.Series([time(10, 20), time(10, 20, 30, 500)]), "text").to_list() == ["10:20:00", "10:20:30.0005"]


def test_months_of_pandas_are_texts() -> None:
    frame = as_frame(pd.DataFrame({"month": pd.period_range("2025-01", "2025-02", freq="M")}))
    assert frame["month"].to_list() == ["2025-01", "2025-02"]


def test_two_arrow_columns_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two columns have one name"):
        as_frame(pa.table([[1], [2]], names=["a", "a"]))


def test_a_whole_number_beyond_64_bits_is_a_text_of_a_pandas_frame() -> None:
    frame = as_frame(pd.DataFrame({"id": pd.Series([1, 2**70], dtype=object)}))
    assert levels(frame["id"], "integer").to_list() == ["1", str(2**70)]
