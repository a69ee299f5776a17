"""Lines of a CSV: that each has as many fields as the header, which are blank, and on which one a row stands."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from drift_pipeline.errors import InputError

CSV_ERRORS = (OSError, EOFError, zlib.error, csv.Error)
_PART = 1 << 22  # bytes looked at in one go
_LINE_FEED, _RETURN, _QUOTE = b'\n\r"'
_Array = npt.NDArray[Any]


def survey(path: Path, separator: str, fields: int) -> bool:
    """Whether a CSV of more than one column has blank lines, which are no rows there.

    Raises:
        InputError: a line has more or fewer fields than the header; names it.
    """
    if fields == 1:
        return False
    try:
        gaps, uneven = _survey(path, ord(separator), fields)
    except CSV_ERRORS:  # what cannot be read is told where it is read
        return False
    if uneven and (told := _uneven_line(path, separator, fields)):
        raise InputError(f"{path}: {told}; write each row in full, and a field with {separator!r} in it in quotes")
    return gaps


def _survey(path: Path, separator: int, fields: int) -> tuple[bool, bool]:
    """Whether a line is blank, and whether one may be uneven: a quote within a field can make it seem so."""
    gaps, uneven, rest = False, False, b""
    with unpacked(path) as opened:
        while part := opened.read(_PART):
            blank, separators, ends = _counted(rest + part, separator)
            gaps |= bool(blank.any())
            uneven |= bool((separators[~blank] != fields - 1).any())
            rest = (rest + part)[ends[-1] + 1 :] if len(ends) else rest + part
            if len(rest) > _PART:  # a quote that nothing closes
                return gaps, True
    blank, separators, _ = _counted(rest + b"\n", separator)
    return gaps, uneven or not len(blank) or bool((separators[~blank] != fields - 1).any())


def _counted(text: bytes, separator: int) -> tuple[_Array, _Array, _Array]:
    """Of each whole line: whether it is blank, how many separators stand outside of quotes, and where it ends."""
    signs = np.frombuffer(text, np.uint8)
    feeds, separators = signs == _LINE_FEED, signs == separator
    if b'"' in text:
        outside = np.cumsum(signs == _QUOTE, dtype=np.uint32) % 2 == 0
        feeds, separators = feeds & outside, separators & outside
    ends = np.flatnonzero(feeds)
    lengths = np.diff(ends, prepend=-1) - 1
    blank = (lengths == 0) | ((lengths == 1) & (signs[ends - 1] == _RETURN))
    return blank, np.diff(np.searchsorted(np.flatnonzero(separators), ends), prepend=0), ends


def _uneven_line(path: Path, separator: str, fields: int) -> str | None:
    for line, record in records(path, separator, 0, gaps=True):
        if len(record) != fields and not (line == 1 and record[0].lower().strip("\ufeff").startswith("sep=")):
            return f"line {line} has {len(record)} field{'s' * (len(record) > 1)}, but the header {fields}"
    return None


def records(path: Path, separator: str, skipped: int, *, gaps: bool) -> Iterator[tuple[int, list[str]]]:
    """A CSV's records after blank lines at the top, each with its first line; a quoted field may hold lines."""
    with TextIOWrapper(unpacked(path), encoding="utf-8", errors="replace", newline="") as lines:
        reader = csv.reader(lines, delimiter=separator)
        start, begun = 1, False
        for record in reader:
            begun = begun or bool(record)
            if begun and not skipped:
                if not gaps or any(record):
                    yield start, record
            elif begun:
                skipped -= 1
                begun = False
            start = reader.line_num + 1


def stray_quote(path: Path, separator: str) -> str | None:
    """Says on which line a quote stands within a field that does not begin with one."""
    within = re.compile(rf'(?:^|[{separator}])[^"{separator}\n]+"')
    with suppress(*CSV_ERRORS), TextIOWrapper(unpacked(path), encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if within.search(re.sub(r'"[^"]*"', '""', line) if line.count('"') % 2 == 0 else line):
                return f"line {number}: a quote stands within a field; put the field in quotes and double the quote"
    return None


def unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]  # a GzipFile is read like one


def line_of(path: Path, separator: str, skipped: int, row: int, *, gaps: bool) -> int | None:
    """On which line a row, counted from 0, begins; None where it cannot be told."""
    try:
        return next(islice(records(path, separator, skipped, gaps=gaps), row + 1, None))[0]
    except (StopIteration, *CSV_ERRORS):
        return None


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
