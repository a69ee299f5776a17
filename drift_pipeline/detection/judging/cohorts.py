"""Cohorts: windows of predictions whose labels must have come, each of whole cycles or said to wait for one."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.slices import HOURS_KEPT, MINUTES_KEPT, Slices
from drift_pipeline.detection.counting.windows import nominal, sliding
from drift_pipeline.detection.judging.cycle import cycle_of
from drift_pipeline.detection.judging.tick import Tick


@dataclass(frozen=True)
class Cohort:
    """A window that ends a label's delay ago; `length` is what it will have, `waits` why it is not judged yet."""

    length: timedelta
    window: Window
    waits: str = ""

    def key(self, slices: Slices) -> object:
        """What a result can be kept by."""
        return self.window, self.waits, slices.labelled.total(), slices.revision(self.window)


def cohorts(tick: Tick) -> Iterator[Cohort]:
    """Of each length, rising; those under a day only where labels come within the hour.

    A window under a day, or of one, waits until it has its whole length; a longer one holds the whole days since
    monitoring began, one at least. Of labels that take so long that hours are folded, a day is one by the calendar.
    Where labels come within the hour, a day begins with the whole hours since monitoring began, which are held against
    the same hours of the held-out rows.
    """
    slices, delay = tick.slices, tick.spec.outcome.delay
    quick = slices.by_minute and delay <= MINUTES_KEPT - HOUR
    for length in (length for length in tick.lengths if length >= DAY or quick):
        window = sliding(tick.now - delay, length, slices.zone)
        if length == DAY and window.start < slices.folded_before(tick.now):
            window = sliding(slices.zone.floor(window.end, DAY), length, slices.zone)
        if length > DAY:
            window = tick.whole_days(window)
        is_whole = nominal(window) >= DAY if length > DAY else window.start >= slices.baseline_at
        begun = slices.zone.ceil(slices.baseline_at, HOUR)
        if length == DAY and quick and not is_whole and begun + HOUR <= window.end:
            window, is_whole = Window(begun, window.end), True
        yield Cohort(length, window, "" if is_whole else _waits(tick))


def _waits(tick: Tick) -> str:
    known = _told(first_end(tick, DAY, day_slides_by(tick)) + tick.spec.outcome.delay)
    return f"{first_whole(tick, DAY, day_slides_by(tick))}, and is judged when its labels have come ({known})"


def day_slides_by(tick: Tick) -> timedelta:
    """An hour, or where labels take so long that hours are folded a day."""
    return HOUR if DAY in tick.lengths and tick.spec.outcome.delay + DAY <= HOURS_KEPT else DAY


def first_whole(tick: Tick, length: timedelta, unit: timedelta = HOUR) -> str:
    """When the first window of this length, which slides by the unit, ends since monitoring began, in words."""
    hours = f"{length // HOUR} h" if length <= DAY else f"{length.days} d"
    return f"the first whole {hours} window ends {_told(first_end(tick, length, unit))}"


def first_end(tick: Tick, length: timedelta, unit: timedelta) -> datetime:
    """The end of that window."""
    zone = tick.slices.zone
    return zone.later(zone.ceil(tick.slices.baseline_at, unit), length)


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def lost_of(tick: Tick, cohort: Cohort, labelled: int) -> str:
    """Why a cohort with enough labels is not judged: an outage took part of its cycle; else nothing."""
    slices, window = tick.slices, cohort.window
    begun = slices.labelled.begun(window) if nominal(window) <= DAY else slices.begun(window)
    cycle = cycle_of(tick.reference, window, begun, labelled)
    if cycle.whole:
        return ""
    unit = "hours" if nominal(window) <= DAY else "days of the week"
    return f"{unit} that hold {1 - cycle.held:.0%} of the reference's rows have none here: part of the cycle is lost"
