"""What the columns of two tables are where no spec says it: numbers, levels, or nothing that is watched."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType
from drift_pipeline.telemetry.tables.levels import CANONICAL, levels
from drift_pipeline.telemetry.tables.numbers import TOKENS, UNIT, WRITTEN, Evidence, Numbers, read, trimmed
from drift_pipeline.telemetry.tables.table import Table

MOST_WHOLE_LEVELS = 10
MOSTLY = 0.95
_ID = re.compile(r"(^|[_\W])(id|uuid|guid|key|index)$|Id$|ID$", re.ASCII)
_NAMELESS = re.compile(r"^$|^Unnamed: \d+|^__index_level_\d+__$")
_TIME = re.compile(r"(?i:(^|_)(ts|time|timestamp|datetime|date|day|epoch|created|updated)$|_at$)|[a-z](Time|Date|At)$")
_DAY = re.compile(r"(?i:(^|_)(date|day)$)|[a-z]Date$")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"(?i)^(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?(?:"
    r"\d{4}[-/.]\d\d?([-/.]\d\d?)?|\d\d?[-/.]\d\d?[-/.](\d{4}|\d\d)|\d{4}-?[WQ]\d\d?"
    rf"|\d\d?[-. ]+{_MONTH}[-, ]+\d{{2,4}}|{_MONTH} (\d\d?,? )?\d{{4}})([T ]\d{{1,2}}:\d\d.*)?$"
    rf"|^[a-z]{{3}} {_MONTH} +\d\d? [\d:]+ (?:[A-Z]+ )?\d{{4}}$"
)
_EPOCH, _EXCEL = 1e8, (25569, 73051)  # in seconds: 1973; in days of Excel: 1970 to 2100
_FIRST_DAY, _LAST_DAY = 19000101, 21001231


@dataclass(frozen=True)
class Column:
    """How a column is read and why; `kind` None: it is left out.

    `tokens`: its levels are numbers or truth values, and NA and its like none of them.
    """

    name: str
    kind: ColumnType | None
    why: str
    tokens: bool = False


class _Nature(StrEnum):
    EMPTY = "no value"
    TOKENS = "nothing but what stands for no value"
    NUMBER = "numbers"
    MOSTLY = "numbers but for a few"
    TEXT = "text"
    BOOLEAN = "true or false"
    TIME = "times"
    OTHER = "neither numbers nor texts"


@dataclass(frozen=True)
class Tables:
    """Two tables, and rows of each: a sample of the reference, and the first of what is compared with it."""

    reference: Table
    current: Table
    before: pl.DataFrame
    now: pl.DataFrame

    def infer(self, categorical: Collection[str] = ()) -> Iterator[Column]:
        """How each column is to be read; the values of those that are named `categorical` are levels.

        Raises:
            InputError: a column is of one nature in the reference and of another now, or is numbers but for a few.
        """
        for name in self.before.columns:
            yield self._levels(name) if name in categorical else self._column(name)

    def _levels(self, name: str) -> Column:
        natures = {_nature(side[name]) for side in (self.before, self.now)}
        plain = natures <= {_Nature.NUMBER, _Nature.BOOLEAN, _Nature.EMPTY, _Nature.TOKENS}
        return Column(name, "categorical", "categorical: as asked", tokens=plain)

    def _column(self, name: str) -> Column:
        if _NAMELESS.search(name):
            return Column(name, None, "left out: it has no name: a row number that was saved with the table")
        if name.startswith("_"):
            return Column(name, None, "left out: names that start with an underscore are the lake's own")
        sides = [(self.reference, self.before[name]), (self.current, self.now[name])]
        first, second = _resolved(_nature(self.before[name]), _nature(self.now[name]))
        for (table, _), nature in zip(sides, (first, second), strict=True):
            if nature == _Nature.MOSTLY:
                _refuse_what_is_no_number(table, name)
        if not _go_together(first, second, self.before[name], self.now[name]):
            example = _example(self.now[name], second)
            raise InputError(
                f"column {name!r} holds {first} in {self.reference.short} and {second} in {self.current.short} (such "
                f"as {example!r}): the two cannot be compared; mend it where it is made, or leave it out of both"
            )
        nature, given = (first, self.before[name]) if first != _Nature.EMPTY else (second, self.now[name])
        return self._watched(nature, given, self.now[name])

    def _watched(self, nature: _Nature, given: pl.Series, now: pl.Series) -> Column:
        name = given.name
        match nature:
            case _Nature.NUMBER:
                return self._number(_floats(given), _floats(now))
            case _Nature.TEXT:
                return _text(trimmed(given.cast(pl.String)).drop_nulls())
            case _Nature.BOOLEAN:
                return Column(name, "categorical", "categorical: true or false", tokens=True)
            case _Nature.EMPTY:
                return Column(name, None, "left out: no value on either side")
            case _Nature.TIME:
                return Column(name, None, "left out: times")
            case _:
                return Column(name, None, "left out: no order and no levels")

    def _number(self, values: pl.Series, now: pl.Series) -> Column:
        """Whole numbers are levels where few of them are on both sides."""
        name = values.name
        if not _whole(values):
            return Column(name, "numeric", "numeric: float")
        if times := _times_as_numbers(values):
            return Column(name, None, f"left out: {times}")
        distinct = values.n_unique()
        if distinct == len(values) > MOST_WHOLE_LEVELS and (
            _ID.search(name) or values.is_sorted() or self._counts_rows(name)
        ):
            return Column(name, None, "left out: whole numbers, all distinct: an id or a row number")
        if distinct <= MOST_WHOLE_LEVELS and _whole(now):
            why = f"categorical: {distinct} distinct integer{'s' * (distinct != 1)}"
            return Column(name, "categorical", why, tokens=True)
        return Column(name, "numeric", f"numeric: integer, {distinct:,} distinct")

    def _counts_rows(self, name: str) -> bool:
        """Whether the values are all distinct without a gap, of each table or of both together."""
        spans = [_span(table, name) for table in (self.reference, self.current)]
        (low, high, n), (low_now, high_now, n_now) = spans
        together = max(high, high_now) - min(low, low_now) + 1 == n + n_now
        return together or all(high - low + 1 == n for low, high, n in spans)


def _span(table: Table, name: str) -> tuple[float, float, int]:
    """Least, largest and how many."""
    low, high, rows = float("inf"), -float("inf"), 0
    for batch in table.batches({name: Numbers()}):
        known = batch[name].drop_nulls()
        if len(known):
            low, high, rows = min(low, _least(known)), max(high, -_least(-known)), rows + len(known)
    return low, high, rows


def _least(values: pl.Series) -> float:
    return float(str(values.min()))


def _refuse_what_is_no_number(table: Table, name: str) -> None:
    problem = "is not a number, as nearly all are; write nothing where there is none, or name the column in a --spec"
    for _ in table.batches({name: Numbers(problem)}):
        pass


def _resolved(before: _Nature, now: _Nature) -> tuple[_Nature, _Nature]:
    """What a column of nothing but NA and its like is: no value beside numbers, else text."""
    as_what = _Nature.EMPTY if {before, now} & {_Nature.NUMBER, _Nature.MOSTLY} else _Nature.TEXT
    first, second = (as_what if nature == _Nature.TOKENS else nature for nature in (before, now))
    return first, second


def _go_together(first: _Nature, second: _Nature, before: pl.Series, now: pl.Series) -> bool:
    if first == second or _Nature.EMPTY in (first, second) or first in (_Nature.TIME, _Nature.OTHER):
        return True
    if {first, second} == {_Nature.NUMBER, _Nature.BOOLEAN}:
        return bool(_floats(before if first == _Nature.NUMBER else now).is_in([0.0, 1.0]).all())
    return False


def _example(values: pl.Series, nature: _Nature) -> object:
    """The first value; of texts the first that is no number."""
    known = values.drop_nulls()
    if nature == _Nature.TEXT:
        known = trimmed(known.cast(pl.String))
        known = known.filter(~known.str.contains(WRITTEN))
    return known[0]


def _nature(values: pl.Series) -> _Nature:
    kind = values.dtype
    if values.null_count() == len(values):
        return _Nature.EMPTY
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return _nature_of_text(trimmed(values.cast(pl.String)).drop_nulls())
    plain = (
        (kind.is_temporal(), _Nature.TIME),
        (kind.is_numeric(), _Nature.NUMBER),
        (kind == pl.Boolean, _Nature.BOOLEAN),
    )
    nature = next((nature for fits, nature in plain if fits), _Nature.OTHER)
    return _Nature.EMPTY if kind.is_float() and values.is_nan().fill_null(value=True).all() else nature


def _nature_of_text(text: pl.Series) -> _Nature:
    text = text.filter(text != "")
    if text.is_empty():
        return _Nature.EMPTY
    values = text.filter(~text.str.to_lowercase().is_in([*TOKENS]))
    if values.is_empty():
        return _Nature.TOKENS
    written = values.cast(pl.Float64, strict=False).is_not_null() | values.str.contains(WRITTEN)
    if (share := float(written.mean())) == 1:  # type: ignore[arg-type]
        return _Nature.NUMBER
    if share >= MOSTLY and values.n_unique() > MOST_WHOLE_LEVELS:
        return _Nature.MOSTLY
    if levels(values, "boolean").str.contains(CANONICAL["boolean"]).all():  # 1 and 0 beside true and false
        return _Nature.BOOLEAN
    return _Nature.TIME if values.str.contains(_DATE).all() else _Nature.TEXT


def _floats(values: pl.Series) -> pl.Series:
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return values.cast(pl.Float64).fill_nan(None).drop_nulls()
    text = trimmed(values.cast(pl.String)).drop_nulls()
    return read(text, Evidence.of(text).decimal or ".").fill_nan(None).drop_nulls().alias(values.name)


def _text(values: pl.Series) -> Column:
    distinct = values.n_unique()
    if 2 * distinct <= len(values) or distinct <= MOST_WHOLE_LEVELS:
        return Column(values.name, "categorical", f"categorical: {distinct:,} distinct texts")
    why = f"left out: text, {distinct:,} distinct in {len(values):,}: ids, or free text"
    if float(values.str.contains(UNIT).mean()) >= MOSTLY:  # type: ignore[arg-type]
        why = f"left out: text, not numbers: they come with a unit, such as {values[0]!r}; write numbers alone"
    return Column(values.name, None, why)


def _times_as_numbers(values: pl.Series) -> str:
    """What times whole numbers are by their size, and but for YYYYMMDD by their name; '' if none."""
    low, high = _least(values), -_least(-values)
    if _TIME.search(values.name) and low > _EPOCH:
        return "times, as numbers since 1970"
    if _DAY.search(values.name) and low > _EXCEL[0] and high < _EXCEL[1]:
        return "days, as Excel counts them"
    if low < _FIRST_DAY or high > _LAST_DAY:
        return ""
    days = values.cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False)
    return "" if days.null_count() else "days, as numbers such as 20260131"


def _whole(values: pl.Series) -> bool:
    return bool((values == values.floor()).all() and values.is_finite().all())
