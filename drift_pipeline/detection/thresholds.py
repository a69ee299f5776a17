"""Levels of a single look, which aim at no more than one false incident of a healthy model a month.

The budget of .4 / .3 / .2 / .1 false incidents a month for 15-minute, 1-hour, 24-hour and longer windows gives, with
2 of 3 ticks, a false discovery rate of 1e-4 below a day and 1e-3 from a day on.

Where no healthy window tells how much a KPI varies by itself, a confidence bound `FAR_BEYOND` = 3 times over the
threshold is a WARN all the same, with the doubt named; it opens an incident only where it lasts 24 h, and never is a
BREACH. A PSI of 3 x 0.2 is a mean that has moved by 0.8 sd. Days that differ by .3 sd, as in the worlds that the budget
is simulated on, do that in one of 130 days even if a single day is all that is looked at, and never for a week; a
factor of 2 (0.6 sd) would in one of 22, and a factor of 5 (1 sd) would leave out what a person sees at a glance.
"""

import math
from datetime import timedelta

from drift_pipeline.clock import DAY, WEEK

LEAST_ROWS = 200  # effective rows of a window, and of the reference's same hours
LEAST_WINDOWS = 5  # healthy windows that tell how much a column varies
LEAST_DISTANCE = 0.05  # a significant difference below it is real and does not matter
LEAST_NEW_LEVELS = 0.01  # of rows whose level the reference lacks, beyond those it lets expect: no model knows them
FARTHER = 1.5  # than the farthest healthy window: a new month breaks the record of the last two often enough
FAR_BEYOND = 3.0  # times the threshold, from which a bound warns where nothing tells how much is healthy
IID_BELOW = 1.5  # phi under which rows count as independent, where few windows tell it
SPARSE_ROWS = (200, 1000)  # of the windows of a model with few rows; 28 days of any other hold the first
_SPARE = 1.1  # a window of chance's 200 rows would lack some of them half the time
_LONGEST = 104 * WEEK
ROWS_A_BLOCK = 50


def sparse_lengths(rows: int, span: timedelta) -> tuple[timedelta, ...]:
    """The windows of a model whose reference of so many rows and such a span holds fewer than 200 in 28 days.

    Whole weeks that hold the last 200 and 1,000 rows at that rate and a tenth more, two years at most; none where
    28 days hold enough.

    >>> [length.days for length in sparse_lengths(1000, timedelta(days=1000))], sparse_lengths(9000, 90 * DAY)
    ([224, 728], ())
    """
    a_week = rows * (WEEK / span)
    if not a_week or 4 * a_week >= SPARSE_ROWS[0]:
        return ()
    return tuple(sorted({min(math.ceil(_SPARE * n / a_week) * WEEK, _LONGEST) for n in SPARSE_ROWS}))


def block_days(rows: int, span: timedelta) -> int:
    """How many days share what a day was like: 1, or whole weeks that hold 50 rows of a model with few.

    >>> block_days(9000, 90 * DAY), block_days(1000, 1000 * DAY)
    (1, 56)
    """
    if not sparse_lengths(rows, span):
        return 1
    return 7 * math.ceil(ROWS_A_BLOCK / (rows * (WEEK / span)))


def iid_below(windows: int) -> float:
    """phi under which rows count as independent: 1 + 6 sd of its mean over so many independent windows, 1.1 to 1.5.

    phi is a mean of chi2(9) / 9 for ten bins, with sd sqrt(2 / (9 windows)). A month's 15-minute windows tell 1.1 from
    1, and day effects that small raise false alarms by the hundred: they last a day, and so does every window in it.

    >>> iid_below(28), round(iid_below(90), 2), iid_below(2688)
    (1.5, 1.3, 1.1)
    """
    return min(IID_BELOW, max(1.1, 1 + 6 * (2 / (9 * windows)) ** 0.5)) if windows else IID_BELOW


def false_discovery_rate(window: timedelta) -> float:
    """Benjamini-Hochberg level over the columns of one window in one look."""
    return 1e-4 if window < DAY else 1e-3


def range_level(window: timedelta) -> float:
    """Fisher's level of the range check, shared by the numeric features."""
    return 1e-6 if window < DAY else 1e-4


def latency_level(window: timedelta) -> float:
    """Confidence of the lower bound of the share of slow rows."""
    return 0.9999 if window < DAY else 0.99


def auroc_z(window: timedelta) -> float:
    """One-sided normal quantile on the joint standard error of window and baseline: .001 %, .1 % for a day, then 1 %.

    A window under a day slides by the minute, a day's by the hour; a week's or a month's sees mostly what it saw the
    day before.
    """
    return 4.26 if window < DAY else 3.09 if window == DAY else 2.33


def times_over(bound: float, threshold: float) -> str:
    """How many times the threshold a bound is, in words.

    >>> times_over(-0.31, 0.03)
    '10 times'
    """
    return f"{abs(bound / threshold):.0f} times"
