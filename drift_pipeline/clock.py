"""Time as a parameter: half-open windows in aware UTC, places' hours and days, a system clock and one set by hand."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Protocol
from zoneinfo import ZoneInfo

from drift_pipeline.errors import InputError

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)
LONGEST = timedelta(days=365_250)  # of what people may ask for: from any day of theirs a calendar still has its end

_FASTEST = 100_000
_QUARTER = timedelta(minutes=15)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?:[0-9]+[smhdw])+")


def parse_duration(text: str) -> timedelta:
    """Read `15m`, `6h`, `30d`, `1d12h` (units s, m, h, d, w).

    >>> parse_duration("1d12h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        ValueError: the text is no such duration.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write a number and a unit of s, m, h, d, w, such as 6h")
    parts = re.findall(r"(\d+)([smhdw])", text)
    try:
        found = sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    except (ValueError, OverflowError):  # a ValueError: of a number of thousands of digits
        found = timedelta.max
    if found > LONGEST:
        raise ValueError(f"{text[:50]!r} is longer than any duration that can be counted with, {LONGEST.days:,}d")
    return found


def format_duration(duration: timedelta) -> str:
    """Write a duration of whole seconds, 0 or more, the way `parse_duration` reads it.

    >>> format_duration(timedelta(days=30)), format_duration(timedelta(minutes=90))
    ('30d', '1h30m')
    """
    seconds = int(duration.total_seconds())
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


@dataclass(frozen=True, order=True)
class Window:
    """Half-open span of time [start, end), both aware and in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta() or self.end.utcoffset() != timedelta():
            raise ValueError(f"a window wants aware UTC times, not {self.start!r} and {self.end!r}")
        if self.end < self.start:
            raise ValueError(f"a window ends before it starts: {self.start} > {self.end}")

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def days(self) -> Iterator[str]:
        """ISO dates of the UTC days that the window touches: the lake's partitions."""
        day = self.start.replace(hour=0, minute=0, second=0, microsecond=0)
        while day < self.end:
            yield day.date().isoformat()
            day += DAY


@dataclass(frozen=True)
class Zone:
    """Whole hours and days by the clock on the wall of a place; moments are aware UTC, and stay so.

    Its hours may begin at half past a UTC hour, its days have 23 or 25 hours where the clocks change.
    """

    name: str = "UTC"

    @cached_property
    def _info(self) -> ZoneInfo:
        return ZoneInfo(self.name)

    def wall(self, moment: datetime) -> datetime:
        return moment.astimezone(self._info)

    def floor(self, moment: datetime, unit: timedelta) -> datetime:
        """The last whole minute, hour or day at or before the moment.

        Where the clocks move by half an hour (Lord Howe), an hour ends with the change, so that hours never overlap.
        """
        if unit < HOUR:
            return moment - (moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)) % unit
        wall = self.wall(moment)
        if unit == DAY:  # a midnight that is left out is the moment at which the clocks change
            return datetime(wall.year, wall.month, wall.day, tzinfo=self._info).astimezone(UTC)
        start = moment - timedelta(minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)
        while self.wall(start).utcoffset() != wall.utcoffset() and start + _QUARTER <= moment:
            start += _QUARTER
        return start

    def ceil(self, moment: datetime, unit: timedelta) -> datetime:
        """The first whole hour or day at or after the moment."""
        start = end = self.floor(moment, unit)
        if start == moment:
            return start
        while end == start:
            moment += _QUARTER if unit < DAY else 12 * HOUR
            end = self.floor(moment, unit)
        return end

    def later(self, moment: datetime, by: timedelta) -> datetime:
        """What the clock on the wall shows `by` later, or earlier where that is below 0."""
        return (self.wall(moment) + by).astimezone(UTC)

    def hour_of_week(self, moment: datetime) -> int:
        """0 is the hour after midnight on Monday."""
        wall = self.wall(moment)
        return wall.weekday() * 24 + wall.hour

    def last_due(self, cron: str, now: datetime) -> datetime:
        """When a cron line last came due by the clock on the wall; once in an hour that comes twice."""
        from croniter import croniter

        due: datetime = croniter(cron, self.wall(now + timedelta(microseconds=1))).get_prev(datetime)
        return due.replace(fold=0).astimezone(UTC)


UTC_ZONE = Zone()


class Clock(Protocol):
    """Where `now` comes from: aware UTC, never going back."""

    def now(self) -> datetime: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class DrillClock:
    """A clock that runs faster than time from a moment on, so that real processes rehearse a day in minutes."""

    def __init__(self, since: datetime, speed: float) -> None:
        if since.utcoffset() != timedelta() or not 1 <= speed <= _FASTEST:
            told = f"a drill wants an aware UTC time and a speed of 1 to {_FASTEST:,}"
            raise ValueError(f"{told}, not {since!r} and {speed}")
        self._since, self.speed = since, speed
        self.now()  # raises OverflowError for a time that no calendar has

    def now(self) -> datetime:
        return self._since + self.speed * (datetime.now(UTC) - self._since)


def system_clock() -> Clock:
    """The system's time; in a drill, for which DRIFT_DRILL is `60@2026-01-31T12:00:00+00:00`, 60 times as fast since.

    All processes of a drill have to be given the same.

    Raises:
        InputError: DRIFT_DRILL is no such text.
    """
    drill = os.environ.get("DRIFT_DRILL")
    if not drill:
        return SystemClock()
    speed, _, since = drill.partition("@")
    try:
        return DrillClock(datetime.fromisoformat(since), float(speed))
    except (ValueError, OverflowError) as error:
        told = "write SPEED@TIME, such as 60@2026-01-31T12:00:00+00:00, or unset it"
        raise InputError(f"DRIFT_DRILL: {drill!r} is no drill: {error}; {told}") from error


def speed_of(clock: Clock) -> float:
    """How many times as fast as the machine's time it runs: 1 but in a drill."""
    return clock.speed if isinstance(clock, DrillClock) else 1.0


class ManualClock:
    """A clock that stands still until it is moved: replay's virtual time, and the tests'."""

    def __init__(self, start: datetime) -> None:
        if start.utcoffset() != timedelta():
            raise ValueError(f"a clock wants an aware UTC time, not {start!r}")
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Raises ValueError when time would go back."""
        if moment < self._now:
            raise ValueError(f"the clock stands at {self._now} and does not go back to {moment}")
        self._now = moment
