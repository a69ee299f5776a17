"""The page of a model: what happened when, what each retrain cost and gained, and why each incident was one.

One renderer for both: a replay has a summary, which tells what the loop gained over the first model; a live home has a
standing, which tells how the model is now. What is in neither is drawn from the same facts by the same code.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY, format_duration
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting
from drift_pipeline.evidence.timeline import plain, story
from drift_pipeline.files import write_whole
from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import SHORTEST
from drift_pipeline.replays.folder import KPIS, Left, at, read_folder, reigns
from drift_pipeline.replays.found import incident_facts
from drift_pipeline.replays.page import FILE, Served, render
from drift_pipeline.replays.rollouts import rollout_facts
from drift_pipeline.replays.told import Told
from drift_pipeline.replays.trainings import gained, training_rows

PAGE = "report.html"
_ON_TOP = {"suggest": 1, "retrain": 2, "hotfix_retrain": 3}  # which decision's mark covers which


def write_report(folder: Path) -> Path:
    """Write `report.html` into a replay's folder, from what else is in it; the same folder gives the same page.

    Raises:
        InputError: it is no replay's folder, or of an older form.
    """
    return write_whole(folder / PAGE, report_page(told_of(read_folder(folder))))


def told_of(left: Left) -> Told:
    """What a replay's folder tells."""
    import polars as pl

    versions = [str(body["version"]) for body in left.candidates.values()]
    versions += [str(reign["version"]) for reign in left.summary["reigns"]]
    cards = {v: f"evidence/{left.summary['model']}/{v}/card.html" for v in sorted(set(versions))}
    return Told(
        model=left.summary["model"],
        performance=left.performance,
        kpis=left.summary["spec"]["kpis"],
        start=left.start,
        end=left.end,
        ticks=pl.read_parquet(left.folder / KPIS),
        records=left.records,
        findings=left.findings,
        candidates=left.candidates,
        reigns=reigns(left.summary),
        cards={version: path for version, path in cards.items() if (left.folder / path).is_file()},
        summary=left.summary,
    )


def report_page(told: Told, served: Served = FILE) -> str:
    """The page as HTML. It asks for nothing from a network; where it is served, it asks for itself again."""
    from drift_pipeline.replays.panels import kpis_of, not_configured

    rows, found = training_rows(told), kpis_of(told)
    wide, narrow = (_timeline(told, rows, room) for room in (charts.WIDE, charts.NARROW))
    drawn = {room: [kpi.at_width(line.scale) for kpi in found] for room, line in (("w", wide), ("n", narrow))}
    spans = [incident_facts(span, told, rows) for span in told.incidents]
    rollouts = rollout_facts(told)
    kpis = [kpi.facts(panel) for kpi, panel in zip(found, drawn["w"], strict=True)]
    said = [one for one in story(told.records) if told.overlaps(one.at, one.at)]
    facts: dict[str, Any] = {
        "model": told.model,
        "summary": told.summary,
        "now": told.now,
        "span": {"from": told.start.isoformat(), "to": told.end.isoformat()},
        "counts": _counts(told, rows),
        "reigns": [{"version": one.name, "from": one.start.isoformat()} for one in told.reigns],
        "gain": _gain(told),
        "retrains": rows,
        "refused": [_refusal(record) for record in _refused(told)],
        "incidents": [{k: v for k, v in one.items() if k != "drawn"} for one in spans],
        "rollouts": [{k: v for k, v in one.items() if k != "drawn"} for one in rollouts],
        "kpis": kpis,
        "axis": {"start": told.start.timestamp() * 1000, "end": _end(told).timestamp() * 1000},
        "story": [{**asdict(one), "at": one.at.isoformat()} for one in said],
    }
    return render(
        "report.html.j2",
        facts,
        served=served,
        timeline_svg=charts.timeline(wide, drawn["w"]) + charts.timeline(narrow, drawn["n"]),
        months_svg=_months(told),
        measure=told.performance,
        drawn={one["key"]: one["drawn"] for one in spans},
        beside=[one["drawn"] for one in rollouts],
        cards=told.cards,
        off=not_configured(told.ticks),
        ended=_ended((told.summary or {}).get("last")),
        most_drawn=max((kpi["drawn"] for kpi in kpis), default=0),
        lasted=_lasted(told),
    )


def _timeline(told: Told, rows: Sequence[Mapping[str, Any]], room: charts.Room) -> charts.Timeline:
    return charts.Timeline(
        start=told.start,
        end=told.end,
        reigns=[one for one in told.reigns if told.overlaps(one.start, one.end)],
        phases=told.phases,
        incidents=told.incidents,
        decisions=_decisions(record for record in told.records if at(record) >= told.start),
        trainings=_trainings(told, rows),
        room=room,
    )


def _end(told: Told) -> datetime:
    return max(told.end, told.start + SHORTEST)


def _lasted(told: Told) -> str:
    days = (told.end - told.start) // DAY * DAY
    return format_duration(days) if days else "less than a day"


def _ended(last: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The verdict of the last tick in words; None of a folder that is older, or without a tick."""
    return last and {"verdict": told_verdict(last), "waiting": told_waiting(last["not_judged"])}


def _counts(told: Told, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What happened in the span."""
    phases = [phase.name for phase in told.phases if phase.start >= told.start]
    return {
        "ticks": told.ticks["at"].n_unique(),
        "incidents": len(told.incidents),
        "trainings": len(rows),
        "rejected": sum(not row["accepted"] for row in rows),
        "promotions": phases.count("full"),
        "rollbacks": phases.count("rolled_back"),
        "decisions": sum(r.event == "decision.made" and at(r) >= told.start for r in told.records),
    }


def _gain(told: Told) -> float | None:
    """What the loop gained over the frozen model, over the months that both have."""
    if told.summary is None:
        return None
    sides = told.summary[told.performance.kpi]
    return gained(told.performance, sides["frozen"], sides["loop"])


def _months(told: Told) -> str:
    if told.summary is None:
        return ""
    sides, span = told.summary[told.performance.kpi], (told.start, told.end)
    lines = [charts.Line(side, side, [month[side] for month in sides["by_month"]]) for side in ("frozen", "loop")]
    names = [month["month"] for month in sides["by_month"]]
    how: dict[str, Any] = {"fill": True, "measure": told.performance, "period": sides["period"]}
    return "".join(
        charts.by_month(names, lines, span, told.reigns, room=room, name=name, **how)
        for name, room in (("months", charts.WIDE), ("months-narrow", charts.NARROW))
    )


def _refused(told: Told) -> list[AuditRecord]:
    return [record for record in told.records if record.event == "training.refused" and at(record) >= told.start]


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


def _trainings(told: Told, rows: Sequence[Mapping[str, Any]]) -> list[charts.Mark]:
    marks = [charts.Mark(at(r), "refused", f"no training: {plain(r.details['because'])}") for r in _refused(told)]
    for row in rows:
        look = "accepted" if row["accepted"] else "rejected"
        why = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in row["failed"])
        title = f"{row['version']} {look}, caused by {row['cause']}" + (f"; {why}" if why else "")
        marks.append(charts.Mark(datetime.fromisoformat(row["at"]), look, title, row["version"]))
    return sorted(marks, key=lambda mark: mark.at)
