"""Profiles of files of any size: decoded in batches by Polars, counted meanwhile, never held whole."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from drift_pipeline.detection.counting.binning import SCORE, Binning, Floats, NumericBins
from drift_pipeline.detection.counting.profile import Profile, empty, label_slices, profile_slices
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType
from drift_pipeline.telemetry.history import MISSING

LABEL, LATENCY = "_label", "_latency_ms"
BATCH_ROWS = 200_000
SAMPLE_ROWS = 100_000
HELD_BYTES = 300_000_000  # decoded: a million rows of 25 columns
MOST_GROUP_ROWS = 500_000  # in a row group that Polars may decode whole
_FOOTER_READ_FROM_BYTES = 1_000_000  # a smaller file is taken to hold no row group that large
_CSV, _PARQUET = (".csv", ".csv.gz"), ".parquet"


@dataclass(frozen=True)
class Named:
    """What a file calls the score, the label (null where not known) and the latency; None = it has none."""

    score: str | None = None
    label: str | None = None
    latency_ms: str | None = None

    @property
    def present(self) -> dict[str, str]:
        """Our name of each column that there is, by the file's."""
        pairs = ((self.score, SCORE), (self.label, LABEL), (self.latency_ms, LATENCY))
        return {given: ours for given, ours in pairs if given is not None}


def profile_files(
    paths: Sequence[Path], binning: Binning, named: Named = Named(), progress: Callable[[int], None] | None = None
) -> Profile:
    """One profile of all rows, the same for any split of them into files and batches.

    Args:
        paths: CSV and Parquet files, folders of them, Delta tables.
        binning: its columns must all be there, but for a score that `named` does not name.
        progress: told after each batch how many rows were counted so far.

    Raises:
        InputError: as for `read_batches`; or a label is neither 0, 1 nor missing.
    """
    columns: dict[str, ColumnType] = {
        name: "numeric" if isinstance(bins, NumericBins) else "categorical"
        for name, bins in binning.columns.items()
        if name != SCORE
    }
    batches = read_batches(paths, {**columns, **dict.fromkeys(named.present, "numeric")})
    return profile_batches(batches, binning, named, progress)


def profile_batches(
    batches: Iterable[pl.DataFrame],
    binning: Binning,
    named: Named = Named(),
    progress: Callable[[int], None] | None = None,
) -> Profile:
    """One profile of all rows of the batches; the rest as for `profile_files`."""
    total = empty(binning)
    for batch in batches:
        total += _profile(binning, batch.rechunk().rename(named.present))  # many small files are many small chunks
        if progress:
            progress(total.rows)
    return total


def _profile(binning: Binning, frame: pl.DataFrame) -> Profile:
    one = np.zeros(frame.height, np.int64)
    profile = profile_slices(binning, frame, one, 1)[0]
    if SCORE not in frame.columns or LABEL not in frame.columns:
        return profile
    known = frame.select(SCORE, LABEL).filter(pl.col(LABEL).is_not_null())
    if binning.residuals is not None:
        return profile + label_slices(binning, known[SCORE], known[LABEL], one[: known.height], 1)[0]
    if not known[LABEL].is_in([0.0, 1.0]).all():
        odd = known.filter(~pl.col(LABEL).is_in([0.0, 1.0]))[LABEL][0]
        raise InputError(f"the label {odd!r} is neither 0 nor 1; write 1 for the positive outcome, 0 or nothing else")
    labels = known[LABEL].cast(pl.Int64)
    return profile + label_slices(binning, known[SCORE], labels, one[: known.height], 1)[0]


def sample_rows(
    paths: Sequence[Path], columns: Mapping[str, ColumnType], rows: int = SAMPLE_ROWS, seed: int = 0
) -> pl.DataFrame:
    """A uniform sample without replacement, in the order of the files; all rows where there are no more.

    Bins frozen on it know its levels only: one that it missed, of a reference with more than `rows` rows, counts as
    unseen in the reference and in every window. Such a level is rare (one that 1 row in 20,000 has is missed by less
    than 1 % of the samples of 100,000), and unseen is a bin of both sides, so that it makes no drift by itself.

    Raises:
        InputError: as for `read_batches`.
    """
    return sample_batches(read_batches(paths, columns), rows, seed)


def sample_batches(batches: Iterable[pl.DataFrame], rows: int = SAMPLE_ROWS, seed: int = 0) -> pl.DataFrame:
    """The sample of `sample_rows`, of the rows of the batches.

    Each row draws a number and the smallest are kept, so one pass is enough and batches do not matter.
    """
    random, kept, lots = np.random.default_rng(seed), pl.DataFrame(), np.empty(0)
    for batch in batches:
        drawn = random.random(batch.height)
        lots = np.concatenate([lots, drawn])
        bar = _bar(lots, rows)
        lots = lots[lots < bar]
        kept = kept.vstack(_below(bar, batch.with_columns(_lot=drawn)))
        if kept.height > 2 * rows:
            kept = _below(bar, kept).rechunk()
    return kept.filter(pl.col("_lot") <= float(lots.max(initial=0.0))).drop("_lot")


def _bar(lots: Floats, rows: int) -> float:
    """What the smallest `rows` lots lie below."""
    return float(np.partition(lots, rows)[rows]) if len(lots) > rows else np.inf


def _below(bar: float, frame: pl.DataFrame) -> pl.DataFrame:
    return frame if bar == np.inf else frame.filter(pl.col("_lot") < bar)


@dataclass
class Reread:
    """The batches of `read_batches` for more than one pass: held since the first where they fit into `most_bytes`."""

    paths: Sequence[Path]
    columns: Mapping[str, ColumnType]
    most_bytes: int = HELD_BYTES
    _held: list[pl.DataFrame] | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        if self._held is not None:
            yield from self._held
            return
        held: list[pl.DataFrame] = []
        room: float = self.most_bytes
        for chunked in read_batches(self.paths, self.columns):
            batch = chunked.rechunk()
            room -= batch.estimated_size()
            if room >= 0:
                held.append(batch)
            else:
                held.clear()
            yield batch
        self._held = held if room >= 0 else None


def read_batches(
    paths: Sequence[Path], columns: Mapping[str, ColumnType], rows: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """The rows in order, some `rows` at a time, with exactly these columns: numeric ones as floats.

    Files without a row give a batch without one, so that the columns are known.

    Raises:
        InputError: a path is missing, holds no data or cannot be read, or a column is missing or of the wrong kind;
            says which, and what to do.
    """
    for scan, files in _scans(paths):
        where = str(files[0]) if len(files) == 1 else f"{files[0].parent}: one of {len(files)} files"
        try:
            _require(scan, columns, files)
            empty_handed = True
            for batch in _batches(scan, files, columns, rows):
                empty_handed = False
                yield batch
            if empty_handed:
                yield _typed(scan, columns).head(0).collect()
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise InputError(f"{_culprit(files, columns) or where}: cannot be read: {_first_line(error)}") from error


def _batches(
    scan: pl.LazyFrame, files: list[Path], columns: Mapping[str, ColumnType], rows: int
) -> Iterator[pl.DataFrame]:
    """Streamed by Polars in one plan, but for files whose row groups are too large to be decoded whole."""
    parts = [(huge, list(some)) for huge, some in groupby(files, _has_huge_groups)]
    if not any(huge for huge, _ in parts):
        yield from _typed(scan, columns).collect_batches(chunk_size=rows, maintain_order=True)
        return
    schema = _typed(scan, columns).collect_schema()
    for huge, some in parts:
        plans = [_parquet([file]) for file in some] if huge else [_parquet(some)]
        if any(_typed(plan, columns).collect_schema() != schema for plan in plans):
            raise pl.exceptions.SchemaError("the files differ in their columns")
        if not huge:
            yield from _typed(plans[0], columns).collect_batches(chunk_size=rows, maintain_order=True)
        for file in some if huge else ():
            yield from (_typed(page.lazy(), columns).collect() for page in _pages(file, list(columns), rows))


def _has_huge_groups(file: Path) -> bool:
    if not file.name.endswith(_PARQUET) or not file.is_file() or file.stat().st_size < _FOOTER_READ_FROM_BYTES:
        return False
    from pyarrow import parquet  # type: ignore[import-untyped]

    footer = parquet.read_metadata(file)
    return any(footer.row_group(k).num_rows > MOST_GROUP_ROWS for k in range(footer.num_row_groups))


def _pages(file: Path, columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
    """Arrow decodes a row group page by page; on one thread, which costs half the CPU of many."""
    from pyarrow import parquet

    with parquet.ParquetFile(file, buffer_size=1 << 18, pre_buffer=False) as opened:
        for batch in opened.iter_batches(rows, columns=columns, use_threads=False):
            yield pl.DataFrame(batch)


def _parquet(files: list[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(files, glob=False, hive_partitioning=False, extra_columns="ignore")


def _typed(scan: pl.LazyFrame, columns: Mapping[str, ColumnType]) -> pl.LazyFrame:
    return scan.select(pl.col(n).cast(pl.Float64) if kind == "numeric" else pl.col(n) for n, kind in columns.items())


def _scans(paths: Sequence[Path]) -> Iterator[tuple[pl.LazyFrame, list[Path]]]:
    """A plan for each run of files of one format, and the files it is of."""
    found = [source for path in paths for source in _sources(path)]
    if not found:
        raise InputError("no path is given; name CSV or Parquet files, folders of them or Delta tables")
    formats = [form for _, form in found]
    for start, end in _runs(formats):
        files = [path for path, _ in found[start:end]]
        match formats[start]:
            case "delta":
                yield _delta(files[0]), files
            case "parquet":
                yield _parquet(files), files
            case _:
                yield pl.scan_csv(files, infer_schema=False, null_values=MISSING, glob=False), files


def _delta(table: Path) -> pl.LazyFrame:
    try:
        scan = pl.scan_delta(str(table))
        scan.collect_schema()  # only now the log is opened
    except Exception as error:  # narrowed below: only the lake may import the DeltaError of delta-rs
        ours = isinstance(error, pl.exceptions.PolarsError | OSError | ValueError)
        if not ours and "DeltaError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise InputError(f"{table}: cannot be read as a Delta table: {_first_line(error)}") from error
    return scan


def _runs(formats: list[str]) -> Iterator[tuple[int, int]]:
    """Where one format begins and ends; each Delta table is a run of its own."""
    start = 0
    for at in range(1, len(formats) + 1):
        if at == len(formats) or formats[at] != formats[start] or formats[at] == "delta":
            yield start, at
            start = at


def _format(name: str, folder: bool) -> str:
    if folder:
        return "delta"
    return "parquet" if name.endswith(_PARQUET) else "csv"


def _sources(path: Path) -> list[tuple[Path, str]]:
    """The files of a folder in order of name, each with its format; a file or a Delta table itself."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir() and not (path / "_delta_log").is_dir():
        with os.scandir(path) as entries:  # knows what is a folder without asking for each file
            found = sorted((e.name, e.is_dir()) for e in entries if e.name.endswith((*_CSV, _PARQUET)))
        if not found:
            raise InputError(f"{path}: the folder holds no {', '.join((*_CSV, _PARQUET))} file and is no Delta table")
        return [(path / name, _format(name, folder)) for name, folder in found]
    if path.is_file() and not path.name.endswith((*_CSV, _PARQUET)):
        raise InputError(f"{path}: cannot tell its format; it should end in one of {', '.join((*_CSV, _PARQUET))}")
    return [(path, _format(path.name, path.is_dir()))]


def _require(scan: pl.LazyFrame, columns: Mapping[str, ColumnType], files: list[Path]) -> None:
    have = scan.collect_schema()
    if missing := [name for name in columns if name not in have]:
        raise InputError(f"{files[0]}: no column {', '.join(map(repr, missing))}; there are: {', '.join(have)}")
    for name, kind in columns.items():
        if kind == "numeric" and not (have[name].is_numeric() or have[name] in (pl.Boolean, pl.String)):
            raise InputError(f"{files[0]}: column {name!r} is {have[name]}, not a number; watch it as categorical")


def _culprit(files: list[Path], columns: Mapping[str, ColumnType]) -> str:
    """The first file that cannot be read by itself, or whose columns are not those of the first; '' if none is."""
    first: dict[str, pl.DataType] = {}
    for file in files:
        try:
            schema = next(_scans([file]))[0].collect_schema()
            odd = [name for name in columns if name not in schema]
            if odd:
                return f"{file}: no column {', '.join(map(repr, odd))}"
            next(iter(_typed(next(_scans([file]))[0], columns).collect_batches(chunk_size=1)), None)
        except (pl.exceptions.PolarsError, OSError, ValueError):
            return str(file)
        types = {name: schema[name] for name in columns}
        first = first or types
        if odd := [name for name in columns if types[name] != first[name]]:
            return f"{file}: column {odd[0]!r} is {types[odd[0]]}, but {first[odd[0]]} in {files[0].name}"
    return ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
