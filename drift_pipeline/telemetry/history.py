"""Reads a recorded history (CSV, CSV.GZ, Parquet; a file or a folder of them) and refuses what cannot be used.

The lake's own columns start with an underscore, features keep their names:
`_id, _time (UTC), _label (0, 1 or null), _score, _latency_ms, _entity, _version`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
_SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class History:
    """Rows in order of time, and what a reader should know about how they were read."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def read_history(
    path: Path, spec: ModelSpec, timestamp: str | None = None, outcomes: Path | None = None
) -> History:
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
        raw = raw.with_columns(_id=pl.col(spec.columns.prediction_id).cast(pl.String))
        _refuse_repeated_ids(raw, path, spec.columns.prediction_id)
    if outcomes is not None:
        raw, note = _with_outcomes(raw, outcomes, spec)
        notes.append(note)
    columns = [
        pl.col("_id"),
        _times(raw, time_column).alias("_time"),
        _labels(raw, spec).alias("_label"),
        *_facts(raw, spec),
        *(_feature(raw, name, kind).alias(name) for name, kind in spec.watched.items()),
    ]
    frame = raw.select(columns).sort("_time", maintain_order=True)
    _refuse_one_class(frame, spec, outcomes or path)
    return History(frame, tuple(notes))


def _named(spec: ModelSpec) -> list[str]:
    columns = spec.columns
    optional = (columns.prediction_id, columns.entity, columns.latency_ms, columns.version, spec.prediction.score)
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
    try:
        frame = pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: its files do not have the same columns: {_first_line(error)}") from error
    if frame.is_empty():
        raise InputError(f"{path}: holds no rows")
    return frame


def _read_file(file: Path) -> pl.DataFrame:
    if not file.name.endswith(_SUFFIXES):
        raise InputError(f"{file}: cannot tell its format; it should end in one of {', '.join(_SUFFIXES)}")
    try:
        if file.name.endswith(".parquet"):
            frame = pl.read_parquet(file)
            line = pl.format("{}: row {}", pl.lit(str(file)), pl.int_range(1, pl.len() + 1))
        else:
            frame = pl.read_csv(file, infer_schema=False, null_values=MISSING, truncate_ragged_lines=False)
            line = pl.format("{}: line {}", pl.lit(str(file)), pl.int_range(2, pl.len() + 2))
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{file}: the file is empty") from error
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {_first_line(error)}") from error
    return frame.with_columns(_where=line)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _require(raw: pl.DataFrame, wanted: Sequence[str], path: Path) -> None:
    if missing := [name for name in dict.fromkeys(wanted) if name not in raw.columns]:
        have = ", ".join(name for name in raw.columns if name != "_where")
        raise InputError(f"{path}: no column {', '.join(map(repr, missing))}; there are: {have}")


def _refuse(raw: pl.DataFrame, bad: pl.Series, column: str, problem: str) -> None:
    """Raise naming the first row where `bad` is true, and how many there are."""
    count = int(bad.sum())
    if count:
        first = raw.filter(bad).row(0, named=True)
        more = f" ({count:,} such rows)" if count > 1 else ""
        raise InputError(f"{first['_where']}: column {column!r}: {first[column]!r} {problem}{more}")


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
    _refuse(raw, times.is_null(), column, "is not a time; write ISO 8601 such as 2026-01-31T12:00:00Z, or seconds since 1970")
    return times


def _parsed(text: pl.Series) -> pl.Series:
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() == 0:
        return _epoch(numbers)
    try:
        return text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:  # no format fits the first rows
        return pl.Series(values=[None] * len(text), dtype=pl.Datetime("us", "UTC"))


def _epoch(numbers: pl.Series) -> pl.Series:
    """Seconds since 1970, or milliseconds where the numbers are too large for seconds (after the year 5138)."""
    scale = 1e3 if (numbers.abs().max() or 0) > 1e11 else 1e6  # type: ignore[operator]
    finite = numbers.cast(pl.Float64).is_finite()
    micros = (numbers.cast(pl.Float64) * scale).round()
    return micros.zip_with(finite, pl.Series([None], dtype=pl.Float64)).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _labels(raw: pl.DataFrame, spec: ModelSpec) -> pl.Series:
    """1 where the outcome equals `outcome.positive`, 0 elsewhere, null where it is not known."""
    given, positive = raw[spec.outcome.column], spec.outcome.positive
    if isinstance(positive, str):
        hit = given.cast(pl.String) == positive
    elif given.dtype == pl.Boolean:
        hit = given == bool(positive)
    else:
        numbers = _numbers(raw, spec.outcome.column, "is not a number, but outcome.positive is")
        hit = numbers == float(positive)
    return hit.cast(pl.Int8)


def _numbers(raw: pl.DataFrame, column: str, problem: str) -> pl.Series:
    given = raw[column]
    if given.dtype == pl.Boolean or given.dtype.is_numeric():
        return given.cast(pl.Float64)
    text = given.cast(pl.String).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    truth = text.str.to_lowercase()
    numbers = numbers.zip_with(truth != "true", pl.Series([1.0])).zip_with(truth != "false", pl.Series([0.0]))
    _refuse(raw, numbers.is_null() & given.is_not_null(), column, problem)
    return numbers


def _feature(raw: pl.DataFrame, name: str, kind: str) -> pl.Series:
    if kind == "categorical":
        return raw[name].cast(pl.String)
    return _numbers(raw, name, "is not a number; if the feature has levels, declare it categorical")


def _facts(raw: pl.DataFrame, spec: ModelSpec) -> list[pl.Series]:
    facts = []
    if spec.prediction.score is not None:
        score = _numbers(raw, spec.prediction.score, "is not a score")
        _refuse(raw, ~score.is_between(0, 1) & score.is_not_null(), spec.prediction.score, "is not a probability in 0..1")
        facts.append(score.alias("_score"))
    if spec.columns.latency_ms is not None:
        facts.append(_numbers(raw, spec.columns.latency_ms, "is not a number of milliseconds").alias("_latency_ms"))
    if spec.columns.entity is not None:
        facts.append(raw[spec.columns.entity].cast(pl.String).alias("_entity"))
    if spec.columns.version is not None:
        facts.append(raw[spec.columns.version].cast(pl.String).alias("_version"))
    return facts


def _refuse_repeated_ids(raw: pl.DataFrame, path: Path, column: str) -> None:
    _refuse(raw, raw["_id"].is_null(), column, "is missing; every prediction needs an id")
    repeated = raw.filter(raw["_id"].is_duplicated())
    if not repeated.is_empty():
        first = repeated.filter(pl.col("_id") == repeated["_id"][0])
        raise InputError(
            f"{first['_where'][1]}: column {column!r}: the prediction id {first['_id'][0]!r} stands already at "
            f"{first['_where'][0]} ({repeated['_id'].n_unique():,} ids are repeated); each prediction has its own id"
        )


def _with_outcomes(raw: pl.DataFrame, outcomes: Path, spec: ModelSpec) -> tuple[pl.DataFrame, str]:
    if spec.columns.prediction_id is None:
        raise InputError("--outcomes needs columns.prediction_id in the spec: labels are joined by it")
    labels = _read(outcomes)
    _require(labels, [spec.columns.prediction_id, spec.outcome.column], outcomes)
    labels = labels.with_columns(_id=pl.col(spec.columns.prediction_id).cast(pl.String))
    _refuse_repeated_ids(labels, outcomes, spec.columns.prediction_id)
    strangers = labels.join(raw, on="_id", how="anti").height
    raw = raw.drop(spec.outcome.column, strict=False)
    joined = raw.join(labels.select("_id", spec.outcome.column), on="_id", how="left", maintain_order="left")
    return joined, f"{outcomes}: {labels.height - strangers:,} labels joined, {strangers:,} name no prediction"


def _refuse_one_class(frame: pl.DataFrame, spec: ModelSpec, path: Path) -> None:
    counts = frame["_label"].drop_nulls()
    if counts.n_unique() < 2:
        seen = "no label at all" if counts.is_empty() else f"only {'positive' if counts[0] else 'negative'} labels"
        raise InputError(
            f"{path}: column {spec.outcome.column!r} holds {seen}; both classes are needed "
            f"(a label is positive where it equals outcome.positive = {spec.outcome.positive!r})"
        )
