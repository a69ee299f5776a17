"""The rows that a model is trained and proven on: labelled, known at a moment, in order of time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec, Span

LEAST_BLOCK_ROWS, MOST_BLOCK_ROWS, MOST_LEVELS = 500, 20_000, 50
_DTYPES = {"numeric": pl.Float64, "categorical": pl.String}
_LABELS = {"binary_classification": pl.Int8, "regression": pl.Float64}


@dataclass(frozen=True)
class Pin:
    """Where rows came from, and what reads the very same ones again.

    kind: the source, as the spec names it. versions: of Delta tables, by name. facts: what else names the rows, texts
    and numbers by name, told as they are on cards. inputs: the same as datasets of lineage: namespace, name, version.
    """

    kind: str
    versions: Mapping[str, int]
    facts: Mapping[str, str | int] = field(default_factory=dict)
    inputs: tuple[Mapping[str, str], ...] = ()

    @property
    def told(self) -> dict[str, str | int]:
        return {"kind": self.kind, **self.facts}


@dataclass(frozen=True)
class Dataset:
    """Labelled rows in order of time: the features, the protected columns, `_label` (Int8, or Float64 of a
    regression), `_time`, `_id`, the `_route` by which a row was served, and where the history had one, the score it
    recorded, `_recorded`.

    `pin`, with the window, the exclusions and `known_at`, names the same rows again.
    """

    frame: pl.DataFrame
    window: Window
    known_at: datetime
    pin: Pin


def window_of(spec: ModelSpec, now: datetime) -> Window:
    return Window(now - spec.retrain.window, now)


def dataset_of(rows: pl.DataFrame, spec: ModelSpec, now: datetime, pin: Pin) -> Dataset:
    """The dataset of a source's labelled rows of the window, without the exclusions.

    Raises:
        InputError: no such row, or a feature that the source does not have.
    """
    window = window_of(spec, now)
    if rows.is_empty():
        raise InputError(
            f"{spec.name}: no labelled row between {window.start} and {now}; wait for labels, or widen retrain.window"
        )
    if missing := [name for name in spec.watched if name not in rows.columns]:
        raise InputError(
            f"{spec.name}: the {pin.kind} has no column {', '.join(missing)}; only what was captured can be trained on"
        )
    kept = rows.filter(~_excluded(span) for span in spec.retrain.exclude) if spec.retrain.exclude else rows
    if kept.is_empty():
        raise InputError(f"{spec.name}: retrain.exclude leaves out all {rows.height:,} labelled rows")
    watched = [pl.col(name).cast(_DTYPES[kind]) for name, kind in spec.watched.items()]
    facts = [name for name in ("_time", "_id", "_route", "_recorded") if name in kept.columns]
    return Dataset(kept.select(*watched, pl.col("_label").cast(_LABELS[spec.task]), *facts), window, now, pin)


def composition(rows: pl.DataFrame, spec: ModelSpec) -> dict[str, Any]:
    """What a training set is made of, for its datasheet: counts only.

    {rows, from, to, positives (null of a regression), routes: rows by how they were served, missing: rows without a
    value by column, where there are any, groups: rows by level of each protected column}; `routes` is null where the
    lake does not say. Levels that are missing are "".
    """
    missing = {name: rows[name].null_count() for name in spec.watched if name in rows.columns}
    return {
        "rows": rows.height,
        "from": rows["_time"].min().isoformat(),  # type: ignore[union-attr]  # times
        "to": rows["_time"].max().isoformat(),  # type: ignore[union-attr]
        "positives": int(rows["_label"].sum()) if spec.task == "binary_classification" else None,
        "routes": _counts(rows["_route"]) if "_route" in rows.columns else None,
        "missing": {name: count for name, count in missing.items() if count},
        "groups": {name: _counts(rows[name]) for name in spec.protected if name in rows.columns},
    }


def _counts(values: pl.Series) -> dict[str, int]:
    """Rows by level, the most frequent fifty."""
    found = (
        values.cast(pl.String).fill_null("").value_counts(name="n").sort(["n", values.name], descending=[True, False])
    )
    return dict(found.head(MOST_LEVELS).select(values.name, "n").iter_rows())


def split_newest(frame: pl.DataFrame, rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut a frame in order of time into (older, newest); the newest part has `rows` rows or a few more.

    Rows of one `_time` stay together, in the newest part: what is proven on was never trained on, not even a row of
    the same moment. All rows of one time leave nothing older.
    """
    if rows <= 0:
        return frame, frame.clear()
    times = frame["_time"]
    cut = 0 if rows >= frame.height else int(times.search_sorted(times[frame.height - rows], side="left"))
    return frame[:cut], frame[cut:]


def block_rows(fresh_rows: int | None, total: int) -> int:
    """How many of `total` rows prove the model rather than train it.

    Half of the `fresh_rows` since the drift's onset, or 5 % of all where nothing drifted (None), within 500 .. 20,000,
    and never more than half of all.

    >>> block_rows(3000, total=17_000), block_rows(None, total=17_000), block_rows(700, total=800)
    (1500, 850, 400)
    """
    wanted = total // 20 if fresh_rows is None else fresh_rows // 2
    return min(max(wanted, LEAST_BLOCK_ROWS), MOST_BLOCK_ROWS, total // 2)


def _excluded(span: Span) -> pl.Expr:
    return pl.col("_time").is_between(_utc(span.start), _utc(span.end), closed="left")


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
