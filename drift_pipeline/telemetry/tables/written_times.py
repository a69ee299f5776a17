"""Times that are written out: ISO 8601, compact dates, local dates. Texts in, times out, null where a text is none."""

import polars as pl

UTC_TIME = pl.Datetime("us", "UTC")
_ZONE = r"(?P<zone>[Zz]|UTC|GMT|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
_CLOCK = (
    r"(?:(?:[Tt]|,?\s+)(?P<H>[0-9]{1,2})(?::(?P<M>[0-5][0-9])(?::(?P<S>[0-5][0-9])(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
    rf"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?\s*{_ZONE}?)?$"
)
_SEPARATORS = "-/."
_NAME = r"(?P<name>[A-Za-z]{3})[a-z]*"
_NAMED = (
    rf"^(?P<d>[0-9]{{1,2}})[-/. ]\s?{_NAME}[-/., ]\s?(?P<y>[0-9]{{4}}){_CLOCK}",  # 31-Jan-2025
    rf"^{_NAME}\.? (?P<d>[0-9]{{1,2}}),? (?P<y>[0-9]{{4}}){_CLOCK}",  # Jan 31, 2025
)
_COMPACT = (
    r"^(?P<y>1[6-9][0-9]{2}|2[0-2][0-9]{2}|9999)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ]?(?P<H>[01][0-9]|2[0-3])(?P<M>[0-5][0-9])(?:(?P<S>[0-5][0-9])(?:[.,]?(?P<f>[0-9]{3}|[0-9]{6}))?)?)?"
    rf"{_ZONE}?$"
)
_TAIL = rf"(?:[.,](?P<f>[0-9]{{1,9}}))?{_ZONE}?$"
_FIXED = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ][0-9]{{2}}:[0-5][0-9]:[0-5][0-9]{_TAIL}"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def written_times(texts: pl.Series) -> pl.Series:
    """The times (UTC, us) of texts without blanks around them.

    Raises:
        ValueError: the rows leave the order of day and month open, or contradict each other.
    """
    if texts.null_count() == 0 and texts.str.contains(_FIXED).all():
        return _fixed_times(texts)
    times = no_times(len(texts))
    for separator in _SEPARATORS:
        times = _or(
            times, texts, rf"^(?P<y>[0-9]{{4}})[{separator}](?P<m>[0-9]{{1,2}})[{separator}](?P<d>[0-9]{{1,2}}){_CLOCK}"
        )
    for pattern in _NAMED:
        times = _or(times, texts, pattern)
    return times.zip_with(times.is_not_null(), _local_times(texts))


def compact_times(texts: pl.Series) -> pl.Series:
    """The times of texts such as 20260131, 202601311200 and 20260131120000."""
    return _or(no_times(len(texts)), texts, _COMPACT)


def are_written_times(texts: pl.Series) -> pl.Series:
    """Which texts are written as a time that is no plain number, whatever the order of day and month."""
    patterns = (*(_local_pattern(separator) for separator in _SEPARATORS), *_NAMED)
    local = pl.any_horizontal(*(pl.lit(texts).str.contains(pattern) for pattern in patterns))
    iso = pl.lit(texts).str.contains(rf"^[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}{_CLOCK}")
    return pl.select((local | iso).fill_null(value=False)).to_series()


def no_times(n: int) -> pl.Series:
    return pl.repeat(None, n, dtype=UTC_TIME, eager=True)


def _local_pattern(separator: str) -> str:
    return rf"^(?P<a>[0-9]{{1,2}})[{separator}](?P<b>[0-9]{{1,2}})[{separator}](?P<y>[0-9]{{4}}){_CLOCK}"


def _local_times(texts: pl.Series) -> pl.Series:
    """Dates with the year at the end, in the one order of day and month that their rows allow."""
    times = no_times(len(texts))
    found = {p: texts.str.contains(p).fill_null(value=False) for p in map(_local_pattern, _SEPARATORS)}
    if not any(hit.any() for hit in found.values()):
        return times
    parts = {p: texts.str.extract_groups(p).struct.unnest() for p, hit in found.items() if hit.any()}
    names = ("d", "m") if _day_is_first(texts, list(parts.values())) else ("m", "d")
    for part in parts.values():
        read = _assembled(part.rename(dict(zip(("a", "b"), names, strict=True))))
        times = times.zip_with(times.is_not_null(), read)
    return times


def _day_is_first(texts: pl.Series, parts: list[pl.DataFrame]) -> bool:
    """Raises ValueError where no row tells, or rows contradict each other."""
    day_first, month_first = (
        next((texts.filter(rows)[0] for part in parts if (rows := _is_a_day(part, name, other)).any()), None)
        for name, other in (("a", "b"), ("b", "a"))
    )
    if day_first is not None and month_first is not None:
        raise ValueError(
            f"{day_first!r} begins with the day and {month_first!r} with the month; write the dates in one order, "
            "best as ISO 8601 such as 2026-01-31"
        )
    either = pl.all_horizontal(pl.col("a", "b").cast(pl.Int8) <= 12)
    in_doubt = next((texts.filter(rows)[0] for part in parts if (rows := part.select(either).to_series()).any()), None)
    if day_first is None and month_first is None and in_doubt is not None:
        raise ValueError(
            f"{in_doubt!r} is ambiguous: no row tells whether the day or the month comes first; write ISO 8601 such as "
            "2026-01-31"
        )
    return day_first is not None


def _is_a_day(part: pl.DataFrame, name: str, other: str) -> pl.Series:
    """Where the number `name` can only be a day, as the other can be a month."""
    number, month = part[name].cast(pl.Int8), part[other].cast(pl.Int8)
    return number.is_between(13, 31) & month.is_between(1, 12)


def _or(times: pl.Series, texts: pl.Series, pattern: str) -> pl.Series:
    """`times`, and where they are null what the pattern reads."""
    if times.null_count() == 0 or not texts.str.contains(pattern).any():
        return times
    return times.zip_with(times.is_not_null(), _assembled(texts.str.extract_groups(pattern).struct.unnest()))


def _assembled(parts: pl.DataFrame) -> pl.Series:
    """Times of year, month or its name, day; H, M, S, fraction, half of the day and zone where they are given."""
    if "name" in parts.columns:
        numbers = {name: str(i + 1) for i, name in enumerate(_MONTHS)}
        parts = parts.with_columns(m=pl.col("name").str.to_lowercase().replace_strict(numbers, default=None))
    hour = pl.col("H").cast(pl.Int8)
    half = pl.col("half").str.to_lowercase() if "half" in parts.columns else pl.lit(None, pl.String)
    of_half = pl.when(hour.is_between(1, 12)).then(hour % 12 + pl.when(half == "p").then(12).otherwise(0))
    hour = pl.when(half.is_null()).then(hour).otherwise(of_half)
    two = [pl.col("m"), pl.col("d"), hour.cast(pl.String), pl.col("M"), pl.col("S")]
    month, day, hours, minutes, seconds = (part.str.zfill(2) for part in two)
    hours = pl.when(pl.col("H").is_null()).then(pl.lit("00")).otherwise(hours)
    rest = (minutes.fill_null("00"), pl.lit(":"), seconds.fill_null("00"))
    text = pl.concat_str(pl.col("y"), pl.lit("-"), month, pl.lit("-"), day, pl.lit("T"), hours, pl.lit(":"), *rest)
    return _stamped(parts.select(text).to_series()) + parts.select(_shift()).to_series()


def _fixed_times(texts: pl.Series) -> pl.Series:
    """Times whose first 19 characters are YYYY-MM-DDTHH:MM:SS: what most files hold, at a third of the time."""
    times = _stamped(texts.str.slice(0, 10) + "T" + texts.str.slice(11, 8))
    tails = texts.str.slice(19)
    if tails.is_in(["", "Z"]).all():
        return times
    return times + tails.str.extract_groups("^" + _TAIL).struct.unnest().select(_shift()).to_series()


def _shift() -> pl.Expr:
    """What the fraction and the offset add to a time."""
    micros = pl.col("f").str.pad_end(9, "0").cast(pl.Int64) // 1000
    return pl.duration(microseconds=micros.fill_null(0) - _offset_minutes() * 60_000_000)


def _offset_minutes() -> pl.Expr:
    sign = pl.when(pl.col("zone").str.starts_with("-")).then(-1).otherwise(1)
    digits = pl.col("zone").str.replace_all("[^0-9]", "").str.pad_end(4, "0").cast(pl.Int64, strict=False)
    return (sign * (digits // 100 * 60 + digits % 100)).fill_null(0)


def _stamped(texts: pl.Series) -> pl.Series:
    """YYYY-MM-DDTHH:MM:SS in UTC; null where there is no such day or hour."""
    read = texts.str.strptime(pl.Datetime("us"), "%Y-%m-%dT%H:%M:%S", strict=False)
    return read.dt.replace_time_zone("UTC").cast(UTC_TIME)
