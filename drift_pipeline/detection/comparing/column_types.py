"""What the columns of two tables are where no spec says it: numbers, levels, or nothing that is watched."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import polars as pl

from drift_pipeline.detection.comparing import scan
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType

MOST_WHOLE_LEVELS = 10
_ID = re.compile(r"(^|[_\W])(id|uuid|guid|key|index)$|Id$|ID$", re.ASCII)
_TIME = re.compile(r"(^|_)(ts|time|timestamp|datetime|date)$|_at$", re.IGNORECASE)
_ISO = r"^\d{4}-\d\d-\d\d([T ]|$)"
_WHOLE = r"^-?\d+$"
_EPOCH = 1e8  # in seconds: 1973


@dataclass(frozen=True)
class Column:
    """How a column is read and why; `kind` None: it is left out."""

    name: str
    kind: ColumnType | None
    why: str


class _Nature(StrEnum):
    EMPTY = "no value"
    NUMBER = "numbers"
    TEXT = "text"
    BOOLEAN = "true or false"
    TIME = "times"
    OTHER = "neither numbers nor texts"


def types_of(paths: Sequence[Path]) -> dict[str, pl.DataType]:
    """The columns that all files have, with the type in the first; a CSV's are texts.

    Raises:
        InputError: a path is missing or cannot be read.
    """
    found: dict[str, pl.DataType] = {}
    for number, (plan, files) in enumerate(scan._scans(paths)):  # the one place that knows a path's format
        try:
            schema = plan.collect_schema()
        except pl.exceptions.NoDataError as error:
            raise InputError(f"{files[0]}: the file is empty") from error
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise InputError(f"{files[0]}: cannot be read: {scan._first_line(error)}") from error
        found = dict(schema) if number == 0 else {name: kind for name, kind in found.items() if name in schema}
    return found


def infer(reference: pl.DataFrame, current: pl.DataFrame) -> Iterator[Column]:
    """How each column of the reference is to be read; `current` holds the same columns.

    Raises:
        InputError: a column is of one nature in the reference and of another now.
    """
    for before in reference.get_columns():
        now = current[before.name]
        natures = _nature(before), _nature(now)
        if _Nature.EMPTY not in natures and natures[0] not in (natures[1], _Nature.TIME, _Nature.OTHER):
            example = next(value for value in now if value is not None)
            raise InputError(
                f"column {before.name!r} holds {natures[0]} in the reference and {natures[1]} now (such as "
                f"{example!r}): the two cannot be compared; drop the column, or name the columns to watch in a --spec"
            )
        yield _column(before, now, natures[0])


def _nature(values: pl.Series) -> _Nature:
    kind = values.dtype
    if values.null_count() == len(values):
        return _Nature.EMPTY
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return _nature_of_text(values.cast(pl.String).drop_nulls())
    plain = (
        (kind.is_temporal(), _Nature.TIME),
        (kind.is_numeric(), _Nature.NUMBER),
        (kind == pl.Boolean, _Nature.BOOLEAN),
    )
    return next((nature for fits, nature in plain if fits), _Nature.OTHER)


def _nature_of_text(text: pl.Series) -> _Nature:
    if text.cast(pl.Float64, strict=False).null_count() == 0:
        return _Nature.NUMBER
    return _Nature.TIME if text.str.contains(_ISO).all() else _Nature.TEXT


_NOT_WATCHED = {
    _Nature.EMPTY: "no value in the reference",
    _Nature.TIME: "times",
    _Nature.OTHER: "no order and no levels",
}


def _column(before: pl.Series, now: pl.Series, nature: _Nature) -> Column:
    if before.name.startswith("_"):
        return Column(before.name, None, "left out: names that start with an underscore are the lake's own")
    if nature in _NOT_WATCHED:
        return Column(before.name, None, f"left out: {_NOT_WATCHED[nature]}")
    if nature == _Nature.BOOLEAN:
        return Column(before.name, "categorical", "categorical: true or false")
    given = before.drop_nulls()
    return _number(given, now.drop_nulls()) if nature == _Nature.NUMBER else _text(given)


def _text(values: pl.Series) -> Column:
    distinct = values.n_unique()
    if 2 * distinct > len(values) and distinct > MOST_WHOLE_LEVELS:
        return Column(values.name, None, f"left out: text, {distinct:,} distinct in {len(values):,}: ids, or free text")
    return Column(values.name, "categorical", f"categorical: {distinct:,} distinct texts")


def _number(values: pl.Series, now: pl.Series) -> Column:
    """Whole numbers are levels only where both sides write them alike: 1 and 1.0 are two texts."""
    name = values.name
    if not _whole(values):
        return Column(name, "numeric", "numeric: float")
    numbers = values.cast(pl.Float64)
    if _TIME.search(name) and float(str(numbers.min())) > _EPOCH:
        return Column(name, None, "left out: times, as numbers since 1970")
    distinct = numbers.n_unique()
    if distinct == len(numbers) > MOST_WHOLE_LEVELS and (_ID.search(name) or numbers.is_sorted()):
        return Column(name, None, "left out: whole numbers, all distinct: an id or a row number")
    if distinct <= MOST_WHOLE_LEVELS and _whole(now):
        return Column(name, "categorical", f"categorical: {distinct} distinct integer{'s' * (distinct != 1)}")
    return Column(name, "numeric", f"numeric: integer, {distinct:,} distinct")


def _whole(values: pl.Series) -> bool:
    if values.dtype.is_integer():
        return True
    return values.dtype == pl.String and bool(values.str.contains(_WHOLE).all())
