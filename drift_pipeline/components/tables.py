"""What the monitor and the gates found, as tables of the UI."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.judging.verdict import Report

Cell = str | int | float | bool | None


def kpis_table(report: Report) -> dg.TableMetadataValue:
    """One row a KPI."""
    names = ("name", "verdict", "value", "threshold", "bound", "window", "n", "reason")
    return _table(names, ([kpi.to_json()[name] for name in names] for kpi in report.kpis.values()))


def features_table(report: Report) -> dg.TableMetadataValue:
    """One row a column and window, what drifts first."""
    rows = sorted(report.features, key=lambda f: (not f.drift, -f.distance))
    names = ("column", "window", "drift", "direction", "psi", "hellinger", "distance", "p_value", "n", "reason")
    return _table(
        names,
        (
            [
                *(f.name, format_duration(f.window), "no claim" if f.drift is None else str(f.drift), f.direction),
                *(f.psi, f.hellinger, f.distance, f.p_value, f.n, f.reason),
            ]
            for f in rows
        ),
    )


def gates_table(results: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """One row a gate, of a candidate's record in the control store."""
    names = ("name", "outcome", "value", "bound", "limit", "reason")
    return _table(names, ([result[name] for name in names] for result in results))


def _table(names: Sequence[str], rows: Iterable[Sequence[Cell]]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name, "string") for name in names]
    records = [dg.TableRecord({name: _shown(cell) for name, cell in zip(names, row, strict=True)}) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
