"""Profiles of files of any size: decoded in batches by Polars, counted meanwhile, never held whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from drift_pipeline.detection.binning import SCORE, Binning, NumericBins
from drift_pipeline.detection.profile import Profile, empty, label_slices, profile_slices
from drift_pipeline.errors import InputError
from drift_pipeline.spec import Kind
from drift_pipeline.telemetry.history import MISSING

LABEL, LATENCY = "_label", "_latency_ms"
BATCH_ROWS = 200_000
SAMPLE_ROWS = 200_000
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
        InputError: as for `read_batches`; or a classification's label is neither 0, 1 nor missing.
    """
    columns: dict[str, Kind] = {
        name: "numeric" if isinstance(bins, NumericBins) else "categorical"
        for name, bins in binning.columns.items()
        if name != SCORE
    }
    total = empty(binning)
    for batch in read_batches(paths, {**columns, **dict.fromkeys(named.present, "numeric")}):
        total += _profile(binning, batch.rename(named.present))
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
    paths: Sequence[Path], columns: Mapping[str, Kind], rows: int = SAMPLE_ROWS, seed: int = 0
) -> pl.DataFrame:
    """A uniform sample without replacement, in the order of the files; all rows where there are no more.

    Each row draws a number and the smallest are kept, so one pass is enough and batches do not matter.

    Raises:
        InputError: as for `read_batches`.
    """
    random, kept, ceiling = np.random.default_rng(seed), pl.DataFrame(), 1.0
    for batch in read_batches(paths, columns):
        lots = random.random(batch.height)
        drawn = lots < ceiling
        kept = kept.vstack(batch.with_columns(_lot=lots).filter(drawn))
        if kept.height > 2 * rows:
            kept, ceiling = _smallest(kept, rows)
    return _smallest(kept, rows)[0].drop("_lot")


def _smallest(kept: pl.DataFrame, rows: int) -> tuple[pl.DataFrame, float]:
    """The rows of the smallest lots, and the bar for the next ones."""
    if kept.height <= rows:
        return kept, 1.0
    bar = float(np.partition(kept["_lot"].to_numpy(), rows)[rows])
    return kept.filter(pl.col("_lot") < bar).rechunk(), bar


def read_batches(paths: Sequence[Path], columns: Mapping[str, Kind], rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """The rows in order, some `rows` at a time, with exactly these columns: numeric ones as floats.

    Raises:
        InputError: a path is missing, holds no data or cannot be read, or a column is missing or of the wrong kind;
            says which, and what to do.
    """
    for scan, files in _scans(paths):
        where = str(files[0]) if len(files) == 1 else f"{files[0].parent}: one of {len(files)} files"
        try:
            _require(scan, columns, files)
            yield from _typed(scan, columns).collect_batches(chunk_size=rows, maintain_order=True)
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise InputError(f"{_culprit(files, columns) or where}: cannot be read: {_first_line(error)}") from error


def _typed(scan: pl.LazyFrame, columns: Mapping[str, Kind]) -> pl.LazyFrame:
    return scan.select(pl.col(n).cast(pl.Float64) if kind == "numeric" else pl.col(n) for n, kind in columns.items())


def _scans(paths: Sequence[Path]) -> Iterator[tuple[pl.LazyFrame, list[Path]]]:
    """A plan for each run of files of one format, and the files it is of."""
    found = [source for path in paths for source in _sources(path)]
    if not found:
        raise InputError("no path is given; name CSV or Parquet files, folders of them or Delta tables")
    for start, end in _runs([_format(path) for path in found]):
        files = found[start:end]
        match _format(files[0]):
            case "delta":
                yield _delta(files[0]), files
            case "parquet":
                yield pl.scan_parquet(files, glob=False, hive_partitioning=False, extra_columns="ignore"), files
            case _:
                yield pl.scan_csv(files, infer_schema=False, null_values=MISSING, glob=False), files


def _delta(table: Path) -> pl.LazyFrame:
    try:
        scan = pl.scan_delta(str(table))
        scan.collect_schema()  # only now the log is opened
    except Exception as error:  # delta-rs has errors of its own, which only the lake may name
        raise InputError(f"{table}: cannot be read as a Delta table: {_first_line(error)}") from error
    return scan


def _runs(formats: list[str]) -> Iterator[tuple[int, int]]:
    """Where one format begins and ends; each Delta table is a run of its own."""
    start = 0
    for at in range(1, len(formats) + 1):
        if at == len(formats) or formats[at] != formats[start] or formats[at] == "delta":
            yield start, at
            start = at


def _format(path: Path) -> str:
    if path.is_dir():
        return "delta"
    return "parquet" if path.name.endswith(_PARQUET) else "csv"


def _sources(path: Path) -> list[Path]:
    """The files of a folder in order of name; a file or a Delta table itself."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir() and not (path / "_delta_log").is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith((*_CSV, _PARQUET)))
        if not files:
            raise InputError(f"{path}: the folder holds no {', '.join((*_CSV, _PARQUET))} file and is no Delta table")
        return files
    if path.is_file() and not path.name.endswith((*_CSV, _PARQUET)):
        raise InputError(f"{path}: cannot tell its format; it should end in one of {', '.join((*_CSV, _PARQUET))}")
    return [path]


def _require(scan: pl.LazyFrame, columns: Mapping[str, Kind], files: list[Path]) -> None:
    have = scan.collect_schema()
    if missing := [name for name in columns if name not in have]:
        raise InputError(f"{files[0]}: no column {', '.join(map(repr, missing))}; there are: {', '.join(have)}")
    for name, kind in columns.items():
        if kind == "numeric" and not (have[name].is_numeric() or have[name] in (pl.Boolean, pl.String)):
            raise InputError(f"{files[0]}: column {name!r} is {have[name]}, not a number; watch it as categorical")


def _culprit(files: list[Path], columns: Mapping[str, Kind]) -> str:
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
