"""The KPI matrix: one function a KPI, from profiles to a verdict."""

from collections.abc import Sequence

from drift_pipeline.clock import DAY, WEEK, Window, format_duration
from drift_pipeline.detection.counting.binning import SCORE, Ints
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.windows import Slices, sliding
from drift_pipeline.detection.judging.fairness import parity
from drift_pipeline.detection.judging.hints import estimate_of, estimated, multivariate
from drift_pipeline.detection.judging.labelled import LEAST_OF_A_CLASS, MATURE, auroc, errors, labelled_scores
from drift_pipeline.detection.judging.tick import Tick, off
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict, told_p
from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.latency import share_above
from drift_pipeline.detection.statistics.range_z import is_breach, may_breach, range_excess
from drift_pipeline.detection.thresholds import LEAST_ROWS, latency_level, range_level
from drift_pipeline.spec import ModelSpec

LATENCY_SHARE = 0.05  # p95 is above the threshold when more than 5 % of rows are


def evaluate(tick: Tick) -> dict[str, KpiResult]:
    """Every KPI of the matrix, those that are not configured included, and the hints that the spec asks for."""
    found = {
        "psi": _psi(tick.spec, tick.findings),
        "range_z": _range_z(tick),
        "auroc": auroc(tick),
        "latency_p95_ms": _latency(tick),
        "demographic_parity": parity(tick),
        **(errors(tick) if tick.spec.task == "regression" else {}),
    }
    if tick.spec.kpis.estimated_auroc is not None:
        found["estimated_auroc"] = _estimated(tick, tick.spec.kpis.estimated_auroc.drop)
    if tick.spec.kpis.multivariate is not None:
        found["multivariate"] = _multivariate(tick, tick.spec.kpis.multivariate.level)
    return found


def _psi(spec: ModelSpec, findings: Sequence[FeatureFinding]) -> KpiResult:
    """BREACH: a drifting column whose PSI is above the threshold with its lower bound, in the KPI's own window."""
    if spec.kpis.psi is None:
        return off("psi", "switched off in the spec")
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
        return off("range_z", "switched off in the spec")
    numeric = [name for name in tick.reference.binning.numeric if name in tick.spec.features]
    threshold = tick.spec.kpis.range_z.threshold
    if not numeric:
        return off("range_z", "no numeric feature")
    window = _first_with_rows(tick)
    if window is None:
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, None, 0, _too_few())
    matched, profile = tick.reference.matched(window), tick.profile(window)
    current = ColumnCounts.of(matched.layout, profile)
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
        if window.start >= tick.slices.baseline_at and tick.profile(window).rows >= LEAST_ROWS:
            return window
    return None


def _too_few() -> str:
    return f"no window has {LEAST_ROWS} rows yet"


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
        above, rows = tick.profile(sliding(tick.now, length)).latency(threshold)
        if rows >= LEAST_ROWS:
            found = share_above(above, rows, latency_level(length))
            verdict = Verdict.BREACH if found.lower_bound > LATENCY_SHARE else Verdict.OK
            reason = f"{found.share:.1%} of rows above {threshold:g} ms, 5 % are allowed"
            return KpiResult(name, verdict, found.share, LATENCY_SHARE, found.lower_bound, length, rows, reason)
    return KpiResult(name, Verdict.INCONCLUSIVE, None, LATENCY_SHARE, None, None, 0, _too_few())
