"""Times: one strict reader of a column of times. Every accepted spelling of one list of times gives the same result.

What is read: polars times (without a zone: UTC) and dates; ISO 8601 with or without clock, fraction and offset (without
offset: UTC); YYYYMMDD, with HHMM or HHMMSS behind it, as text or as whole number; seconds, ms, us or ns since 1970,
one unit a column; local dates (1/31/2025, 31.01.2025, 31-Jan-2025; with a clock, AM or PM) where the rows of the column
allow exactly one order of day and month. Anything else is refused, never guessed. Fractions of a microsecond are cut
off; of a number with a fraction the nearest microsecond is taken.

A time that stands for "none" or "never" is a sentinel: 1970-01-01, 9999-12-31 and their like where they stand apart
from the rest, and whatever lies far from the rest. The rule for whoever reads a table: unreadable times are refused by
their line; sentinels are laid aside with a note where they are few (`Times.sentinels_are_few`), and refused above.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from drift_pipeline.telemetry.tables.counted_times import ADVICE, FEW, counted_times
from drift_pipeline.telemetry.tables.levels import BLANKS
from drift_pipeline.telemetry.tables.written_times import UTC_TIME, compact_times, no_times, written_times

LISTED = tuple(
    datetime.fromisoformat(time).replace(tzinfo=UTC)
    for time in (
        "1753-01-01",  # SQL Server's first
        "1899-12-30",  # Excel's day 0
        "1900-01-01",
        "1970-01-01",
        "2038-01-19T03:14:07",  # 2^31 - 1 s
        "2099-12-31",
        "2100-01-01",
    )
)
_FIRST, _AFTER = (
    datetime(1678, 1, 1, tzinfo=UTC),
    datetime(2262, 1, 1, tzinfo=UTC),
)  # whole years that 64 bits of ns hold
_FAR = 20  # times the span of the central 99 %
_LEAST_ROWS = 20  # fewer have no central 99 %
_DAY = timedelta(days=1)
_DAY_0 = date(1970, 1, 1).toordinal()
_NUMBER = r"^-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_ZERO_DATE = r"^0000-00-00"  # MySQL's


@dataclass(frozen=True)
class Times:
    """A column as times, row by row.

    times: UTC, us; null where `unreadable` or `sentinel`.
    unreadable: empty, or no time.
    sentinel: a time that stands for none.
    """

    times: pl.Series
    unreadable: pl.Series
    sentinel: pl.Series

    @property
    def sentinels_are_few(self) -> bool:
        return int(self.sentinel.sum()) <= FEW * len(self.sentinel)


def read_times(values: pl.Series) -> Times:
    """Read a column of times of any type.

    Raises:
        ValueError: the column as a whole cannot be told: day and month in doubt, two units, numbers of days, a type
            that holds no times. The words go behind "column 'x': ".
    """
    read, endless = _read(values)
    inside = read.is_between(_FIRST, _AFTER, closed="left").fill_null(value=False)
    usable = read.zip_with(inside, no_times(len(read)))
    apart = _apart(usable)
    sentinel = apart | endless | (read.is_not_null() & ~inside)
    times = usable.zip_with(~apart, no_times(len(read)))
    return Times(times.alias(values.name), times.is_null() & ~sentinel, sentinel)


def _read(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Times (UTC, us), sentinels among them, and which rows stand for a time that there is not."""
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        zoned = values.dt.replace_time_zone("UTC") if dtype.time_zone is None else values.dt.convert_time_zone("UTC")
        inside = zoned.is_between(_FIRST, _AFTER).fill_null(value=False)
        return zoned.set(~inside, None).cast(UTC_TIME), ~inside & values.is_not_null()  # a cast of more would overflow
    if dtype == pl.Date:
        inside = values.is_between(_FIRST.date(), _AFTER.date()).fill_null(value=False)
        days = values.set(~inside, None).cast(pl.Datetime("us"))
        return days.dt.replace_time_zone("UTC"), ~inside & values.is_not_null()
    if dtype.is_numeric():
        floats = values.cast(pl.Float64)
        whole = values if dtype.is_integer() else floats.set(floats != floats.floor(), None)
        return _numbers(floats, whole.cast(pl.Int64, strict=False))
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return _texts(values.cast(pl.String).str.strip_chars(BLANKS))
    raise ValueError(f"values of type {dtype} are no times; {ADVICE}")


def _texts(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numbers where most texts are; else written times."""
    numbers = texts.str.contains(_NUMBER).fill_null(value=False)
    if 2 * int(numbers.sum()) > len(texts) - texts.null_count():
        texts = texts.set(~numbers, None)
        return _numbers(
            texts.cast(pl.Float64, strict=False), texts.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
        )
    times = written_times(texts)
    if times.null_count():
        times = times.zip_with(times.is_not_null(), compact_times(texts))
    return times, times.is_null() & texts.str.contains(_ZERO_DATE).fill_null(value=False)


def _numbers(floats: pl.Series, whole: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Compact dates where most numbers are; else a count since 1970."""
    floats = floats.set(~floats.is_finite(), None)
    dates = compact_times(whole.cast(pl.String)) if _may_be_dates(floats) else no_times(len(floats))
    if 2 * (len(dates) - dates.null_count()) > len(floats) - floats.null_count():
        return dates, (dates.is_null() & whole.is_in([0, -1])).fill_null(value=False)
    return counted_times(floats, whole)


def _may_be_dates(numbers: pl.Series) -> bool:
    """Whether the middle of the numbers has the size of a compact date: as a count it is seldom met."""
    middle = float(str(numbers.median() or 0))
    return any(16_780_101 * 10**zeros <= middle < 10 ** (8 + zeros) for zeros in (0, 4, 6, 9, 12))


def _apart(times: pl.Series) -> pl.Series:
    """Which times (null where none) stand for none: listed ones with a gap to the rest, and those far from it."""
    none = pl.repeat(False, len(times), dtype=pl.Boolean, eager=True)
    listed = none
    for time in LISTED:
        near = times.is_between(time - _DAY, time + _DAY).fill_null(value=False)  # a day: of any zone
        if near.any() and _has_a_gap(times, near):
            listed = listed | near
    rest = times.filter(~listed).drop_nulls().sort()
    if len(rest) < _LEAST_ROWS:
        return listed
    low, high = _most_of(rest)
    room = _FAR * max(high - low, _DAY)
    return listed | ((times - low < -room) | (times - high > room)).fill_null(value=False)


def _has_a_gap(times: pl.Series, near: pl.Series) -> bool:
    """Whether the other times lie all on one side, at more than twice their own largest gap."""
    others, here = (times.filter(rows).drop_nulls().sort().to_physical() for rows in (~near, near))
    if others.is_empty():
        return False
    gap = max(others[0] - here[-1], here[0] - others[-1])
    largest = max(float(str(others.diff().max() or 0)), _DAY / timedelta(microseconds=1))
    return bool(gap > 2 * largest)


def _most_of(rest: pl.Series) -> tuple[datetime, datetime]:
    """The ends of the shortest span that holds 99 % of sorted times (all but two of fewer than 200)."""
    aside = max(2, len(rest) // 100)
    spans = rest[len(rest) - 1 - aside :].to_physical() - rest[: aside + 1].to_physical()
    start = spans.arg_min() or 0
    return rest[start], rest[start + len(rest) - 1 - aside]


def inside_calendar(frame: pl.DataFrame) -> pl.DataFrame:
    """What lies before the year 1 or after 9999 becomes the first or last day of these: no text can tell of it, and
    polars ends the process where it has to."""
    for name, dtype in frame.schema.items():
        if dtype == pl.Date or isinstance(dtype, pl.Datetime):
            first, last = _calendar(dtype)
            stored = frame[name].to_physical()
            if not stored.is_between(first, last).all():
                frame = frame.with_columns(stored.clip(first, last).cast(dtype).alias(name))
    return frame


def _calendar(dtype: pl.DataType) -> tuple[int, int]:
    """As it is stored. Elsewhere than in UTC the last day has a day more."""
    first, last = date(1, 1, 1).toordinal() - _DAY_0, date.max.toordinal() - _DAY_0
    if not isinstance(dtype, pl.Datetime):
        return first, last
    a_day = _DAY // timedelta(microseconds=1) * {"ms": 0.001, "us": 1, "ns": 1000}[dtype.time_unit]
    most = 2**63 - 1
    away = dtype.time_zone not in (None, "UTC")
    return max(-most, int((first + away) * a_day)), min(most, int((last + 1 - away) * a_day) - 1)
