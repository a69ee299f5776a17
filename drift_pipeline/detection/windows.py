"""Slices of time: hourly profiles, consolidated per day, and windows of any length as merges of them."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.binning import Binning, Ints
from drift_pipeline.detection.profile import Profile, label_slices, merge, profile_slices

_HOURS_KEPT = 2 * DAY


def floor(moment: datetime, unit: timedelta) -> datetime:
    """The last whole hour or day (UTC) at or before the moment."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // unit * unit


class Slices:
    """The profiles of one model version since monitoring of it began; a cache of the lake, rebuilt from it."""

    def __init__(self, binning: Binning, armed_at: datetime) -> None:
        self.binning = binning
        self.armed_at = armed_at
        self._hours: dict[datetime, Profile] = {}
        self._days: dict[datetime, Profile] = {}
        self._labelled: dict[datetime, int] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Count rows (`_time`, watched columns, `_score`, `_latency_ms`) in the hour of their event time."""
        if frame.is_empty():
            return
        starts, slices = _hours_of(frame)
        for start, profile in zip(starts, profile_slices(self.binning, frame, slices, len(starts)), strict=True):
            self._put(start, profile)

    def add_labels(self, frame: pl.DataFrame) -> None:
        """Count rows (`_time` of the prediction, `_score`, `_label`) whose label has come."""
        if frame.is_empty():
            return
        starts, slices = _hours_of(frame)
        profiles = label_slices(self.binning, frame["_score"], frame["_label"], slices, len(starts))
        for start, profile, rows in zip(starts, profiles, np.bincount(slices).tolist(), strict=True):
            self._put(start, profile)
            self._labelled[start] = self._labelled.get(start, 0) + rows

    def consolidate(self, now: datetime) -> None:
        """Fold hours that no sliding window needs any more into their day."""
        for start in [hour for hour in self._hours if hour < floor(now - _HOURS_KEPT, DAY)]:
            self._fold(floor(start, DAY), self._hours.pop(start))

    def forget(self, before: datetime) -> None:
        """Drop slices that end at or before the moment: no window reaches back that far."""
        self._days = {start: profile for start, profile in self._days.items() if start + DAY > before}
        self._hours = {start: profile for start, profile in self._hours.items() if start + HOUR > before}

    def merge(self, window: Window) -> Profile:
        """The window's profile; its ends must be whole hours, and whole days where hours were folded already."""
        parts = [p for start, p in self._hours.items() if start in window]
        parts += [p for start, p in self._days.items() if start in window]
        return merge(self.binning, parts)

    def by_day(self, window: Window) -> list[Profile]:
        """One profile a day that has rows, in order of time."""
        days: dict[datetime, list[Profile]] = {}
        for start, profile in sorted((*self._hours.items(), *self._days.items()), key=lambda item: item[0]):
            if start in window:
                days.setdefault(floor(start, DAY), []).append(profile)
        return [merge(self.binning, parts) for parts in days.values()]

    def labelled_since(self, moment: datetime) -> int:
        """Labelled rows of the hours from the moment's own on; counted also where the slices are forgotten."""
        return sum(rows for start, rows in self._labelled.items() if start >= floor(moment, HOUR))

    def _put(self, start: datetime, profile: Profile) -> None:
        if floor(start, DAY) in self._days:
            self._fold(floor(start, DAY), profile)
        else:
            self._hours[start] = self._hours[start] + profile if start in self._hours else profile

    def _fold(self, day: datetime, profile: Profile) -> None:
        self._days[day] = self._days[day] + profile if day in self._days else profile


def _hours_of(frame: pl.DataFrame) -> tuple[list[datetime], Ints]:
    hours = frame["_time"].dt.truncate("1h")
    starts = hours.unique().sort()
    slices = np.searchsorted(starts.to_physical().to_numpy(), hours.to_physical().to_numpy()).astype(np.int64)
    return starts.to_list(), slices


def sliding(now: datetime, length: timedelta) -> Window:
    """The window of this length that ends now: up to a day it slides by the hour, a longer one by the day."""
    end = floor(now, HOUR if length <= DAY else DAY)
    return Window(end - length, end)
