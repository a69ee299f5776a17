"""Levels of a single look, chosen so that a healthy model has at most one false incident a month.

The budget of .4 / .3 / .2 / .1 false incidents a month for 15-minute, 1-hour, 24-hour and longer windows gives, with
2 of 3 ticks, a false discovery rate of 1e-4 below a day and 1e-3 from a day on.
"""

from datetime import timedelta

from drift_pipeline.clock import DAY

RANGE_LEVEL = 1e-4  # Fisher, shared by the numeric features
LEAST_DISTANCE = 0.05  # a significant difference below it is real and does not matter
IID_BELOW = 1.5  # phi under which rows count as independent


def false_discovery_rate(window: timedelta) -> float:
    """Benjamini-Hochberg level over the columns of one window in one look."""
    return 1e-4 if window < DAY else 1e-3


def auroc_z(window: timedelta) -> float:
    """One-sided normal quantile on the joint standard error of window and baseline: .1 % for a day, 1 % for longer.

    A day's window is looked at anew each day, a week's or a month's slides and sees mostly what it saw before.
    """
    return 3.09 if window <= DAY else 2.33
