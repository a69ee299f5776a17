"""A regression's residuals, label minus prediction: how a profile counts them, and what `mae` and `residuals` say.

Absolute errors are counted in whole units, thousandths of the held-out MAE, so that they add up, and come off a moving
window, as exactly as all other counters; one of more than 1000 MAEs counts as that, so no absurd label carries a mean.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY
from drift_pipeline.detection.binning import Binning, Floats, Ints, NumericBins
from drift_pipeline.detection.statistics.ks import ks_interval, ks_lower_bound, ks_p_value
from drift_pipeline.detection.statistics.mae import Mae, mae_of_sums, mae_overdispersion, mae_rise
from drift_pipeline.detection.statistics.psi import psi_rows
from drift_pipeline.detection.thresholds import IID_BELOW, auroc_z, false_discovery_rate
from drift_pipeline.detection.verdict import KpiResult, Verdict
from drift_pipeline.spec import ModelSpec

MOST_UNITS = 1_000_000
LEAST_LABELS = 200
MATURE = 0.95
LEAST_DAYS, LEAST_ROWS_A_DAY = 5, 50


@dataclass(frozen=True)
class HeldOut:
    """What a champion's residuals were on rows it had not seen.

    mae and its overdispersion by day, at least 1; counts (B,) per residual bin and their overdispersion by day, NaN
    where fewer than 5 days have 50 rows.
    """

    mae: Mae
    mae_phi: float
    counts: Ints
    counts_phi: float


def count_residuals(binning: Binning, residuals: Floats, slices: Ints, number: int) -> tuple[Ints, Ints]:
    """Of residuals (n,) in slices (n,): counters of bins (number, size), and of rows, units and units^2 (number, 3)."""
    bins = _bins(binning)
    place = slices * bins.size + bins.index(pl.Series(residuals))
    binned = np.bincount(place, minlength=number * bins.size).reshape(number, bins.size)
    units = np.minimum(np.rint(np.abs(residuals) / binning.error_unit), MOST_UNITS).astype(np.int64)
    errors = np.zeros((number, 3), np.int64)
    for column, values in enumerate((np.ones_like(units), units, units**2)):
        np.add.at(errors[:, column], slices, values)
    return binned, errors


def known_residuals(scored: pl.DataFrame) -> pl.DataFrame:
    """`_time` and `_residual` of the rows with a label and a finite prediction."""
    known = scored.filter(pl.col("_label").is_finite() & pl.col("_score").is_finite())
    return known.select("_time", (pl.col("_label") - pl.col("_score")).alias("_residual"))


def held_out_errors(binning: Binning, scored: pl.DataFrame) -> HeldOut | None:
    """None where no row has a label."""
    known = known_residuals(scored)
    if known.is_empty():
        return None
    residuals, bins = known["_residual"].to_numpy(), _bins(binning)
    day = known["_time"].dt.truncate("1d").rank("dense").cast(pl.Int64).to_numpy() - 1
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


def _bins(binning: Binning) -> NumericBins:
    if binning.residuals is None:
        raise ValueError("these bins are of a classification, which has no residuals")
    return binning.residuals


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


def mae_kpi(
    binning: Binning, healthy: HeldOut | None, counts: Ints, scored: int, spec: ModelSpec, length: timedelta
) -> KpiResult:
    """Rise over the held-out MAE: estimate at least `rise`, and its lower bound above 0.

    Args:
        binning: of the counters.
        healthy: the baseline.
        counts: a window's counters, of which `errors` are looked at.
        scored: how many predictions the window has; 95 % of them need a label.
        spec: the threshold.
        length: of the window, which says how sure one look has to be.
    """
    name = "mae"
    if spec.kpis.mae is None:
        return KpiResult(name, Verdict.NOT_CONFIGURED, None, None, None, None, 0, "switched off in the spec")
    limit = spec.kpis.mae.rise
    if healthy is None or healthy.mae.rows < 2 or healthy.mae.value == 0:
        reason = "the baseline has fewer than two labels, or no error at all"
        return KpiResult(name, Verdict.INCONCLUSIVE, None, limit, None, length, 0, reason)
    errors = counts[binning.slots["errors"]]
    labelled = int(errors[0])

    def result(verdict: Verdict, reason: str, value: float | None = None, bound: float | None = None) -> KpiResult:
        return KpiResult(name, verdict, value, limit, bound, length, labelled, reason)

    if lack := _lack(labelled, scored):
        return result(Verdict.INCONCLUSIVE, lack)
    now = mae_of(binning, errors)
    rise = mae_rise(now, healthy.mae)
    lower = rise.value - auroc_z(length) * healthy.mae_phi**0.5 * rise.standard_error
    words = f"MAE {now.value:.4g} against {healthy.mae.value:.4g} held out ({rise.value:+.1%})".replace("%", " %")
    if rise.value >= limit and lower <= 0 and length <= DAY:  # a day's noise; the longer windows tell
        return result(Verdict.INCONCLUSIVE, f"{words}, within the noise of {labelled} labels", rise.value, lower)
    if rise.value >= limit:
        return result(Verdict.BREACH if lower > 0 else Verdict.WARN, words, rise.value, lower)
    return result(Verdict.OK, words, rise.value, lower)


def residuals_kpi(
    binning: Binning, healthy: HeldOut | None, counts: Ints, scored: int, spec: ModelSpec, length: timedelta
) -> KpiResult:
    """WARN where residuals differ significantly from the held-out ones, by a KS distance of more than the threshold.

    The value is the distance's lower bound, on rows divided by their overdispersion; arguments as of `mae_kpi`.
    """
    name = "residuals"
    if spec.kpis.residuals is None:
        return KpiResult(name, Verdict.NOT_CONFIGURED, None, None, None, None, 0, "switched off in the spec")
    limit = spec.kpis.residuals.threshold
    if healthy is None or np.isnan(healthy.counts_phi):
        reason = f"fewer than {LEAST_DAYS} held-out days tell how much residuals vary"
        return KpiResult(name, Verdict.INCONCLUSIVE, None, limit, None, length, 0, reason)
    bins = _bins(binning)
    current = counts[binning.slots["residual"]][: bins.bins]
    labelled = int(current.sum())

    def result(verdict: Verdict, reason: str, bound: float | None = None) -> KpiResult:
        return KpiResult(name, verdict, bound, limit, bound, length, labelled, reason)

    phi = healthy.counts_phi if healthy.counts_phi >= IID_BELOW else 1.0
    if lack := _lack(int(labelled / phi), int(scored / phi)):
        return result(Verdict.INCONCLUSIVE, lack)
    n, m = labelled / phi, float(healthy.counts.sum()) / phi
    distance = ks_interval(healthy.counts, current, bins.atom).low
    p_value, lower = ks_p_value(distance, n, m), ks_lower_bound(distance, n, m)
    words = f"KS distance {distance:.3f} from the held-out residuals, p = {p_value:.1e}"
    found = lower > limit and p_value <= false_discovery_rate(length)
    return result(Verdict.WARN if found else Verdict.OK, words, lower)


def _lack(labelled: int, scored: int) -> str:
    """Why labels (effective ones) are too few to tell, or nothing."""
    if labelled < LEAST_LABELS:
        return f"{labelled} labels, {LEAST_LABELS} are needed"
    if labelled < MATURE * scored:
        return f"{labelled / scored:.0%} of the predictions have their label, {MATURE:.0%} are needed"
    return ""
