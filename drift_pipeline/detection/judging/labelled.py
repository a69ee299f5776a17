"""What the labels say: `auroc` of a classification, `mae` and `residuals` of a regression."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from drift_pipeline.clock import DAY, Window
from drift_pipeline.detection.counting.binning import SCORE, Ints
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.counting.windows import nominal
from drift_pipeline.detection.judging.cohorts import Cohort, cohorts, lost_of
from drift_pipeline.detection.judging.residuals import mae_kpi, residuals_kpi
from drift_pipeline.detection.judging.tick import Tick, last_rows, off, why_off
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.reference.residuals import HeldOut, mae_of
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.detection.thresholds import FAR_BEYOND, LEAST_ROWS, auroc_z, times_over

LEAST_OF_A_CLASS = 50
LEAST_HELD_OUT = 200  # of a class, in the held-out rows of some hours: fewer vary by more than a fall that matters
LEAST_IN_DOUBT = 20  # of a class, below which not even a bound far beyond the threshold is told
MATURE = 0.95


def auroc(tick: Tick) -> KpiResult:
    """Fall against the held-out baseline: estimate at least `drop`, and its upper bound not above 0."""
    if tick.spec.kpis.auroc is None:
        return off("auroc", why_off(tick.spec))
    drop, baseline = tick.spec.kpis.auroc.drop, tick.reference.auroc
    if baseline is None or min(baseline.positives, baseline.negatives) < 2:
        reason = "the baseline has one class only, or one row of a class"
        return KpiResult("auroc", Verdict.INCONCLUSIVE, None, -drop, None, None, 0, reason)
    return _worst(
        [
            tick.keep(
                f"auroc {cohort.length}", cohort.key(tick.slices), partial(_judged_auroc, tick, baseline, drop, cohort)
            )
            for cohort in cohorts(tick)
        ]
    )


def _worst(results: Sequence[KpiResult]) -> KpiResult:
    """The longest window's of the worst verdict; INCONCLUSIVE where none is conclusive."""
    for verdict in (Verdict.BREACH, Verdict.WARN, Verdict.OK):
        if found := [r for r in results if r.verdict == verdict]:
            return found[-1]
    return results[-1]


def labelled_scores(slices: Slices, window: Window) -> tuple[Ints, Ints, int]:
    """Positives and negatives per score bin, and how many rows were scored."""
    if slices.by_minute and not slices.is_of_hours(window):
        profile = slices.merge(window)
        return *profile.labelled_scores(), int(profile.bins(SCORE).sum())
    scored = slices.column(window, SCORE)[: slices.binning.columns[SCORE].bins].sum()
    return slices.column(window, "label:1"), slices.column(window, "label:0"), int(scored)


def _judged_auroc(tick: Tick, held_out: Auroc, drop: float, cohort: Cohort) -> KpiResult:
    length, held = cohort.length, nominal(cohort.window)
    if cohort.waits:
        labelled = tick.slices.labelled.total()
        reason = f"{labelled:,} labels wait: {cohort.waits}"
        return KpiResult("auroc", Verdict.INCONCLUSIVE, None, -drop, None, length, labelled, reason)
    positives, negatives, scored = labelled_scores(tick.slices, cohort.window)
    labelled = int(positives.sum() + negatives.sum())

    def result(verdict: Verdict, reason: str, value: float | None = None, bound: float | None = None) -> KpiResult:
        return KpiResult("auroc", verdict, value, -drop, bound, length, labelled, reason)

    doubt = _lack(positives, negatives, scored)
    few = min(positives.sum(), negatives.sum()) < LEAST_IN_DOUBT
    if silent := (doubt if few else "") or lost_of(tick, cohort, labelled):
        return result(Verdict.INCONCLUSIVE, doubt or silent)
    baseline = _baseline_auroc(tick.reference, held_out, cohort.window)
    now_auroc = binned_auroc(positives, negatives, atom=tick.reference.binning.score_atom)
    delta = now_auroc.value - baseline.value
    error = tick.reference.auroc_phi**0.5 * float(np.hypot(now_auroc.standard_error, baseline.standard_error))
    slides = max(held, DAY) if length >= DAY else held  # how often it is looked at anew
    upper = delta + auroc_z(slides) * error + now_auroc.slack + baseline.slack
    words = f"AUROC {now_auroc.value:.3f} against {baseline.value:.3f} held out"
    if tick.reference.sparse:
        words = f"{words} ({last_rows(labelled, held)})"
    if doubt:
        return result(*_in_doubt(words, doubt, delta, upper, drop))
    if delta <= -drop and upper > 0 and held <= DAY:  # a day's noise; the longer windows tell
        return result(Verdict.INCONCLUSIVE, f"{words}, within the noise of {labelled} labels", delta, upper)
    fell = Verdict.BREACH if upper <= 0 else Verdict.WARN
    return result(fell if delta <= -drop else Verdict.OK, words, delta, upper)


def _in_doubt(
    words: str, doubt: str, delta: float, upper: float, drop: float
) -> tuple[Verdict, str, float | None, float | None]:
    """Of labels that are too few, or of too few of the rows: told only where the bound is far beyond the threshold."""
    if upper > -FAR_BEYOND * drop:
        return Verdict.INCONCLUSIVE, doubt, None, None
    return Verdict.WARN, f"{words}; {doubt}, but the bound is {times_over(upper, drop)} the threshold", delta, upper


def _lack(positives: Ints, negatives: Ints, scored: int) -> str:
    """Why labels are too few to tell, or nothing."""
    one, other = int(positives.sum()), int(negatives.sum())
    if min(one, other) < LEAST_OF_A_CLASS or one + other < LEAST_ROWS:
        return f"{one} positive and {other} negative labels are too few"
    if one + other < MATURE * scored:
        return f"{(one + other) / scored:.0%} of the predictions have their label, {MATURE:.0%} are needed"
    return ""


def _baseline_auroc(reference: Reference, baseline: Auroc, window: Window) -> Auroc:
    """Of the held-out rows; in a window under a day of its hours, and of as many about them as hold enough labels."""
    if reference.by_hour_of_day is None or nominal(window) >= DAY:
        return baseline
    for hours in reference.hours_near(window):
        positives, negatives = (side[hours].sum(axis=0) for side in reference.by_hour_of_day)
        if min(positives.sum(), negatives.sum()) >= LEAST_HELD_OUT:
            return binned_auroc(positives, negatives, atom=reference.binning.score_atom)
    return baseline


def errors(tick: Tick) -> dict[str, KpiResult]:
    """A regression's KPIs, in the windows that AUROC has."""
    found = [
        tick.keep(f"errors {cohort.length}", cohort.key(tick.slices), partial(_judged_errors, tick, cohort))
        for cohort in cohorts(tick)
    ]
    return {"mae": _worst([mae for mae, _ in found]), "residuals": _worst([residuals for _, residuals in found])}


def _judged_errors(tick: Tick, cohort: Cohort) -> tuple[KpiResult, KpiResult]:
    if cohort.waits:
        labelled = tick.slices.labelled.total()
        return _both(tick, cohort, labelled, f"{labelled:,} labels wait: {cohort.waits}")
    binning, healthy, spec = tick.reference.binning, _baseline_errors(tick.reference, cohort.window), tick.spec
    counts, held = tick.slices.merge(cohort.window).counts, nominal(cohort.window)
    scored = int(counts[binning.slots[SCORE]][: binning.columns[SCORE].bins].sum())
    labelled = int(counts[binning.slots["errors"]][0])
    if labelled >= max(LEAST_ROWS, MATURE * scored) and (lack := lost_of(tick, cohort, labelled)):
        return _both(tick, cohort, labelled, lack)
    return (
        _held(tick, cohort, mae_kpi(binning, healthy, counts, scored, spec, held)),
        _held(tick, cohort, residuals_kpi(binning, healthy, counts, scored, spec, held)),
    )


def _held(tick: Tick, cohort: Cohort, found: KpiResult) -> KpiResult:
    """Of a window that may hold less than its length yet."""
    if found.window is None:
        return found
    return replace(tick.of_few_rows(found), window=cohort.length)


def _both(tick: Tick, cohort: Cohort, labelled: int, why: str) -> tuple[KpiResult, KpiResult]:
    """INCONCLUSIVE for the same reason, of those that the spec asks for."""

    def of(name: str, limit: float | None) -> KpiResult:
        if limit is None:
            return off(name, "switched off in the spec")
        return KpiResult(name, Verdict.INCONCLUSIVE, None, limit, None, cohort.length, labelled, why)

    mae, residuals = tick.spec.kpis.mae, tick.spec.kpis.residuals
    return of("mae", mae.rise if mae else None), of("residuals", residuals.threshold if residuals else None)


def _baseline_errors(reference: Reference, window: Window) -> HeldOut | None:
    """As of `_baseline_auroc`."""
    whole = reference.errors
    if whole is None or reference.by_hour_of_day is None or nominal(window) >= DAY:
        return whole
    for hours in reference.hours_near(window):
        errors, counts = (side[hours].sum(axis=0) for side in reference.by_hour_of_day)
        if errors[0] >= 2 * LEAST_HELD_OUT:
            return replace(whole, mae=mae_of(reference.binning, errors), counts=counts[: len(whole.counts)])
    return whole
