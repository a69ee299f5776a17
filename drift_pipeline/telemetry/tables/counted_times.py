"""Times that are counted: seconds, ms, us or ns since 1970, one unit a column. Numbers in, times out."""

from datetime import UTC, datetime, timedelta

import polars as pl

from drift_pipeline.telemetry.tables.written_times import UTC_TIME

FEW = 0.01
ADVICE = "write ISO 8601 such as 2026-01-31T12:00:00Z"
_EPOCH, _EXCEL = datetime(1970, 1, 1, tzinfo=UTC), datetime(1899, 12, 30, tzinfo=UTC)
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_LAST_SECOND = 4.3e9  # in 2106; what is larger is of a finer unit, in which it lies after February 1970
_GAP = 100  # ratio of sizes: a smaller one is of another unit, not of a column that passes 1970
_NEVER = tuple(
    datetime.fromisoformat(f"{day}+00:00").timestamp()
    for day in ("9999-12-31T00:00", "9999-12-31T23:59:59", "2999-12-31T00:00", "2262-04-11T00:00")
)


def counted_times(floats: pl.Series, whole: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The times (UTC, us) of numbers, and which of them are too large for any time.

    Args:
        floats: the numbers, finite or null.
        whole: the whole ones of them, exact, as Int64.

    Raises:
        ValueError: two units, or numbers that count no time since 1970: years, months, days.
    """
    known = floats.filter(floats.is_not_null() & (floats != 0))
    if not known.is_empty():
        _refuse_other_counts(known)
    unit = _unit(floats)
    fits = (floats.abs() < 2.5e11 * 1000.0**unit).fill_null(value=False)  # before the year 9892
    exact, rough = (pl.lit(numbers.set(~fits, None)) for numbers in (whole, floats))
    micros = exact * 1000 ** (2 - unit) if unit < 3 else exact // 1000
    micros = pl.coalesce(micros, (rough * 1000.0 ** (2 - unit)).round().cast(pl.Int64))
    return pl.select(micros.cast(pl.Datetime("us")).cast(UTC_TIME)).to_series(), floats.is_not_null() & ~fits


def _refuse_other_counts(known: pl.Series) -> None:
    """Refuse years, months and day numbers, which as seconds since 1970 would all lie in its first days."""
    first = float(known[0])
    seconds = f"as seconds since 1970 it would be {_EPOCH + timedelta(seconds=min(abs(first), 4e9)):%Y-%m-%d %H:%M:%S}"
    month, hour = known.floor() % 100, known // 100
    days = timedelta(days=min(abs(first), 80_000))
    counts = (
        (known.is_between(1678, 2262) & (known % 1 == 0), "is a year, not a time"),
        (
            known.is_between(10_000, 80_000),
            f"is a number of days, not a time: {_EXCEL + days:%Y-%m-%d} as Excel counts them, {_EPOCH + days:%Y-%m-%d} "
            "from 1970",
        ),
        (known.is_between(167_801, 226_212) & month.is_between(1, 12), "is a month, not a time"),
        (
            known.is_between(1_900_010_100, 2_262_123_123)
            & (month < 24)
            & (hour % 100).is_between(1, 31)
            & (hour // 100 % 100).is_between(1, 12),
            "is a date and an hour, or seconds; which is in doubt",
        ),
    )
    for are, what in counts:
        if int(are.sum()) >= (1 - FEW) * len(known):
            raise ValueError(f"{first:.10g} {what} ({seconds}); {ADVICE}")


def _unit(numbers: pl.Series) -> int:
    """The unit, as the power of 1000 that makes a second, of all but the largest 1 %, which may stand for never."""
    sizes = numbers.abs().drop_nulls().sort()
    if sizes.is_empty():
        return 0
    aside = max(len(sizes) // 100, 1) if len(sizes) >= 20 else 0
    unit = int(_own_unit(sizes[-1 - aside : len(sizes) - aside])[0])
    other = _of_another_unit(numbers, _own_unit(numbers.abs()), unit)
    if other.any():
        own = numbers.filter(~other & numbers.is_not_null() & (numbers != 0))
        raise ValueError(
            f"two units in one column: {own[0]:.0f} counts {_UNITS[unit]} since 1970, {numbers.filter(other)[0]:.0f} "
            f"does not; {ADVICE}"
        )
    return unit


def _own_unit(sizes: pl.Series) -> pl.Series:
    over = [pl.lit(sizes).gt(_LAST_SECOND * 1000.0**unit).cast(pl.Int8) for unit in range(3)]
    return pl.select(pl.sum_horizontal(over)).to_series()


def _of_another_unit(numbers: pl.Series, own: pl.Series, unit: int) -> pl.Series:
    """Numbers that in a unit of their own lie where the rest does; smaller ones with a gap to the rest only.

    A smaller one that even in its own unit is of the years 1967 to 1973 is taken for a time near 1970.
    """
    frame = pl.DataFrame({"number": numbers, "own": own})
    number = pl.col("number")
    smaller = (pl.col("own") < unit) & (number.abs() > 1e8 * 1000.0 ** pl.col("own"))
    mine = number.filter(pl.col("own") == unit)
    gap = number.filter(smaller).abs().max() * _GAP < mine.abs().min()
    seconds, room = number / 1000.0 ** pl.col("own"), (mine.max() - mine.min()) / 1000.0**unit + 86_400
    near = seconds.is_between(mine.min() / 1000.0**unit - room, mine.max() / 1000.0**unit + room)
    never = (number / 1000.0**unit).floor().is_in(_NEVER)
    other = (smaller & gap) | ((pl.col("own") > unit) & ~never)
    return frame.select((near & other).fill_null(value=False)).to_series()
