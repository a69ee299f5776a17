"""Revisions: whether rows landed in a window since it was last looked at. They go by UTC, whatever the model's zone."""

from datetime import datetime, timedelta

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.windows import floor, nominal


class Revisions:
    """How often rows landed in each hour and each day."""

    def __init__(self) -> None:
        self._numbers: dict[timedelta, dict[datetime, int]] = {HOUR: {}, DAY: {}}

    def count(self, moment: datetime) -> None:
        """Rows of that time landed."""
        for unit, numbers in self._numbers.items():
            start = floor(moment, unit)
            numbers[start] = numbers.get(start, 0) + 1

    def of(self, window: Window) -> int:
        """A number that changes when rows land in the window's hours, or where it is longer than a day in its days.

        Of all UTC hours or days that it touches: what lands beside it does no harm.
        """
        unit, total = HOUR if nominal(window) <= DAY else DAY, 0
        start = floor(window.start, unit)
        while start < window.end:
            total += self._numbers[unit].get(start, 0)
            start += unit
        return total

    def forget(self, before: datetime) -> None:
        """Drop hours and days that end at or before the moment."""
        for unit, numbers in self._numbers.items():
            self._numbers[unit] = {start: number for start, number in numbers.items() if start + DAY > before}
