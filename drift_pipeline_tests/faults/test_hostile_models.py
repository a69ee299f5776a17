"""Model files that declare more than they hold: refused before anything is allocated, as the user's input."""

import io
import zipfile
from pathlib import Path

import pytest

from drift_pipeline.errors import IntegrityError
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline_tests.serving.worlds import model


def array(shape: str, dtype: str = "<f8") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


def packed(member: bytes, ending: str = ".npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model(0))) as good, zipfile.ZipFile(file, "w", method) as bad:
        for name in good.namelist():
            bad.writestr(name, member if name.endswith(ending) else good.read(name))
    return file.getvalue()


def inner(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", member)
    return file.getvalue()


HOSTILE = {
    "80 GB": array("(10000000000,)"),
    "more than any memory": array(f"({2**62}, {2**62})"),
    "rows of nothing": array(f"({2**40},)", "|V0"),
    "below zero": array("(-1,)"),
    "objects": array("(1,)", "|O"),
    "80 GB in a sparse matrix": inner(array("(10000000000,)")),
    "archives in archives": inner(inner(array("(1,)"))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_array_that_declares_other_bytes_than_there_are_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=r"declares|archive in an archive"):
        load_pipeline(packed(HOSTILE[name]))


def test_a_schema_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    bomb = packed(b"[" + b" " * (40 << 20) + b"]", "schema.json")
    assert len(bomb) < 1 << 20
    with pytest.raises(IntegrityError, match=r"schema.json takes 41,943,042 bytes"):
        load_pipeline(bomb)
