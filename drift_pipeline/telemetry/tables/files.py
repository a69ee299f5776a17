"""Files of a table: which there are, what each is, and of a CSV its separator, its header and where a row stands."""

import codecs
import csv
import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import polars as pl

from drift_pipeline.errors import InputError

SUFFIXES = (".csv", ".csv.gz", ".parquet")
SEPARATORS = ",;\t|"
_NO_SEPARATORS = ": ^~\x01"  # what others write, and nobody reads here
_HEAD_BYTES, _HEAD_LINES = 1 << 16, 200
_CSV_ERRORS = (OSError, EOFError, zlib.error, csv.Error)
_OTHERS = {b"PAR1": "it is Parquet; name it .parquet", b"PK": "it is a zip or an Excel file; save it as CSV"}
_ENCODED = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_SAVE = "save it as UTF-8, such as by: iconv -f {} -t UTF-8"
_WITH_NUL = f"it holds NUL bytes: it is damaged, or UTF-16; {_SAVE.format('UTF-16')}"


@dataclass(frozen=True)
class Source:
    """One file, Delta table or frame. `header`: a CSV's names as they are written there; `skipped`: lines above it;
    `gaps`: it has blank lines, which are no rows where there are several columns."""

    path: Path
    format: Literal["csv", "parquet", "delta", "frame"]
    separator: str = ","
    header: tuple[str, ...] = ()
    skipped: int = 0
    frame: pl.DataFrame | None = None
    gaps: bool = False

    @property
    def dialect(self) -> tuple[object, ...]:
        """Neighbours with the same one are read by one plan; a Delta table or a frame stands for itself."""
        alone = self.path if self.format in ("delta", "frame") else None
        return self.format, self.separator, self.header, self.skipped, self.gaps, alone


def sources(path: Path) -> list[Source]:
    """A file, a Delta table, or the files of a folder in order of name.

    Raises:
        InputError: there is none, or a CSV's head cannot be read; names the file.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if not path.is_dir() or (path / "_delta_log").is_dir():
        return [_source(path, path.is_dir())]
    with os.scandir(path) as entries:  # knows what is a folder without asking for each file
        found = sorted((e.name, e.is_dir()) for e in entries if _is_table(e.name) and not e.name.startswith("."))
    if not found:
        raise InputError(f"{path}: the folder holds no {', '.join(SUFFIXES)} file and is no Delta table")
    return [_source(path / name, folder) for name, folder in found]


def _is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _source(path: Path, folder: bool) -> Source:
    if folder:
        return Source(path, "delta")
    if not _is_table(path.name):
        raise InputError(f"{path}: cannot tell its format; it should end in one of {', '.join(SUFFIXES)}")
    return Source(path, "parquet") if path.name.lower().endswith(".parquet") else _csv(path)


def plan_of(run: list[Source]) -> pl.LazyFrame:
    """The rows of sources of one dialect, a CSV's as texts, with clean names."""
    first, files = run[0], [source.path for source in run]
    match first.format:
        case "frame":
            assert first.frame is not None
            plan = first.frame.lazy()
        case "delta":
            plan = _delta(first.path)
        case "parquet":
            plan = pl.scan_parquet(files, glob=False, hive_partitioning=False)
        case _:
            plan = pl.scan_csv(
                files, infer_schema=False, glob=False, separator=first.separator, skip_rows=first.skipped
            )
            plan = plan.filter(pl.any_horizontal(pl.all().is_not_null())) if first.gaps else plan
    schema = plan.collect_schema()
    names = clean(first.header or schema.names(), first.path)
    return plan.select(
        pl.col(old).cast(pl.String if dtype == pl.Binary else dtype).alias(new)  # bytes are texts that do not say so
        for (old, dtype), new in zip(schema.items(), names, strict=True)
    )


def _delta(table: Path) -> pl.LazyFrame:
    try:
        scan = pl.scan_delta(str(table))
        scan.collect_schema()  # only now the log is opened
    except Exception as error:  # narrowed below: only the lake may import the DeltaError of delta-rs
        ours = isinstance(error, pl.exceptions.PolarsError | OSError | ValueError)
        if not ours and "DeltaError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise InputError(f"{table}: cannot be read as a Delta table: {first_line(error)}") from error
    return scan


def clean(names: Sequence[str], where: Path) -> list[str]:
    """Names without blanks around them; one that is empty says where it stands. InputError where two are the same."""
    trimmed = [name.strip().strip("\ufeff").strip() for name in names]
    found = [name or (f"Unnamed: {at}" if at else "") for at, name in enumerate(trimmed)]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise InputError(f"{where}: the header names {', '.join(map(repr, twice))} twice; keep one")
    return found


# a CSV's head


def _csv(path: Path) -> Source:
    head = _head(path)
    if mark := next((name for bom, name in _ENCODED.items() if head.startswith(bom)), None):
        raise InputError(f"{path}: is written in {mark}; {_SAVE.format(mark)}")
    if b"\0" in head:
        what = next((name for start, name in _OTHERS.items() if head.startswith(start)), _WITH_NUL)
        raise InputError(f"{path}: is no CSV: {what}")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {not_utf8(error)}") from error
    lines = list(islice(StringIO(text.lstrip("\r\n")), _HEAD_LINES))
    if not lines:
        raise InputError(f"{path}: the file is empty")
    if "\n" not in text and "\r" in text:
        raise InputError(f"{path}: its lines end with a carriage return alone; save it with line feeds")
    if told := re.fullmatch(r"\"?sep=(.)\"?\s*", lines[0]):  # Excel's own
        names = tuple(_split(lines[1:], told[1])[0])
        return Source(path, "csv", told[1], names, 1, gaps=len(names) > 1 and _has_gaps(path))
    separator = _separator(lines, path)
    if any(re.match(r'[ \t]+".*"$', cell) for record in _split(lines, separator) for cell in record):
        raise InputError(f"{path}: a blank stands before a quote; separate quoted fields by {separator!r} alone")
    names = tuple(_split(lines, separator)[0])
    return Source(path, "csv", separator, names, gaps=len(names) > 1 and _has_gaps(path))


def _has_gaps(path: Path) -> bool:
    """Whether a line is blank."""
    with suppress(*_CSV_ERRORS), _unpacked(path) as opened:  # what cannot be read is told where it is read
        end = b""
        while part := opened.read(1 << 20):
            if b"\n\n" in (seen := (end + part).replace(b"\r", b"")):
                return True
            end = seen[-1:]
    return False


def _head(path: Path) -> bytes:
    try:
        with _unpacked(path) as opened:
            return opened.read(_HEAD_BYTES)
    except _CSV_ERRORS as error:
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from error


def _unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]  # a GzipFile is read like one


def not_utf8(error: Exception) -> str:
    at = f" (byte {error.start + 1:,})" if isinstance(error, UnicodeDecodeError) else ""
    return f"is not UTF-8{at}, perhaps Windows-1252 or Latin-1; {_SAVE.format('WINDOWS-1252')}"


def _separator(lines: list[str], path: Path) -> str:
    """What cuts the header into most names and every line into as many fields; the comma where nothing does."""
    scores = {sign: _agreed(lines, sign) for sign in SEPARATORS}
    best = max(SEPARATORS, key=scores.__getitem__)  # the first of several
    if scores[best][0] and (rivals := [sign for sign in SEPARATORS if scores[sign] == scores[best] and sign != best]):
        raise InputError(
            f"{path}: {best!r} or {rivals[0]!r} may separate its columns; take the other out of the header"
        )
    names = _split(lines, best)[0]
    if len(names) == 1:
        odd = next((sign for sign in _NO_SEPARATORS if _agreed(lines, sign)[0] and _holds_numbers(lines, sign)), None)
        if odd is not None:
            raise InputError(
                f"{path}: the header {names[0]!r} is one name with {odd!r} in it; separate columns by , ; tab or |"
            )
    return best


def _agreed(lines: list[str], separator: str) -> tuple[bool, int, bool]:
    """Whether all lines have as many fields as the header, more than one; how many; and whether no quote is cut."""
    header, *records = _split(lines, separator)
    whole = records[:-1] or records  # the last may be cut off
    same = len(header) > 1 and all(len(record) in (0, len(header)) for record in whole)
    return same, len(header), not any('"' in cell for record in (header, *whole) for cell in record)


def _holds_numbers(lines: list[str], separator: str) -> bool:
    """Whether every line below the header has a field that is a number: else it is a text with such a sign in it."""
    records = _split(lines, separator)[1:]
    number = re.compile(r"[+-]?[\d.]+")
    return bool(records) and all(any(map(number.fullmatch, record)) for record in records)


def _split(lines: list[str], separator: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=separator)) or [[""]]
    except csv.Error:
        return [[""]]


# where a row stands


def records(source: Source) -> Iterator[tuple[int, list[str]]]:
    """A CSV's records after blank lines at the top, each with its first line; a quoted field may hold lines."""
    with _unpacked(source.path) as raw:
        lines = TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="")
        reader = csv.reader(lines, delimiter=source.separator)
        start, begun, skipped = 1, False, source.skipped
        for record in reader:
            begun = begun or bool(record)
            if begun and not skipped:
                if not source.gaps or any(record):
                    yield start, record
            elif begun:
                skipped -= 1
                begun = False
            start = reader.line_num + 1


def ragged_line(source: Source) -> str | None:
    """Says which line of a CSV has more fields than its header."""
    if source.format != "csv":
        return None
    try:
        found = records(source)
        _, header = next(found)
        line, record = next((line, record) for line, record in found if len(record) > len(header))
    except (StopIteration, *_CSV_ERRORS):
        return None
    return f"line {line} has {len(record)} fields, but the header {len(header)}"


def place(source: Source, row: int) -> str:
    """`file: line 7`, or `file: row 6` where there are no lines; reads a CSV again to count them."""
    if source.format == "csv":
        try:
            return f"{source.path}: line {next(islice(records(source), row + 1, None))[0]}"
        except (StopIteration, *_CSV_ERRORS):
            pass
    return f"{source.path}: row {row + 1}"


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
