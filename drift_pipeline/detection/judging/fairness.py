"""Demographic parity of the protected columns, against the reference's."""

from collections.abc import Sequence

import numpy as np

from drift_pipeline.clock import DAY, WEEK, Window
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.windows import sliding
from drift_pipeline.detection.judging.tick import Tick, off, why_off
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.statistics.parity import parity_change


def parity(tick: Tick) -> KpiResult:
    """Fall of demographic parity of the worst protected column, over the last 28 days, in blocks of a day."""
    name = "demographic_parity"
    if tick.spec.kpis.demographic_parity is None:
        return off(name, why_off(tick.spec))
    if not tick.spec.protected:
        return off(name, "no protected column in the spec")
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
        return result(Verdict.INCONCLUSIVE, f"{len(pairs)} days since the baseline, 7 are needed")
    found = parity_change(*reference.group_days[column], positives, totals)
    if found is None:
        return result(Verdict.INCONCLUSIVE, "fewer than two groups have 100 rows and 10 of either decision")
    words = f"gap {found.dpd_reference:.3f} -> {found.dpd_current:.3f}"
    verdict = Verdict.BREACH if found.upper_bound <= -drop else Verdict.OK
    return result(verdict, words, found.delta, found.upper_bound)
