"""A table: files, a Delta table or a frame in memory, read in batches; larger than memory where it is files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables.files import (
    Source,
    clean,
    not_utf8,
    place,
    plan_of,
    sources,
)
from drift_pipeline.telemetry.tables.frames import as_frame, united
from drift_pipeline.telemetry.tables.lines import first_line, stray_quote
from drift_pipeline.telemetry.tables.numbers import Column, Refuse
from drift_pipeline.telemetry.tables.times import inside_calendar

BATCH_ROWS = 200_000
HELD_BYTES = 300_000_000  # decoded: a million rows of 25 columns
MOST_GROUP_ROWS = 500_000  # in a row group that Polars may decode whole
_FOOTER_READ_FROM_BYTES = 1_000_000  # a smaller file is taken to hold no row group that large
_LONGEST_TOLD = 2000
_UNREADABLE = (pl.exceptions.PolarsError, OSError, ValueError)


class Read(Protocol):
    """Brings the values of one column to what they mean, batch by batch."""

    def __call__(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series: ...


Reads = Mapping[str, Read | None]  # by column; None: as it is stored


class FilesDiffer(InputError):  # noqa: N818  # it is the files that do
    """A column that was asked for is not in all files; from now on the table has only those that are."""


@dataclass
class Table:
    """`types`: of each column that all parts are known to have, as the first stores it (a CSV's are texts).

    `lacking`: of other columns of the first part, which part has them not.
    """

    name: str
    parts: list[Source]
    types: dict[str, pl.DataType] = field(init=False, default_factory=dict)
    notes: list[str] = field(init=False, default_factory=list)
    lacking: dict[str, Path] = field(init=False, default_factory=dict)
    _one_by_one: bool = field(init=False, default=False)  # files of one format that do not have the same columns

    def __post_init__(self) -> None:
        self._survey([run[0] for run in _runs(self.parts)])

    @classmethod
    def of(cls, data: object, name: str = "the table") -> "Table":
        """A path, several, or a frame of Polars, pandas or Arrow, which is called by the name.

        Raises:
            InputError: a path is missing or holds no data, or a head cannot be read; or it is no table.
        """
        if isinstance(data, Table):
            return data
        if isinstance(data, str | Path):
            return cls(str(data), sources(Path(data)))
        if isinstance(data, list | tuple):
            if not data:
                raise InputError("no path is given; name CSV or Parquet files, folders of them or Delta tables")
            return cls(str(data[0]), [source for path in data for source in sources(Path(path))])
        return cls(name, [Source(Path(name), "frame", frame=as_frame(data))])

    def require(self, names: Iterable[str]) -> None:
        """Raise InputError where the table lacks one of the columns."""
        if missing := [name for name in dict.fromkeys(names) if name not in self.types]:
            where = self.lacking.get(missing[0], self.name)
            there = ", ".join(self.types)
            there = there if len(there) <= _LONGEST_TOLD else f"{there[:_LONGEST_TOLD]} ..."
            raise InputError(f"{where}: no column {', '.join(map(repr, missing))}; there are: {there}")

    @property
    def short(self) -> str:
        """Its name without folders."""
        return Path(self.name).name

    def where(self, row: int) -> str:
        """`file: line 7`, or `file: row 6` where there are no lines, of a row counted from 0."""
        for part in self.parts:
            rows = plan_of([part]).select(pl.len()).collect().item()
            if row < rows:
                return place(part, row)
            row -= rows
        raise IndexError(row)

    def refuse(self, values: pl.Series, done: int, bad: pl.Series, problem: str) -> None:
        """Raise InputError naming the first of the values, `done` rows from the start, where `bad` is true."""
        if count := int(bad.sum()):
            at = int(bad.fill_null(value=False).arg_max() or 0)
            more = f" ({count:,} such rows{' so far' if done else ''})" if count > 1 else ""
            value = "an empty field" if values[at] is None else " ".join(repr(values[at]).split())
            raise InputError(f"{self.where(done + at)}: column {values.name!r}: {value} {problem}{more}")

    # reading

    def batches(self, reads: Reads, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """The rows in order, some `rows` at a time, with exactly these columns.

        Without a row there is a batch without one, so that the columns are known.

        Raises:
            InputError: a part cannot be read or lacks a column, or a value is not what it is read as; says where.
        """
        return self.applied(self._raw(list(reads), rows), reads)

    def applied(self, batches: Iterable[pl.DataFrame], reads: Reads) -> Iterator[pl.DataFrame]:
        """Batches from the table's start, read; of each only these columns."""
        done = 0
        for batch in batches:
            raw = batch.rechunk()  # many small files are many small chunks
            yield pl.DataFrame({name: self._read(raw[name], read, done) for name, read in reads.items()})
            done += raw.height

    def whole(self, names: Iterable[str]) -> pl.DataFrame:
        """All rows as they are stored. Raises InputError as `batches` does, and where there is no row."""
        raw = stacked(list(self._raw(list(dict.fromkeys(names)), BATCH_ROWS)))
        if raw.is_empty():
            raise InputError(f"{self.name}: holds no rows")
        return raw

    def read(self, values: pl.Series, read: Read) -> pl.Series:
        """A whole column brought to what it means."""
        return self._read(values, read, 0)

    def _read(self, values: pl.Series, read: Read | None, done: int) -> pl.Series:
        if read is None:
            return values
        found = read(values, partial(self.refuse, values, done), lambda: self.column(values.name))
        return found.alias(values.name)

    def column(self, name: str) -> Iterator[pl.Series]:
        """All of one column as it is stored, batch by batch."""
        return (batch[name] for batch in self._raw([name], BATCH_ROWS))

    def _raw(self, columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
        self.require(columns)
        empty_handed = True
        for run in _runs(self.parts):
            for batch in self._of_run(run, columns, rows):
                if batch.height:
                    empty_handed = False
                    yield inside_calendar(batch)
        if empty_handed:
            yield pl.DataFrame(schema={name: self.types[name] for name in columns})

    def _of_run(self, run: list[Source], columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
        """By one plan; where that fails by a plan a file, so that the one at fault is known."""
        done = 0
        if not self._one_by_one:
            try:
                for batch in _batches(run, columns, rows):
                    yield batch
                    done += batch.height
                return
            except _UNREADABLE as error:
                if len(run) == 1:
                    raise _unreadable(run[0], error) from error
                self._survey(run)
                self._one_by_one = True
        if gone := [name for name in columns if name in self.lacking]:
            raise FilesDiffer(f"{self.lacking[gone[0]]}: no column {gone[0]!r}, which {run[0].path.name} has")
        for source in run:
            try:
                for batch in _batches([source], columns, rows):
                    self._refuse_type(source, batch.schema)
                    rest = batch[min(done, batch.height) :]
                    done -= batch.height - rest.height
                    yield rest
            except _UNREADABLE as error:
                raise _unreadable(source, error) from error

    def _refuse_type(self, source: Source, schema: pl.Schema) -> None:
        """Numbers, texts and times of files go together, lists and their like do not."""
        for name, dtype in schema.items():
            if dtype != (other := self.types[name]) and (dtype.is_nested() or other.is_nested()):
                raise InputError(f"{source.path}: column {name!r} is {dtype}, but {other} in {self.parts[0].path.name}")

    # columns

    def _survey(self, parts: Sequence[Source]) -> None:
        """Take note of columns that not all of these parts have."""
        first = self.parts[0]
        for part in parts:
            try:
                schema = plan_of([part]).collect_schema()
            except _UNREADABLE as error:
                raise _unreadable(part, error) from error
            self.types = self.types or dict(schema)
            for name in [name for name in self.types if name not in schema]:
                del self.types[name]
                self.lacking[name] = part.path
                self.notes.append(f"{part.path}: has no column {name!r}, which {first.path.name} has: left out")
            new = [name for name in schema if name not in self.types and name not in self.lacking]
            self.notes += [
                f"{part.path}: the column {name!r}, which {first.path.name} has not, is left out" for name in new
            ]
        self.notes = list(dict.fromkeys(self.notes))


def stacked(batches: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One frame of batches with the same columns, though not of the same types."""
    return pl.DataFrame({name: united([batch[name] for batch in batches]) for name in batches[0].columns})


def _runs(parts: list[Source]) -> list[list[Source]]:
    """Neighbouring parts that one plan can read."""
    return [list(some) for _, some in groupby(parts, lambda part: part.dialect)]


def _unreadable(source: Source, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    if "utf-8" in str(error) or "utf8" in str(error):
        told = (
            not_utf8(error)
            if source.format == "csv"
            else "is not UTF-8 in a column of bytes; save it as text, or leave it out"
        )
        return InputError(f"{source.path}: {told}")
    if source.format == "delta" and isinstance(error, FileNotFoundError) and "%" in str(error):
        return InputError(f"{source.path}: a Delta table's path must be of ASCII letters without blanks; move it")
    stray = stray_quote(source.path, source.separator) if source.format == "csv" else None
    return InputError(f"{source.path}: cannot be read: {stray or first_line(error)}")


def _batches(run: list[Source], columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
    """Streamed by Polars in one plan, but for files whose row groups are too large to be decoded whole."""
    for huge, some in groupby(run, _has_huge_groups):
        if not huge:
            yield from plan_of(list(some)).select(columns).collect_batches(chunk_size=rows, maintain_order=True)
        for source in some if huge else ():
            yield from _pages(source.path, columns, rows)


def _has_huge_groups(source: Source) -> bool:
    if source.format != "parquet" or source.path.stat().st_size < _FOOTER_READ_FROM_BYTES:
        return False
    from pyarrow import parquet  # type: ignore[import-untyped]

    footer = parquet.read_metadata(source.path)
    return any(footer.row_group(k).num_rows > MOST_GROUP_ROWS for k in range(footer.num_row_groups))


def _pages(file: Path, columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
    """Arrow decodes a row group page by page; on one thread, which costs half the CPU of many."""
    from pyarrow import parquet

    with parquet.ParquetFile(file, buffer_size=1 << 18, pre_buffer=False) as opened:
        stored = opened.schema_arrow.names
        given = dict(zip(clean(stored, file), stored, strict=True))
        for batch in opened.iter_batches(rows, columns=[given[name] for name in columns], use_threads=False):
            yield pl.DataFrame(batch).select(pl.col(given[name]).alias(name) for name in columns)


@dataclass
class Reread:
    """Batches for more than one pass: held since the first where they fit into `most_bytes`, else made anew."""

    make: Callable[[], Iterable[pl.DataFrame]]
    most_bytes: int = HELD_BYTES
    _held: list[pl.DataFrame] | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        if self._held is not None:
            yield from self._held
            return
        held: list[pl.DataFrame] = []
        room: float = self.most_bytes
        for chunked in self.make():
            batch = chunked.rechunk()
            room -= batch.estimated_size()
            if room >= 0:
                held.append(batch)
            else:
                held.clear()
            yield batch
        self._held = held if room >= 0 else None
