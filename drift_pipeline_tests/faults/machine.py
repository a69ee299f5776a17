"""What the machine does to a home: disks that are full or cannot be written, files that go, a locked database."""

import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def short_files(most: int) -> Iterator[None]:
    """No file of this process grows past `most` bytes: a write fails in its middle, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own at the folder; skips the test where nobody lets us mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only who may mount has a disk to fill")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """The folder's file system has no byte left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write below the folder; root, whom modes do not bind, is an ordinary user meanwhile."""
    here = [folder, *folder.rglob("*")]
    ways = [path for path in folder.parents if not path.stat().st_mode & 0o001]
    before = {path: path.stat().st_mode & 0o7777 for path in (*here, *ways)}
    for path in here:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in ways:
        path.chmod(before[path] | 0o011)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in before.items():
            path.chmod(mode)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Somebody writes to it, and does not come to an end."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """They are not where they were, and come back as they were."""
    aside = {path: path.with_name(f"{path.name}.aside") for path in paths if path.exists()}
    for path, to in aside.items():
        path.rename(to)
    try:
        yield
    finally:
        for path, to in aside.items():
            if path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            to.rename(path)


@contextmanager
def flipped(path: Path) -> Iterator[None]:
    """One bit in its middle is another."""
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    try:
        yield
    finally:
        path.write_bytes(before)


def copied(database: Path, to: Path) -> Path:
    """A backup of a database that is in use, as SQLite makes one."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
    return to


Fault = AbstractContextManager[None]
