"""Files: written whole or not at all, and folders that are nobody else's business."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from drift_pipeline.errors import InputError, UnavailableError


def read_plain(path: Path, most: int | None = None) -> bytes:
    """What a file holds that somebody else may have put there: a pipe or a device, which may have no end, is not read.

    Args:
        most: bytes that it may hold; None = any.

    Raises:
        OSError: as of `open`; IsADirectoryError also for what is no regular file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is no regular file")
        if most is not None and found.st_size > most:
            raise OSError(errno.EFBIG, f"it holds more than {most:,} bytes")
        return file.read()


def write_whole(path: Path, data: bytes | str) -> Path:
    """As `write_parts`, of what is at hand."""
    return write_parts(path, [data.encode() if isinstance(data, str) else data])


def write_parts(path: Path, parts: Iterable[bytes]) -> Path:
    """Write beside the path, sync and rename: a reader sees the old file or the new one. Folders are made.

    Raises:
        InputError: the path cannot be written; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if not isinstance(error, OSError):  # of who makes the parts
            raise
        raise InputError(f"{path}: cannot be written: {error}") from error
    return path


def sync_entries(folder: Path) -> None:
    """Files outlive a power failure only with the folder's entries of them on disk."""
    entries = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def keep_private(folder: Path) -> None:
    """What lies in the folder is people's data: no other user of the machine may look into it.

    A folder of another user is theirs to close.
    """
    if folder.stat().st_mode & 0o077:
        with suppress(PermissionError):
            folder.chmod(0o700)


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no other process delivers meanwhile; the kernel lets go of what a killed one held.

    Raises UnavailableError where the folder cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UnavailableError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        yield locked(lock)
    finally:
        os.close(lock)


def locked(lock: int) -> bool:
    """Whether the open file is locked now, for as long as it stays open; False where another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
