"""Every accepted spelling of one list of times gives the same result; what is no time is refused or marked."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.telemetry.tables.times import read_times
from drift_pipeline.telemetry.tables.written_times import are_written_times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BERLIN = timezone(timedelta(hours=1))
# 1950 to 2089. A few rows of which one is of 1970 leave a unit in doubt; a history that passes it does not: see below
MOMENTS = st.one_of(st.integers(-600_000_000, -32_000_000), st.integers(32_000_000, 3_780_000_000)).map(
    lambda second: EPOCH + second * SECOND
)


def seconds(moment: datetime) -> int:
    return (moment - EPOCH) // SECOND


def written(form: str) -> Callable[[datetime], object]:
    return lambda moment: moment.strftime(form)


SPELLINGS: dict[str, Callable[[datetime], object]] = {
    "ISO": written("%Y-%m-%dT%H:%M:%S"),
    "ISO with Z": written("%Y-%m-%dT%H:%M:%SZ"),
    "ISO with a space": written("%Y-%m-%d %H:%M:%S"),
    "ISO with a fraction": written("%Y-%m-%d %H:%M:%S.000000"),
    "ISO with nanoseconds": written("%Y-%m-%dT%H:%M:%S.000000999Z"),
    "ISO with an offset": lambda moment: moment.astimezone(BERLIN).isoformat(),
    "ISO with a short offset": lambda moment: moment.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S+01"),
    "ISO with a name of UTC": written("%Y-%m-%d %H:%M:%S UTC"),
    "basic ISO": written("%Y%m%dT%H%M%SZ"),
    "blanks around": written("  %Y-%m-%d %H:%M:%S\t"),
    "slashes, year first": written("%Y/%m/%d %H:%M:%S"),
    "compact text": written("%Y%m%d%H%M%S"),
    "compact number": lambda moment: int(moment.strftime("%Y%m%d%H%M%S")),
    "compact decimal": lambda moment: float(moment.strftime("%Y%m%d%H%M%S")),
    "month first": written("%m/%d/%Y %H:%M:%S"),
    "month first, AM and PM": written("%m/%d/%Y %I:%M:%S %p"),
    "day first": written("%d/%m/%Y %H:%M:%S"),
    "day first with dots": written("%d.%m.%Y %H:%M:%S"),
    "day, name, year": written("%d-%b-%Y %H:%M:%S"),
    "name, day, year": written("%b %d, %Y %H:%M:%S"),
    "seconds": seconds,
    "milliseconds": lambda moment: seconds(moment) * 10**3,
    "microseconds": lambda moment: seconds(moment) * 10**6,
    "nanoseconds": lambda moment: seconds(moment) * 10**9,
    "seconds as decimals": lambda moment: float(seconds(moment)),
    "seconds as text": lambda moment: str(seconds(moment)),
    "seconds as decimal text": lambda moment: f"{seconds(moment)}.0",
    "milliseconds as text": lambda moment: str(seconds(moment) * 1000),
    "datetime": lambda moment: moment.replace(tzinfo=None),
    "zoned datetime": lambda moment: moment,
}


@given(st.lists(MOMENTS, min_size=1, max_size=30), st.sampled_from(sorted(SPELLINGS)))
def test_every_spelling_of_one_list_of_times_gives_the_same(moments: list[datetime], spelling: str) -> None:
    known = [*moments, datetime(2019, 12, 31, tzinfo=UTC)]  # the last tells the order of day and month
    reading = read_times(pl.Series([SPELLINGS[spelling](moment) for moment in known]))
    plain = read_times(pl.Series(known))
    assert reading.times.to_list() == plain.times.to_list()
    assert reading.sentinel.to_list() == plain.sentinel.to_list()
    assert not reading.unreadable.any()


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns", "Europe/Berlin"), pl.Date])
@pytest.mark.parametrize("days", [[date(1949, 1, 1), date(1949, 1, 2)], [date(1969, 12, 31), date(1970, 1, 1)]])
def test_every_polars_type_of_time_is_read_before_1970_too(dtype: pl.DataType, days: list[date]) -> None:
    typed = pl.Series(days).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    typed = typed.dt.convert_time_zone(dtype.time_zone or "UTC") if isinstance(dtype, pl.Datetime) else typed
    typed = typed if isinstance(dtype, pl.Datetime) and dtype.time_zone else typed.dt.replace_time_zone(None)
    assert read_times(typed.cast(dtype)).times.dt.date().to_list() == days


@pytest.mark.parametrize(
    "spelled",
    [
        ["2025-01-31", "2025-02-01"],
        ["20250131", "20250201"],
        [20250131, 20250201],
        [20250131.0, 20250201.0],
        ["202501310000", "202502010000"],
        [202501310000, 202502010000],
        ["1/31/2025", "2/1/2025"],
        ["31.01.2025", "01.02.2025"],
        ["31/01/2025", "1/2/2025"],
        ["2025/01/31", "2025/2/1"],
        ["31-Jan-2025", "01-FEB-2025"],
        ["January 31, 2025", "Feb 1 2025"],
        ["31.01.2025", "2025-02-01"],
        [date(2025, 1, 31), date(2025, 2, 1)],
    ],
)
def test_dates_alone_are_midnights_in_utc(spelled: list[object]) -> None:
    assert [f"{time:%Y-%m-%d %H:%M}" for time in read_times(pl.Series(spelled)).times] == [
        "2025-01-31 00:00",
        "2025-02-01 00:00",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1/2/2025", "12/12/2025"], "'1/2/2025' is ambiguous"),
        (["01.02.2025", "03.02.2025 10:00"], "'01.02.2025' is ambiguous"),
        (["1/31/2025", "31/1/2025"], "'31/1/2025' begins with the day and '1/31/2025' with the month"),
        (["31.01.2025", "1/31/2025"], "'31.01.2025' begins with the day and '1/31/2025' with the month"),
        ([45322, 45323, 45324], "45322 is a number of days, not a time: 2024-01-31 as Excel counts them"),
        ([45322.25, 45323.5], "45322.25 is a number of days"),
        (["45322"], "45322 is a number of days"),
        ([19723, 19724], "2024-01-01 from 1970"),
        ([2023, 2024], "2023 is a year"),
        (["202401", "202402"], "202401 is a month"),
        ([2024013112, 2024013113], "2024013112 is a date and an hour, or seconds"),
        (
            [1704067200, 1704067200000],
            "two units in one column: 1704067200000 counts milliseconds since 1970, 1704067200",
        ),
        ([1704067200] * 999 + [1704067200000], "1704067200 counts seconds since 1970, 1704067200000 does not"),
        ([1704067200000] * 999 + [1704067200], "1704067200000 counts milliseconds since 1970, 1704067200 does not"),
        ([1704067200 * 10**9, 1704067200 * 10**6], "counts nanoseconds"),
        (["1704067200", "1704067200000000"], "counts microseconds"),
        ([True, False], "values of type Boolean are no times"),
        ([timedelta(1)], "are no times"),
        ([[1]], "are no times"),
    ],
)
def test_a_column_that_cannot_be_told_is_refused_with_its_reason(values: list[object], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        read_times(pl.Series(values))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "NA",
        "yesterday",
        "2025-02-30",
        "2025-13-01",
        "20250230",
        "2025-01-31T24:00:00",
        "2025-01-31T10:60:00",
        "2025-01-31T10:00:60",
        "2025-01-31T10:00:00+15:00",
        "2025-01-31T13:00 PM",
        "31-Foo-2025",
        "31.13.2025",
        "31/01/25",
        "1738281600",
        "2025-01-31junk",
        "²025-01-31",
        "nan",
    ],
)
def test_what_is_no_time_is_marked_among_good_ones(value: str | None) -> None:
    reading = read_times(pl.Series(["2025-01-31", value, "2025-02-01T10:00:00Z"]))
    assert reading.unreadable.to_list() == [False, True, False]
    assert reading.times.null_count() == 1
    assert not reading.sentinel.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_numbers_that_are_none_are_marked(bad: float | None) -> None:
    assert read_times(pl.Series([1.7e9, bad])).unreadable.to_list() == [False, True]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([], dtype=pl.String),
        pl.Series([], dtype=pl.Int64),
        pl.Series([None]),
        pl.Series([None], dtype=pl.Date),
    ],
)
def test_a_column_without_values_holds_no_times(values: pl.Series) -> None:
    assert read_times(values).unreadable.all()


DAYS_OF_2024: Sequence[datetime] = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(300)]


@pytest.mark.parametrize(
    "never",
    [
        "9999-12-31",
        "9999-12-31T23:59:59Z",
        "2262-04-11",
        "2999-12-31",
        "2099-12-31",
        "2038-01-19T03:14:07",
        "1970-01-01",
        "1970-01-01T00:00:00+01:00",
        "1900-01-01",
        "1753-01-01",
        "0001-01-01",
        "0000-00-00",
        "0000-00-00 00:00:00",
        "1987-06-05",
    ],
)
def test_a_time_that_stands_for_none_is_marked(never: str) -> None:
    reading = read_times(pl.Series([*(f"{day:%Y-%m-%d}" for day in DAYS_OF_2024), never]))
    assert reading.sentinel.arg_true().to_list() == [300]
    assert reading.times.null_count() == 1
    assert not reading.unreadable.any()
    assert reading.sentinels_are_few


@pytest.mark.parametrize("never", [0, -1, 253402300799, 253370764800, 2**31 - 1, 2**63 - 1, -(2**62), 9_224_318_015])
@pytest.mark.parametrize("unit", [1, 1000])
def test_a_number_that_stands_for_none_is_marked(never: int, unit: int) -> None:
    numbers = [*(seconds(day) * unit for day in DAYS_OF_2024), never * (unit if abs(never) < 2**50 else 1)]
    for values in (pl.Series(numbers), pl.Series(map(str, numbers)), pl.Series(map(float, numbers))):
        reading = read_times(values)
        assert reading.sentinel.arg_true().to_list() == [300]
        assert reading.times[:300].to_list() == list(DAYS_OF_2024)


@pytest.mark.parametrize("never", [0, 99991231, 19000101])
def test_a_compact_date_that_stands_for_none_is_marked(never: int) -> None:
    numbers = [*(int(f"{day:%Y%m%d}") for day in DAYS_OF_2024), never]
    assert read_times(pl.Series(numbers)).sentinel.arg_true().to_list() == [300]


@pytest.mark.parametrize("days", [range(-200, 0), range(-200, 200), range(200)])
@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_history_that_passes_1970_holds_no_sentinel(days: range, unit: int) -> None:
    hours = [EPOCH + timedelta(days=day) for day in days]
    reading = read_times(pl.Series(hours))
    assert reading.times.to_list() == hours
    counted = pl.Series([seconds(hour) * unit for hour in hours])
    assert read_times(counted).times.to_list() == hours


def test_many_sentinels_are_not_few() -> None:
    reading = read_times(pl.Series([*DAYS_OF_2024, *[EPOCH] * 10]))
    assert reading.sentinel.sum() == 10
    assert not reading.sentinels_are_few


def test_a_history_of_any_length_is_not_far_from_itself() -> None:
    start = datetime(1949, 1, 1, tzinfo=UTC)
    reading = read_times(pl.Series([start + timedelta(days=day) for day in range(0, 27_000, 3)]))
    assert not reading.sentinel.any()


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("us"), pl.Date])
def test_a_typed_time_past_all_years_does_not_overflow(dtype: pl.DataType) -> None:
    typed = (
        pl.Series([1, 2**31 - 1 if dtype == pl.Date else 2**62])
        .cast(pl.Int32 if dtype == pl.Date else pl.Int64)
        .cast(dtype)
    )
    assert read_times(typed).sentinel.to_list() == [False, True]


@given(
    st.one_of(
        st.lists(st.text("0123456789-/.: TZ+eJan", max_size=20)),
        st.lists(st.floats()),
        st.lists(st.integers(-(2**63), 2**63 - 1)),
    )
)
def test_anything_is_a_time_or_marked_or_refused(values: list[object]) -> None:
    column = pl.Series(values, dtype=None if values else pl.String)
    try:
        reading = read_times(column)
    except ValueError:
        return
    assert (
        (reading.times.is_not_null().cast(int) + reading.unreadable.cast(int) + reading.sentinel.cast(int)) == 1
    ).all()


def test_written_times_are_told_from_numbers_and_words() -> None:
    texts = pl.Series(["1/2/2025", "31.01.2025", "2025-01-31", "31-Jan-2025 10:00", "20250131", "1.5", "a/b", None])
    assert are_written_times(texts).to_list() == [True] * 4 + [False] * 4
