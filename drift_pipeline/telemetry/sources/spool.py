"""The spool: events handed over on disk from the process that answers to the process that captures.

Segments `<number>.jsonl` hold whole lines. Numbers grow for ever, and the highest is never deleted, so none comes
twice: the lake knows a batch by it. All segments but the highest are closed, and only those are read.
"""

import fcntl
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.files import keep_private, sync_entries

SEGMENT_BYTES = 8_000_000
_SEGMENT = re.compile(r"(\d{20})\.jsonl")


@dataclass(frozen=True)
class Segment:
    number: int
    path: Path

    def lines(self) -> list[bytes]:
        """Without their newlines; the last may be torn where its writer was killed.

        Raises:
            UnavailableError: the disk does not give the bytes.
        """
        try:
            with open(self.path, "rb", opener=_unfollowed) as file:
                lines = file.read().split(b"\n")
        except OSError as error:
            raise UnavailableError(f"{self.path}: cannot be read: {error}") from error
        return lines if lines[-1] else lines[:-1]

    @property
    def written_at(self) -> float:
        """When it was last written to, in seconds since 1970. Raises OSError where it is gone."""
        return self.path.lstat().st_mtime


class SpoolWriter:
    """The only writer of a folder, which is made. Its methods may be called from any thread.

    A restart begins a segment of its own, and thereby closes the one that a dead writer left.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """`last_line` is what the writer before wrote last, b"" where nothing of it is left.

        Raises:
            InputError: another process, or another writer of this one, has the folder, or nobody can write there.
            UnavailableError: the disk does not take a new file.
        """
        self.folder, self._segment_bytes = folder, segment_bytes
        self._turn = Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            keep_private(folder)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InputError(f"{folder}: is no folder to write a spool in: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.last_line = _last_line(folder)
            self._number = max((segment.number for segment in _segments(folder)), default=0) + 1
            self._file, self._size = self._begin(self._number), 0
        except BlockingIOError as error:
            os.close(self._lock)
            raise InputError(f"{folder}: another writer has this spool; give each process its own folder") from error
        except BaseException:
            os.close(self._lock)
            raise

    def write(self, lines: Sequence[bytes]) -> None:
        """Append all lines or none. Once it has returned, they outlive this process, but not a power failure.

        Raises:
            InputError: a line holds a newline.
            UnavailableError: the disk takes no more; nothing of the lines is there.
        """
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        if data.count(b"\n") != len(lines):
            raise InputError(f"{self.folder}: an event is one line; write its newlines as \\n")
        with self._turn:
            if self._size and self._size + len(data) > self._segment_bytes:
                self._rotate()
            try:
                written = os.write(self._file, data)
            except OSError as error:
                raise self._undone(error) from error
            if written != len(data):
                raise self._undone(f"{written} of {len(data)} bytes were taken")
            self._size += len(data)

    def _undone(self, why: object) -> UnavailableError:
        """Cut off what a failed write left of its lines."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._size = self._segment_bytes  # the next write begins a segment, lest it be glued to a torn line
        return UnavailableError(f"{self.folder}: the spool takes no events: {why}; free space on its disk")

    def sync(self) -> None:
        """What was written before outlives a power failure, too, once this has returned; others may write meanwhile.

        Raises:
            UnavailableError: the disk does not say so; what was written may be there all the same.
        """
        with self._turn:
            file = os.dup(self._file)
        try:
            os.fsync(file)
            sync_entries(self.folder)
        except OSError as error:
            raise UnavailableError(f"{self.folder}: what was written is not safe on disk: {error}") from error
        finally:
            os.close(file)

    def rotate(self) -> None:
        """Close the segment unless it is empty, so that it is read.

        Raises:
            UnavailableError: the disk does not take a new file; the old one stays open.
        """
        with self._turn:
            if self._size:
                self._rotate()

    def _rotate(self) -> None:
        try:
            os.fsync(self._file)
            sync_entries(self.folder)
        except OSError as error:
            raise UnavailableError(f"{self.folder}: segment {self._number} is not safe on disk: {error}") from error
        following = self._begin(self._number + 1)  # from here on the old segment may be read and deleted
        os.close(self._file)
        self._file, self._number, self._size = following, self._number + 1, 0

    def _begin(self, number: int) -> int:
        path = self.folder / f"{number:020}.jsonl"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise UnavailableError(f"{path}: no segment can be begun: {error}; free space on its disk") from error

    def close(self) -> None:
        """Give the folder free. What no `rotate` closed is read after the next writer has begun."""
        with self._turn:
            os.close(self._file)
            os.close(self._lock)
            self._file = self._lock = -1  # numbers that the system gives to other files


class SpoolReader:
    """The only reader of a folder, which may not be there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def closed(self) -> list[Segment]:
        """In order; nothing is written to them any more."""
        return self.segments()[:-1]

    def segments(self) -> list[Segment]:
        """All of them in order. A link is none: it would be followed to what its maker may not read."""
        return [segment for segment in _segments(self.folder) if not segment.path.is_symlink()]

    def links(self) -> list[Path]:
        """What has the name of a segment and is a link."""
        return [segment.path for segment in _segments(self.folder) if segment.path.is_symlink()]

    def present(self) -> list[Segment]:
        """In order, the one that is being written included."""
        return _segments(self.folder)

    def done(self, segment: Segment) -> None:
        """Delete a closed segment; one that is gone already is no error.

        Raises:
            UnavailableError: the disk refuses; the segment is told again.
        """
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError(f"{segment.path}: cannot be deleted: {error}") from error


def _last_line(folder: Path) -> bytes:
    """The last whole line of the newest segment that holds one."""
    for segment in reversed(SpoolReader(folder).segments()):
        with suppress(UnavailableError):
            if lines := segment.lines():
                return lines[-1]
    return b""


def _unfollowed(path: str, flags: int) -> int:
    """No link, and no waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _segments(folder: Path) -> list[Segment]:
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _SEGMENT.fullmatch(path.name))]
    return sorted((Segment(int(match[1]), path) for match, path in found), key=lambda segment: segment.number)
