"""Any two tables compared as the live loop compares a window with its reference; files larger than memory are read."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.comparing import scan
from drift_pipeline.detection.comparing.headerless import told_headerless
from drift_pipeline.detection.comparing.plan import EVERY_COLUMN, PERFORMANCE, Choice, Lacking, Plan, Sides, planned
from drift_pipeline.detection.comparing.scan import profile_batches, sample_batches
from drift_pipeline.detection.comparing.timeless import NOW, auroc_of, errors_of, parity, psi_window, window_kpis
from drift_pipeline.detection.counting.binning import SCORE, Binning, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.shape import Shape, shape_of
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, RollUp, Verdict, roll_up
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.thresholds import false_discovery_rate
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType, ModelSpec
from drift_pipeline.telemetry.tables.columns import Labels, forms_of, frequent_token, told_off_form
from drift_pipeline.telemetry.tables.infer import Column
from drift_pipeline.telemetry.tables.table import FilesDiffer, Reread, Table

Progress = Callable[[int, str], None]
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
        """What every door shows, under these names; null where there was nothing to measure, or nothing is told."""
        found = self.finding
        compared, told = found.n > 0, found.n > 0 or bool(found.direction)
        ks = {"statistic": found.ks_low, "low": found.ks_low, "high": found.ks_high, "p_value": found.p_value}
        return {
            "type": self.kind,
            "psi": found.psi if compared else None,
            "psi_lower": found.psi_lower if compared else None,
            "hellinger": found.hellinger if compared else None,
            "ks": ks if self.kind == "numeric" and compared else None,
            "p_value": found.p_value if told else None,
            "distance": found.distance if told else None,
            "distance_lower": found.distance_lower if told else None,
            "range_z": self.beyond,
            "missing": dict(zip(("reference", "current"), self.missing, strict=True)),
            "verdict": str(self.verdict),
            "reason": found.reason,
            "direction": found.direction,
        }


@dataclass(frozen=True)
class Comparison:
    """Columns and KPIs worst first; `read`: how each column was read; `rows`: (reference, current)."""

    rolled_up: RollUp
    rows: tuple[int, int]
    columns: tuple[ComparedColumn, ...]
    kpis: Mapping[str, KpiResult]
    read: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return self.rolled_up.verdict

    def asking(self, least: float) -> "Comparison":
        """INCONCLUSIVE where it would be OK of fewer columns: a number of them, or as a float a share."""
        return replace(self, rolled_up=self.rolled_up.asking(least))

    def to_json(self) -> dict[str, Any]:
        return {
            **self.rolled_up.to_json(),
            "rows": dict(zip(("reference", "current"), self.rows, strict=True)),
            "features": {column.finding.name: column.to_json() for column in self.columns},
            "kpis": {name: kpi.to_json() for name, kpi in self.kpis.items()},
            "read": {column.name: {"type": column.kind, "why": column.why} for column in self.read},
            "notes": list(self.notes),
        }


def compare_files(
    reference: Path | Table,
    current: Path | Table,
    spec: ModelSpec | None = None,
    progress: Progress = lambda _r, _w: None,
    choice: Choice = EVERY_COLUMN,
) -> Comparison:
    """Compare two files, folders, Delta tables or frames (`Table.of`).

    Args:
        spec: which columns are watched, and what score, label, group and latency are called; None: types are inferred.
        progress: is called with (rows read of this side, what is being done).
        choice: which columns are compared, and which of them have levels.

    Raises:
        InputError: a side cannot be read or has no row, or the two have no column in common or columns that differ.
    """
    sides = Table.of(reference), Table.of(current)
    while True:
        try:
            return _compare(sides, spec, progress, choice)
        except FilesDiffer:  # the table knows now what all its files have
            continue


def _compare(sides: Sides, spec: ModelSpec | None, progress: Progress, choice: Choice) -> Comparison:
    plan = planned(sides, spec, choice)
    progress(0, "drawing the reference's sample")
    reads = plan.reads()
    twice = Reread(lambda: sides[0].batches(reads))  # a small reference is decoded once
    sample = sample_batches(twice)
    plan = replace(plan, spec=forms_of(sample, plan.spec, plan.tokens))
    was, now = plan.levels(), plan.levels()
    sample = sample.with_columns(sides[0].read(sample[name], read) for name, read in plan.levels().items())
    binning = _frozen(sample, plan)
    labels = {name: read for name, read in reads.items() if isinstance(read, Labels)}  # of both sides two in all
    batches = (
        sides[0].applied(twice, {**dict.fromkeys(reads), **was}),
        sides[1].batches({**plan.reads(), **now, **labels}),
    )
    before, after = (
        profile_batches(rows, binning, plan.named, partial(_told, progress, f"reading {table.short}"))
        for table, rows in zip(sides, batches, strict=True)
    )
    for table, profile in zip(sides, (before, after), strict=True):
        if not profile.rows:
            raise InputError(f"{table.name}: holds no rows")
    notes = [note for table in sides for note in (*table.notes, *told_headerless(table, sample))]
    notes += [
        f"{table.short}: {note}" for table, side in zip(sides, (was, now), strict=True) for note in told_off_form(side)
    ]
    notes += [f"column {name!r}: {label.told}" for name, label in labels.items() if label.told]
    notes += [note for name in was if (note := frequent_token(sample[name]))]
    return _compared(binning, before, after, plan, notes)


def _told(progress: Progress, words: str, rows: int) -> None:
    progress(rows, words)


def _frozen(sample: pl.DataFrame, plan: Plan) -> Binning:
    """Bins of a bounded sample of the reference."""
    none = pl.Series(SCORE, [], pl.Float64)
    scores = sample[plan.named.score] if plan.named.score else none
    if plan.spec.task != "regression":
        return freeze_binning(sample, scores, plan.spec)
    residuals = sample[plan.named.label] - scores if plan.named.label else none
    return freeze_binning(sample, scores, plan.spec, residuals.filter(residuals.is_finite()))


# the comparison


def _compared(binning: Binning, before: Profile, after: Profile, plan: Plan, told: Sequence[str]) -> Comparison:
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
    unknown = {**plan.lacking, **_without_values(sides, plan, {finding.name for finding in findings})}
    columns = [_column(finding, sides, threshold) for finding in findings]
    columns = sorted([*columns, *(_unjudged(name, found, length) for name, found in unknown.items())], key=_badness)
    notes = [*told, INDEPENDENT]
    if before.rows > scan.SAMPLE_ROWS:
        notes.insert(0, f"bins are frozen on a sample of {scan.SAMPLE_ROWS:,} of the reference's {before.rows:,} rows")
    return Comparison(
        _rolled_up(columns, kpis, plan.lacking),
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
    reference: Reference, after: Profile, findings: list[FeatureFinding], plan: Plan, length: timedelta
) -> dict[str, KpiResult]:
    spec = plan.spec
    kpis = window_kpis(reference, after, spec, findings, length)
    if spec.kpis.demographic_parity and spec.protected:
        kpis["demographic_parity"] = parity(reference, after, spec)
    if spec.prediction.column is None:
        for name in (*PERFORMANCE[spec.task], "demographic_parity"):
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
    verdict, empty = Verdict.OK, not (before.rows[k] or after.rows[k])
    if finding.drift is None or empty:
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


def _without_values(sides: ComparedColumns, plan: Plan, told: Collection[str]) -> dict[str, Lacking]:
    """Watched columns of which neither side has a value."""
    before, after, place = sides.before, sides.after, sides.before.layout.position
    return {
        name: Lacking(kind, "no value on either side", (1.0, float(after.lacking[k] / max(after.profile.rows, 1))))
        for name, kind in plan.spec.watched.items()
        if not before.rows[k := place[name]] and name not in told
    }


def _unjudged(name: str, found: Lacking, length: timedelta) -> ComparedColumn:
    finding = FeatureFinding(name, length, 0, 0.0, 0.0, 0.0, 0.0, None, None, 1.0, 0.0, 0.0, 0, None, "", found.why)
    return ComparedColumn(finding, found.kind, Verdict.INCONCLUSIVE, None, found.missing, Shape((), (), (), ()))


def _rank(verdict: Verdict) -> int:
    return WORST_FIRST.index(verdict) if verdict in WORST_FIRST else len(WORST_FIRST)


def _badness(column: ComparedColumn) -> tuple[int, float, float]:
    return _rank(column.verdict), -column.finding.distance, -column.finding.psi


def _rolled_up(columns: Sequence[ComparedColumn], kpis: Mapping[str, KpiResult], lacking: Collection[str]) -> RollUp:
    """A watched column that a table has not is never passed over: no OK beside it."""
    rolled_up = roll_up(
        kpis.values(), {column.finding.name: (column.verdict, column.finding.reason) for column in columns}
    )
    if lacking and rolled_up.verdict == Verdict.OK:
        return replace(rolled_up, verdict=Verdict.INCONCLUSIVE)
    return rolled_up
