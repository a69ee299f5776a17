"""Lines of a CSV: an uneven one is refused by its number, whatever columns are read; an even file is not."""

import gzip
from pathlib import Path

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables import lines
from drift_pipeline.telemetry.tables.table import Table


def written(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("why", "text", "told"),
    [
        ("too many fields", "a,b,c\n1,2,3\n4,5,6,7\n", "line 3 has 4 fields, but the header 3"),
        ("too few fields", "a,b,c\n1,2,3\n4,5\n7,8,9\n", "line 3 has 2 fields, but the header 3"),
        ("one of each", "a,b\n1\n1,2,3\n", "line 2 has 1 field, but the header 2"),
        ("cut off at the end", "a,b,c\n1,2,3\n4,", "line 3 has 2 fields, but the header 3"),
        ("a comma without quotes", 'a,b\n"x, y",1\nx, y,2\n', "line 3 has 3 fields, but the header 2"),
        ("after a quoted line break", 'a,b\n"x\ny",1\n2\n', "line 4 has 1 field, but the header 2"),
        ("a blank line before", "a,b\r\n\r\n1\r\n", "line 3 has 1 field, but the header 2"),
        ("a quote within a field", 'a,b\n5" pipe,1\n2,3,4\n', "line 3 has 3 fields, but the header 2"),
        ("below Excel's sep=", "sep=;\na;b\n1;2;3\n", "line 3 has 3 fields, but the header 2"),
    ],
)
def test_an_uneven_line_is_refused_by_its_number(tmp_path: Path, why: str, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as refused:
        Table.of(path).whole(["a"])
    assert str(refused.value).startswith(f"{path}: {told}; write each row in full")


@pytest.mark.parametrize(
    ("why", "text", "rows"),
    [
        ("plain", "a,b\n1,2\n3,4\n", 2),
        ("no line feed at the end", "a,b\n1,2\n3,4", 2),
        ("quoted separators and line breaks", 'a,b\n"x, y","1\n2"\n"say ""a,b""",4\n', 2),
        ("empty fields", "a,b\n,\n1,\n,2\n", 3),
        ("blank lines", "a,b\r\n\r\n1,2\r\n\r\n\r\n3,4\r\n", 2),
        ("a byte order mark", "\ufeffa,b\n1,2\n", 1),
        ("Excel's sep=", "sep=;\na;b\n1;2\n", 1),
        ("one column", 'a\n1\n\n"2,3"\n', 3),
    ],
)
@pytest.mark.parametrize("part", [3, 1 << 22])
def test_an_even_file_is_read(
    tmp_path: Path,
    why: str,
    text: str,
    rows: int,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "_PART", part)
    assert Table.of(written(tmp_path, text)).whole(["a"]).height == rows


def test_an_uneven_line_of_a_zipped_file_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n3\n"))
    with pytest.raises(InputError, match=r"b\.csv\.gz: line 3 has 1 field, but the header 2"):
        Table.of(tmp_path)
