"""A history that cannot be used is refused by file, line and column; one that can is the same frame in any format."""

import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import read_history

HEADER = "id,ts,user,ms,ver,score,x,device,age,y"
GOOD = (
    "a,2026-01-01T00:00:00Z,u1,12.5,v1,0.25,1.5,phone,young,0",
    "b,2026-01-01T01:00:00Z,u2,13,v1,0.75,,desktop,old,1",
    "c,2026-01-01T02:00:00Z,,14,v2,0.5,-3,,old,",
)
DOCUMENT: Mapping[str, Any] = {
    "name": "m",
    "owner": "o",
    "task": "binary_classification",
    "columns": {"timestamp": "ts", "prediction_id": "id", "entity": "user", "latency_ms": "ms", "version": "ver"},
    "features": {"x": "numeric", "device": "categorical"},
    "prediction": {"score": "score"},
    "outcome": {"column": "y"},
    "protected": {"age": "categorical"},
}
SPEC = ModelSpec.model_validate(DOCUMENT)
SMALL = {**DOCUMENT, "columns": {"timestamp": "ts"}, "features": {"x": "numeric"}, "prediction": {}, "protected": {}}


def small(**changes: object) -> ModelSpec:
    """A spec of three columns, ts, x and y."""
    return ModelSpec.model_validate({**SMALL, **changes})


def csv(tmp_path: Path, lines: Sequence[str], header: str = HEADER, name: str = "log.csv") -> Path:
    path = tmp_path / name
    content = "\n".join([header, *lines, ""]).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def changed(row: int, column: str, value: str) -> list[str]:
    """The good lines with one field replaced."""
    lines = [line.split(",") for line in GOOD]
    lines[row][HEADER.split(",").index(column)] = value
    return [",".join(line) for line in lines]


def refusal(path: Path, spec: ModelSpec = SPEC, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        read_history(path, spec, **options)
    return str(refused.value)


def times(path: Path, **options: Any) -> list[datetime]:
    return read_history(path, small(), **options).frame["_time"].to_list()


# what is read


def test_the_frame_has_the_lakes_columns_then_the_features(tmp_path: Path) -> None:
    history = read_history(csv(tmp_path, GOOD), SPEC)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    expected = pl.DataFrame(
        {
            "_id": ["a", "b", "c"],
            "_time": pl.Series([start + timedelta(hours=h) for h in range(3)], dtype=pl.Datetime("us", "UTC")),
            "_label": pl.Series([0, 1, None], dtype=pl.Int8),
            "_score": [0.25, 0.75, 0.5],
            "_latency_ms": [12.5, 13.0, 14.0],
            "_entity": ["u1", "u2", None],
            "_version": ["v1", "v1", "v2"],
            "x": [1.5, None, -3.0],
            "device": ["phone", "desktop", None],
            "age": ["young", "old", "old"],
        }
    )
    assert_frame_equal(history.frame, expected)
    assert history.notes == ()


@pytest.mark.parametrize("form", ["csv.gz", "parquet", "folder", "mixed", "crlf", "bom"])
def test_every_format_gives_the_same_frame(tmp_path: Path, form: str) -> None:
    plain = csv(tmp_path, GOOD)
    if form == "csv.gz":
        path = csv(tmp_path, GOOD, name="log.csv.gz")
    elif form == "parquet":
        path = tmp_path / "log.parquet"
        pl.read_csv(plain, try_parse_dates=True).write_parquet(path)
    elif form in {"folder", "mixed"}:
        path = tmp_path / "parts"
        path.mkdir()
        (path / "readme.txt").write_text("not data")
        csv(path, GOOD[:1], name="1.csv.gz")
        swapped = pl.read_csv(plain, infer_schema=False).reverse().select(reversed(HEADER.split(",")))
        swapped[:2].write_csv(path / "2.csv") if form == "folder" else swapped[:2].write_parquet(path / "2.parquet")
    else:
        path = tmp_path / "other.csv"
        content = plain.read_bytes()
        path.write_bytes(content.replace(b"\n", b"\r\n") if form == "crlf" else b"\xef\xbb\xbf" + content)
    assert_frame_equal(read_history(path, SPEC).frame, read_history(plain, SPEC).frame)


def test_rows_come_in_order_of_time_and_ties_as_they_stood(tmp_path: Path) -> None:
    path = csv(tmp_path, ["5,1,0", "3,2,1", "5,3,1", "3,4,0"], header="ts,x,y")
    assert read_history(path, small()).frame["x"].to_list() == [2.0, 4.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T14:00:00+01:00"),
        ("2026-01-31T12:00:00", "2026-01-31T13:00:00Z"),
        ("2026-01-31T13:00:00+01:00", "2026-01-31T13:00:00"),
        ("2026-01-31 12:00:00.000", "2026-01-31 13:00:00"),
        ("2026-01-31T12:00", "2026-01-31T13:00"),
        ("20260131T120000Z", "20260131T130000Z"),
        ("1769860800", "1769864400"),
        ("1769860800.0", "1769864400"),
        ("1769860800000", "1769864400000"),
        ("1769860800000000", "1769864400000000"),
        ("1769860800000000000", "1769864400000000000"),
    ],
)
def test_times_are_read_as_utc(tmp_path: Path, first: str, second: str) -> None:
    path = csv(tmp_path, [f"{first},1,0", f"{second},2,1"], header="ts,x,y")
    assert times(path) == [datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (12, 13)]


def test_a_column_of_dates_is_midnight_utc(tmp_path: Path) -> None:
    path = csv(tmp_path, ["2026-01-31,1,0", "2026-02-01,2,1"], header="ts,x,y")
    assert times(path) == [datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    "moments",
    [
        [datetime(2026, 1, 31), datetime(2026, 2, 1)],  # noqa: DTZ001  (naive on purpose)
        [datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)],
        [datetime(2026, 1, 31, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 2, 1, tzinfo=UTC)],
        [date(2026, 1, 31), date(2026, 2, 1)],
        [1769817600, 1769904000],
        [1769817600.0, 1769904000.0],
        [1769817600000, 1769904000000],
    ],
)
def test_parquet_times_are_read_as_utc(tmp_path: Path, moments: list[object]) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": moments, "x": [1, 2], "y": [0, 1]}).write_parquet(path)
    assert times(path) == [datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]


def test_the_time_column_may_be_given_beside_the_spec(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,0,1,0", "2,0,2,1"], header="when,ts,x,y")
    assert times(path, timestamp="when") == [datetime(1970, 1, 1, 0, 0, s, tzinfo=UTC) for s in (1, 2)]


@pytest.mark.parametrize(
    ("positive", "labels"),
    [
        (1, ["0", "1", ""]),
        (1, ["0.0", "1.0", "NaN"]),
        (1, ["2", "1", "null"]),
        (True, ["false", "true", ""]),
        (True, ["False", "TRUE", "NA"]),
        (True, ["0", "1", ""]),
        (False, ["1", "0", ""]),
        ("yes", ["no", "yes", ""]),
        ("1", ["0", "1", ""]),
    ],
)
def test_a_label_is_positive_where_it_equals_the_specs_value(
    tmp_path: Path, positive: object, labels: list[str]
) -> None:
    path = csv(tmp_path, [f"{i},0,{label}" for i, label in enumerate(labels)], header="ts,x,y")
    frame = read_history(path, small(outcome={"column": "y", "positive": positive})).frame
    assert frame["_label"].to_list() == [0, 1, None]


@pytest.mark.parametrize(
    ("positive", "labels", "told"),
    [
        (1, "1221", ["column 'y': 1 is positive (outcome.positive), '2' negative"]),
        (2, "1221", ["column 'y': 2 is positive (outcome.positive), '1' negative"]),
        (1, "1001", []),
        ("b", "abba", []),
    ],
)
def test_labels_that_are_not_0_and_1_are_told(tmp_path: Path, positive: object, labels: str, told: list[str]) -> None:
    path = csv(tmp_path, [f"{i},{i},{label}" for i, label in enumerate(labels)], header="ts,x,y")
    notes = read_history(path, small(outcome={"column": "y", "positive": positive})).notes
    assert [note for note in notes if "positive" in note] == told


def test_names_are_read_without_signs_that_have_no_width(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,2,0", "2,3,1"], header="\ufeffts,\u200bx, y\u200b")
    assert read_history(path, small()).frame["x"].to_list() == [2.0, 3.0]


@pytest.mark.parametrize("labels", [[False, True, None], [0.0, 1.0, float("nan")], [0, 1, None]])
def test_parquet_labels_that_are_missing_stay_unknown(tmp_path: Path, labels: list[object]) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": [1, 2, 3], "x": [1.0, float("nan"), None], "y": labels}, strict=False).write_parquet(path)
    frame = read_history(path, small()).frame
    assert frame["_label"].to_list() == [0, 1, None]
    assert frame["x"].to_list() == [1.0, None, None]


def test_a_missing_number_is_null_and_true_is_one(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,,0", "2,true,1", "3, 2.5 ,0", "4,FALSE,1", "5,?,0"], header="ts,x,y")
    assert read_history(path, small()).frame["x"].to_list() == [None, 1.0, 2.5, 0.0, None]


def test_without_ids_the_position_is_the_id_and_that_is_said(tmp_path: Path) -> None:
    history = read_history(csv(tmp_path, ["9,1,0", "8,2,1"], header="ts,x,y"), small())
    assert history.frame["_id"].to_list() == ["1", "0"]
    assert history.notes == ("no prediction id in the spec: the row position is used",)


LEVELS = {"x": "numeric", "g": "categorical"}


@pytest.mark.parametrize(
    ("levels", "form", "read"),
    [
        (("1", "2.0", ""), "integer", ["1", "2", None]),
        (("0.5", "1.50", "2"), "decimal", ["0.5", "1.5", "2"]),
        (("True", "false", "TRUE"), "boolean", ["true", "false", "true"]),
        (("01", "1", "NA"), "text", ["01", "1", "NA"]),
    ],
)
def test_the_forms_of_levels_are_found_once_and_come_with_the_history(
    levels: Sequence[str], form: str, read: list[str | None], tmp_path: Path
) -> None:
    lines = [f"{1_700_000_000 + i},1,{level},{i % 2}" for i, level in enumerate(levels)]
    history = read_history(csv(tmp_path, lines, header="ts,x,g,y"), small(features=LEVELS))
    assert history.forms == {"g": form}
    assert history.frame["g"].to_list() == read


def test_levels_that_do_not_fit_a_declared_form_are_told(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,1,7,0", "2,1,x,1", "3,1,x,1"], header="ts,x,g,y")
    history = read_history(path, small(features=LEVELS, forms={"g": "integer"}))
    assert history.frame["g"].to_list() == ["7", "x", "x"]
    assert history.notes[-1].startswith("g: 2 values do not fit its form, integer, such as 'x'")


def test_what_the_spec_lists_is_missing_in_numbers_and_levels(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,-999.0,-999,0", "2,1,-999.0,1", "3,2,7,1"], header="ts,x,g,y")
    frame = read_history(path, small(features=LEVELS, missing=[-999])).frame
    assert (frame["x"].to_list(), frame["g"].to_list()) == ([None, 1, 2], [None, None, "7"])


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("ts;x;y", ["1;1.234,5;0", "2;7;1"]),
        ("ts|x|y", ["1|1,234.5|0", "2| 7 |1"]),
        (" y\tx \tts", ["0\t1 234.5\t1", "1\t7.0\t2"]),
    ],
)
def test_a_history_is_read_with_any_separator_and_any_way_of_writing_numbers(
    header: str, lines: list[str], tmp_path: Path
) -> None:
    frame = read_history(csv(tmp_path, lines, header=header), small()).frame
    assert (frame["x"].to_list(), frame["_label"].to_list()) == ([1234.5, 7], [0, 1])


def test_a_third_label_is_refused_unless_it_is_listed_as_unknown(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,1,0", "2,1,1", "3,1,-1", "4,1,-1"], header="ts,x,y")
    assert refusal(path, small()).startswith(f"{path}: line 4: column 'y': '-1' is a third label beside")
    listed = small(outcome={"column": "y", "unknown": [-1]})
    assert read_history(path, listed).frame["_label"].to_list() == [0, 1, None, None]


def test_ids_that_one_table_writes_with_a_point_are_the_same_ids(tmp_path: Path) -> None:
    path = csv(tmp_path, ["7,1,1", "8,2,2"], header="id,ts,x")
    outcomes = csv(tmp_path, ["8.0,1", "7.0,0"], header="id,y", name="labels.csv")
    spec = small(columns={"timestamp": "ts", "prediction_id": "id"})
    assert read_history(path, spec, outcomes=outcomes).frame["_label"].to_list() == [0, 1]


# what is refused


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path, column: str) -> None:
    names = HEADER.split(",")
    keep = [position for position, name in enumerate(names) if name != column]
    lines = [",".join(line.split(",")[position] for position in keep) for line in GOOD]
    have = [name for name in names if name != column]
    path = csv(tmp_path, lines, header=",".join(have))
    assert refusal(path) == f"{path}: no column {column!r}; there are: {', '.join(have)}"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", "31.02.2026 10:00"])
def test_an_unreadable_time_is_told_with_its_line(tmp_path: Path, name: str, text: str) -> None:
    path = csv(tmp_path, changed(1, "ts", text), name=name)
    assert refusal(path) == (
        f"{path}: line 3: column 'ts': {text!r} is not a time; "
        "write ISO 8601 such as 2026-01-31T12:00:00Z, or seconds since 1970"
    )


def test_a_date_of_which_no_row_tells_day_and_month_apart_is_refused_by_name(tmp_path: Path) -> None:
    path = csv(tmp_path, changed(1, "ts", "01/02/2026"))
    assert refusal(path).startswith(f"{path}: column 'ts': '01/02/2026' is ambiguous")


@pytest.mark.parametrize("odd", ["9999-12-31T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_a_row_whose_time_stands_for_none_is_laid_aside_by_its_line(tmp_path: Path, odd: str) -> None:
    lines = [f"2026-01-01T{hour:02}:{minute:02}:00Z,1,{minute % 2}" for hour in range(24) for minute in range(60)]
    path = csv(tmp_path, [*lines[:700], f"{odd},1,1", *lines[700:]], header="ts,x,y")
    history = read_history(path, small())
    assert history.frame.height == len(lines)
    assert f"{path}: line 702: column 'ts': '{odd}' stands for no time" in history.notes[-1]


def test_times_that_are_all_unreadable_are_counted(tmp_path: Path) -> None:
    path = csv(tmp_path, ["x,1,0", "y,2,1"], header="ts,x,y")
    assert refusal(path, small()).startswith(f"{path}: line 2: column 'ts': 'x' is not a time; ")
    assert refusal(path, small()).endswith("(2 such rows)")


@pytest.mark.parametrize(("text", "said"), [("soon", "'soon'"), ("", "an empty field"), ("inf", "'inf'")])
def test_the_one_bad_epoch_is_found_among_good_ones(tmp_path: Path, text: str, said: str) -> None:
    path = csv(tmp_path, ["1,1,0", "2,1,0", f"{text},1,1", "4,1,1"], header="ts,x,y")
    assert refusal(path, small()).startswith(f"{path}: line 4: column 'ts': {said} is not a time; ")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    """A quoted field with a line break, and blank lines at the top."""
    path = csv(tmp_path, ['1,"1",0', '2,2,"1\n"', "then,3,0"], header="\n\nts,x,y")
    assert refusal(path, small()).startswith(f"{path}: line 7: column 'ts': 'then' is not a time")


def test_a_blank_line_is_no_row_and_the_lines_below_it_keep_their_numbers(tmp_path: Path) -> None:
    assert read_history(csv(tmp_path, [GOOD[0], "", GOOD[1]]), SPEC).frame.height == 2
    path = csv(tmp_path, [GOOD[0], "", GOOD[1].replace("b,", ",", 1)], name="gap.csv")
    assert refusal(path) == f"{path}: line 4: column 'id': an empty field is no id; every prediction needs one"


def test_a_repeated_id_is_told_with_both_lines(tmp_path: Path) -> None:
    path = csv(tmp_path, changed(2, "id", "a"))
    assert refusal(path) == (
        f"{path}: line 4: column 'id': the prediction id 'a' stands already at {path}: line 2 "
        "(1 ids are repeated); each prediction has its own id"
    )


def test_a_repeated_id_is_told_across_the_files_of_a_folder(tmp_path: Path) -> None:
    first, second = csv(tmp_path, GOOD, name="1.csv"), csv(tmp_path, changed(0, "id", "c")[:1], name="2.csv")
    assert f"{second}: line 2: column 'id': the prediction id 'c' stands already at {first}: line 4" in refusal(
        tmp_path
    )


def test_parquet_rows_are_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": [1, 2], "x": ["1", "two"], "y": [0, 1]}).write_parquet(path)
    assert refusal(path, small()).startswith(f"{path}: row 2: column 'x': 'two' is not a number")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("x", "wide", "'wide' is not a number; if the feature has levels, declare it categorical"),
        ("ms", "fast", "'fast' is not a number of milliseconds"),
        ("score", "high", "'high' is not a score"),
        ("score", "1.01", "'1.01' is not a probability in 0..1"),
        ("score", "-0.1", "'-0.1' is not a probability in 0..1"),
        (
            "y",
            "yes",
            "'yes' is neither a number nor true or false; write outcome.positive in quotes where it is a text",
        ),
        ("id", "", "an empty field is no id; every prediction needs one"),
    ],
)
def test_a_bad_value_is_told_with_line_and_column(tmp_path: Path, column: str, value: str, problem: str) -> None:
    path = csv(tmp_path, changed(2, column, value))
    assert refusal(path) == f"{path}: line 4: column {column!r}: {problem}"


@pytest.mark.parametrize(
    ("labels", "seen"), [("11", "only positive labels"), ("00", "only negative labels"), ("  ", "no label at all")]
)
def test_both_classes_are_needed(tmp_path: Path, labels: str, seen: str) -> None:
    path = csv(tmp_path, [f"{i},1,{label.strip()}" for i, label in enumerate(labels)], header="ts,x,y")
    assert refusal(path, small()) == (
        f"{path}: column 'y' holds {seen}; both classes are needed "
        "(a label is positive where it equals outcome.positive = 1)"
    )


def test_a_spec_without_a_time_column_says_how_to_give_one(tmp_path: Path) -> None:
    assert refusal(csv(tmp_path, GOOD), small(columns={})) == (
        "m: no time column: set columns.timestamp in the spec or give --timestamp COLUMN"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "{path}: the file is empty"),
        ("log.csv.gz", gzip.compress(b""), "{path}: the file is empty"),
        ("log.csv", b"ts,x,y\n", "{path}: holds no rows"),
        ("log.parquet", b"", "{path}: cannot be read: parquet: "),
        ("log.parquet", b"PAR1 not at all PAR1", "{path}: cannot be read: parquet: "),
        ("log.csv", b"ts,x,y\n1,2,0\n\n2,3,1,4,5\n", "{path}: line 4 has 5 fields, but the header 3"),
        ("log.csv", b"ts,x,y\n\xe9,2,0\n", "{path}: is not UTF-8 (byte 8), perhaps Windows-1252"),
        ("log.csv.gz", gzip.compress(b"ts,x,y\n1,2,0\n" * 99)[:-12], "{path}: cannot be read: "),
        ("log.xlsx", b"PK", "{path}: cannot tell its format; it should end in one of .csv, .csv.gz, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path, small()).startswith(message.format(path=path))


def test_a_ragged_line_is_found_in_a_zipped_file_too(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,2,0", "2,3,1,4"], header="ts,x,y", name="log.csv.gz")
    assert refusal(path, small()).startswith(f"{path}: line 3 has 4 fields, but the header 3")


def test_a_parquet_file_that_is_cut_off_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": range(9999), "x": range(9999), "y": [0, 1, 1] * 3333}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path, small()).startswith(f"{path}: cannot be read: parquet: ")


def test_a_path_that_is_not_there_or_holds_nothing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.csv") == f"{tmp_path / 'gone.csv'}: there is no such file or folder"
    assert refusal(tmp_path) == f"{tmp_path}: the folder holds no .csv, .csv.gz, .parquet file and is no Delta table"


def test_a_file_of_a_folder_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    csv(tmp_path, ["1,2,0"], header="ts,x,y", name="1.csv")
    second = csv(tmp_path, ["1,2,0"], header="ts,z,y", name="2.csv")
    assert refusal(tmp_path, small()) == f"{second}: no column 'x'; there are: ts, y"


def test_a_column_that_only_one_file_has_is_left_out_and_said(tmp_path: Path) -> None:
    csv(tmp_path, ["1,2,0"], header="ts,x,y", name="1.csv")
    second = csv(tmp_path, ["1,7,2,1"], header="ts,batch,x,y", name="2.csv")
    notes = read_history(tmp_path, small()).notes
    assert notes[0] == f"{second}: the column 'batch', which 1.csv has not, is left out"


def test_a_list_among_numbers_is_told_with_its_file(tmp_path: Path) -> None:
    pl.DataFrame({"ts": [1], "x": [1], "y": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"ts": [1], "x": [[1]], "y": [True]}).write_parquet(tmp_path / "2.parquet")
    assert refusal(tmp_path, small()) == f"{tmp_path / '2.parquet'}: column 'x' is List(Int64), but Int64 in 1.parquet"


def test_a_delta_table_whose_path_its_reader_cannot_follow_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a b"
    pl.DataFrame({"ts": [1, 2], "x": [1.0, 2.0], "y": [0, 1]}).write_delta(path)
    assert refusal(path, small()) == f"{path}: a Delta table's path must be of ASCII letters without blanks; move it"


def test_bytes_that_are_no_text_are_no_feature(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": [1, 2], "x": [b"\xff", b"a"], "y": [0, 1]}).write_parquet(path)
    assert refusal(path, small()).startswith(f"{path}: is not UTF-8 in a column of bytes")


def test_bytes_that_are_text_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"ts": [1, 2], "x": [b"1.5", b"2"], "y": [0, 1]}).write_parquet(path)
    assert read_history(path, small()).frame["x"].to_list() == [1.5, 2.0]


def test_a_column_that_the_header_names_twice_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,2,3,0", "2,3,4,1"], header="ts,x,x,y")
    assert refusal(path, small()) == f"{path}: the header names 'x' twice; keep one"


# outcomes in a file of their own


def test_outcomes_are_joined_by_id_and_strangers_counted(tmp_path: Path) -> None:
    path = csv(tmp_path, GOOD)
    outcomes = csv(tmp_path, ["c,1", "a,0", "nobody,1"], header="id,y", name="labels.csv")
    history = read_history(path, SPEC, outcomes=outcomes)
    assert history.frame["_label"].to_list() == [0, None, 1]
    assert history.notes == (f"{outcomes}: 2 labels joined, 1 name no prediction",)


def test_outcomes_replace_what_the_history_itself_says_or_lacks(tmp_path: Path) -> None:
    short = [line.rpartition(",")[0] for line in GOOD]
    path = csv(tmp_path, short, header=HEADER.rpartition(",")[0])
    outcomes = csv(tmp_path, ["b,0", "a,1"], header="id,y", name="labels.csv")
    assert read_history(path, SPEC, outcomes=outcomes).frame["_label"].to_list() == [1, 0, None]


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (
            ["a,0", "b,1", "a,1"],
            "id,y",
            "{file}: line 4: column 'id': the prediction id 'a' stands already at {file}: l",
        ),
        (["a,0", "b,maybe"], "id,y", "{file}: line 3: column 'y': 'maybe' is neither a number nor true or false; "),
        (
            ["01,0", "02,1"],
            "id,y",
            "{file}: column 'id': none of its 2 ids, such as '01', is a prediction's in the history, such as 'a'",
        ),
        (["a,", "b,"], "id,y", "{file}: column 'y' holds no label at all; both classes are needed"),
        (["a,0", "b,0"], "id,y", "{file}: column 'y' holds only negative labels; both classes are needed"),
        (["a,0"], "key,y", "{file}: no column 'id'; there are: key, y"),
        ([], "id,y", "{file}: holds no rows"),
    ],
)
def test_bad_outcomes_are_told_in_their_own_file(tmp_path: Path, lines: list[str], header: str, message: str) -> None:
    outcomes = csv(tmp_path, lines, header=header, name="labels.csv")
    assert refusal(csv(tmp_path, GOOD), outcomes=outcomes).startswith(message.format(file=outcomes))


def test_outcomes_need_a_prediction_id(tmp_path: Path) -> None:
    path = csv(tmp_path, ["1,1,0"], header="ts,x,y")
    assert refusal(path, small(), outcomes=path) == (
        "--outcomes needs columns.prediction_id in the spec: labels are joined by it"
    )


# regression

NUMBERS = small(task="regression", prediction={"value": "guess"})


def numbers(tmp_path: Path, *lines: str) -> Path:
    return csv(tmp_path, lines, "ts,x,guess,y")


def test_a_regression_s_label_and_prediction_are_numbers(tmp_path: Path) -> None:
    lines = ("2026-01-01,1,2.5,3", "2026-01-02,1,-40,-7.25", "2026-01-03,1,,")
    frame = read_history(numbers(tmp_path, *lines), NUMBERS).frame
    assert frame["_label"].to_list() == [3.0, -7.25, None]
    assert frame["_score"].to_list() == [2.5, -40.0, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-01-02,1,2,late", "log.csv: line 3: column 'y': 'late' is not a number"),
        ("2026-01-02,1,2,inf", "log.csv: line 3: column 'y': 'inf' is not finite"),
        ("2026-01-02,1,-inf,2", "log.csv: line 3: column 'guess': '-inf' is not finite"),
        ("2026-01-02,1,2,3", "column 'y' holds only the value 3; numbers that differ are needed"),
    ],
)
def test_labels_that_no_regression_can_learn_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_history(numbers(tmp_path, "2026-01-01,1,2,3", line), NUMBERS)
    assert message in str(refused.value)


def test_a_regression_without_any_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no label at all; numbers that differ are needed"):
        read_history(numbers(tmp_path, "2026-01-01,1,2,"), NUMBERS)
