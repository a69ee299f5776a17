"""The KPI matrix: one function a KPI, from profiles to a verdict."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from drift_pipeline.clock import DAY, WEEK, Window, format_duration
from drift_pipeline.detection.profile import Profile
from drift_pipeline.detection.reference import LEAST_ROWS, Reference
from drift_pipeline.detection.residuals import mae_kpi, residuals_kpi
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.detection.statistics.latency import share_above
from drift_pipeline.detection.statistics.parity import parity_change
from drift_pipeline.detection.statistics.range_z import is_breach, range_excess
from drift_pipeline.detection.thresholds import IID_BELOW, RANGE_LEVEL, auroc_z
from drift_pipeline.detection.verdict import FeatureFinding, KpiResult, Verdict
from drift_pipeline.detection.windows import Slices, floor, sliding
from drift_pipeline.spec import ModelSpec

LEAST_OF_A_CLASS = 50
MATURE = 0.95
LATENCY_SHARE = 0.05  # p95 is above the threshold when more than 5 % of rows are


def evaluate(
    reference: Reference,
    slices: Slices,
    spec: ModelSpec,
    now: datetime,
    lengths: Sequence[timedelta],
    findings: Sequence[FeatureFinding],
) -> dict[str, KpiResult]:
    """Every KPI of the matrix, those that are not configured included."""
    return {
        "psi": _psi(spec, findings),
        "range_z": _range_z(reference, slices, spec, now, lengths),
        "auroc": _auroc(reference, slices, spec, now, lengths),
        "latency_p95_ms": _latency(slices, spec, now, lengths),
        "demographic_parity": _parity(reference, slices, spec, now),
        **(_errors(reference, slices, spec, now, lengths) if spec.task == "regression" else {}),
    }


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


def _range_z(
    reference: Reference, slices: Slices, spec: ModelSpec, now: datetime, lengths: Sequence[timedelta]
) -> KpiResult:
    """Share of rows beyond the threshold in sd against the reference's, in the shortest window with enough rows."""
    if spec.kpis.range_z is None:
        return _off("range_z", "switched off in the spec")
    numeric = [name for name in reference.binning.numeric if name in spec.features]
    threshold = spec.kpis.range_z.threshold
    if not numeric:
        return _off("range_z", "no numeric feature")
    window = _first_with_rows(slices, now, lengths)
    if window is None:
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, None, 0, _too_few())
    current, matched = slices.merge(window), reference.matched(window)
    worst: tuple[float, float, str] | None = None
    compared = 0
    for name in numeric:
        phi = reference.nulls[window.length].phi[name]
        phi = phi if phi >= IID_BELOW else 1.0  # NaN, too few healthy windows, leaves the rows as they are
        n, m = int(current.bins(name).sum() / phi), int(matched.bins(name).sum() / phi)
        if n == 0 or m == 0:
            continue
        compared += 1
        found = range_excess(int(current.beyond(name) / phi), n, int(matched.beyond(name) / phi), m)
        if is_breach(found, RANGE_LEVEL / len(numeric)) and (worst is None or found.excess > worst[0]):
            worst = found.excess, found.p_value, name
    if not compared:
        reason = "no numeric feature has a value to compare"
        return KpiResult("range_z", Verdict.INCONCLUSIVE, None, threshold, None, window.length, 0, reason)
    if worst is None:
        return KpiResult("range_z", Verdict.OK, 0.0, threshold, None, window.length, current.rows, "no excess")
    reason = f"{worst[2]}: {worst[0]:.2%} more rows than the reference beyond {threshold} sd, p = {worst[1]:.1e}"
    return KpiResult("range_z", Verdict.BREACH, worst[0], threshold, None, window.length, current.rows, reason)


def _first_with_rows(slices: Slices, now: datetime, lengths: Sequence[timedelta]) -> Window | None:
    for length in lengths:
        window = sliding(now, length)
        if window.start >= slices.armed_at and slices.merge(window).rows >= LEAST_ROWS:
            return window
    return None


def _too_few() -> str:
    return f"no window has {LEAST_ROWS} rows yet"


def _auroc(
    reference: Reference, slices: Slices, spec: ModelSpec, now: datetime, lengths: Sequence[timedelta]
) -> KpiResult:
    """Fall against the held-out baseline: estimate at least `drop`, and its upper bound not above 0."""
    if spec.kpis.auroc is None:
        return _off("auroc", _why_off(spec))
    drop = spec.kpis.auroc.drop
    if reference.auroc is None or min(reference.auroc.positives, reference.auroc.negatives) < 2:
        reason = "the baseline has one class only, or one row of a class"
        return KpiResult("auroc", Verdict.INCONCLUSIVE, None, -drop, None, None, 0, reason)
    results = [
        _auroc_in(reference, reference.auroc, slices, spec, drop, length, now) for length in lengths if length >= DAY
    ]
    return _worst(results)


def _auroc_in(
    reference: Reference,
    baseline: Auroc,
    slices: Slices,
    spec: ModelSpec,
    drop: float,
    length: timedelta,
    now: datetime,
) -> KpiResult:
    end = floor(now - spec.outcome.delay, DAY)
    window = Window(max(end - length, min(floor(slices.armed_at, DAY), end)), end)
    profile = slices.merge(window)
    positives, negatives = profile.labelled_scores()
    labelled = int(positives.sum() + negatives.sum())
    scored = int(profile.bins("_score").sum())

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
    now_auroc = binned_auroc(positives, negatives, atom=reference.binning.score_atom)
    delta = now_auroc.value - baseline.value
    error = reference.auroc_phi**0.5 * float(np.hypot(now_auroc.standard_error, baseline.standard_error))
    upper = delta + auroc_z(length) * error + now_auroc.slack + baseline.slack
    words = f"AUROC {now_auroc.value:.3f} against {baseline.value:.3f} held out"
    if delta <= -drop and upper > 0 and length <= DAY:  # a day's noise; the longer windows tell
        return result(Verdict.INCONCLUSIVE, f"{words}, within the noise of {labelled} labels", delta, upper)
    if delta <= -drop:
        return result(Verdict.BREACH if upper <= 0 else Verdict.WARN, words, delta, upper)
    return result(Verdict.OK, words, delta, upper)


def _errors(
    reference: Reference, slices: Slices, spec: ModelSpec, now: datetime, lengths: Sequence[timedelta]
) -> dict[str, KpiResult]:
    """A regression's KPIs in the windows that AUROC has, each by the longest window of its worst verdict."""
    found: dict[str, list[KpiResult]] = {"mae": [], "residuals": []}
    for length in (length for length in lengths if length >= DAY):
        end = floor(now - spec.outcome.delay, DAY)
        profile = slices.merge(Window(max(end - length, min(floor(slices.armed_at, DAY), end)), end))
        scored = int(profile.bins("_score").sum())
        for name, kpi in (("mae", mae_kpi), ("residuals", residuals_kpi)):
            found[name].append(kpi(reference.binning, reference.errors, profile.counts, scored, spec, length))
    return {name: _worst(results) for name, results in found.items()}


def _worst(results: Sequence[KpiResult]) -> KpiResult:
    """The longest window's of the worst verdict; INCONCLUSIVE where none is conclusive."""
    for verdict in (Verdict.BREACH, Verdict.WARN, Verdict.OK):
        if found := [r for r in results if r.verdict == verdict]:
            return found[-1]
    return results[-1]


def _latency(slices: Slices, spec: ModelSpec, now: datetime, lengths: Sequence[timedelta]) -> KpiResult:
    """More than 5 % of rows above the threshold, with the exact lower bound of that share."""
    name = "latency_p95_ms"
    if spec.kpis.latency_p95_ms is None:
        return _off(name, "switched off in the spec")
    if spec.columns.latency_ms is None:
        return _off(name, "the data has no latency column")
    threshold = spec.kpis.latency_p95_ms.threshold
    for length in lengths:
        above, rows = slices.merge(sliding(now, length)).latency(threshold)
        if rows >= LEAST_ROWS:
            found = share_above(above, rows)
            verdict = Verdict.BREACH if found.lower_bound > LATENCY_SHARE else Verdict.OK
            reason = f"{found.share:.1%} of rows above {threshold:g} ms, 5 % are allowed"
            return KpiResult(name, verdict, found.share, LATENCY_SHARE, found.lower_bound, length, rows, reason)
    return KpiResult(name, Verdict.INCONCLUSIVE, None, LATENCY_SHARE, None, None, 0, _too_few())


def _parity(reference: Reference, slices: Slices, spec: ModelSpec, now: datetime) -> KpiResult:
    """Fall of demographic parity of the worst protected column, over the last 28 days, in blocks of a day."""
    name = "demographic_parity"
    if spec.kpis.demographic_parity is None:
        return _off(name, _why_off(spec))
    if not spec.protected:
        return _off(name, "no protected column in the spec")
    drop = spec.kpis.demographic_parity.drop
    window = sliding(now, 4 * WEEK)
    days = slices.by_day(window)
    results = [_parity_of(column, reference, days, drop) for column in spec.protected]
    order = (Verdict.BREACH, Verdict.INCONCLUSIVE, Verdict.OK)
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
