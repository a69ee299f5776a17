"""The page of a replay: what happened when, what it gained, what each retrain cost, and why each incident was one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_pipeline.clock import DAY, format_duration
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import Performance
from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting
from drift_pipeline.evidence.timeline import failed_gates, plain, story
from drift_pipeline.files import write_whole
from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import Point, thin
from drift_pipeline.replays.folder import KPIS, IncidentSpan, Left, at, incidents, phases, read_folder, reigns
from drift_pipeline.replays.page import render

if TYPE_CHECKING:
    import polars as pl

PAGE = "report.html"
_ON_TOP = {"suggest": 1, "retrain": 2, "hotfix_retrain": 3}  # which decision's mark covers which
_UNSCALED = ("range_z",)  # its threshold is in standard deviations, its value a share of rows


def write_report(folder: Path) -> Path:
    """Write `report.html` into a replay's folder, from what else is in it; the same folder gives the same page.

    Raises:
        InputError: it is no replay's folder, or of an older form.
    """
    return write_whole(folder / PAGE, report_page(read_folder(folder)))


def report_page(left: Left) -> str:
    import polars as pl

    ticks = pl.read_parquet(left.folder / KPIS)
    spans, rows = incidents(left.records), retrain_rows(left)
    panels = _panels(ticks, left)
    told = charts.Timeline(
        start=left.start,
        end=left.end,
        reigns=reigns(left.summary),
        phases=phases(left.records),
        incidents=spans,
        decisions=_decisions(left.records),
        trainings=_trainings(left.records, rows),
        panels=[replace(panel, points=thin(panel.points, _scale(left))) for panel in panels],
    )
    found = [incident_facts(span, number, left, rows) for number, span in enumerate(spans, start=1)]
    kpis = [_kpi_facts(ticks, panel, thinned) for panel, thinned in zip(panels, told.panels, strict=True)]
    facts: dict[str, Any] = {
        "summary": left.summary,
        "gain": _gain(left),
        "retrains": rows,
        "refused": [_refusal(record) for record in left.records if record.event == "training.refused"],
        "incidents": [{k: v for k, v in one.items() if k != "drawn"} for one in found],
        "kpis": kpis,
        "axis": _axis(left),
        "story": [{**asdict(said), "at": said.at.isoformat()} for said in story(left.records)],
    }
    first, second = (charts.Line(side, side, _months(left, side)) for side in ("frozen", "loop"))
    names = [month["month"] for month in left.summary[left.performance.kpi]["by_month"]]
    return render(
        "report.html.j2",
        facts,
        timeline_svg=charts.timeline(told),
        months_svg=charts.by_month(
            names,
            (first, second),
            (left.start, left.end),
            told.reigns,
            fill=True,
            measure=left.performance,
            period=left.summary[left.performance.kpi]["period"],
        ),
        measure=left.performance,
        drawn={one["key"]: one["drawn"] for one in found},
        off=_not_configured(ticks),
        ended=_ended(left.summary.get("last")),
        most_drawn=max((kpi["drawn"] for kpi in kpis), default=0),
        lasted=format_duration(_whole_days(left)) if left.end - left.start >= DAY else "less than a day",
    )


def _ended(last: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The verdict of the last tick in words; None of a folder that is older, or without a tick."""
    return last and {"verdict": told_verdict(last), "waiting": told_waiting(last["not_judged"])}


def _whole_days(left: Left) -> Any:
    return (left.end - left.start) // DAY * DAY


def _scale(left: Left) -> Any:
    return charts.Timeline(left.start, left.end).scale


def _axis(left: Left) -> dict[str, float]:
    scale = _scale(left)
    start, end = (moment.timestamp() * 1000 for moment in (scale.start, scale.end))
    return {"start": start, "end": max(end, start + 3_600_000), "left": scale.left, "right": scale.right}


def _gain(left: Left) -> float | None:
    """What the loop gained over the frozen model, over the months that both have."""
    told = left.summary[left.performance.kpi]
    return _gained(left.performance, told["frozen"], told["loop"])


def _gained(performance: Performance, before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else round(performance.gain(before, after), 6)


def _months(left: Left, side: str) -> list[float | None]:
    return [month[side] for month in left.summary[left.performance.kpi]["by_month"]]


# what each retrain cost and gained


def retrain_rows(left: Left) -> list[dict[str, Any]]:
    """One row a training: the summary's facts, the decision's reasons, the failed gates, the reign that followed."""
    decisions = {record.details["decision"]: record for record in left.records if record.event == "decision.made"}
    proven = {
        str(record.details["version"]): record
        for record in left.records
        if record.event in ("candidate.proven", "candidate.rejected")
    }
    last = {phase.note: phase for phase in phases(left.records)}
    reigned = {reign["version"]: reign for reign in left.summary["reigns"]}
    return [
        _retrain_row(retrain, decisions[retrain["decision_id"]], proven[retrain["version"]], left.performance)
        | {"outcome": _outcome(retrain, last.get(retrain["version"])), "reign": reigned.get(retrain["version"])}
        for retrain in left.summary["retrains"]
    ]


def _retrain_row(
    retrain: Mapping[str, Any], decision: AuditRecord, proof: AuditRecord, performance: Performance
) -> dict[str, Any]:
    before, after = (retrain[f"{performance.kpi}_{side}"] for side in ("before", "after"))
    return {
        **retrain,
        "cost": {name: retrain["cost"].get(name) for name in ("rows", "trials", "cpu_seconds", "wall_seconds")},
        "gain": _gained(performance, before, after),
        "action": decision.details["action"],
        "reasons": [plain(reason) for reason in decision.details["reasons"]],
        "incident": decision.details["incident"],
        "proven_on": proof.details["proven_on"]["rows"],
        "failed": [{"name": g["name"], "reason": plain(g["reason"])} for g in failed_gates(proof.details["results"])],
    }


def _outcome(retrain: Mapping[str, Any], last: Any) -> str:
    if not retrain["accepted"]:
        return "rejected"
    if last is None:
        return "accepted, not shipped: a rollout was under way"
    if last.name == "full":
        return "champion"
    return "rolled back" if last.name == "rolled_back" else f"still {charts.PHASES[last.name]}"


def _refusal(record: AuditRecord) -> dict[str, str]:
    return {
        "at": record.at,
        "decision": str(record.details["decision"]),
        "because": plain(record.details["because"]),
    }


def _decisions(records: Iterable[AuditRecord]) -> list[charts.Mark]:
    said = [record for record in records if record.event == "decision.made"]
    return [
        charts.Mark(
            at(record),
            str(record.details["action"]),
            f"{at(record):%Y-%m-%d %H:%M} {record.details['action']}: {plain('; '.join(record.details['reasons']))}",
        )
        for record in sorted(said, key=lambda record: _ON_TOP.get(str(record.details["action"]), 0))
    ]


def _trainings(records: Iterable[AuditRecord], rows: Sequence[Mapping[str, Any]]) -> list[charts.Mark]:
    marks = [charts.Mark(at(r), "refused", f"no training: {plain(r.details['because'])}") for r in _refused(records)]
    for row in rows:
        look = "accepted" if row["accepted"] else "rejected"
        why = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in row["failed"])
        title = f"{row['version']} {look}, caused by {row['cause']}" + (f"; {why}" if why else "")
        marks.append(charts.Mark(datetime.fromisoformat(row["at"]), look, title, row["version"]))
    return sorted(marks, key=lambda mark: mark.at)


def _refused(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    return [record for record in records if record.event == "training.refused"]


# incidents


def incident_facts(span: IncidentSpan, number: int, left: Left, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of one incident; `drawn` are its columns' charts, in the order of `columns`."""
    finding = left.findings.get(span.key, {"kpis": {}, "columns": [], "at": None})
    columns = [{k: v for k, v in column.items() if k != "shape"} for column in finding["columns"]]
    return {
        "number": number,
        "key": span.key,
        "opened": span.opened.isoformat(),
        "ended": span.ended.isoformat() if span.ended else None,
        "ending": plain(span.ending) or "still open when the replay ended",
        "days": round(((span.ended or left.end) - span.opened) / DAY, 2),
        "found_at": finding["at"],
        "kpis": list(finding["kpis"].values()),
        "columns": columns,
        "why": why(finding),
        "trainings": [n for n, row in enumerate(rows) if row["incident"] == span.key],
        "drawn": [charts.column(column) for column in finding["columns"]],
    }


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


# KPIs


def _panels(ticks: "pl.DataFrame", left: Left) -> list[charts.Panel]:
    panels = []
    for (name,), rows in ticks.group_by("name", maintain_order=True):
        if (rows["verdict"] == "NOT_CONFIGURED").all():
            continue
        thresholds = rows["threshold"].drop_nulls()
        threshold = None if name in _UNSCALED or thresholds.is_empty() else float(thresholds[-1])
        told = rows.select("at", "value", "verdict", "reason", "bound").iter_rows()
        points = [Point(when, value, value, verdict, reason, bound) for when, value, verdict, reason, bound in told]
        panels.append(charts.Panel(str(name), _about(str(name), left.summary["spec"]["kpis"]), threshold, points))
    return panels


def _about(name: str, kpis: Mapping[str, Any]) -> str:
    declared = kpis.get(name) or {}
    limit = declared.get("threshold")
    return {
        "psi": "largest PSI of a column against its reference",
        "range_z": f"share of rows beyond {limit} sd, over the reference's; every significant excess is a breach",
        "auroc": "AUROC minus what this champion had on held-out rows",
        "latency_p95_ms": f"share of rows above {limit} ms",
        "demographic_parity": "parity between groups minus the reference's",
        "mae": "rise of the MAE over what this champion had on held-out rows, as a share of it",
        "residuals": "KS distance of labels minus predictions from held-out rows, at least",
        "estimated_auroc": "AUROC read off the scores before labels come, minus the held-out one",
        "multivariate": "AUROC of telling recent days from the reference's; 0.5 is alike",
    }.get(name, "")


def _not_configured(ticks: "pl.DataFrame") -> list[str]:
    return [
        str(name)
        for (name,), rows in ticks.group_by("name", maintain_order=True)
        if (rows["verdict"] == "NOT_CONFIGURED").all()
    ]


def _kpi_facts(ticks: "pl.DataFrame", panel: charts.Panel, drawn: charts.Panel) -> dict[str, Any]:
    rows = ticks.filter(ticks["name"] == panel.name)
    said = dict(rows["verdict"].value_counts().iter_rows())
    values = rows["value"].drop_nulls()
    return {
        "name": panel.name,
        "threshold": rows["threshold"].drop_nulls().last() if rows["threshold"].null_count() < rows.height else None,
        "ticks": rows.height,
        "drawn": len(drawn.points),
        "verdicts": {verdict: said.get(verdict, 0) for verdict in ("OK", "WARN", "BREACH", "INCONCLUSIVE")},
        "lowest": values.min(),
        "highest": values.max(),
        "last": rows["value"].last() if rows.height else None,
        "points": [[p.at.timestamp() * 1000, _digits(p.low), _digits(p.high), p.verdict] for p in drawn.points],
    }


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
