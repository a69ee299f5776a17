"""Windows are half-open and in UTC, durations are read as they are written, and time never goes back."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.clock import (
    DAY,
    HOUR,
    WEEK,
    ManualClock,
    SystemClock,
    Window,
    format_duration,
    parse_duration,
    system_clock,
)
from drift_pipeline.errors import InputError

START = datetime(2026, 1, 1, tzinfo=UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  (naive on purpose)
PARIS = datetime(2026, 1, 1, tzinfo=timezone(HOUR))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("6h", 6 * HOUR),
        ("30d", 30 * DAY),
        ("2w", 2 * WEEK),
        ("1d12h", 36 * HOUR),
        ("1w1d1h1m1s", timedelta(weeks=1, days=1, hours=1, minutes=1, seconds=1)),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-6h", "1.5h", "6H", "1mo", "6h ", "٣h", "P1D"])
def test_what_is_no_duration_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit of s, m, h, d, w") as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)


def test_a_duration_beyond_counting_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than any duration that can be counted"):
        parse_duration("9999999999999d")
    with pytest.raises(ValueError, match="longer than any duration that can be counted"):
        parse_duration("365251d")


@given(st.integers(min_value=0, max_value=10**10))
def test_a_duration_reads_back_as_it_was_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


def test_a_window_holds_its_start_and_not_its_end() -> None:
    window = Window(START, START + HOUR)
    assert window.length == HOUR
    assert START in window
    assert START + HOUR not in window
    assert START + HOUR - timedelta(microseconds=1) in window
    assert START - timedelta(microseconds=1) not in window


def test_an_empty_window_holds_nothing() -> None:
    window = Window(START, START)
    assert START not in window
    assert list(window.days()) == []


@pytest.mark.parametrize(("start", "end"), [(NAIVE, START), (START, NAIVE), (PARIS, START + DAY), (START, PARIS + DAY)])
def test_a_window_wants_utc(start: datetime, end: datetime) -> None:
    with pytest.raises(ValueError, match="a window wants aware UTC times"):
        Window(start, end)


def test_a_window_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        Window(START + HOUR, START)


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (0, 24, ["2026-01-01"]),
        (0, 24.001, ["2026-01-01", "2026-01-02"]),
        (23, 25, ["2026-01-01", "2026-01-02"]),
        (5, 6, ["2026-01-01"]),
        (-1, 49, ["2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03"]),
    ],
)
def test_days_are_those_a_window_touches(start: float, end: float, days: list[str]) -> None:
    assert list(Window(START + start * HOUR, START + end * HOUR).days()) == days


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_every_moment_of_a_window_lies_in_one_of_its_days(first: int, second: int, offset: int) -> None:
    start, end = sorted((first, second))
    window = Window(START + timedelta(seconds=start), START + timedelta(seconds=end))
    moment = START + timedelta(seconds=offset)
    if moment in window:
        assert moment.date().isoformat() in set(window.days())


def test_windows_are_ordered_by_start_then_end() -> None:
    windows = [Window(START + a * HOUR, START + b * HOUR) for a, b in ((1, 2), (0, 3), (0, 1))]
    assert sorted(windows) == [windows[2], windows[1], windows[0]]


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(START)
    assert clock.now() == clock.now() == START
    clock.advance_to(START + HOUR)
    clock.advance_to(START + HOUR)
    assert clock.now() == START + HOUR


def test_a_manual_clock_does_not_go_back() -> None:
    clock = ManualClock(START)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance_to(START - timedelta(microseconds=1))
    assert clock.now() == START


@pytest.mark.parametrize("start", [NAIVE, PARIS])
def test_a_manual_clock_wants_utc(start: datetime) -> None:
    with pytest.raises(ValueError, match="a clock wants an aware UTC time"):
        ManualClock(start)


def test_the_system_clock_is_in_utc() -> None:
    clock = SystemClock()
    first, second = clock.now(), clock.now()
    assert first.utcoffset() == timedelta()
    assert first <= second


def test_a_drill_runs_faster_from_its_moment_on(monkeypatch: pytest.MonkeyPatch) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    monkeypatch.setenv("DRIFT_DRILL", f"60@{since.isoformat()}")
    ahead = system_clock().now() - since
    assert timedelta(hours=1) <= ahead < timedelta(hours=1, minutes=10)
    monkeypatch.delenv("DRIFT_DRILL")
    assert isinstance(system_clock(), SystemClock)


@pytest.mark.parametrize("text", ["60", "0.5@2026-01-01T00:00:00+00:00", "60@2026-01-01", "fast@2026-01-01"])
def test_what_is_no_drill_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DRIFT_DRILL", text)
    with pytest.raises(InputError, match="DRIFT_DRILL"):
        system_clock()
