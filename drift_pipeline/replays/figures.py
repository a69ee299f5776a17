"""Charts as inline SVG: a scale of time, marks with a title to hover over, lines that are thinned to what can be seen.

No drawing library: plotly's script alone is 4.5 MB a page, and its figures of one time axis cannot share bands.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.evidence.svg import Scale, Svg

__all__ = [
    "LETTER",
    "Point",
    "Row",
    "Scale",
    "Svg",
    "TimeScale",
    "fits",
    "labels_apart",
    "paths",
    "shortened",
]

LETTER = 6.6  # px of a letter of 11 px at most: labels are placed by it, so it is on the wide side
SHORTEST = 10 * MINUTE  # what is drawn of a span that is shorter
_STEPS = (
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


@dataclass(frozen=True)
class TimeScale:
    """Maps [start, end] to pixels [left, right]; a span of no length is drawn as ten minutes."""

    start: datetime
    end: datetime
    left: float
    right: float

    def x(self, moment: datetime) -> float:
        length = max(self.end - self.start, SHORTEST)
        share = min(max((moment - self.start) / length, 0.0), 1.0)
        return self.left + share * (self.right - self.left)

    def ticks(self, most: int = 12) -> list[tuple[datetime, str]]:
        """Round times with their labels, `most` at most: minutes, hours or days in a short span, first days of months
        else. The first label, and the first of another year, have the year.
        """
        length = max(self.end - self.start, SHORTEST)
        for step in _STEPS:
            if length <= most * step:
                return list(_even(self.start, self.start + length, step))
        months = next((m for m in _MONTHS if length <= most * m * 30 * DAY), _MONTHS[-1])
        return list(_first_days(self.start, self.end, months))


def _even(start: datetime, end: datetime, step: timedelta) -> Iterable[tuple[datetime, str]]:
    origin = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday
    moment, year, day = origin + math.ceil((start - origin) / step) * step, 0, ""
    while moment <= end:
        date, time = f"{moment:%m-%d}", f" {moment:%H:%M}" if step < DAY else ""
        whole = f"{moment:%Y}-{date}{time}" if moment.year != year else f"{date}{time}"
        yield moment, whole if step >= HOUR or date != day else time.strip()
        moment, year, day = moment + step, moment.year, date


def _first_days(start: datetime, end: datetime, months: int) -> Iterable[tuple[datetime, str]]:
    count = start.year * 12 + start.month - 1
    count += -count % months
    while (moment := datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)) <= end:
        if moment >= start:
            yield moment, f"{moment:%Y-%m}"
        count += months


@dataclass(frozen=True)
class Point:
    """One tick, or the ticks that share a pixel: then the lowest and the highest value, and the worst verdict."""

    at: datetime
    low: float | None
    high: float | None
    verdict: str
    reason: str
    bound: float | None = None
    ticks: int = 1


def paths(places: Iterable[tuple[float, float] | None]) -> str:
    """The `d` of a line that breaks at None; a lone point is a dot where line caps are round."""
    written, before = [], False
    for place in places:
        if place is not None:
            written.append(f"{'L' if before else 'M'}{place[0]:.1f} {place[1]:.1f}" + ("" if before else "h0"))
        before = place is not None
    return "".join(written)


def labels_apart(places: Sequence[float], least: float, lowest: float = math.inf) -> list[float]:
    """Heights of labels, moved until neighbours are `least` apart and none is below `lowest`; in the order they came.

    >>> labels_apart([10, 40, 12], 14), labels_apart([10, 40, 38], 14, lowest=50)
    ([10, 40, 24], [10, 50, 36])
    """
    order, moved = sorted(range(len(places)), key=lambda place: places[place]), list(places)
    for before, place in pairwise(order):
        moved[place] = max(places[place], moved[before] + least)
    limit = lowest
    for place in reversed(order):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - least
    return moved


@dataclass
class Row:
    """Hands out room on one line of text: a label that would touch its neighbour gets none."""

    gap: float = 6
    taken: list[tuple[float, float]] = field(default_factory=list)

    def free(self, start: float, end: float) -> bool:
        """Whether [start, end] was free; it is taken then."""
        if any(start < other[1] + self.gap and end > other[0] - self.gap for other in self.taken):
            return False
        self.taken.append((start, end))
        return True


def fits(text: str, width: float) -> bool:
    return len(text) * LETTER + 6 <= width


def shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
