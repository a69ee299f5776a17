"""What `mae` and `residuals` say of a regression's window."""

from datetime import timedelta

import numpy as np

from drift_pipeline.clock import DAY
from drift_pipeline.detection.counting.binning import Binning, Ints
from drift_pipeline.detection.counting.residuals import residual_bins
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.residuals import LEAST_DAYS, HeldOut, mae_of
from drift_pipeline.detection.statistics.ks import ks_interval, ks_lower_bound, ks_p_value
from drift_pipeline.detection.statistics.mae import mae_rise
from drift_pipeline.detection.thresholds import FAR_BEYOND, IID_BELOW, auroc_z, false_discovery_rate, times_over
from drift_pipeline.spec import ModelSpec

LEAST_LABELS = 200
LEAST_IN_DOUBT = 50  # labels, below which not even a bound far beyond the threshold is told
MATURE = 0.95


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

    lack = _lack(labelled, scored)
    if lack and labelled < LEAST_IN_DOUBT:
        return result(Verdict.INCONCLUSIVE, lack)
    now = mae_of(binning, errors)
    rise = mae_rise(now, healthy.mae)
    lower = rise.value - auroc_z(length) * healthy.mae_phi**0.5 * rise.standard_error
    words = f"MAE {now.value:.4g} against {healthy.mae.value:.4g} held out ({rise.value:+.1%})".replace("%", " %")
    if lack and lower < FAR_BEYOND * limit:
        return result(Verdict.INCONCLUSIVE, lack)
    if lack:
        doubt = f"{words}; {lack}, but the bound is {times_over(lower, limit)} the threshold"
        return result(Verdict.WARN, doubt, rise.value, lower)
    verdict = _of_rise(rise.value, lower, limit, length)
    noise = f", within the noise of {labelled} labels" if verdict is Verdict.INCONCLUSIVE else ""
    return result(verdict, words + noise, rise.value, lower)


def _of_rise(rise: float, lower: float, limit: float, length: timedelta) -> Verdict:
    if rise < limit:
        return Verdict.OK
    if lower > 0:
        return Verdict.BREACH
    return Verdict.INCONCLUSIVE if length <= DAY else Verdict.WARN  # a day's noise; the longer windows tell


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
    bins = residual_bins(binning)
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
