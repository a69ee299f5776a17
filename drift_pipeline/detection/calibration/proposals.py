"""Thresholds that a model's own healthy history would not cross too often, with the evidence and what they cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, MINUTE, format_duration
from drift_pipeline.detection.calibration.alarms import MONTH, Evidence, Progress, Told, budget, measure
from drift_pipeline.detection.calibration.healthy import Healthy
from drift_pipeline.detection.calibration.visible import shift_of_psi
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.monitor import window_lengths
from drift_pipeline.detection.judging.waiting import prospects
from drift_pipeline.detection.statistics.parity import parity_change
from drift_pipeline.detection.thresholds import LEAST_ROWS, LEAST_WINDOWS
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec, RangeZ
from drift_pipeline.telemetry.history import History

_SHORT = f"the history is too short to tell: fewer than {LEAST_WINDOWS} windows with {LEAST_ROWS} rows"


@dataclass(frozen=True)
class Proposal:
    """A key of the spec: what it is, what the healthy history lets it be, why, and what that costs in detection."""

    key: str
    current: float
    proposed: float
    reason: str
    cost: str

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "current": self.current, "proposed": self.proposed} | {
            "reason": self.reason,
            "cost": self.cost,
        }


def round_up(value: float) -> float:
    """The smallest round number above a value: 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten.

    >>> round_up(0.231), round_up(170), round_up(0.0201)
    (0.25, 200.0, 0.025)
    """
    power = 10.0 ** np.floor(np.log10(value))
    rounds = (float(f"{m * power:.6g}") for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15))
    return next(found for found in rounds if found > value)


@dataclass(frozen=True)
class Calibration:
    rows: int
    days: float
    step: timedelta
    evidence: tuple[Evidence, ...]
    proposals: tuple[Proposal, ...]
    untold: dict[str, str]
    parity: Told
    prospects: tuple[str, ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether any window length could be judged often enough."""
        return any(one.before[1] >= LEAST_WINDOWS for one in self.evidence)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "days": self.days,
            "step": format_duration(self.step),
            "judged": list(self.prospects),
            "windows": [one.to_json() for one in self.evidence],
            "demographic_parity": self.parity.to_json(),
            "proposals": [one.to_json() for one in self.proposals],
            "untold": self.untold,
        }


def calibrate(
    history: History,
    spec: ModelSpec,
    reference: timedelta | None,
    step: timedelta,
    progress: Progress = lambda *_: None,
) -> Calibration:
    """Measure a healthy history and propose thresholds.

    Args:
        reference: the span from the first day on that counts as healthy; None: all of it.
        step: time between two ticks of the live monitor.

    Raises:
        InputError: the span is not above 0 or holds no row, or the step is not a whole number of minutes above 0.
    """
    frame = _healthy_rows(history.frame, reference)
    if step < MINUTE or step % MINUTE:
        raise InputError(f"--step {format_duration(step)}: windows slide by whole minutes; give 1m or a multiple of it")
    progress(0, 1, "freezing the reference")
    healthy = Healthy(frame, spec, window_lengths(spec, step))
    evidence = tuple(measure(healthy, length, step, progress) for length in healthy.lengths)
    parity = _parity(healthy)
    proposals: list[Proposal] = []
    untold: dict[str, str] = {}
    for key, found in _proposals(healthy, evidence, parity):
        if isinstance(found, Proposal):
            proposals.append(found)
        else:
            untold[key] = found
    span = healthy.reference.span.length
    told = prospects(healthy.reference, spec, healthy.lengths)
    scored = healthy.reference.baseline is not None  # else nothing is known of a model whose scores may come
    return Calibration(
        frame.height,
        span / DAY,
        step,
        evidence,
        tuple(proposals),
        untold,
        parity,
        tuple(told if scored else told[:1]),
    )


def _healthy_rows(frame: pl.DataFrame, reference: timedelta | None) -> pl.DataFrame:
    if reference is None:
        return frame
    start = floor(frame["_time"][0], DAY)
    if reference <= timedelta():
        raise InputError("--reference is longer than nothing: such as 90d")
    if frame["_time"][-1] < start + reference:
        raise InputError(f"the history ends at {frame['_time'][-1]:%Y-%m-%d %H:%M}, before --reference does")
    return frame.filter(pl.col("_time") < start + reference)


def _proposals(healthy: Healthy, evidence: Sequence[Evidence], parity: Told) -> Iterator[tuple[str, Proposal | str]]:
    kpis = healthy.spec.kpis
    if kpis.psi:
        yield "kpis.psi.threshold", _psi(kpis.psi.threshold, evidence)
    if kpis.range_z:
        yield "kpis.range_z.threshold", _range(kpis.range_z.threshold, healthy, evidence)
    if kpis.auroc:
        yield "kpis.auroc.drop", _performance("kpis.auroc.drop", kpis.auroc.drop, evidence)
    if kpis.mae:
        yield "kpis.mae.rise", _performance("kpis.mae.rise", kpis.mae.rise, evidence)
    if kpis.residuals:
        yield "kpis.residuals.threshold", _residuals(kpis.residuals.threshold, evidence)
    if kpis.latency_p95_ms and healthy.spec.columns.latency_ms:
        yield "kpis.latency_p95_ms.threshold", _latency(kpis.latency_p95_ms.threshold, healthy, evidence)
    if kpis.demographic_parity and healthy.spec.protected:
        yield "kpis.demographic_parity.drop", _parity_drop(kpis.demographic_parity.drop, parity)


def _longest(evidence: Sequence[Evidence], name: str) -> tuple[Evidence, Told] | None:
    """The longest windows that told the KPI at least 5 times."""
    told = [(one, one.kpis[name]) for one in evidence if name in one.kpis]
    return next((pair for pair in reversed(told) if len(pair[1].values) >= LEAST_WINDOWS), None)


def _shortest(evidence: Sequence[Evidence], name: str) -> tuple[Evidence, Told] | None:
    return _longest(tuple(reversed(evidence)), name)


def too_often(one: Evidence, breaches: int, windows: int) -> bool:
    """Whether breaches in so many healthy windows are more than the budget of their length."""
    return breaches > budget(one.length) * windows * (one.length / MONTH)


def _psi(threshold: float, evidence: Sequence[Evidence]) -> Proposal | str:
    found = _longest(evidence, "psi")
    if found is None:
        return _SHORT
    one, told = found
    highest = max(told.values)
    above = sum(value > threshold for value in told.values)
    proposed = round_up(highest) if too_often(one, above, len(told.values)) else threshold
    words = (
        f"in {len(told.values)} healthy windows of {format_duration(one.length)} at most {highest:.3f} (lower bound)"
    )
    last = evidence[-1]
    if one is not last:
        reached = f" reach {max(last.kpis['psi'].values):.3f}:" if "psi" in last.kpis else ","
        words += f"; the {last.windows} of {format_duration(last.length)}, where it is judged,{reached} too few to tell"
    shift = shift_of_psi(proposed)
    return Proposal(
        "kpis.psi.threshold",
        threshold,
        proposed,
        words,
        f"sees a mean that moves by {shift:g} sd" if shift else "sees a mean that moves by more than 4 sd",
    )


def _range(threshold: float, healthy: Healthy, evidence: Sequence[Evidence]) -> Proposal | str:
    found = _shortest(evidence, "range_z")
    if found is None:
        return _SHORT
    one, told = found
    words = f"breached in {told.breaches} of {len(told.values)} healthy windows of {format_duration(one.length)}"
    proposed = threshold
    if too_often(one, told.breaches, len(told.values)):
        proposed, left = _quiet_range(threshold, healthy, one)
        words += f", at {proposed:g} in {left}"
    return Proposal("kpis.range_z.threshold", threshold, proposed, words, f"counts rows from {proposed:g} sd on")


def _quiet_range(threshold: float, healthy: Healthy, one: Evidence) -> tuple[float, int]:
    """The first larger threshold that the healthy windows do not breach too often, and how often they do."""
    left = 0
    for tried in [z for z in (5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0) if z > threshold]:
        kpis = healthy.spec.kpis.model_copy(update={"range_z": RangeZ(threshold=tried)})
        other = Healthy(healthy.frame, healthy.spec.model_copy(update={"kpis": kpis}), (one.length,))
        told = measure(other, one.length, MONTH).kpis["range_z"]
        threshold, left = tried, told.breaches
        if not too_often(one, left, len(told.values)):
            break
    return threshold, left


def _performance(key: str, limit: float, evidence: Sequence[Evidence]) -> Proposal | str:
    """A fall of AUROC or a rise of MAE, as the share that the spec's limit is."""
    name = key.split(".")[1]
    told = [(one, one.kpis[name]) for one in evidence if name in one.kpis and one.kpis[name].values]
    if not told:
        return "no recorded prediction with labels, or too few labels a window"
    if not any(len(kpi.values) >= LEAST_WINDOWS for _, kpi in told):
        return _SHORT
    worst = {one.length: -min(kpi.values) if name == "auroc" else max(kpi.values) for one, kpi in told}
    parts = [
        f"{format_duration(one.length)}: sd {np.std(kpi.values):.3f}, worst {worst[one.length]:.3f}"
        for one, kpi in told
    ]
    loud = [worst[one.length] for one, kpi in told if too_often(one, kpi.breaches, len(kpi.values))]
    proposed = max(limit, np.floor(100 * max(loud) + 1) / 100) if loud else limit
    words = f"{'fall' if name == 'auroc' else 'rise'} in healthy windows of {'; '.join(parts)}"
    cost = f"sees a fall of {100 * proposed:g} pp" if name == "auroc" else f"sees a rise of {100 * proposed:g} %"
    return Proposal(key, limit, float(f"{proposed:.2f}") if loud else limit, words, cost)


def _residuals(threshold: float, evidence: Sequence[Evidence]) -> Proposal | str:
    found = _longest(evidence, "residuals")
    if found is None:
        return _SHORT
    one, told = found
    highest = max(told.values)
    proposed = round_up(highest) if too_often(one, told.breaches, len(told.values)) else threshold
    words = (
        f"in {len(told.values)} healthy windows of {format_duration(one.length)} at most {highest:.3f} (lower bound)"
    )
    return Proposal("kpis.residuals.threshold", threshold, proposed, words, f"sees a KS distance of {proposed:g}")


def _latency(threshold: float, healthy: Healthy, evidence: Sequence[Evidence]) -> Proposal | str:
    found = _shortest(evidence, "latency_p95_ms")
    if found is None:
        return _SHORT
    one, told = found
    enough = [rows for window in healthy.windows(one.length) if (rows := healthy.rows(window)).height >= LEAST_ROWS]
    p95 = [float(value) for rows in enough if (value := rows["_latency_ms"].quantile(0.95)) is not None]
    words = (
        f"share of slow rows in {len(told.values)} healthy windows of {format_duration(one.length)}: at most "
        f"{max(told.values):.2%}; p95 at most {max(p95):.4g} ms"
    )
    proposed = round_up(max(p95)) if too_often(one, told.breaches, len(told.values)) else threshold
    cost = f"sees a p95 that rises from {np.median(p95):.4g} to {proposed:g} ms"
    return Proposal("kpis.latency_p95_ms.threshold", threshold, proposed, words, cost)


def _parity(healthy: Healthy) -> Told:
    """Change of demographic parity, worst column, of 28 days (7 where they are few) against the others."""
    kpi, told = healthy.spec.kpis.demographic_parity, Told()
    for days in (28, 7):
        told = Told()
        for number in range(_days(healthy) // days if kpi else 0):
            found = _parity_of(healthy, slice(number * days, (number + 1) * days))
            if found and kpi:
                told.values.append(min(delta for delta, _ in found))
                told.breaches += any(bound <= -kpi.drop for _, bound in found)
        if len(told.values) >= LEAST_WINDOWS:
            break
    return told


def _days(healthy: Healthy) -> int:
    return max((len(totals) for _, totals in healthy.reference.group_days.values()), default=0)


def _parity_of(healthy: Healthy, block: slice) -> list[tuple[float, float]]:
    """(delta, upper bound) of each protected column with two usable groups."""
    found = []
    for name, sides in healthy.reference.group_days.items():
        known = healthy.reference.binning.columns[name].bins
        positives, totals = (side[:, :known] for side in sides)  # rows without a group are of none
        rest = [np.delete(side, np.r_[block], axis=0) for side in (positives, totals)]
        if len(rest[0]) and (change := parity_change(rest[0], rest[1], positives[block], totals[block])):
            found.append((change.delta, change.upper_bound))
    return found


def _parity_drop(drop: float, told: Told) -> Proposal | str:
    if len(told.values) < LEAST_WINDOWS:
        return f"the history is too short to tell: fewer than {LEAST_WINDOWS} weeks with scored rows of two groups"
    proposed = drop
    if told.breaches:
        proposed = max(drop, float(f"{np.floor(100 * -min(told.values) + 1) / 100:.2f}"))
    words = (
        f"breached in {told.breaches} of {len(told.values)} healthy blocks of days, at worst {min(told.values):+.3f}"
    )
    cost = f"sees a gap that is {100 * proposed:g} pp wider"
    return Proposal("kpis.demographic_parity.drop", drop, proposed, words, cost)
