"""Slices of time: profiles by the minute, the hour and the day, and windows of any length as merges of them.

Hours and days are those of the model's time zone, so that a window of whole days is whole where the clocks change, and
an hour begins at half past a UTC hour where it does in that place.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, MINUTE, UTC_ZONE, Window, Zone
from drift_pipeline.detection.counting.binning import Binning, Ints
from drift_pipeline.detection.counting.labelled_hours import LabelledHours
from drift_pipeline.detection.counting.moving import Minutes
from drift_pipeline.detection.counting.profile import Profile, label_slices, merge, profile_slices
from drift_pipeline.detection.counting.revisions import Revisions

HOURS_KEPT = 2 * DAY
MINUTES_KEPT = 2 * HOUR


@dataclass(frozen=True)
class Part:
    """What is stored of an hour since it was last stored, or of a whole day once it is folded; `labelled` by hour."""

    start: datetime
    length: timedelta
    profile: Profile
    labelled: tuple[int, ...]


class Slices:
    """The profiles of one model version since monitoring of it began; a cache of the lake, rebuilt from it."""

    def __init__(
        self, binning: Binning, baseline_at: datetime, finest: timedelta = HOUR, zone: Zone = UTC_ZONE
    ) -> None:
        """
        Args:
            finest: a minute where windows under a day slide by it; an hour keeps no minutes.
            zone: whose hours and days the slices are.
        """
        self.binning = binning
        self.baseline_at = baseline_at
        self.zone = zone
        self._minutes = Minutes(binning) if finest < HOUR else None
        self._hours: dict[datetime, Profile] = {}
        self._days: dict[datetime, Profile] = {}
        self.labelled = LabelledHours(zone)  # also of what was folded or forgotten
        self._revisions = Revisions()
        self._new: dict[datetime, Part] = {}
        self._folded: set[datetime] = set()
        self.newest: datetime | None = None  # row's time; of what was restored, when its hour or day ends

    def add(self, frame: pl.DataFrame, now: datetime | None = None) -> None:
        """Count rows (`_time`, watched columns, `_score`, `_latency_ms`) in the hour of their event time.

        Those of the last two hours before `now` (None = before the newest row) are kept by the minute too.
        """
        if frame.is_empty():
            return
        self.see(frame)
        if self._minutes is not None:
            is_recent = _is_recent(frame, now)
            recent, frame = frame.filter(is_recent), frame.filter(~is_recent)
            for start, profile in self._profiles(recent, MINUTE):
                self._minutes.add(start, profile)
                self._take(Part(self.zone.floor(start, HOUR), HOUR, profile, (0,)))
        for start, profile in self._profiles(frame, HOUR):
            self._take(Part(start, HOUR, profile, (0,)))

    def see(self, frame: pl.DataFrame) -> None:
        """Note that there is traffic, also of rows that are not counted."""
        if not frame.is_empty():
            self._seen(frame["_time"].max())

    def _seen(self, moment: Any) -> None:
        self.newest = moment if self.newest is None else max(self.newest, moment)

    def _profiles(self, frame: pl.DataFrame, unit: timedelta) -> Iterator[tuple[datetime, Profile]]:
        starts, slices = _starts(frame, unit, self.zone)
        return zip(starts, profile_slices(self.binning, frame, slices, len(starts)), strict=True)

    def add_minutes(self, frame: pl.DataFrame, labelled: pl.DataFrame) -> None:
        """Count rows, and those with a `_label`, by the minute alone: their hours were restored."""
        if self._minutes is None:
            return
        for start, profile in self._profiles(frame, MINUTE) if frame.height else ():
            self._minutes.add(start, profile)
        for start, profile, _ in self._label_profiles(labelled, MINUTE) if labelled.height else ():
            self._minutes.add(start, profile)

    def add_labels(self, frame: pl.DataFrame, now: datetime | None = None) -> None:
        """Count rows (`_time` of the prediction, `_score`, `_label`) whose label has come, in the hour of `_time`.

        Those of the last two hours before `now` (None = before the newest row) are kept by the minute too.
        """
        if frame.is_empty():
            return
        for start, profile, rows in self._label_profiles(frame, HOUR):
            self._take(Part(start, HOUR, profile, (rows,)))
        if self._minutes is not None:
            for start, profile, _ in self._label_profiles(frame.filter(_is_recent(frame, now)), MINUTE):
                self._minutes.add(start, profile)

    def _label_profiles(self, frame: pl.DataFrame, unit: timedelta) -> Iterator[tuple[datetime, Profile, int]]:
        starts, slices = _starts(frame, unit, self.zone)
        profiles = label_slices(self.binning, frame["_score"], frame["_label"], slices, len(starts))
        return zip(starts, profiles, np.bincount(slices, minlength=len(starts)).tolist(), strict=True)

    @property
    def by_minute(self) -> bool:
        """Whether minutes are kept."""
        return self._minutes is not None

    def consolidate(self, now: datetime) -> None:
        """Fold hours that no sliding window needs any more into their day, and drop such minutes."""
        folded = self.folded_before(now)
        for start in sorted(hour for hour in self._hours if hour < folded):
            day = self.zone.floor(start, DAY)
            _add(self._days, day, self._hours.pop(start))
            self._folded.add(day)
        if self._minutes is not None:
            self._minutes.forget(now - MINUTES_KEPT)

    def folded_before(self, now: datetime) -> datetime:
        """The day before which only whole days are told apart."""
        return self.zone.floor(now - HOURS_KEPT, DAY)

    def forget(self, before: datetime) -> None:
        """Drop slices that end at or before the moment: no window reaches back that far."""
        self._days = {start: profile for start, profile in self._days.items() if start + DAY > before}
        self._hours = {start: profile for start, profile in self._hours.items() if start + HOUR > before}
        self._revisions.forget(before)

    def merge(self, window: Window) -> Profile:
        """The window's profile.

        Its ends must be whole hours, and whole days where hours were folded already; whole minutes up to two hours,
        where minutes are kept: such a window moves on from where it stood, at the cost of what enters and leaves it.
        """
        if self._minutes is not None and window.length <= MINUTES_KEPT and not self.is_of_hours(window):
            return self._minutes.merge(window)
        return merge(self.binning, [profile for _, profile in self._parts(window)])

    def is_of_hours(self, window: Window) -> bool:
        """Whether both ends are whole hours, of which the profiles are kept for longer than minutes."""
        return all(self.zone.floor(end, HOUR) == end for end in (window.start, window.end))

    def column(self, window: Window, slot: str) -> Ints:
        """One part of the window's counters, such as `label:1`, without merging the rest; its ends as for `merge`."""
        place = self.binning.slots[slot]
        total = np.zeros(place.stop - place.start, np.int64)
        for _, profile in self._parts(window):
            total += profile.counts[place]
        return total

    def by_day(self, window: Window, days_each: int = 1) -> list[Profile]:
        """One profile a day, or as many days, that has rows, in order of time."""
        days: dict[int, list[Profile]] = {}
        for start, profile in sorted(self._parts(window), key=lambda item: item[0]):
            days.setdefault(self.zone.wall(start).toordinal() // days_each, []).append(profile)
        return [merge(self.binning, parts) for parts in days.values()]

    def rows(self) -> int:
        """Rows in the hours and days that are kept."""
        return sum(profile.rows for parts in (self._hours, self._days) for profile in parts.values())

    def revision(self, window: Window) -> int:
        """A number that changes when rows land in the window, as of `Revisions`."""
        return self._revisions.of(window)

    def begun(self, window: Window) -> list[datetime]:
        """When the hours with rows of the window begin, or the days where they were folded."""
        return [start for start, profile in self._parts(window) if profile.rows]

    def _parts(self, window: Window) -> Iterator[tuple[datetime, Profile]]:
        for parts in (self._hours, self._days):
            yield from ((start, profile) for start, profile in parts.items() if start in window)

    def new_parts(self) -> list[Part]:
        """What is to be stored now: each hour's additions since the last call, and the days folded since then.

        A day holds all of its hours so far, and takes their place: those that are new are told by it alone.
        """
        folded = sorted(self._folded & self._days.keys())
        days = [Part(day, DAY, self._days[day], self.labelled.of_day(day)) for day in folded]
        hours = [part for start, part in self._new.items() if self.zone.floor(start, DAY) not in folded]
        parts, self._new, self._folded = [*hours, *days], {}, set()
        return parts

    def restore(self, parts: Iterable[Part]) -> None:
        """Count what was stored, as if its rows had just been added; by the hour, or where a day was folded by it."""
        for part in parts:
            self._count(part)
            if part.profile.rows:
                self._seen(part.start + part.length)

    def _take(self, part: Part) -> None:
        self._count(part)
        before = self._new.get(part.start)
        if before:
            part = Part(part.start, HOUR, before.profile + part.profile, (before.labelled[0] + part.labelled[0],))
        self._new[part.start] = part

    def _count(self, part: Part) -> None:
        day = self.zone.floor(part.start, DAY)
        if part.length == DAY or day in self._days:
            _add(self._days, day, part.profile)
        else:
            _add(self._hours, part.start, part.profile)
        self.labelled.add(part.start, part.labelled)
        if part.profile.rows:
            self._revisions.count(part.start)


def _add(profiles: dict[datetime, Profile], start: datetime, profile: Profile) -> None:
    profiles[start] = profiles[start] + profile if start in profiles else profile


def _is_recent(frame: pl.DataFrame, now: datetime | None) -> pl.Expr:
    newest = now or frame["_time"].max()
    assert isinstance(newest, datetime)
    return pl.col("_time") >= newest - MINUTES_KEPT


def _starts(frame: pl.DataFrame, unit: timedelta, zone: Zone) -> tuple[list[datetime], Ints]:
    """The slices that the rows lie in, and which of them each row lies in.

    Whole hours begin at a quarter of a UTC hour, wherever that is.
    """
    times = frame["_time"].dt.truncate("1m" if unit == MINUTE else "15m")
    distinct = times.unique().sort()
    begins = [zone.floor(moment, unit) for moment in distinct.to_list()]
    starts = sorted(set(begins))
    places = {start: place for place, start in enumerate(starts)}
    of = np.array([places[start] for start in begins], np.int64)
    return starts, of[np.searchsorted(distinct.to_physical().to_numpy(), times.to_physical().to_numpy())]
