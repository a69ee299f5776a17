"""Reads a recorded history (CSV, CSV.GZ, Parquet; a file or a folder of them) and refuses what cannot be used.

The lake's own columns start with an underscore, features keep their names:
`_id, _time (UTC), _label (0, 1 or null; a number or null), _score, _latency_ms, _entity, _version`. A regression's
predicted value is its `_score`.
"""

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_FILE, _ROW = "_where_file", "_where_row"  # where each row was read, for messages
_ISO = r"^\d{4}-?\d\d-?\d\d"  # anything else is a guess: 01/02/2026 is two days
_OFFSET = r"\d(?:Z|[+-]\d\d:?\d\d)$"


@dataclass(frozen=True)
class History:
    """Rows in order of time, and what a reader should know about how they were read."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def read_history(path: Path, spec: ModelSpec, timestamp: str | None = None, outcomes: Path | None = None) -> History:
    """Read and check a whole history.

    Args:
        path: a file, or a folder whose CSV and Parquet files are read in order of name.
        spec: names the columns.
        timestamp: the time column where the spec names none.
        outcomes: a file of labels by prediction id, where they are not in the history itself.

    Raises:
        InputError: names the file and the column or line.
    """
    raw = _read(path)
    time_column = timestamp or spec.columns.timestamp
    if time_column is None:
        raise InputError(f"{spec.name}: no time column: set columns.timestamp in the spec or give --timestamp COLUMN")
    wanted = [time_column, *spec.watched, *_named(spec)]
    if outcomes is None:
        wanted.append(spec.outcome.column)
    _require(raw, wanted, path)
    notes = []
    if spec.columns.prediction_id is None:
        notes.append("no prediction id in the spec: the row position is used")
        raw = raw.with_columns(_id=pl.int_range(pl.len()).cast(pl.String))
    else:
        raw = raw.with_columns(_text(raw, spec.columns.prediction_id).alias("_id"))
        _refuse_repeated_ids(raw, spec.columns.prediction_id)
    if outcomes is None:
        labels = _labels(raw, spec)
    else:
        labels, note = _joined_labels(raw, outcomes, spec)
        notes.append(note)
    columns = [
        raw["_id"],
        _times(raw, time_column).alias("_time"),
        labels.alias("_label"),
        *_facts(raw, spec),
        *(_feature(raw, name, kind).alias(name) for name, kind in spec.watched.items()),
    ]
    frame = raw.select(columns).sort("_time", maintain_order=True)
    _refuse_labels_that_tell_nothing(frame, spec, outcomes or path)
    return History(frame, tuple(notes))


def _named(spec: ModelSpec) -> list[str]:
    columns = spec.columns
    optional = (columns.prediction_id, columns.entity, columns.latency_ms, columns.version, spec.prediction.column)
    return [name for name in optional if name is not None]


def _read(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
        if not files:
            raise InputError(f"{path}: the folder holds no {', '.join(_SUFFIXES)} file")
    frames = [_read_file(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if odd := set(frame.columns) ^ set(frames[0].columns):
            raise InputError(
                f"{path}: its files do not have the same columns: {file.name} and {files[0].name} differ in "
                f"{', '.join(map(repr, sorted(odd)))}"
            )
    try:
        whole = pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: a column has different types in its files: {_first_line(error)}") from error
    if whole.is_empty():
        raise InputError(f"{path}: holds no rows")
    return whole


def _read_file(file: Path) -> pl.DataFrame:
    if not file.name.endswith(_SUFFIXES):
        raise InputError(f"{file}: cannot tell its format; it should end in one of {', '.join(_SUFFIXES)}")
    try:
        if file.name.endswith(".parquet"):
            frame = pl.read_parquet(file, glob=False)
        else:
            frame = pl.read_csv(file, infer_schema=False, null_values=MISSING, glob=False)
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{file}: the file is empty") from error
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {_ragged_line(file) or _first_line(error)}") from error
    return frame.with_columns(pl.lit(str(file)).alias(_FILE), pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW))


def _csv_records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The records after blank lines at the top, each with the line where it starts (quoted fields may hold lines)."""
    with file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        unpacked = gzip.GzipFile(fileobj=raw) if zipped else raw
        reader = csv.reader(TextIOWrapper(unpacked, encoding="utf-8", errors="replace", newline=""))
        start, begun = 1, False
        for record in reader:
            begun = begun or bool(record)
            if begun:
                yield start, record
            start = reader.line_num + 1


def _ragged_line(file: Path) -> str | None:
    """Says which line of a CSV has more fields than its header."""
    if file.name.endswith(".parquet"):
        return None
    try:
        records = _csv_records(file)
        _, header = next(records)
        line, record = next((line, record) for line, record in records if len(record) > len(header))
    except (StopIteration, OSError, EOFError, csv.Error):
        return None
    return f"line {line} has {len(record)} fields, but the header {len(header)}"


def _where(row: dict[str, object]) -> str:
    """`file: line 7`, or `file: row 6` in Parquet; reads a CSV again to count its lines."""
    file, number = Path(str(row[_FILE])), int(str(row[_ROW]))
    if file.name.endswith(".parquet"):
        return f"{file}: row {number + 1}"
    try:
        return f"{file}: line {next(islice(_csv_records(file), number + 1, None))[0]}"
    except (StopIteration, OSError, EOFError, csv.Error):
        return f"{file}: row {number + 1}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _require(raw: pl.DataFrame, wanted: Sequence[str], path: Path) -> None:
    if missing := [name for name in dict.fromkeys(wanted) if name not in raw.columns]:
        have = ", ".join(name for name in raw.columns if name not in (_FILE, _ROW))
        raise InputError(f"{path}: no column {', '.join(map(repr, missing))}; there are: {have}")
    if twice := [name for name in wanted if f"{name}_duplicated_0" in raw.columns]:
        raise InputError(f"{path}: the header names {', '.join(map(repr, twice))} twice; keep one")


def _refuse(raw: pl.DataFrame, bad: pl.Series, column: str, problem: str) -> None:
    """Raise naming the first row where `bad` is true, and how many there are."""
    count = int(bad.sum())
    if count:
        first = raw.filter(bad).row(0, named=True)
        more = f" ({count:,} such rows)" if count > 1 else ""
        value = "an empty field" if first[column] is None else repr(first[column])
        raise InputError(f"{_where(first)}: column {column!r}: {value} {problem}{more}")


def _times(raw: pl.DataFrame, column: str) -> pl.Series:
    given = raw[column]
    if isinstance(given.dtype, pl.Datetime):
        zoned = given.dtype.time_zone is not None
        times = given.dt.convert_time_zone("UTC") if zoned else given.dt.replace_time_zone("UTC")
    elif given.dtype == pl.Date:
        times = given.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif given.dtype.is_numeric():
        times = _epoch(given)
    else:
        times = _parsed(given.cast(pl.String))
    times = times.cast(pl.Datetime("us", "UTC"))
    _refuse(
        raw,
        times.is_null(),
        column,
        "is not a time; write ISO 8601 such as 2026-01-31T12:00:00Z, or seconds since 1970",
    )
    return times


def _parsed(text: pl.Series) -> pl.Series:
    """ISO times, with or without an offset (then UTC), or seconds since 1970 where most are numbers."""
    numbers = text.cast(pl.Float64, strict=False)
    if 2 * numbers.null_count() < len(text):
        return _epoch(numbers)
    text = text.str.strip_chars()
    iso, zoned = text.str.contains(_ISO), text.str.contains(_OFFSET)
    times = _no_times(len(text))
    for chosen in (iso & zoned, iso & ~zoned):  # polars reads a column in one way only
        if chosen.any():
            times = _iso_times(text, chosen).zip_with(chosen.fill_null(value=False), times)
    return times


def _iso_times(text: pl.Series, chosen: pl.Series) -> pl.Series:
    """Times where `chosen`, null elsewhere and where the text is no time."""
    wanted = pl.DataFrame({"text": text, "chosen": chosen}).select(pl.when("chosen").then("text"))["text"]
    try:
        return wanted.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:  # no format fits the first rows
        return _no_times(len(text))


def _no_times(n: int) -> pl.Series:
    return pl.repeat(None, n, dtype=pl.Datetime("us", "UTC"), eager=True)


def _epoch(numbers: pl.Series) -> pl.Series:
    """Since 1970 in seconds, or in ms, us or ns where the largest would lie after the year 5138 in the coarser unit."""
    numbers = numbers.cast(pl.Float64)
    numbers = numbers.set(~numbers.is_finite(), None)
    largest = float(str(numbers.abs().max() or 0))
    scale = next((scale for limit, scale in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0)) if largest <= limit), 1e-3)
    return (numbers * scale).round().cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _labels(raw: pl.DataFrame, spec: ModelSpec) -> pl.Series:
    """A regression's number; else 1 where the outcome equals `outcome.positive`, 0 elsewhere. Null: not known."""
    if spec.task == "regression":
        return _finite(raw, spec.outcome.column)
    given, positive = raw[spec.outcome.column], spec.outcome.positive
    if isinstance(positive, str):
        hit = _text(raw, spec.outcome.column) == positive
    elif given.dtype == pl.Boolean:
        hit = given == bool(positive)
    else:
        hint = "write outcome.positive in quotes where it is a text"
        numbers = _numbers(raw, spec.outcome.column, f"is neither a number nor true or false; {hint}")
        hit = numbers == float(positive)
    return hit.cast(pl.Int8)


def _text(raw: pl.DataFrame, column: str) -> pl.Series:
    try:
        return raw[column].cast(pl.String)
    except pl.exceptions.PolarsError as error:
        where = f"{raw[_FILE][0]}: column {column!r}"
        raise InputError(f"{where}: values of type {raw[column].dtype} cannot be read; give text or numbers") from error


def _numbers(raw: pl.DataFrame, column: str, problem: str) -> pl.Series:
    """Floats, true and false as 1 and 0; missing and NaN as null."""
    given = raw[column]
    if given.dtype == pl.Boolean or given.dtype.is_numeric():
        return given.cast(pl.Float64).fill_nan(None)
    text = _text(raw, column).str.strip_chars().str.to_lowercase()
    numbers = text.cast(pl.Float64, strict=False)
    numbers = numbers.set(text == "true", 1.0).set(text == "false", 0.0)
    _refuse(raw, numbers.is_null() & given.is_not_null(), column, problem)
    return numbers


def _finite(raw: pl.DataFrame, column: str) -> pl.Series:
    numbers = _numbers(raw, column, "is not a number")
    _refuse(raw, numbers.is_infinite().fill_null(value=False), column, "is not finite")
    return numbers


def _feature(raw: pl.DataFrame, name: str, kind: str) -> pl.Series:
    if kind == "categorical":
        return _text(raw, name)
    return _numbers(raw, name, "is not a number; if the feature has levels, declare it categorical")


def _facts(raw: pl.DataFrame, spec: ModelSpec) -> list[pl.Series]:
    facts = []
    if spec.prediction.value is not None:
        facts.append(_finite(raw, spec.prediction.value).alias("_score"))
    if spec.prediction.score is not None:
        score = _numbers(raw, spec.prediction.score, "is not a score")
        _refuse(
            raw, ~score.is_between(0, 1) & score.is_not_null(), spec.prediction.score, "is not a probability in 0..1"
        )
        facts.append(score.alias("_score"))
    if spec.columns.latency_ms is not None:
        facts.append(_numbers(raw, spec.columns.latency_ms, "is not a number of milliseconds").alias("_latency_ms"))
    if spec.columns.entity is not None:
        facts.append(_text(raw, spec.columns.entity).alias("_entity"))
    if spec.columns.version is not None:
        facts.append(_text(raw, spec.columns.version).alias("_version"))
    return facts


def _refuse_repeated_ids(raw: pl.DataFrame, column: str) -> None:
    _refuse(raw, raw["_id"].is_null(), column, "is no id; every prediction needs one")
    repeated = raw.filter(raw["_id"].is_duplicated())
    if not repeated.is_empty():
        first, second = repeated.filter(pl.col("_id") == repeated["_id"][0])[:2].to_dicts()
        raise InputError(
            f"{_where(second)}: column {column!r}: the prediction id {first['_id']!r} stands already at "
            f"{_where(first)} ({repeated['_id'].n_unique():,} ids are repeated); each prediction has its own id"
        )


def _joined_labels(raw: pl.DataFrame, outcomes: Path, spec: ModelSpec) -> tuple[pl.Series, str]:
    """The labels of a file of outcomes in the order of `raw`, null for a prediction without one."""
    if spec.columns.prediction_id is None:
        raise InputError("--outcomes needs columns.prediction_id in the spec: labels are joined by it")
    known = _read(outcomes)
    _require(known, [spec.columns.prediction_id, spec.outcome.column], outcomes)
    known = known.with_columns(_text(known, spec.columns.prediction_id).alias("_id"))
    _refuse_repeated_ids(known, spec.columns.prediction_id)
    known = known.with_columns(_labels(known, spec).alias("_label"))
    strangers = known.join(raw, on="_id", how="anti").height
    joined = raw.select("_id").join(known.select("_id", "_label"), on="_id", how="left", maintain_order="left")
    return joined["_label"], f"{outcomes}: {known.height - strangers:,} labels joined, {strangers:,} name no prediction"


def _refuse_labels_that_tell_nothing(frame: pl.DataFrame, spec: ModelSpec, path: Path) -> None:
    known = frame["_label"].drop_nulls()
    if known.n_unique() > 1:
        return
    column = f"{path}: column {spec.outcome.column!r}"
    if known.is_empty():
        seen = "no label at all"
    elif spec.task == "regression":
        seen = f"only the value {known[0]:g}"
    else:
        seen = f"only {'positive' if known[0] else 'negative'} labels"
    if spec.task == "regression":
        raise InputError(f"{column} holds {seen}; numbers that differ are needed")
    raise InputError(
        f"{column} holds {seen}; both classes are needed "
        f"(a label is positive where it equals outcome.positive = {spec.outcome.positive!r})"
    )
