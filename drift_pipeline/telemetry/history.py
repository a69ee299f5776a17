"""A recorded history in any form, as rows of the lake; what cannot be used is refused by file, line and column.

The lake's own columns start with an underscore, features keep their names:
`_id, _time (UTC), _label (0, 1 or null; a number or null), _score, _latency_ms, _entity, _version`. A regression's
predicted value is its `_score`. Levels have the form of their column (`History.forms`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.spec import Form, ModelSpec
from drift_pipeline.telemetry.tables.columns import (
    Labels,
    Levels,
    forms_of,
    frequent_token,
    numbers_of,
    reads_of_facts,
    told_off_form,
)
from drift_pipeline.telemetry.tables.levels import form_of
from drift_pipeline.telemetry.tables.numbers import listed
from drift_pipeline.telemetry.tables.table import Read, Table
from drift_pipeline.telemetry.tables.times import read_times


@dataclass(frozen=True)
class History:
    """Rows in order of time, what a reader should know about how they were read, and the form of each level column.

    `negative`: the label beside `outcome.positive`; None of a regression.
    """

    frame: pl.DataFrame
    notes: tuple[str, ...]
    forms: Mapping[str, Form] = field(default_factory=dict)
    negative: str | None = None


def read_history(
    data: Path | Table, spec: ModelSpec, timestamp: str | None = None, outcomes: Path | Table | None = None
) -> History:
    """Read and check a whole history.

    Args:
        data: a file, a folder, a Delta table or a frame (`Table.of`).
        spec: names the columns.
        timestamp: the time column where the spec names none.
        outcomes: labels by prediction id, where they are not in the history itself.

    Raises:
        InputError: names the file and the column or line.
    """
    time_column = timestamp or spec.columns.timestamp
    if time_column is None:
        raise InputError(f"{spec.name}: no time column: set columns.timestamp in the spec or give --timestamp COLUMN")
    table = Table.of(data)
    wanted = [time_column, *spec.watched, *_named(spec)]
    if outcomes is None:
        wanted.append(spec.outcome.column)
    raw = table.whole(wanted)
    notes = list(table.notes)
    ids = _ids(table, raw, spec, notes)
    labelled = table if outcomes is None else Table.of(outcomes)
    read = reads_of_facts(spec)[spec.outcome.column]
    joins = outcomes is not None
    labels = _joined_labels(ids, labelled, spec, notes, read) if joins else _labels(table, raw, spec, notes, read)
    spec = forms_of(raw, spec)
    frame = pl.DataFrame(
        [
            ids.alias("_id"),
            _times(table, raw[time_column], notes).alias("_time"),
            labels.alias("_label"),
            *_facts(table, raw, spec),
            *watched_columns(table, raw, spec, notes),
        ]
    )
    frame = frame.filter(pl.col("_time").is_not_null()).sort("_time", maintain_order=True)
    _refuse_labels_that_tell_nothing(frame, spec, labelled.name)
    return History(frame, tuple(notes), spec.forms, read.negative if isinstance(read, Labels) else None)


def _named(spec: ModelSpec) -> list[str]:
    columns = spec.columns
    optional = (columns.prediction_id, columns.entity, columns.latency_ms, columns.version, spec.prediction.column)
    return [name for name in optional if name is not None]


def _times(table: Table, values: pl.Series, notes: list[str]) -> pl.Series:
    """UTC; null where one stands for none, which is laid aside where few do."""
    try:
        found = read_times(values)
    except ValueError as error:
        raise InputError(f"{table.name}: column {values.name!r}: {error}") from error
    advice = "write ISO 8601 such as 2026-01-31T12:00:00Z, or seconds since 1970"
    table.refuse(values, 0, found.unreadable, f"is not a time; {advice}")
    count = int(found.sentinel.sum())
    if count and not found.sentinels_are_few:
        table.refuse(values, 0, found.sentinel, "lies far from the other times, as do too many to be laid aside")
    if count:
        at = int(found.sentinel.arg_max() or 0)
        notes.append(
            f"{table.where(at)}: column {values.name!r}: {values[at]!r} stands for no time, or lies far from the rest; "
            f"{count:,} such row{'s' * (count > 1)} left out"
        )
    return found.times


def _ids(table: Table, raw: pl.DataFrame, spec: ModelSpec, notes: list[str]) -> pl.Series:
    """Each row's own; a whole number in any spelling is one id."""
    column = spec.columns.prediction_id
    if column is None:
        notes.append("no prediction id in the spec: the row position is used")
        return pl.int_range(raw.height, eager=True).cast(pl.String)
    given = raw[column]
    whole = not given.dtype.is_nested() and form_of(given) == "integer"
    ids = table.read(given, Levels("integer" if whole else "text"))
    table.refuse(given, 0, ids.is_null(), "is no id; every prediction needs one")
    if ids.n_unique() < len(ids):
        first = ids.filter(ids.is_duplicated())[0]
        at, again = ids.eq(first).arg_true()[:2]
        repeated = ids.filter(ids.is_duplicated()).n_unique()
        raise InputError(
            f"{table.where(again)}: column {column!r}: the prediction id {first!r} stands already at "
            f"{table.where(at)} ({repeated:,} ids are repeated); each prediction has its own id"
        )
    return ids


def _labels(table: Table, raw: pl.DataFrame, spec: ModelSpec, notes: list[str], read: Read) -> pl.Series:
    """A regression's number; else 1 where the outcome equals `outcome.positive`, 0 elsewhere. Null: not known."""
    known = table.read(raw[spec.outcome.column], read)
    if isinstance(read, Labels) and read.told:
        notes.append(f"column {spec.outcome.column!r}: {read.told}")
    return known


def _facts(table: Table, raw: pl.DataFrame, spec: ModelSpec) -> list[pl.Series]:
    reads, columns = reads_of_facts(spec), spec.columns
    numbers = ((spec.prediction.column, "_score"), (columns.latency_ms, "_latency_ms"))
    texts = ((columns.entity, "_entity"), (columns.version, "_version"))
    return [
        *(table.read(raw[name], reads[name]).alias(ours) for name, ours in numbers if name is not None),
        *(table.read(raw[name], Levels("text")).alias(ours) for name, ours in texts if name is not None),
    ]


def watched_columns(
    table: Table, raw: pl.DataFrame, spec: ModelSpec, notes: list[str], names: Collection[str] | None = None
) -> list[pl.Series]:
    """The watched columns of rows of the table, or those that are named, as the spec reads them; it has their forms."""
    missing = listed(spec.missing)
    reads = {
        name: Levels(spec.forms[name], missing) if kind == "categorical" else numbers_of(missing)
        for name, kind in spec.watched.items()
        if names is None or name in names
    }
    found = [table.read(raw[name], read) for name, read in reads.items()]
    notes += told_off_form(reads)
    notes += [note for known in found if known.dtype == pl.String and (note := frequent_token(known))]
    return found


def _joined_labels(ids: pl.Series, outcomes: Table, spec: ModelSpec, notes: list[str], read: Read) -> pl.Series:
    """The labels of a table of outcomes in the order of `ids`, null for a prediction without one."""
    if spec.columns.prediction_id is None:
        raise InputError("--outcomes needs columns.prediction_id in the spec: labels are joined by it")
    raw = outcomes.whole([spec.columns.prediction_id, spec.outcome.column])
    known = pl.DataFrame({"_id": _ids(outcomes, raw, spec, notes), "_label": _labels(outcomes, raw, spec, notes, read)})
    strangers = int(known["_id"].is_in(ids.implode()).not_().sum())
    if strangers == known.height:
        raise InputError(
            f"{outcomes.name}: column {spec.columns.prediction_id!r}: none of its {known.height:,} ids, such as "
            f"{known['_id'][0]!r}, is a prediction's in the history, such as {ids[0]!r}"
        )
    joined = ids.alias("_id").to_frame().join(known, on="_id", how="left", maintain_order="left")
    joins = f"{known.height - strangers:,} labels joined, {strangers:,} name no prediction"
    notes += [*outcomes.notes, f"{outcomes.name}: {joins}"]
    return joined["_label"]


def _refuse_labels_that_tell_nothing(frame: pl.DataFrame, spec: ModelSpec, where: str) -> None:
    known = frame["_label"].drop_nulls()
    if known.n_unique() > 1:
        return
    column = f"{where}: column {spec.outcome.column!r}"
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
