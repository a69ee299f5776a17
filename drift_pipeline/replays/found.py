"""The incidents of a page: what was found, and what the inputs say about it."""

from collections.abc import Mapping, Sequence
from typing import Any

from drift_pipeline.clock import DAY
from drift_pipeline.evidence.timeline import plain
from drift_pipeline.replays import charts
from drift_pipeline.replays.folder import IncidentSpan
from drift_pipeline.replays.page import told_length
from drift_pipeline.replays.told import Told


def incident_facts(span: IncidentSpan, told: Told, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of one incident; `drawn` are its columns' charts, in the order of `columns`."""
    finding = told.findings.get(span.key, {"kpis": {}, "columns": [], "at": None})
    return {
        "number": span.number,
        "key": span.key,
        "opened": span.opened.isoformat(),
        "ended": span.ended.isoformat() if span.ended else None,
        "ending": plain(span.ending) or _so_far(span, told),
        "lasted": told_length((span.ended or told.end) - span.opened),
        "days": round(((span.ended or told.end) - span.opened) / DAY, 2),
        "found_at": finding["at"],
        "kpis": list(finding["kpis"].values()),
        "columns": finding["columns"],
        "why": why(finding),
        "trainings": [n for n, row in enumerate(rows) if row["incident"] == span.key],
        "drawn": [charts.column(column) for column in finding["columns"]],
    }


def _so_far(span: IncidentSpan, told: Told) -> str:
    if told.summary:
        return "still open when the replay ended"
    now = told.now or {}
    by = now.get("acknowledged_by") if now.get("incident") == span.key else None
    return f"acknowledged by {plain(by)}" if by else "not acknowledged"


def why(finding: Mapping[str, Any]) -> str:
    """What the inputs say about an incident, and what they do not."""
    columns, kpis = finding["columns"], finding["kpis"]
    drifting = [column["name"] for column in columns if column["drift"]]
    if drifting:
        inputs = [name for name in drifting if not name.startswith("_")]
        if not inputs:
            return "No input drifted, but the model's scores did."
        return f"Drifting: {', '.join(map(plain, inputs))}{', and the scores' if '_score' in drifting else ''}."
    if not columns:
        return "No column had rows to compare with its reference."
    if all(column["drift"] is None for column in columns):
        return f"No claim about single columns could be made: {plain(columns[0]['reason'])}. These differ most:"
    breached = {name for name, kpi in kpis.items() if kpi["verdict"] == "BREACH"}
    if breached & {"auroc", "mae"}:
        worse = "the scores rank worse" if "auroc" in breached else "the errors grew"
        return (
            f"Nothing in the inputs changed significantly, and still {worse}: it is how the labels "
            "relate to the inputs that changed (concept drift). The columns that differ most, none of them enough:"
        )
    return "No column drifted: the KPI itself moved. The columns that differ most, none of them enough:"
