"""The KPI matrix: one function a KPI, from profiles to a verdict."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np

from drift_pipeline.clock import DAY, HOUR, WEEK, Window, format_duration
from drift_pipeline.detection.binning import SCORE, Ints
from drift_pipeline.detection.columns import Side
from drift_pipeline.detection.hints import Samples, estimate_of, estimated, multivariate
from drift_pipeline.detection.profile import Profile
from drift_pipeline.detection.reference import Reference
from drift_pipeline.detection.residuals import mae_kpi, residuals_kpi
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.detection.statistics.latency import share_above
from drift_pipeline.detection.statistics.parity import parity_change
from drift_pipeline.detection.statistics.range_z import is_breach, may_breach, range_excess
from drift_pipeline.detection.thresholds import LEAST_ROWS, auroc_z, latency_level, range_level
from drift_pipeline.detection.verdict import FeatureFinding, KpiResult, Verdict, told_p
from drift_pipeline.detection.windows import MINUTES_KEPT, Slices, floor, sliding
from drift_pipeline.spec import ModelSpec

LEAST_OF_A_CLASS = 50
MATURE = 0.95
LATENCY_SHARE = 0.05  # p95 is above the threshold when more than 5 % of rows are


@dataclass(frozen=True)
class Tick:
    """What the KPIs of one tick are taken from.

    `lengths`: of the windows, rising; `merged`: profiles of the windows under a day; `keep(name, key, make)`: what an
    earlier tick made under the same key, else made now. `samples`: rows of reference days and of recent ones.
    """

    reference: Reference
    slices: Slices
    spec: ModelSpec
    now: datetime
    lengths: Sequence[timedelta]
    merged: Mapping[timedelta, Profile]
    findings: Sequence[FeatureFinding]
    keep: Callable[[str, object, Callable[[], Any]], Any]
    samples: tuple[Samples, Samples] = ({}, {})

    def profile(self, window: Window) -> Profile:
        if window.length in self.merged:
            return self.merged[window.length]
        key = (window, self.slices.revision(window))
        found: Profile = self.keep(f"profile {window.length}", key, lambda: self.slices.merge(window))
        return found


def evaluate(tick: Tick) -> dict[str, KpiResult]:
    """Every KPI of the matrix, those that are not configured included, and the hints that the spec asks for."""
    found = {
        "psi": _psi(tick.spec, tick.findings),
        "range_z": _range_z(tick),
        "auroc": _auroc(tick),
        "latency_p95_ms": _latency(tick),
        "demographic_parity": _parity(tick),
        **(_errors(tick) if tick.spec.task == "regression" else {}),
    }
    if tick.spec.kpis.estimated_auroc is not None:
        found["estimated_auroc"] = _estimated(tick, tick.spec.kpis.estimated_auroc.drop)
    if tick.spec.kpis.multivariate is not None:
        found["multivariate"] = _multivariate(tick, tick.spec.kpis.multivariate.level)
    return found


def _off(name: str, reason: str) -> KpiResult:
    return KpiResult(name, Verdict.NOT_CONFIGURED, None, None, None, None, 0, reason)


def _why_off(spec: ModelSpec) -> str:
    """Of a KPI that only classifications have."""
    return "switched off in the spec" if spec.task == "binary_classification" else f"a {spec.task} has none"


def _psi(spec: ModelSpec, findings: Sequence[FeatureFinding]) -> KpiResult:
    """BREACH: a drifting column whose PSI is above the threshold with its lower bound, in the KPI's own window."""
    if spec.kpis.psi is None:
        return _off("psi", "switched off in the spec")
    threshold = spec.kpis.psi.threshold
    if not findings:
        return KpiResult("psi", Verdict.INCONCLUSIVE, None, threshold, None, None, 0, "no window has rows yet")
    longest = max(f.window for f in findings)
    wanted = max(WEEK, spec.kpis.psi.window // WEEK * WEEK)
    newest = [f for f in findings if f.window == longest]
    worst = max(newest, key=lambda f: f.psi)

    def result(verdict: Verdict, reason: str, of: FeatureFinding) -> KpiResult:
        value, bound = (of.psi, of.psi_lower) if of.n else (None, None)
        return KpiResult("psi", verdict, value, threshold, bound, of.window, of.n, f"{of.name}: {reason}")

    breaching = [f for f in findings if f.drift and f.window == wanted and f.psi_lower > threshold]
    if breaching:
        top = max(breaching, key=lambda f: f.psi)
        return result(Verdict.BREACH, f"{top.direction}, {top.reason}", top)
    if drifting := [f for f in findings if f.drift]:
        top = max(drifting, key=lambda f: f.distance)
        return result(Verdict.WARN, f"{top.direction} over {format_duration(top.window)}, {top.reason}", top)
    empty = [f for f in findings if f.n == 0]
    untold = [f for f in newest if f.drift is None and f.psi > threshold]
    unclaimed = newest if all(f.drift is None for f in findings) else []
    if silent := empty or untold or unclaimed:
        top = max(silent, key=lambda f: f.psi)
        return result(Verdict.INCONCLUSIVE, top.reason, top)
    return result(Verdict.OK, "the largest PSI of a column", worst)


def _range_z(tick: Tick) -> KpiResult:
    """Share of rows beyond the threshold in sd against the reference's, in the shortest window with enough rows."""
    if tick.spec.kpis.range_z is None:
        return _off("range_z", "switched off in the spec")
    numeric = [name for name in tick.reference.binning.numeric if name in tick.spec.features]
    threshold = tick.spec.kpis.range_z.threshold
    if not numeric:
        return _off("range_z", "no numeric feature")
    window = _first_with_rows(tick)
    if window is None:
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, None, 0, _too_few())
    matched, profile = tick.reference.matched(window), tick.profile(window)
    current = Side.of(matched.layout, profile)
    phi = tick.reference.nulls[window.length].overdispersion(matched.layout.names)
    (m, beyond_before), (n, beyond) = ((side.rows // phi, side.beyond // phi) for side in (matched, current))
    places = [k for name in numeric if n[k := matched.layout.position[name]] and m[k]]
    if not places:
        reason = "no numeric feature has a value to compare"
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, window.length, 0, reason)
    level, breaching = range_level(window.length) / len(numeric), []
    for k in places:
        if may_breach(int(beyond[k]), int(n[k]), int(beyond_before[k]), int(m[k])):
            found = range_excess(int(beyond[k]), int(n[k]), int(beyond_before[k]), int(m[k]))
            if is_breach(found, level):
                breaching.append((found.excess, found.p_value, matched.layout.names[k]))
    if not breaching:
        return KpiResult("range_z", Verdict.OK, 0.0, threshold, None, window.length, profile.rows, "no excess")
    excess, p_value, name = max(breaching)
    reason = f"{name}: {excess:.2%} more rows than the reference beyond {threshold} sd, {told_p(p_value)}"
    return KpiResult("range_z", Verdict.BREACH, excess, threshold, None, window.length, profile.rows, reason)


def _first_with_rows(tick: Tick) -> Window | None:
    for length in tick.lengths:
        window = sliding(tick.now, length)
        if window.start >= tick.slices.armed_at and tick.profile(window).rows >= LEAST_ROWS:
            return window
    return None


def _too_few() -> str:
    return f"no window has {LEAST_ROWS} rows yet"


def _auroc(tick: Tick) -> KpiResult:
    """Fall against the held-out baseline: estimate at least `drop`, and its upper bound not above 0."""
    if tick.spec.kpis.auroc is None:
        return _off("auroc", _why_off(tick.spec))
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
        window = Window(max(end - length, min(floor(slices.armed_at, DAY), end - min(length, DAY))), end)
        yield length, window, (window, slices.labelled(), slices.revision(window))


def _worst(results: Sequence[KpiResult]) -> KpiResult:
    """The longest window's of the worst verdict; INCONCLUSIVE where none is conclusive."""
    for verdict in (Verdict.BREACH, Verdict.WARN, Verdict.OK):
        if found := [r for r in results if r.verdict == verdict]:
            return found[-1]
    return results[-1]


def _labelled_scores(slices: Slices, window: Window) -> tuple[Ints, Ints, int]:
    """Positives and negatives per score bin, and how many rows were scored."""
    if window.length < DAY and slices.by_minute:
        profile = slices.merge(window)
        return *profile.labelled_scores(), int(profile.bins(SCORE).sum())
    scored = slices.column(window, SCORE)[: slices.binning.columns[SCORE].bins].sum()
    return slices.column(window, "label:1"), slices.column(window, "label:0"), int(scored)


def _judged_auroc(tick: Tick, baseline: Auroc, drop: float, window: Window, length: timedelta) -> KpiResult:
    positives, negatives, scored = _labelled_scores(tick.slices, window)
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


def _errors(tick: Tick) -> dict[str, KpiResult]:
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


def _estimated(tick: Tick, drop: float) -> KpiResult:
    """Of the last 24 h, whose labels need not have come; graded on the newest cohort whose labels have."""
    window, slices = sliding(tick.now, DAY), tick.slices
    key = (window, slices.labelled(), slices.revision(window))

    def judged() -> KpiResult:
        return estimated(tick.reference, _scored(slices, window), window, drop, _realised(tick))

    found: KpiResult = tick.keep("estimated_auroc", key, judged)
    return found


def _scored(slices: Slices, window: Window) -> Ints:
    return slices.column(window, SCORE)[: slices.binning.columns[SCORE].bins]


def _realised(tick: Tick) -> tuple[float, float] | None:
    """Estimated and realised AUROC of the last week, else the last day, of which the labels have come."""
    for length in (WEEK, DAY):
        window = sliding(tick.now - tick.spec.outcome.delay, length)
        positives, negatives, scored = _labelled_scores(tick.slices, window)
        mature = positives.sum() + negatives.sum() >= MATURE * scored
        estimate = estimate_of(tick.reference, _scored(tick.slices, window))
        if mature and min(positives.sum(), negatives.sum()) >= LEAST_OF_A_CLASS and estimate is not None:
            return estimate, binned_auroc(positives, negatives).value
    return None


def _multivariate(tick: Tick, level: float) -> KpiResult:
    before, after = tick.samples
    key = (tuple(after), level)
    found: KpiResult = tick.keep(
        "multivariate", key, lambda: multivariate(tick.reference.binning, before, after, level)
    )
    return found


def _latency(tick: Tick) -> KpiResult:
    """More than 5 % of rows above the threshold, with the exact lower bound of that share."""
    name = "latency_p95_ms"
    if tick.spec.kpis.latency_p95_ms is None:
        return _off(name, "switched off in the spec")
    if tick.spec.columns.latency_ms is None:
        return _off(name, "the data has no latency column")
    threshold = tick.spec.kpis.latency_p95_ms.threshold
    for length in tick.lengths:
        above, rows = tick.profile(sliding(tick.now, length)).latency(threshold)
        if rows >= LEAST_ROWS:
            found = share_above(above, rows, latency_level(length))
            verdict = Verdict.BREACH if found.lower_bound > LATENCY_SHARE else Verdict.OK
            reason = f"{found.share:.1%} of rows above {threshold:g} ms, 5 % are allowed"
            return KpiResult(name, verdict, found.share, LATENCY_SHARE, found.lower_bound, length, rows, reason)
    return KpiResult(name, Verdict.INCONCLUSIVE, None, LATENCY_SHARE, None, None, 0, _too_few())


def _parity(tick: Tick) -> KpiResult:
    """Fall of demographic parity of the worst protected column, over the last 28 days, in blocks of a day."""
    name = "demographic_parity"
    if tick.spec.kpis.demographic_parity is None:
        return _off(name, _why_off(tick.spec))
    if not tick.spec.protected:
        return _off(name, "no protected column in the spec")
    window = sliding(tick.now, 4 * WEEK)
    found: KpiResult = tick.keep(name, (window, tick.slices.revision(window)), lambda: _parity_in(tick, window))
    return found


def _parity_in(tick: Tick, window: Window) -> KpiResult:
    days, order = tick.slices.by_day(window), (Verdict.BREACH, Verdict.INCONCLUSIVE, Verdict.OK)
    kpi = tick.spec.kpis.demographic_parity
    results = [_parity_of(column, tick.reference, days, kpi.drop) for column in tick.spec.protected] if kpi else []
    return min(results, key=lambda r: (order.index(r.verdict), r.value or 0.0))


def _parity_of(column: str, reference: Reference, days: Sequence[Profile], drop: float) -> KpiResult:
    pairs = [day.group_decisions(column) for day in days]
    positives, totals = np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])
    rows = int(totals.sum()) if pairs else 0

    def result(verdict: Verdict, reason: str, value: float | None = None, bound: float | None = None) -> KpiResult:
        return KpiResult(
            "demographic_parity", verdict, value, -drop, bound, len(days) * DAY, rows, f"{column}: {reason}"
        )

    if len(pairs) < 7:
        return result(Verdict.INCONCLUSIVE, f"{len(pairs)} days since the model was armed, 7 are needed")
    found = parity_change(*reference.group_days[column], positives, totals)
    if found is None:
        return result(Verdict.INCONCLUSIVE, "fewer than two groups have 100 rows and 10 of either decision")
    words = f"gap {found.dpd_reference:.3f} -> {found.dpd_current:.3f}"
    verdict = Verdict.BREACH if found.upper_bound <= -drop else Verdict.OK
    return result(verdict, words, found.delta, found.upper_bound)
