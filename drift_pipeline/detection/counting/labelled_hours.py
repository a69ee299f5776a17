"""Labelled rows by the hour, known also where the hours' profiles were folded into days, or are forgotten."""

import math
from collections.abc import Sequence
from datetime import datetime

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window, Zone

_QUARTER = 15 * MINUTE  # whole hours begin at one of UTC, wherever that is


class LabelledHours:
    """How many labelled rows each hour of the zone has."""

    def __init__(self, zone: Zone) -> None:
        self._zone, self._rows = zone, dict[datetime, int]()

    def add(self, start: datetime, by_hour: Sequence[int]) -> None:
        """Rows of the hours that follow each other from `start`."""
        for hour_number, rows in enumerate(by_hour):
            hour = start + hour_number * HOUR
            if rows:
                self._rows[hour] = self._rows.get(hour, 0) + rows

    def total(self) -> int:
        """Rows so far."""
        return sum(self._rows.values())

    def since(self, moment: datetime) -> int:
        """Rows of the hours that begin at the moment or later."""
        return sum(rows for start, rows in self._rows.items() if start >= moment)

    def begun(self, window: Window) -> list[datetime]:
        """When the hours with labelled rows of the window begin."""
        first, number = self._zone.floor(window.start, HOUR), math.ceil(window.length / _QUARTER) + 4
        quarters = (first + k * _QUARTER for k in range(number))
        return [start for start in quarters if start in window and self._rows.get(start)]

    def of_day(self, day: datetime) -> tuple[int, ...]:
        """24 numbers, or 23 or 25; an hour that a change of the clocks cut in two is one of them."""
        end = self._zone.floor(self._zone.later(day, DAY), DAY)
        by_hour = [0] * -((day - end) // HOUR)
        for place in range((end - day) // _QUARTER):
            by_hour[place // 4] += self._rows.get(day + place * _QUARTER, 0)
        return tuple(by_hour)
