"""The KPI matrix: one function a KPI, from profiles to a verdict."""

from collections.abc import Sequence

import numpy as np

from drift_pipeline.clock import DAY, HOUR, WEEK, Window, format_duration
from drift_pipeline.detection.counting.binning import SCORE, Ints
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.counting.windows import nominal, sliding
from drift_pipeline.detection.judging.cohorts import first_whole
from drift_pipeline.detection.judging.column_statistics import ColumnStatistics
from drift_pipeline.detection.judging.fairness import parity
from drift_pipeline.detection.judging.hints import estimate_of, estimated, multivariate
from drift_pipeline.detection.judging.labelled import LEAST_OF_A_CLASS, MATURE, auroc, errors, labelled_scores
from drift_pipeline.detection.judging.tick import Tick, off
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict, told_p
from drift_pipeline.detection.judging.waiting import waiting
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.latency import share_above
from drift_pipeline.detection.statistics.psi import psi_lower_bound_rows
from drift_pipeline.detection.statistics.range_z import is_breach, may_breach, range_excess
from drift_pipeline.detection.thresholds import (
    FAR_BEYOND,
    LEAST_DISTANCE,
    LEAST_ROWS,
    latency_level,
    range_level,
    times_over,
)

_NAMED = 5  # columns
LATENCY_SHARE = 0.05  # p95 is above the threshold when more than 5 % of rows are


def evaluate(tick: Tick) -> dict[str, KpiResult]:
    """The matrix, and of what is not judged when it can be."""
    return waiting(tick, matrix(tick))


def matrix(tick: Tick) -> dict[str, KpiResult]:
    """Every KPI of the matrix, those that are not configured included, and the hints that the spec asks for."""
    found = {
        "psi": tick.of_few_rows(_psi(tick)),
        "range_z": tick.of_few_rows(_range_z(tick)),
        "auroc": auroc(tick),
        "latency_p95_ms": tick.of_few_rows(_latency(tick)),
        "demographic_parity": tick.of_few_rows(parity(tick)),
        **(errors(tick) if tick.spec.task == "regression" else {}),
    }
    if tick.spec.kpis.estimated_auroc is not None:
        found["estimated_auroc"] = _estimated(tick, tick.spec.kpis.estimated_auroc.drop)
    if tick.spec.kpis.multivariate is not None:
        found["multivariate"] = _multivariate(tick, tick.spec.kpis.multivariate.level)
    return found


def _psi(tick: Tick) -> KpiResult:
    """BREACH: a drifting column whose PSI is above the threshold with its lower bound, in the KPI's own window."""
    kpi, findings = tick.spec.kpis.psi, tick.findings
    if kpi is None:
        return off("psi", "switched off in the spec")
    if not findings:
        return KpiResult("psi", Verdict.INCONCLUSIVE, None, kpi.threshold, None, None, 0, "no window has rows yet")
    breaching = [f for f in findings if f.drift and f.window == tick.psi_window and f.psi_lower > kpi.threshold]
    if breaching:
        top = max(breaching, key=lambda f: f.psi)
        return _psi_of(top, Verdict.BREACH, f"{top.direction}, {top.reason}", kpi.threshold)
    if drifting := [f for f in findings if f.drift]:
        top = max(drifting, key=lambda f: f.distance)
        reason = f"{top.direction} over {format_duration(top.window)}, {top.reason}"
        return _psi_of(top, Verdict.WARN, reason, kpi.threshold)
    return _psi_far_beyond(tick, kpi.threshold) or _psi_without_drift(findings, kpi.threshold)


def _psi_of(finding: FeatureFinding, verdict: Verdict, reason: str, threshold: float) -> KpiResult:
    value, bound = (finding.psi, finding.psi_lower) if finding.n else (None, None)
    told = f"{finding.name}: {reason}"
    return KpiResult("psi", verdict, value, threshold, bound, finding.window, finding.n, told)


def _psi_without_drift(findings: Sequence[FeatureFinding], threshold: float) -> KpiResult:
    """OK is of the columns that some window makes a claim about; the others are named."""
    longest = max(f.window for f in findings)
    newest = [f for f in findings if f.window == longest]
    empty = [f for f in findings if f.n == 0 and f.drift is None]
    untold = [f for f in newest if f.drift is None and f.psi_lower > threshold]
    unclaimed = newest if all(f.drift is None or f.n == 0 for f in findings) else []
    if silent := empty or untold or unclaimed:
        top = max(silent, key=lambda f: f.psi)
        return _psi_of(top, Verdict.INCONCLUSIVE, top.reason, threshold)
    judged = {f.name for f in findings if f.drift is not None}
    mute = list(dict.fromkeys(f.name for f in findings if f.name not in judged))
    worst = max([f for f in newest if f.name in judged] or newest, key=lambda f: (f.n > 0, f.psi))
    why = f": {worst.reason}" if worst.psi > threshold and worst.reason else ""
    more = f" and {len(mute) - _NAMED} more" if len(mute) > _NAMED else ""
    beside = f"; not judged: {', '.join(mute[:_NAMED])}{more}" if mute else ""
    return _psi_of(worst, Verdict.OK, f"the largest PSI of a column{why}{beside}", threshold)


def _psi_far_beyond(tick: Tick, threshold: float) -> KpiResult | None:
    """WARN: a bound many times over the threshold where no healthy window tells how much is healthy."""
    far = [(bound, f) for f in tick.findings if (bound := _far_beyond(tick, f, threshold)) is not None]
    if not far:
        return None
    bound, top = max(far, key=lambda pair: pair[0])
    told = (
        f"{top.direction} over {format_duration(top.window)}, PSI at least {times_over(bound, threshold)} the threshold"
    )
    return _psi_of(top, Verdict.WARN, f"{told}, but {top.reason}", threshold)


def _far_beyond(tick: Tick, finding: FeatureFinding, threshold: float) -> float | None:
    """The lower bound of a PSI many times over the threshold where no healthy window tells how much is healthy.

    Its rows count for what those of healthy windows of other lengths did, so that days that differ by themselves are
    not taken for drift.
    """
    limit = FAR_BEYOND * threshold
    if finding.drift is not None or finding.n < LEAST_ROWS or finding.distance_lower <= LEAST_DISTANCE:
        return None
    if finding.psi_lower < limit:
        return None
    window = tick.window(finding.window)
    before = tick.reference.matched(window)
    after, k = ColumnCounts.of(before.layout, tick.profile(window)), before.layout.position[finding.name]
    if before.rows[k] < LEAST_ROWS:
        return None
    phi = max(1.0, finding.n / _worth(tick.reference, finding))
    nulls, fresh = tick.reference.nulls[finding.window], tick.reference.expected_later(window)
    sides = ColumnStatistics(before, after, finding.window, nulls, nulls, rate=0.0, fresh=fresh).shown
    bound = float(psi_lower_bound_rows(sides[0][[k]], sides[1][[k]], np.array([phi]))[0])
    return bound if bound >= limit else None


def _worth(reference: Reference, finding: FeatureFinding) -> float:
    """Effective rows of a window of which no healthy one is known, from those of other lengths.

    A longer window knows no less than a shorter one, and a shorter one no more than a longer: what days do to a week,
    they do to each hour of it.
    """
    rows_an_hour = reference.rows / (reference.span.length / HOUR)
    known = {length: null.phi[finding.name] for length, null in reference.nulls.items()}
    worth = {
        length: rows_an_hour * (length / HOUR) / max(phi, 1.0) for length, phi in known.items() if not np.isnan(phi)
    }
    shorter = [rows for length, rows in worth.items() if length <= finding.window]
    return max(shorter) if shorter else min(worth.values(), default=np.inf)


def _range_z(tick: Tick) -> KpiResult:
    """Share of rows beyond the threshold in sd against the reference's, in the shortest window with enough rows."""
    if tick.spec.kpis.range_z is None:
        return off("range_z", "switched off in the spec")
    numeric = [name for name in tick.reference.binning.numeric if name in tick.spec.features]
    threshold = tick.spec.kpis.range_z.threshold
    if not numeric:
        return off("range_z", "no numeric feature")
    window = _first_with_rows(tick)
    if window is None:
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, None, 0, _too_few())
    profile = tick.profile(window)
    matched = tick.reference.matched(window, tick.cycle(window, profile.rows).lost)
    current = ColumnCounts.of(matched.layout, profile)
    phi = tick.reference.nulls[nominal(window)].overdispersion(matched.layout.names)
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
        window = tick.window(length)
        if window.start >= tick.slices.baseline_at and tick.profile(window).rows >= LEAST_ROWS:
            return window
    return None


def _too_few() -> str:
    return f"no window has {LEAST_ROWS} rows yet"


def _estimated(tick: Tick, drop: float) -> KpiResult:
    """Of the last 24 h, whose labels need not have come; graded on the newest cohort whose labels have.

    Of a model with few rows, of the window that holds its last 200.
    """
    window, slices = tick.window(next(iter(tick.reference.sparse), DAY)), tick.slices
    key = (window, slices.labelled.total(), slices.revision(window))

    def judged() -> KpiResult:
        scored = _scored(slices, window)
        if waits := _waits(tick, window, n := int(scored.sum())):
            return KpiResult("estimated_auroc", Verdict.INCONCLUSIVE, None, -drop, None, nominal(window), n, waits)
        return estimated(tick.reference, scored, window, drop, _realised(tick))

    found: KpiResult = tick.keep("estimated_auroc", key, judged)
    return found


def _waits(tick: Tick, window: Window, rows: int) -> str:
    """Why a window does not hold its cycle, or nothing."""
    if window.start < tick.slices.baseline_at:
        return first_whole(tick, nominal(window))
    return "" if tick.cycle(window, rows).whole else "hours or days without a row took part of the window's cycle"


def _scored(slices: Slices, window: Window) -> Ints:
    return slices.column(window, SCORE)[: slices.binning.columns[SCORE].bins]


def _realised(tick: Tick) -> tuple[float, float] | None:
    """Estimated and realised AUROC of the last week, else the last day, of which the labels have come."""
    for length in tick.reference.sparse[::-1] or (WEEK, DAY):
        window = sliding(tick.now - tick.spec.outcome.delay, length, tick.slices.zone)
        positives, negatives, scored = labelled_scores(tick.slices, window)
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
        return off(name, "switched off in the spec")
    if tick.spec.columns.latency_ms is None:
        return off(name, "the data has no latency column")
    threshold = tick.spec.kpis.latency_p95_ms.threshold
    for length in tick.lengths:
        above, rows = tick.profile(tick.window(length)).latency(threshold)
        if rows >= LEAST_ROWS:
            found = share_above(above, rows, latency_level(length))
            verdict = Verdict.BREACH if found.lower_bound > LATENCY_SHARE else Verdict.OK
            reason = f"{found.share:.1%} of rows above {threshold:g} ms, 5 % are allowed"
            return KpiResult(name, verdict, found.share, LATENCY_SHARE, found.lower_bound, length, rows, reason)
    return _slow_in_doubt(tick, threshold)


def _slow_in_doubt(tick: Tick, threshold: float) -> KpiResult:
    """Of fewer rows than are judged: the bound is exact for any number, but a few slow rows may be one bad moment."""
    name, length = "latency_p95_ms", tick.lengths[-1]
    above, rows = tick.profile(sliding(tick.now, length)).latency(threshold)
    found = share_above(above, rows, latency_level(length)) if rows else None
    if found is None or found.lower_bound < FAR_BEYOND * LATENCY_SHARE:
        return KpiResult(name, Verdict.INCONCLUSIVE, None, LATENCY_SHARE, None, None, 0, _too_few())
    reason = f"{found.share:.1%} of only {rows} rows above {threshold:g} ms, 5 % are allowed; at least "
    reason += f"{found.lower_bound:.0%}, {times_over(found.lower_bound, LATENCY_SHARE)} that"
    return KpiResult(name, Verdict.WARN, found.share, LATENCY_SHARE, found.lower_bound, length, rows, reason)
