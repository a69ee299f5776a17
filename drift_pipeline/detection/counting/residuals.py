"""A regression's residuals, label minus prediction: how a profile counts them.

Absolute errors are counted in whole units, thousandths of the held-out MAE, so that they add up, and come off a moving
window, as exactly as all other counters; one of more than 1000 MAEs counts as that, so no absurd label carries a mean.
"""

import numpy as np
import polars as pl

from drift_pipeline.detection.counting.binning import Binning, Floats, Ints, NumericBins

MOST_UNITS = 1_000_000


def count_residuals(binning: Binning, residuals: Floats, slices: Ints, number: int) -> tuple[Ints, Ints]:
    """Of residuals (n,) in slices (n,): counters of bins (number, size), and of rows, units and units^2 (number, 3)."""
    bins = residual_bins(binning)
    place = slices * bins.size + bins.index(pl.Series(residuals))
    binned = np.bincount(place, minlength=number * bins.size).reshape(number, bins.size)
    units = np.minimum(np.rint(np.abs(residuals) / binning.error_unit), MOST_UNITS).astype(np.int64)
    errors = np.zeros((number, 3), np.int64)
    for column, values in enumerate((np.ones_like(units), units, units**2)):
        np.add.at(errors[:, column], slices, values)
    return binned, errors


def residual_bins(binning: Binning) -> NumericBins:
    if binning.residuals is None:
        raise ValueError("these bins are of a classification, which has no residuals")
    return binning.residuals
