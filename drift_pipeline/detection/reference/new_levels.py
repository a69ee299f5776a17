"""How many rows have a level that came up later: levels known in the first half of a reference, met in the second.

Of rows without time, those whose level is not known are foretold by Good and Turing. Merchants, devices and campaigns
come up as time goes on: then there are more, the more the later, and a healthy reference shows how many.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.counting.binning import Binning, CategoricalBins, Floats, Ints
from drift_pipeline.detection.statistics.share_difference import share_high, share_low
from drift_pipeline.detection.statistics.unseen import unseen_mass
from drift_pipeline.detection.thresholds import FARTHER, LEAST_ROWS

_LEVEL = 0.01  # of all windows of a length together


def fresh_levels(
    binning: Binning, frame: pl.DataFrame, span: Window, lengths: tuple[timedelta, ...], unit: timedelta
) -> dict[timedelta, dict[str, float]]:
    """Per window length and categorical column, the largest share of rows of a healthy window with such a level.

    Of the windows in the second half of the span, the lower bound of the share less what is expected of rows without
    time; columns where no window has more are not named. Where the half holds no window of a length, it is one.
    """
    middle = span.start + (span.length // unit // 2) * unit
    units = -((middle - span.end) // unit)  # the last may be cut short
    found: dict[timedelta, dict[str, float]] = {length: {} for length in lengths}
    for name, bins in binning.columns.items():
        if not isinstance(bins, CategoricalBins):
            continue
        rows = frame.select("_time", pl.col(name).cast(pl.String).alias("level")).drop_nulls()
        later = pl.col("_time") >= middle
        known, now = rows.filter(~later)["level"].value_counts(name="n"), rows.filter(later)
        if known["n"].sum() < LEAST_ROWS or now.is_empty():
            continue
        place = (now["_time"] - middle).dt.total_microseconds().to_numpy() // (unit // timedelta(microseconds=1))
        new = ~now["level"].is_in(known["level"].implode()).to_numpy()
        by_unit = np.stack([np.bincount(place[new], minlength=units), np.bincount(place, minlength=units)])
        expected = _expected(known["n"].to_numpy())
        for length in lengths:
            if (more := _most(by_unit, min(length // unit, units), expected)) > 0:
                found[length][name] = more
    return found


def expected_later(most: float, span: Window, end: datetime) -> float:
    """The share that a window which ends then may have: half as much again as a healthy one's, and the more the later.

    Half a span lies between the levels that healthy windows were held against and the last of them.
    """
    return min(1.0, FARTHER * most * max(1.0, (end - span.end) / (span.length / 2)))


def _expected(counts: Ints) -> float:
    """Upper bound of the unseen share of rows without time, of the rows of each known level."""
    once, twice, rows = (np.array([float(x)]) for x in ((counts == 1).sum(), (counts == 2).sum(), counts.sum()))
    share, effective = unseen_mass(once, twice, np.zeros(1), rows)
    return float(share_high(share * effective, effective, 1 - _LEVEL / 2)[0])


def _most(by_unit: Ints, units: int, expected: float) -> float:
    """The largest lower bound of windows laid end to end, back from the end, of (new, all) rows by unit (2, units)."""
    number = by_unit.shape[1] // units
    new, n = by_unit[:, by_unit.shape[1] - number * units :].reshape(2, number, units).sum(axis=2).astype(float)
    candidates = new > expected * n
    if not candidates.any():
        return 0.0
    low: Floats = share_low(new[candidates], n[candidates], 1 - _LEVEL / (2 * number))
    return max(0.0, float(low.max()) - expected)
