"""What a champion's residuals were on rows it had not seen: the baseline of a regression."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from drift_pipeline.detection.counting.binning import Binning, Ints
from drift_pipeline.detection.counting.residuals import count_residuals, residual_bins
from drift_pipeline.detection.statistics.mae import Mae, mae_of_sums, mae_overdispersion
from drift_pipeline.detection.statistics.psi import psi_rows

LEAST_DAYS, LEAST_ROWS_A_DAY = 5, 50


@dataclass(frozen=True)
class HeldOut:
    """What a champion's residuals were on rows it had not seen.

    mae and its overdispersion by day, at least 1; counts (B,) per residual bin and their overdispersion by day, NaN
    where fewer than 5 days have 50 rows. A day is several where one holds few rows.
    """

    mae: Mae
    mae_phi: float
    counts: Ints
    counts_phi: float


def known_residuals(scored: pl.DataFrame) -> pl.DataFrame:
    """The rows with a label and a finite prediction, with their `_residual`."""
    known = scored.filter(pl.col("_label").is_finite() & pl.col("_score").is_finite())
    return known.with_columns((pl.col("_label") - pl.col("_score")).alias("_residual"))


def held_out_errors(binning: Binning, scored: pl.DataFrame, blocks: Ints) -> HeldOut | None:
    """None where no row has a label. `blocks` (n,) say which rows share a day."""
    known = known_residuals(scored.with_columns(pl.Series("_block", blocks)))
    if known.is_empty():
        return None
    residuals, bins = known["_residual"].to_numpy(), residual_bins(binning)
    day = known["_block"].rank("dense").cast(pl.Int64).to_numpy() - 1
    by_day, errors = count_residuals(binning, residuals, day, int(day.max()) + 1)
    phi = mae_overdispersion(residuals, day)
    coarse = np.zeros((len(by_day), int(bins.coarse.max()) + 1), np.int64)
    np.add.at(coarse.T, bins.coarse, by_day[:, : bins.bins].T)
    return HeldOut(
        mae_of(binning, errors.sum(axis=0)),
        max(phi, 1.0) if np.isfinite(phi) else 1.0,
        by_day[:, : bins.bins].sum(axis=0),
        _overdispersion(coarse),
    )


def mae_of(binning: Binning, errors: Ints) -> Mae:
    """Of the counters (3,): rows, units, units^2. Raises ValueError where there is no row."""
    unit = binning.error_unit
    return mae_of_sums(int(errors[0]), float(errors[1]) * unit, float(errors[2]) * unit**2)


def _overdispersion(coarse: Ints) -> float:
    """Mean PSI of a day (of days x bins) against the other days over its i.i.d. expectation (B - 1)(1/n + 1/m)."""
    coarse = coarse[:, coarse.any(axis=0)]
    rest = coarse.sum(axis=0) - coarse
    n, m = coarse.sum(axis=1), rest.sum(axis=1)
    usable = (n >= LEAST_ROWS_A_DAY) & (m >= n)
    if usable.sum() < LEAST_DAYS:
        return float("nan")
    if coarse.shape[1] < 2:  # what never varied
        return 1.0
    expected = (coarse.shape[1] - 1) * (1 / n[usable] + 1 / m[usable])
    return float((psi_rows(rest[usable], coarse[usable]) / expected).mean())
