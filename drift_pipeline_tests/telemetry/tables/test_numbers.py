"""Numbers are read as they are written, where the column says how; else refused, with the place of the first."""

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables.numbers import Evidence, Numbers
from drift_pipeline.telemetry.tables.table import Table

GROUPED = [f"{number:,}" for number in range(700, 1400)]  # 700 to 1,399


def read(values: Sequence[object] | pl.Series, missing: Sequence[str] = (), rows: int = 10_000) -> list[float | None]:
    """As a table reads them, in batches of some rows."""
    table = Table.of(pl.DataFrame({"x": values}))
    batches = table.batches({"x": Numbers(missing=missing)}, rows)
    return pl.concat(batches)["x"].to_list()


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        pytest.param([" 1.5", "2 ", "\xa03"], [1.5, 2, 3], id="blanks around"),
        pytest.param(["1,234.5", "7", "-1,000,000"], [1234.5, 7, -1e6], id="thousands by commas"),
        pytest.param(["1.234,5", "7", "-1.000.000", "2.000"], [1234.5, 7, -1e6, 2000], id="thousands by points"),
        pytest.param(["0,5", "1,234", "12"], [0.5, 1.234, 12], id="a decimal comma that another value shows"),
        pytest.param(["1,234", "2.5"], [1234, 2.5], id="thousands that another value shows"),
        pytest.param(["1,234", "5,678,901"], [1234, 5678901], id="thousands that a longer value shows"),
        pytest.param(["1 234", "1 234 567,5", "0,25"], [1234, 1234567.5, 0.25], id="thousands by blanks"),
        pytest.param(["1\u202f234.5", "2"], [1234.5, 2], id="thousands by narrow blanks"),
        pytest.param(["1'234.5", "1’000"], [1234.5, 1000], id="thousands by apostrophes"),
        pytest.param(["−1", "+2", "1e3", "1,5E2"], None, id="comma and exponent and no other sign"),
        pytest.param(["−1", "+2", "1e3", ".5", "1."], [-1, 2, 1000, 0.5, 1], id="signs and exponents"),
        pytest.param(["true", "False", "TRUE", "2"], [1, 0, 1, 2], id="truth values"),
        pytest.param(["1", "inf", "-Infinity"], [1, float("inf"), -float("inf")], id="infinities"),
        pytest.param(["1.234", "5.678"], [1.234, 5.678], id="a point before three digits"),
        pytest.param(GROUPED, list(map(float, range(700, 1400))), id="many thousands beside whole numbers below"),
        pytest.param(
            [text.replace(",", ".") for text in GROUPED], list(map(float, range(700, 1400))), id="the same by points"
        ),
    ],
)
def test_texts_are_the_numbers_that_the_column_says(texts: list[str], numbers: list[float] | None) -> None:
    assert read(texts) == (numbers or [-1, 2, 1000, 150])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        pytest.param(["1,234", "5,678"], r"row 1: column 'x': '1,234' may be thousands or decimals", id="either"),
        pytest.param(["7", "1,234"], r"row 2: .*'1,234' may be thousands or decimals", id="either beside few others"),
        pytest.param(["1,234.5", "1.234,5"], r"decimal comma, and others with a decimal point", id="both ways"),
        pytest.param(["0,5", "0.5"], r"row 1: .*'0,5' is written with a decimal comma", id="two decimal signs"),
        pytest.param(["1,234", "1.234"], r"decimal comma, and others with a decimal point", id="both, of either"),
        pytest.param(["1.5", "12 kg"], r"row 2: column 'x': '12 kg' is not a number", id="a unit"),
        pytest.param(["1.5", "45 %", "4 %"], r"row 2: .*'45 %' is not a number \(2 such rows\)", id="per cent"),
        pytest.param(["1", "12,34,567"], r"'12,34,567' is not a number", id="other groups"),
        pytest.param(["1", "1,2,3"], r"'1,2,3' is not a number", id="a list"),
        pytest.param(["1", "(5)"], r"'\(5\)' is not a number", id="an accountant's minus"),
        pytest.param(["1", "0x1f"], r"'0x1f' is not a number", id="hexadecimal"),
    ],
)
def test_what_the_column_does_not_say_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(texts)


@pytest.mark.parametrize("token", ["", " ", "NA", "n/a", "N/A", "#N/A", "null", "NaN", "None", "-", "--", "?", "nan "])
def test_the_usual_words_for_no_value_are_null(token: str) -> None:
    assert read(["1.5", token, "2"]) == [1.5, None, 2]
    assert read(["1,234.5", token, "2"]) == [1234.5, None, 2]


@pytest.mark.parametrize("values", [["-999", "1"], ["-999.0", "1"], [-999, 1], [-999.0, 1.0], ["-999,0", "1,0"]])
def test_a_number_that_the_spec_lists_is_missing_in_any_spelling(values: list[object]) -> None:
    assert read(values, ["-999"]) == [None, 1]


def test_a_text_that_the_spec_lists_is_missing() -> None:
    assert read(["unknown", "1"], ["unknown"]) == [None, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.1, 2.5, None], pl.Float32),
        (["0.10", "2.50", None], pl.Decimal(10, 2)),
        (["0.1", "2.5", "nan"], pl.Categorical()),
        ([0.1, 2.5, float("nan")], pl.Float64),
    ],
)
def test_a_number_is_the_same_in_every_type(values: list[object], dtype: pl.DataType) -> None:
    column = pl.Series(values).cast(dtype) if isinstance(dtype, pl.Decimal) else pl.Series(values, dtype=dtype)
    assert read(column) == [0.1, 2.5, None]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Boolean, pl.Float32, pl.String])
def test_whole_numbers_are_the_same_in_every_type(dtype: pl.DataType) -> None:
    assert read(pl.Series([1, 0, None]).cast(dtype)) == [1, 0, None]


@pytest.mark.parametrize("dtype", [pl.Date, pl.List(pl.Int64), pl.Duration("us")])
def test_a_type_without_numbers_is_refused(dtype: pl.DataType) -> None:
    with pytest.raises(InputError, match="which cannot be read; give text or numbers"):
        read(pl.Series([[1]] if dtype.is_nested() else [1]).cast(dtype))


def test_later_rows_show_how_earlier_ones_are_written() -> None:
    assert read(["1.234", "2.345", "1.234,5"], rows=1) == [1234, 2345, 1234.5]
    assert read(["12", "7", "1.234,5"], rows=1) == [12, 7, 1234.5]


def test_rows_that_were_read_with_a_point_are_not_contradicted_in_silence() -> None:
    parts = [pl.DataFrame({"x": some}) for some in (["1.234", "1234"], ["1.234,5"])]
    reader, table = Numbers(), Table.of(pl.concat(parts))
    with pytest.raises(InputError, match=r"row 3: .*'1.234,5' is written with a decimal comma, and others"):
        list(table.applied(parts, {"x": reader}))


@given(st.lists(st.floats(-1e9, 1e9).map(lambda x: round(x, 2)), min_size=5), st.sampled_from([",", ".", " ", "'"]))
def test_any_column_with_separators_is_what_it_was(numbers: list[float], separator: str) -> None:
    decimal = "," if separator in ". " else "."
    texts = [f"{x:,.2f}".translate(str.maketrans(",.", separator + decimal)) for x in numbers]
    assert read(texts) == numbers


@given(st.lists(st.sampled_from(["1,234", "0,5", "1.5", "1.234", "12", "1,234,567", "1 234", "x"])), st.integers(0, 9))
def test_evidence_adds_up_over_batches(texts: list[str], cut: int) -> None:
    first, second = (Evidence.of(pl.Series(part, dtype=pl.String)) for part in (texts[:cut], texts[cut:]))
    assert first + second == Evidence.of(pl.Series(texts, dtype=pl.String))
