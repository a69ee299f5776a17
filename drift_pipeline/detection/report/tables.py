"""What a drift report tells: the verdict in large words, and a table of KPIs and one of columns."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Report
from drift_pipeline.detection.report.drawing import DRAWN_ROWS
from drift_pipeline.spec import ColumnType, ModelSpec


def columns_of(spec: ModelSpec, findings: Mapping[str, FeatureFinding]) -> dict[str, ColumnType]:
    """Everything that is watched, drifting columns first, then those without a claim."""
    order = {True: 0, None: 1, False: 2}
    found_types: dict[str, ColumnType] = {
        f.name: "categorical" if f.ks_low is None else "numeric" for f in findings.values()
    }
    columns: dict[str, ColumnType] = {**found_types, **spec.watched, SCORE: "numeric"}

    def rank(name: str) -> tuple[int, float]:
        found = findings.get(name)
        return (order[found.drift], -found.distance) if found else (1, 0.0)

    return {name: columns[name] for name in sorted(columns, key=rank)}


def notes_of(
    report: Report, window: timedelta, findings: Mapping[str, FeatureFinding], before: int, after: int
) -> list[tuple[str, str]]:
    """Large words for the top: (value, label)."""
    drawn = f"; drawn: at most {DRAWN_ROWS:,} a side" if max(before, after) > DRAWN_ROWS else ""
    drifting = sum(f.drift is True for f in findings.values())
    notes = [
        (str(report.verdict), "verdict of the tick" + (" (provisional: the reference is short)" * report.provisional)),
        (f"{drifting} of {len(findings)}", "columns drift"),
        (f"{before:,} / {after:,}", f"reference / current rows{drawn}"),
    ]
    if not findings:
        others = ", ".join(format_duration(length) for length in sorted({f.window for f in report.features}))
        known = f"; this tick has findings of {others}" if others else ""
        notes[1] = ("none", f"no finding of the last {format_duration(window)}{known}")
    return notes


def kpi_table(report: Report) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows."""
    header = ["KPI", "verdict", "value", "threshold", "bound", "window", "rows", "reason"]
    return "KPIs", header, [_kpi_row(kpi) for kpi in report.kpis.values()]


def _kpi_row(kpi: KpiResult) -> list[str]:
    numbers = [short(value) for value in (kpi.value, kpi.threshold, kpi.bound)]
    window = format_duration(kpi.window) if kpi.window else "–"
    return [kpi.name, str(kpi.verdict), *numbers, window, f"{kpi.n:,}", kpi.reason]


def column_table(
    columns: Mapping[str, ColumnType], findings: Mapping[str, FeatureFinding], undrawn: Mapping[str, str]
) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows; `undrawn` says why a column has no plot."""
    header = ["column", "verdict", "direction", "PSI", "Hellinger", "KS low", "distance", "p", "rows", "reason"]
    rows = [_column_row(name, findings.get(name), undrawn.get(name, "")) for name in columns]
    return "Columns", header, rows


def _column_row(name: str, finding: FeatureFinding | None, undrawn: str) -> list[str]:
    if finding is None:
        return [name, "no finding", *["–"] * 7, undrawn]
    reason = "; ".join(filter(None, (finding.reason, undrawn and f"not drawn: {undrawn}")))
    if finding.n == 0:  # its numbers are no measurements
        return [name, verdict_of(finding), *["–"] * 6, "0", reason]
    return [
        name,
        verdict_of(finding),
        finding.direction,
        *(short(value, ".3f") for value in (finding.psi, finding.hellinger, finding.ks_low, finding.distance)),
        f"{finding.p_value:.1e}".replace("-", "\u2212"),  # a hyphen would break the line
        f"{finding.n:,}",
        reason,
    ]


def verdict_of(finding: FeatureFinding) -> str:
    """In words."""
    return "no claim" if finding.drift is None else "DRIFT" if finding.drift else "no drift"


def short(value: float | None, digits: str = ".4g") -> str:
    """A number as tables show it."""
    return "–" if value is None else f"{value:{digits}}"


def metadata(report: Report, window: timedelta, spec: ModelSpec) -> dict[str, Any]:
    """What `evidently ui` can search the runs by."""
    return {
        "model": spec.name,
        "window": format_duration(window),
        "verdict": str(report.verdict),
        **{name: str(kpi.verdict) for name, kpi in report.kpis.items()},
    }
