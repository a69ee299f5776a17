"""What the labels say: `auroc` of a classification, `mae` and `residuals` of a regression."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

import numpy as np

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.binning import SCORE, Ints
from drift_pipeline.detection.counting.windows import MINUTES_KEPT, Slices, floor, sliding
from drift_pipeline.detection.judging.residuals import mae_kpi, residuals_kpi
from drift_pipeline.detection.judging.tick import Tick, off, why_off
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.detection.thresholds import LEAST_ROWS, auroc_z

LEAST_OF_A_CLASS = 50
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
            tick.keep(f"auroc {length}", key, partial(_judged_auroc, tick, baseline, drop, window, length))
            for length, window, key in _labelled_windows(tick)
        ]
    )


def _labelled_windows(tick: Tick) -> Iterator[tuple[timedelta, Window, object]]:
    """Length, window and key to keep by, of predictions whose labels must have come: it ends a label's delay ago."""
    slices = tick.slices
    quick = slices.by_minute and tick.spec.outcome.delay <= MINUTES_KEPT - HOUR
    for length in (length for length in tick.lengths if length >= DAY or quick):
        end = sliding(tick.now - tick.spec.outcome.delay, length).end
        window = Window(max(end - length, min(floor(slices.baseline_at, DAY), end - min(length, DAY))), end)
        yield length, window, (window, slices.labelled(), slices.revision(window))


def _worst(results: Sequence[KpiResult]) -> KpiResult:
    """The longest window's of the worst verdict; INCONCLUSIVE where none is conclusive."""
    for verdict in (Verdict.BREACH, Verdict.WARN, Verdict.OK):
        if found := [r for r in results if r.verdict == verdict]:
            return found[-1]
    return results[-1]


def labelled_scores(slices: Slices, window: Window) -> tuple[Ints, Ints, int]:
    """Positives and negatives per score bin, and how many rows were scored."""
    if window.length < DAY and slices.by_minute:
        profile = slices.merge(window)
        return *profile.labelled_scores(), int(profile.bins(SCORE).sum())
    scored = slices.column(window, SCORE)[: slices.binning.columns[SCORE].bins].sum()
    return slices.column(window, "label:1"), slices.column(window, "label:0"), int(scored)


def _judged_auroc(tick: Tick, baseline: Auroc, drop: float, window: Window, length: timedelta) -> KpiResult:
    positives, negatives, scored = labelled_scores(tick.slices, window)
    labelled = int(positives.sum() + negatives.sum())

    def result(verdict: Verdict, reason: str, value: float | None = None, bound: float | None = None) -> KpiResult:
        return KpiResult("auroc", verdict, value, -drop, bound, length, labelled, reason)

    if min(positives.sum(), negatives.sum()) < LEAST_OF_A_CLASS or labelled < LEAST_ROWS:
        return result(
            Verdict.INCONCLUSIVE, f"{positives.sum()} positive and {negatives.sum()} negative labels are too few"
        )
    if labelled < MATURE * scored:
        return result(
            Verdict.INCONCLUSIVE,
            f"{labelled / scored:.0%} of the predictions have their label, {MATURE:.0%} are needed",
        )
    now_auroc = binned_auroc(positives, negatives, atom=tick.reference.binning.score_atom)
    delta = now_auroc.value - baseline.value
    error = tick.reference.auroc_phi**0.5 * float(np.hypot(now_auroc.standard_error, baseline.standard_error))
    upper = delta + auroc_z(length) * error + now_auroc.slack + baseline.slack
    words = f"AUROC {now_auroc.value:.3f} against {baseline.value:.3f} held out"
    if delta <= -drop and upper > 0 and length <= DAY:  # a day's noise; the longer windows tell
        return result(Verdict.INCONCLUSIVE, f"{words}, within the noise of {labelled} labels", delta, upper)
    if delta <= -drop:
        return result(Verdict.BREACH if upper <= 0 else Verdict.WARN, words, delta, upper)
    return result(Verdict.OK, words, delta, upper)


def errors(tick: Tick) -> dict[str, KpiResult]:
    """A regression's KPIs, in the windows that AUROC has."""
    found = [
        tick.keep(f"errors {length}", key, partial(_judged_errors, tick, window, length))
        for length, window, key in _labelled_windows(tick)
    ]
    return {"mae": _worst([mae for mae, _ in found]), "residuals": _worst([residuals for _, residuals in found])}


def _judged_errors(tick: Tick, window: Window, length: timedelta) -> tuple[KpiResult, KpiResult]:
    binning, healthy, spec = tick.reference.binning, tick.reference.errors, tick.spec
    counts = tick.slices.merge(window).counts
    scored = int(counts[binning.slots[SCORE]][: binning.columns[SCORE].bins].sum())
    return (
        mae_kpi(binning, healthy, counts, scored, spec, length),
        residuals_kpi(binning, healthy, counts, scored, spec, length),
    )
