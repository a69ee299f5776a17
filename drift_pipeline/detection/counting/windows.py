"""Windows of time: where they begin and end by a model's clock on the wall, and how long they are where it changes."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, MINUTE, UTC_ZONE, Window, Zone
from drift_pipeline.detection.counting.binning import Ints


def floor(moment: datetime, unit: timedelta) -> datetime:
    """The last whole minute, hour or day (UTC) at or before the moment."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // unit * unit


def sliding(now: datetime, length: timedelta, zone: Zone = UTC_ZONE) -> Window:
    """The window of this length that ends now: it slides by the minute, a day by the hour, a longer one by the day.

    From a day on it begins at the time of day at which it ends: an hour more or less where the clocks change.
    """
    end = zone.floor(now, MINUTE if length < DAY else HOUR if length == DAY else DAY)
    if length < DAY:
        return Window(end - length, end)
    start = zone.later(end, -length)
    return Window(min(start if length == DAY else zone.floor(start, DAY), end), end)


def nominal(window: Window) -> timedelta:
    """The length that a window has where no clock changes: of 23 or 25 hours, a day."""
    return window.length if window.length < DAY / 2 else round(window.length / DAY) * DAY


def local_days(times: pl.Series, zone: Zone) -> Ints:
    """The day that each time (n,) lies in, as a number that grows with time."""
    return times.dt.convert_time_zone(zone.name).dt.date().to_physical().to_numpy().astype(np.int64)
