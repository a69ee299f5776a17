"""How commands tell people: wrapped lines, tables, and progress of what takes long."""

import sys
import time
from io import StringIO

import pytest

from drift_pipeline.cli import telling


class Screen(StringIO):
    """stderr, where it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Screen, StringIO], ids=["terminal", "file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[StringIO]:
    monkeypatch.setattr(telling, "_PATIENCE", 0.05)
    made: type[StringIO] = request.param
    return made


def test_what_is_done_at_once_tells_nothing(kind: type[StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := kind())
    with telling.at_work("reading") as doing:
        doing("landing")
    assert stream.getvalue().replace("\r\x1b[K", "") == ""


def test_what_takes_long_is_told_by_its_stage_and_leaves_a_clean_screen(
    kind: type[StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream := kind())
    with telling.at_work("reading") as doing:
        time.sleep(0.15)
        doing("landing")
        time.sleep(1.2)
    if stream.isatty():
        assert "reading (0 s)" in stream.getvalue()
        assert "landing (1 s)" in stream.getvalue()
        assert stream.getvalue().endswith("\r\x1b[K")
    else:
        assert stream.getvalue() == "landing\n"  # a log is told stages, and no seconds


def test_what_fails_ends_its_line_too(kind: type[StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := kind())
    with pytest.raises(ValueError, match="no"), telling.at_work("reading"):
        raise ValueError("no")
    assert "reading" not in stream.getvalue()


def test_a_bar_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := StringIO())
    monkeypatch.setattr(telling, "_SPARSE", 0.05)
    with telling.bar("tick") as show:
        for done in range(1, 5):
            show(done, 10, "2026-03-01" if done > 2 else "")
            time.sleep(0.03)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[0].partition(" of ")[2] in ("10 ticks", "10 ticks: 2026-03-01")


@pytest.mark.parametrize("columns", [40, 80])
def test_a_table_gives_its_last_column_the_rest_or_lines_of_its_own(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = telling.table(("model", "version", "why"), [("a" * 20, "v1" * 4, "word " * 40), ("b", "v2", "")])
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert shown.count("word") == 40
    assert lines[3].startswith("    word") == (columns == 40)
    assert telling.table(("a", "b"), []) == "a  b"
