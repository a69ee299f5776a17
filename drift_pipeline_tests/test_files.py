"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.files import write_whole


def test_the_new_bytes_take_the_place_of_the_old_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert write_whole(path, "alt") == path
    write_whole(path, b"n\xc3\xa9u")
    assert path.read_text(encoding="utf-8") == "néu"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "kept").touch()
    with pytest.raises(InputError, match="page: cannot be written"):
        write_whole(tmp_path / "page", "text")
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "page" / "kept" / "below", "text")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept", "page"]
