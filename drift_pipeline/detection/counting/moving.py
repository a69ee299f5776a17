"""Windows that move on by the minute, at the cost of the minutes that enter and leave them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from drift_pipeline.clock import MINUTE, Window
from drift_pipeline.detection.counting.binning import Floats, Ints
from drift_pipeline.detection.counting.profile import Profile


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


def minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE
