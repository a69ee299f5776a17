"""Windows that move on by the minute, at the cost of the minutes that enter and leave them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from drift_pipeline.clock import MINUTE, Window
from drift_pipeline.detection.counting.binning import Binning, Floats, Ints
from drift_pipeline.detection.counting.profile import Profile, empty

_KEPT = 2  # windows of a length: one up to now, one that waits for labels


@dataclass(frozen=True)
class SparseProfile:
    """A profile of few rows: only the counters that are not 0, at `places` of the flat vector."""

    rows: int
    places: Ints
    counts: Ints
    sums: Floats

    @classmethod
    def of(cls, profile: Profile) -> "SparseProfile":
        places = np.flatnonzero(profile.counts)
        return cls(profile.rows, places, profile.counts[places], profile.sums)

    def __add__(self, other: "SparseProfile") -> "SparseProfile":
        places, inverse = np.unique(np.concatenate([self.places, other.places]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([self.counts, other.counts])).astype(np.int64)
        return SparseProfile(self.rows + other.rows, places, counts, self.sums + other.sums)


@dataclass
class Moving:
    """The counters of a window that moves with time; sums are not among them, since floats do not come off exactly."""

    window: Window
    counts: Ints
    rows: int

    def take(self, minute: SparseProfile, sign: int) -> None:
        self.counts[minute.places] += sign * minute.counts
        self.rows += sign * minute.rows


class Minutes:
    """The profiles of the last minutes, and windows over them that move on from where they stood."""

    def __init__(self, binning: Binning) -> None:
        self._binning = binning
        self._minutes: dict[datetime, SparseProfile] = {}
        self._moving: dict[timedelta, list[Moving]] = {}

    def add(self, start: datetime, profile: Profile) -> None:
        """Count the profile in the minute that begins then."""
        new = SparseProfile.of(profile)
        self._minutes[start] = self._minutes[start] + new if start in self._minutes else new
        self._move(start, new, 1)

    def forget(self, before: datetime) -> None:
        for start in [minute for minute in self._minutes if minute < before]:
            self._move(start, self._minutes.pop(start), -1)

    def merge(self, window: Window) -> Profile:
        """The window's profile; its ends are whole minutes."""
        moving = self._nearest(window)
        for sign, start, end in (
            (-1, moving.window.start, window.start),
            (1, moving.window.end, window.end),
        ):
            for minute in minutes(start, end):
                if minute in self._minutes:
                    moving.take(self._minutes[minute], sign)
        moving.window = window
        inside = [self._minutes[m].sums for m in minutes(window.start, window.end) if m in self._minutes]
        sums: Floats = np.sum(inside, axis=0) if inside else empty(self._binning).sums
        return Profile(self._binning, moving.rows, moving.counts.copy(), sums)

    def _move(self, start: datetime, minute: SparseProfile, sign: int) -> None:
        """What came to, or is dropped from, the minutes that moving windows hold."""
        for moving in (moving for some in self._moving.values() for moving in some):
            if start in moving.window:
                moving.take(minute, sign)

    def _nearest(self, window: Window) -> Moving:
        """The window of this length that last stood where fewest minutes have left since, or one that begins empty."""
        some = self._moving.setdefault(window.length, [])
        behind = [moving for moving in some if moving.window.start <= window.start < moving.window.end]
        if behind:
            return max(behind, key=lambda moving: moving.window.start)
        some.append(Moving(Window(window.start, window.start), empty(self._binning).counts, 0))
        del some[:-_KEPT]
        return some[-1]


def minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE
