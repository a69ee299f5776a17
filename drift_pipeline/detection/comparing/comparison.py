"""Any two tables compared as the live loop compares a window with its reference; files larger than memory are read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.comparing import scan
from drift_pipeline.detection.comparing.column_types import Column, infer, types_of
from drift_pipeline.detection.comparing.scan import (
    Named,
    Reread,
    profile_batches,
    read_batches,
    sample_batches,
    sample_rows,
)
from drift_pipeline.detection.comparing.timeless import NOW, auroc_of, errors_of, parity, psi_window, window_kpis
from drift_pipeline.detection.counting.binning import SCORE, Binning, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.shape import Shape, shape_of
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.thresholds import false_discovery_rate
from drift_pipeline.errors import InputError
from drift_pipeline.spec import Columns, ColumnType, ModelSpec, Outcome, Task

Progress = Callable[[int, str], None]
INFERRED_ROWS = 20_000
WORST_FIRST = (Verdict.BREACH, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.OK)
INDEPENDENT = (
    "rows count as independent: rows that come in days or sessions vary more, and are called drifting too often; "
    "drift calibrate measures by how much"
)


@dataclass(frozen=True)
class ComparedColumn:
    """One column of both tables. `beyond`: share of rows beyond the range threshold, over the reference's share;
    `missing`: shares of rows without a usable value, (reference, current)."""

    finding: FeatureFinding
    kind: ColumnType
    verdict: Verdict
    beyond: float | None
    missing: tuple[float, float]
    shape: Shape

    def to_json(self) -> dict[str, Any]:
        found = self.finding
        ks = {"statistic": found.ks_low, "low": found.ks_low, "high": found.ks_high, "p_value": found.p_value}
        return {
            "type": self.kind,
            "psi": found.psi,
            "psi_lower": found.psi_lower,
            "hellinger": found.hellinger,
            "ks": ks if self.kind == "numeric" else None,
            "p_value": found.p_value,
            "distance": found.distance,
            "distance_lower": found.distance_lower,
            "range_z": self.beyond,
            "missing": dict(zip(("reference", "current"), self.missing, strict=True)),
            "verdict": str(self.verdict),
            "reason": found.reason,
            "direction": found.direction,
        }


@dataclass(frozen=True)
class Comparison:
    """Columns and KPIs worst first; `read`: how each column was read; `rows`: (reference, current)."""

    verdict: Verdict
    rows: tuple[int, int]
    columns: tuple[ComparedColumn, ...]
    kpis: Mapping[str, KpiResult]
    read: tuple[Column, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": str(self.verdict),
            "rows": dict(zip(("reference", "current"), self.rows, strict=True)),
            "features": {column.finding.name: column.to_json() for column in self.columns},
            "kpis": {name: kpi.to_json() for name, kpi in self.kpis.items()},
            "read": {column.name: {"type": column.kind, "why": column.why} for column in self.read},
            "notes": list(self.notes),
        }


def compare_files(
    reference: Path, current: Path, spec: ModelSpec | None = None, progress: Progress = lambda _rows, _words: None
) -> Comparison:
    """Compare two files, folders or Delta tables.

    Args:
        spec: which columns are watched, and what score, label, group and latency are called; None: types are inferred.
        progress: is called with (rows read of this side, what is being done).

    Raises:
        InputError: a side cannot be read or has no row, or the two have no column in common or columns that differ.
    """
    plan = _planned(reference, current, spec)
    for path in (reference, current):
        _first_rows(path, plan.spec.watched)
    progress(0, "drawing the reference's sample")
    columns: dict[str, ColumnType] = {**plan.spec.watched, **dict.fromkeys(plan.named.present, "numeric")}
    twice = Reread([reference], columns)  # a small reference is decoded once
    binning = _frozen(twice, plan)
    before, after = (
        profile_batches(batches, binning, plan.named, partial(_told, progress, f"reading {path.name}"))
        for path, batches in ((reference, twice), (current, read_batches([current], columns)))
    )
    return _compared(binning, before, after, plan)


def _told(progress: Progress, words: str, rows: int) -> None:
    progress(rows, words)


# what is to be compared


@dataclass(frozen=True)
class _Plan:
    """`spec`: of what both tables have; `untold`: the KPIs that it names and the tables cannot tell, and why."""

    spec: ModelSpec
    named: Named
    read: tuple[Column, ...]
    untold: Mapping[str, str]


def _planned(reference: Path, current: Path, spec: ModelSpec | None) -> _Plan:
    types = [types_of([path]) for path in (reference, current)]
    common = [name for name in types[0] if name in types[1]]
    if not common:
        names = [", ".join(some) or "none" for some in types]
        raise InputError(f"no common column: {reference} has {names[0]}; {current} has {names[1]}")
    only = [
        Column(name, None, f"left out: not in {(current, reference)[side].name}")
        for side in (0, 1)
        for name in types[side]
        if name not in types[1 - side]
    ]
    if spec is not None:
        return _by_spec(spec, common, (reference, current))
    return _by_inference(reference, current, {name: types[0][name] for name in common}, only)


def _first_rows(path: Path, column_types: Mapping[str, ColumnType]) -> pl.DataFrame:
    """The first batch. Raises InputError where there is none."""
    found = next(read_batches([path], column_types), None)
    if found is None or found.is_empty():
        raise InputError(f"{path}: holds no rows")
    return found


def _by_inference(reference: Path, current: Path, types: Mapping[str, pl.DataType], only: list[Column]) -> _Plan:
    column_types: dict[str, ColumnType] = dict.fromkeys(types, "categorical")  # as they are
    now = _first_rows(current, column_types)
    _first_rows(reference, column_types)
    read = list(infer(sample_rows([reference], column_types, INFERRED_ROWS), now))
    watched = {column.name: column.kind for column in read if column.kind is not None}
    if not watched:
        raise InputError(f"no column to compare: {'; '.join(f'{column.name}: {column.why}' for column in read)}")
    spec = ModelSpec(
        name="comparison", owner="nobody", task="binary_classification", features=watched, outcome=Outcome(column="")
    )
    return _Plan(spec, Named(), (*read, *only), {})


def _by_spec(spec: ModelSpec, common: Sequence[str], sides: tuple[Path, Path]) -> _Plan:
    """The spec, less what one of the tables lacks."""
    lacking = f"left out: not in both of {sides[0].name} and {sides[1].name}"
    read = [
        Column(name, kind if name in common else None, f"{kind}: by the spec" if name in common else lacking)
        for name, kind in spec.watched.items()
    ]
    features = {name: kind for name, kind in spec.features.items() if name in common}
    if not features:
        raise InputError(f"no feature of {spec.name} is in both tables; common are {', '.join(common)}")
    score, label, latency = (
        name if name in common else None
        for name in (spec.prediction.column, spec.outcome.column, spec.columns.latency_ms)
    )
    named = Named(score, label if score and _readable_labels(spec) else None, latency)
    prediction = spec.prediction.model_copy(update={} if score else {"score": None, "value": None})
    left = spec.model_copy(
        update={
            "features": features,
            "protected": {name: kind for name, kind in spec.protected.items() if name in common},
            "prediction": prediction,
            "columns": Columns(latency_ms=latency),
        }
    )
    return _Plan(left, named, tuple(read), dict(_untold(spec, left, named, common)))


def _readable_labels(spec: ModelSpec) -> bool:
    positive = spec.outcome.positive
    return spec.task == "regression" or (not isinstance(positive, str) and positive == 1)


_PERFORMANCE: Mapping[Task, tuple[str, ...]] = {"binary_classification": ("auroc",), "regression": ("mae", "residuals")}


def _untold(spec: ModelSpec, left: ModelSpec, named: Named, common: Sequence[str]) -> Iterator[tuple[str, str]]:
    """KPIs that the spec asks for, of which a table lacks a column."""
    for name, reason in _lacking(spec, left, named, common):
        if getattr(spec.kpis, name) is not None:
            yield name, reason


def _lacking(spec: ModelSpec, left: ModelSpec, named: Named, common: Sequence[str]) -> Iterator[tuple[str, str]]:
    words, performance = "{} {!r} is not in both tables", _PERFORMANCE[spec.task]
    if spec.prediction.column is not None and named.score is None:
        for name in (*performance, "demographic_parity"):
            yield name, words.format("the prediction", spec.prediction.column)
    elif spec.outcome.column not in common:
        yield from ((name, words.format("the label", spec.outcome.column)) for name in performance)
    elif not _readable_labels(spec):
        yield from ((name, f"labels are read as 0 and 1, not as {spec.outcome.positive!r}") for name in performance)
    if spec.columns.latency_ms is not None and named.latency_ms is None:
        yield "latency_p95_ms", words.format("the latency", spec.columns.latency_ms)
    if spec.protected and not left.protected:
        yield "demographic_parity", "no protected column is in both tables"


def _frozen(reference: Reread, plan: _Plan) -> Binning:
    """Bins of a bounded sample of the reference."""
    sample, none = sample_batches(reference), pl.Series(SCORE, [], pl.Float64)
    scores = sample[plan.named.score] if plan.named.score else none
    if plan.spec.task != "regression":
        return freeze_binning(sample, scores, plan.spec)
    residuals = sample[plan.named.label] - scores if plan.named.label else none
    return freeze_binning(sample, scores, plan.spec, residuals.filter(residuals.is_finite()))


# the comparison


def _compared(binning: Binning, before: Profile, after: Profile, plan: _Plan) -> Comparison:
    spec, length = plan.spec, psi_window(plan.spec)
    reference = _timeless_reference(binning, before, spec, length)
    sides = ComparedColumns(
        before=reference.matched(Window(NOW - length, NOW)),
        after=ColumnCounts.of(reference.layout, after),
        length=length,
        null=reference.nulls[length],
        missing_null=reference.missing_nulls[length],
        rate=false_discovery_rate(length),
    )
    findings = sides.findings()
    kpis = _kpis(reference, after, findings, plan, length)
    threshold = spec.kpis.psi.threshold if spec.kpis.psi else float("inf")
    columns = sorted((_column(finding, sides, threshold) for finding in findings), key=_badness)
    notes = [INDEPENDENT]
    if before.rows > scan.SAMPLE_ROWS:
        notes.insert(0, f"bins are frozen on a sample of {scan.SAMPLE_ROWS:,} of the reference's {before.rows:,} rows")
    return Comparison(
        _verdict(columns, kpis),
        (before.rows, after.rows),
        tuple(columns),
        dict(sorted(kpis.items(), key=lambda item: _rank(item[1].verdict))),
        plan.read,
        tuple(notes),
    )


def _timeless_reference(binning: Binning, before: Profile, spec: ModelSpec, length: timedelta) -> Reference:
    """A reference of which only the whole is known: every hour is like every other, and rows are independent."""
    null = independent(tuple(binning.columns))
    groups = {name: before.group_decisions(name) for name in spec.protected}
    return Reference(
        binning,
        Window(NOW - length, NOW),
        before.rows,
        [before],
        {length: null},
        {length: null},
        auroc_of(before),
        1.0,
        {name: (np.array([positives]), np.array([totals])) for name, (positives, totals) in groups.items()},
        errors=errors_of(before),
    )


def _kpis(
    reference: Reference, after: Profile, findings: list[FeatureFinding], plan: _Plan, length: timedelta
) -> dict[str, KpiResult]:
    spec = plan.spec
    kpis = window_kpis(reference, after, spec, findings, length)
    if spec.kpis.demographic_parity and spec.protected:
        kpis["demographic_parity"] = parity(reference, after, spec)
    if spec.prediction.column is None:
        for name in (*_PERFORMANCE[spec.task], "demographic_parity"):
            kpis[name] = _without(kpis[name], Verdict.NOT_CONFIGURED, "no prediction is named")
    for name, reason in plan.untold.items():
        kpis[name] = _without(kpis[name], Verdict.INCONCLUSIVE, reason)
    return kpis


def _without(kpi: KpiResult, verdict: Verdict, reason: str) -> KpiResult:
    return replace(kpi, verdict=verdict, value=None, bound=None, n=0, reason=reason)


def _column(finding: FeatureFinding, sides: ComparedColumns, threshold: float) -> ComparedColumn:
    before, after, k = sides.before, sides.after, sides.before.layout.position[finding.name]
    numeric = k < before.layout.numeric
    shares = [float(side.beyond[k] / max(side.rows[k], 1)) for side in (before, after)]
    missing = [float(side.lacking[k] / max(side.lacking[k] + side.rows[k], 1)) for side in (before, after)]
    verdict = Verdict.OK
    if finding.drift is None:
        verdict = Verdict.INCONCLUSIVE
    elif finding.drift:
        verdict = Verdict.BREACH if finding.psi_lower > threshold else Verdict.WARN
    return ComparedColumn(
        finding,
        "numeric" if numeric else "categorical",
        verdict,
        shares[1] - shares[0] if numeric else None,
        (missing[0], missing[1]),
        shape_of(finding.name, before.profile, after.profile),
    )


def _rank(verdict: Verdict) -> int:
    return WORST_FIRST.index(verdict) if verdict in WORST_FIRST else len(WORST_FIRST)


def _badness(column: ComparedColumn) -> tuple[int, float, float]:
    return _rank(column.verdict), -column.finding.distance, -column.finding.psi


def _verdict(columns: Sequence[ComparedColumn], kpis: Mapping[str, KpiResult]) -> Verdict:
    """The worst of all; without a warning, INCONCLUSIVE where the columns or nothing at all could be judged."""
    said = {column.verdict for column in columns} | {kpi.verdict for kpi in kpis.values()}
    for worst in (Verdict.BREACH, Verdict.WARN):
        if worst in said:
            return worst
    unknown = kpis["psi"].verdict == Verdict.INCONCLUSIVE or Verdict.OK not in said
    return Verdict.INCONCLUSIVE if unknown else Verdict.OK
