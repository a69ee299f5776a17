"""Demographic parity of the protected columns, against the reference's: of a monitored window and of two tables."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import numpy as np

from drift_pipeline.clock import DAY, WEEK
from drift_pipeline.detection.counting.binning import CategoricalBins, Ints
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.judging.tick import Tick, off, why_off
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.statistics.parity import (
    TOO_FEW_GROUPS,
    ParityChange,
    left_out,
    one_sided,
    parity_change,
)
from drift_pipeline.detection.thresholds import FAR_BEYOND, times_over

NAME = "demographic_parity"
LEAST_DAYS = 7
_WORST_FIRST = (Verdict.BREACH, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.OK)


def parity(tick: Tick) -> KpiResult:
    """Fall of demographic parity of the worst protected column, over the last 28 days, in blocks of a day.

    Of a model with few rows over as many as its longest window, in blocks of more days.
    """
    kpi = tick.spec.kpis.demographic_parity
    if kpi is None:
        return off(NAME, why_off(tick.spec))
    if not tick.spec.protected:
        return off(NAME, "no protected column in the spec")
    sparse, each, drop = tick.reference.sparse, tick.block_days, kpi.drop
    window = tick.whole_days(tick.window(sparse[-1] if sparse else 4 * WEEK))

    def judged() -> KpiResult:
        blocks = tick.slices.by_day(window, each)
        return worst(parity_by_day(column, tick.reference, blocks, drop, each) for column in tick.spec.protected)

    found: KpiResult = tick.keep(NAME, (window, tick.slices.revision(window)), judged)
    return found


def worst(results: Iterable[KpiResult]) -> KpiResult:
    """Of the protected columns, the one that is told."""
    return min(results, key=lambda result: (_WORST_FIRST.index(result.verdict), result.value or 0.0))


def parity_by_day(
    column: str, reference: Reference, blocks: Sequence[Profile], drop: float, each: int = 1
) -> KpiResult:
    """What blocks of `each` days say; below seven of them how much they vary is not known, and only what lies far
    beyond the threshold is told."""
    length = min(len(blocks) * each * DAY, max(reference.sparse, default=4 * WEEK))
    found = parity_of(column, reference, blocks, drop, length)
    if len(blocks) >= LEAST_DAYS:
        return found
    waits = f"{length.days} days since the baseline, {LEAST_DAYS * each} are needed"
    far = len(blocks) > 1 and found.bound is not None and found.bound <= -FAR_BEYOND * drop
    if not far or found.bound is None:
        return KpiResult(NAME, Verdict.INCONCLUSIVE, None, -drop, None, length, found.n, f"{column}: {waits}")
    doubt = f"{found.reason}; {waits}, but the bound is {times_over(found.bound, drop)} the threshold"
    return KpiResult(NAME, Verdict.WARN, found.value, -drop, found.bound, found.window, found.n, doubt)


def parity_of(
    column: str, reference: Reference, blocks: Sequence[Profile], drop: float, length: timedelta | None
) -> KpiResult:
    """Of one protected column in consecutive blocks of time, one of which is taken for independent rows.

    Rows without a value of the column are of no group, and those of levels that the reference does not know are of
    several: both are counted and told.
    """
    bins = reference.binning.columns[column]
    assert isinstance(bins, CategoricalBins)
    names = [*bins.levels, f"the {len(bins.rare)} rarer levels pooled"]
    pairs = [block.group_decisions(column) for block in blocks]
    shape = (len(pairs), bins.size)
    positives, totals = (np.array([pair[side] for pair in pairs], np.int64).reshape(shape) for side in (0, 1))
    known = slice(len(names))
    yes, rows = (side[:, known] for side in reference.group_days[column])
    found = parity_change(yes, rows, positives[:, known], totals[:, known]) if pairs else None
    verdict, words = _judged(found, drop)
    aside = _aside(names, rows.sum(axis=0), positives.sum(axis=0), totals.sum(axis=0))
    value, bound = (found.delta, found.upper_bound) if found else (None, None)
    reason = "; ".join([f"{column}: {words}", *aside])
    return KpiResult(NAME, verdict, value, -drop, bound, length, int(totals.sum()), reason)


def _judged(found: ParityChange | None, drop: float) -> tuple[Verdict, str]:
    if found is None:
        return Verdict.INCONCLUSIVE, TOO_FEW_GROUPS
    verdict = Verdict.BREACH if found.upper_bound <= -drop else Verdict.OK
    return verdict, f"gap {found.dpd_reference:.3f} -> {found.dpd_current:.3f}"


def _aside(names: Sequence[str], before: Ints, positives: Ints, totals: Ints) -> list[str]:
    """What a person should know beside the gap: of all counters (G,) of the window, unseen and missing ones last."""
    known = len(names)
    strange, nobody = totals[known:].tolist()
    told = [
        one_sided(names, positives[:known], totals[:known]),
        left_out(names, totals[:known], before),
        f"{strange:,} rows of groups that the reference does not know" * bool(strange),
        f"{nobody:,} rows without a group" * bool(nobody),
    ]
    return [words for words in told if words]
