"""A file is read by what it holds; one that cannot be is named, with what to do."""

import codecs
import gzip
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables.table import Table

ROWS = "a,b\n1,x\n2,y\n"
FRAME = pl.DataFrame({"a": ["1", "2"], "b": ["x", "y"]})


def rows(path: Path, *names: str) -> pl.DataFrame:
    table = Table.of(path)
    return table.whole(names or tuple(table.types))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(ROWS, id="commas"),
        pytest.param(ROWS.replace(",", ";"), id="semicolons"),
        pytest.param(ROWS.replace(",", "\t"), id="tabs"),
        pytest.param(ROWS.replace(",", "|"), id="bars"),
        pytest.param(ROWS.replace("\n", "\r\n"), id="Windows' line ends"),
        pytest.param("\ufeff" + ROWS, id="a byte order mark"),
        pytest.param("sep=;\n" + ROWS.replace(",", ";"), id="Excel's sep="),
        pytest.param(" a , b\n1,x\n2,y\n", id="blanks around names"),
        pytest.param('"a","b"\n"1","x"\n"2","y"', id="quotes"),
        pytest.param("\n\n" + ROWS, id="blank lines above"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "ROWS.CSV", "rows.csv.gz"])
def test_a_csv_is_read_by_what_it_holds(text: str, name: str, tmp_path: Path) -> None:
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert rows(tmp_path / name).equals(FRAME)


def test_separators_inside_quotes_and_names_are_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('name;"note, or not"\n"Smith; J";"a, b"\nLee;c\n')
    found = rows(tmp_path / "rows.csv")
    assert found.rows() == [("Smith; J", "a, b"), ("Lee", "c")]
    assert found.columns == ["name", "note, or not"]


def test_one_column_of_texts_with_blanks_is_no_table_of_two(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("full name\nAnn Lee\nJo Smith\n")
    assert rows(tmp_path / "rows.csv").rows() == [("Ann Lee",), ("Jo Smith",)]


def test_names_that_are_empty_say_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(",a,\n0,1,\n1,2,\n")
    assert list(Table.of(tmp_path / "rows.csv").types) == ["", "a", "Unnamed: 2"]


UNREADABLE: Mapping[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "a.csv: the file is empty"),
    "only line ends": ("a.csv", b"\n\r\n\n", "a.csv: the file is empty"),
    "a header alone": ("a.csv", b"a,b\n", ": holds no rows"),
    "UTF-16 with a mark": ("a.csv", ROWS.encode("utf-16"), "a.csv: is written in UTF-16; save it as UTF-8"),
    "UTF-16 big end first": ("a.csv", codecs.BOM_UTF16_BE + ROWS.encode("utf-16-be"), "is written in UTF-16"),
    "UTF-32": ("a.csv", ROWS.encode("utf-32"), "a.csv: is written in UTF-32"),
    "UTF-16 without a mark": ("a.csv", ROWS.encode("utf-16-le"), "it holds NUL bytes: it is damaged, or UTF-16"),
    "NUL bytes": ("a.csv", ROWS.replace("x", "\0").encode(), "a.csv: is no CSV: it holds NUL bytes"),
    "Latin-1": ("a.csv", "a,b\n1,é\n".encode("latin-1"), "a.csv: is not UTF-8 (byte 7), perhaps Windows-1252"),
    "Latin-1 far down": ("a.csv", (ROWS + "1,xxxxxx\n" * 9999 + "1,é\n").encode("latin-1"), "a.csv: is not UTF-8"),
    "old Mac's line ends": ("a.csv", ROWS.replace("\n", "\r").encode(), "lines end with a carriage return alone"),
    "a longer line": ("a.csv", (ROWS + "3,z,4\n").encode(), "a.csv: line 4 has 3 fields, but"),
    "a longer line by semicolons": ("a.csv", b"a;b\n1;x\n2;y;z\n", "a.csv: line 3 has 3 fields"),
    "a quote within a field": ("a.csv", (ROWS + '5" pipe,1\nb,2\n').encode(), "line 4: a quote stands within a field"),
    "colons": ("a.csv", ROWS.replace(",", ":").encode(), "the header 'a:b' is one name with ':' in it"),
    "blanks": ("a.csv", ROWS.replace(",", " ").encode(), "the header 'a b' is one name with ' ' in it"),
    "two separators": ("a.csv", b"a,b;c\n1,2;3\n", "',' or ';' may separate its columns"),
    "a blank before quotes": ("a.csv", b'a, "b"\n1, "x"\n', "a.csv: a blank stands before a quote"),
    "a name twice": ("a.csv", b"a,b,a \n1,2,3\n", "a.csv: the header names 'a' twice; keep one"),
    "Parquet by another name": ("a.csv", b"PAR1\0\0", "a.csv: is no CSV: it is Parquet"),
    "Excel": ("a.csv", b"PK\3\4\0\0", "a.csv: is no CSV: it is a zip or an Excel file"),
    "a cut gz": ("a.csv.gz", gzip.compress(ROWS.encode() * 99)[:-12], "a.csv.gz: cannot be read: "),
    "CSV by the name of Parquet": ("a.parquet", ROWS.encode(), "a.parquet: cannot be read: parquet: "),
    "another suffix": ("a.xlsx", b"PK", "a.xlsx: cannot tell its format"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_says_why(case: str, tmp_path: Path) -> None:
    name, content, said = UNREADABLE[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        rows(tmp_path / name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("case", [case for case in UNREADABLE if case not in ("a header alone", "another suffix")])
def test_a_folder_names_the_file_at_fault(case: str, at: int, tmp_path: Path) -> None:
    name, content, said = UNREADABLE[case]
    fault, other = (f"{number}{name[1:]}" for number in (1 + at, 2 - at))
    (tmp_path / fault).write_bytes(content)
    if name.endswith(".parquet"):
        FRAME.write_parquet(tmp_path / other)
    else:
        (tmp_path / other).write_bytes(ROWS.encode())
    with pytest.raises(InputError) as refused:
        rows(tmp_path, "a", "b")
    assert str(refused.value).startswith(f"{tmp_path / fault}: ")
    assert said.split(": ", 1)[-1] in str(refused.value)


def folder(path: Path, first: pl.DataFrame, second: pl.DataFrame, form: str) -> Table:
    for number, frame in enumerate((first, second), 1):
        getattr(frame, f"write_{form}")(path / f"{number}.{form}")
    return Table.of(path)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_of_a_folder_may_have_their_columns_in_any_order(form: str, tmp_path: Path) -> None:
    found = folder(tmp_path, FRAME, FRAME.select("b", "a"), form)
    assert found.whole(["b", "a"]).equals(pl.concat([FRAME, FRAME]).select("b", "a"))
    assert found.notes == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_of_one_file_only_is_left_out_and_told_with_the_file(form: str, tmp_path: Path) -> None:
    found = folder(tmp_path, FRAME, FRAME.with_columns(batch=7), form)
    assert found.whole(["a"]).height == 4
    assert found.notes == [f"{tmp_path}/2.{form}: the column 'batch', which 1.{form} has not, is left out"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_a_file_lacks_is_told_with_the_file(form: str, tmp_path: Path) -> None:
    found = folder(tmp_path, FRAME, FRAME.drop("b"), form)
    with pytest.raises(InputError, match=rf"2\.{form}: no column 'b'"):
        found.whole(["a", "b"])
    assert found.whole(["a"]).height == 4


def test_whole_numbers_in_one_file_and_floats_in_the_next_are_one_column_of_numbers(tmp_path: Path) -> None:
    found = folder(tmp_path, pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1.5, None]}), "parquet")
    assert found.whole(["a"])["a"].to_list() == [1, 2, 1.5, None]


def test_what_a_folder_holds_beside_tables_is_passed_over(tmp_path: Path) -> None:
    for name in ("readme.txt", "._1.csv", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"\0")
    (tmp_path / "1.csv").write_text(ROWS)
    assert rows(tmp_path).equals(FRAME)
