"""The folder that a replay writes: nothing is ever half there, and what is no replay is never replaced."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drift_pipeline.errors import InputError
from drift_pipeline.replays.report import write_report


def write_summary(work: Path, summary: dict[str, Any]) -> None:
    """`summary.json` and `report.html`."""
    (work / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_report(work)


def refuse_out(out: Path, overwrite: bool, option: str = "--out") -> None:
    """Raise InputError where `out` is a file, or holds something and is not to be, or must not be, replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{option} {out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise InputError(f"{option} {out}: is not empty; name a new folder, or replace it with --overwrite")
        if missing := [name for name in ("summary.json", "control.db") if not (out / name).is_file()]:
            raise InputError(f"{option} {out}: holds no {missing[0]}, so it is no replay's folder; it is not replaced")


@contextmanager
def work_folder(out: Path, option: str = "--out") -> Iterator[Path]:
    """A folder beside `out`, renamed to it when all is written: nothing is ever half there."""
    work = out.parent / f".{out.name}.{os.getpid()}.partial"
    made = [folder for folder in work.parents if not folder.exists()]
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{option} {out}: cannot be written: {error.strerror}") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it holds the result
                folder.rmdir()


def publish(work: Path, out: Path) -> None:
    """Rename; a folder that cannot be renamed (a mount point) is filled instead, `summary.json` last."""
    before = work.with_suffix(".before")
    try:
        if out.exists():
            out.rename(before)
        work.rename(out)
    except OSError:
        if not out.is_dir():
            raise
        for old in out.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for new in sorted(work.iterdir(), key=lambda path: path.name == "summary.json"):
            shutil.move(new, out / new.name)
    shutil.rmtree(before, ignore_errors=True)
