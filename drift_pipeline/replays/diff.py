"""Replays of one history side by side: what was set differently, and what came of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY
from drift_pipeline.detection.judging.performance import Performance, measured_by
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.timeline import plain
from drift_pipeline.files import write_whole
from drift_pipeline.replays import charts
from drift_pipeline.replays.folder import IncidentSpan, Left, incidents, read_folder
from drift_pipeline.replays.page import moment, render, shown

ABSENT = "(not set)"
_CAUSES = ("drift", "hotfix", "schedule")
_ACTIONS = ("retrain", "hotfix_retrain", "suggest", "ignore")


@dataclass(frozen=True)
class Setting:
    """A dotted key whose value is not the same in all replays; `values` in the order of the folders."""

    key: str
    values: tuple[str, ...]


def diff_folders(folders: Sequence[Path]) -> list[Left]:
    """Read the folders of replays that can be compared.

    Raises:
        InputError: fewer than two folders, no replay's folder, an older form, or different histories.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} folder{'s' * (len(folders) != 1)} to compare; name at least two")
    sides = [read_folder(folder) for folder in folders]
    first = sides[0]
    for other in sides[1:]:
        if other.summary["history"] != first.summary["history"]:
            raise InputError(
                f"these are replays of different histories, which are not compared: "
                f"{_history(first)}; {_history(other)}"
            )
    return sides


def _history(side: Left) -> str:
    said = side.summary
    span = f"{moment(said['from'])} to {moment(said['to'])}"
    return f"{side.folder} of {said['rows']:,} rows, {span} ({said['history'][:19]})"


def settings_that_differ(sides: Sequence[Left]) -> list[Setting]:
    """Options (`options.triggers`) and the spec (`kpis.auroc.drop`), by dotted key."""
    flat = [{**_flat({"options": side.summary["options"]}), **_flat(side.summary["spec"])} for side in sides]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [Setting(key, tuple(plain(one.get(key, ABSENT)) for one in flat)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def _flat(document: Any, path: str = "") -> dict[str, str]:
    """Leaves by dotted key; an empty part is a leaf, so that `null` against a part is a difference.

    >>> _flat({"kpis": {"auroc": {"drop": 0.05}, "psi": None}})
    {'kpis.auroc.drop': '0.05', 'kpis.psi': 'none'}
    """
    if isinstance(document, Mapping) and document:
        found: dict[str, str] = {}
        for name, part in document.items():
            found |= _flat(part, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(document, list) and document:
        return {path: ", ".join(map(str, document))}
    return {path: "none" if document is None or document in ({}, []) else str(document)}


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart.

    >>> names_of([Path("/tmp/a/out"), Path("/tmp/b/out")])
    ['a/out', 'b/out']
    """
    parts = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [f"{number}: {folder}" for number, folder in enumerate(folders, start=1)]


def diff_facts(sides: Sequence[Left]) -> dict[str, Any]:
    """All that is told, as JSON: the history, what differs, and one entry a replay in the order given."""
    said = sides[0].summary
    names = names_of([side.folder for side in sides])
    return {
        "model": said["model"],
        "history": {name: said[name] for name in ("history", "rows", "from")} | {"to": _latest(sides)},
        "differs": [{"key": row.key, "values": list(row.values)} for row in settings_that_differ(sides)],
        "replays": [_facts(side, name) for side, name in zip(sides, names, strict=True)],
    }


def _latest(sides: Iterable[Left]) -> str:
    return max(side.end for side in sides).isoformat()


def _facts(side: Left, name: str) -> dict[str, Any]:
    said, spans = side.summary, incidents(side.records)
    return {
        "name": name,
        "folder": str(side.folder),
        "partial": said["partial"],
        "from": side.start.isoformat(),
        "to": said["to"],
        side.performance.kpi: said[side.performance.kpi],
        "incidents": said["incidents"],
        "first_incident": spans[0].opened.isoformat() if spans else None,
        "first_incident_days": round((spans[0].opened - side.start) / DAY, 2) if spans else None,
        "incident_days": round(sum(_length(span, side) for span in spans), 2),
        "alerts": said["alerts"],
        "decisions": {action: said["decisions"].get(action, 0) for action in _ACTIONS},
        "retrains": {cause: _by_outcome(said["retrains"], cause) for cause in _CAUSES},
        "promotions": said["promotions"],
        "rollbacks": said["rollbacks"],
        "training_cpu_seconds": said["training_cpu_seconds"],
        "spans": [_span(span) for span in spans],
    }


def _length(span: IncidentSpan, side: Left) -> float:
    return ((span.ended or side.end) - span.opened) / DAY


def _span(span: IncidentSpan) -> dict[str, Any]:
    ended = span.ended.isoformat() if span.ended else None
    return {"key": span.key, "opened": span.opened.isoformat(), "ended": ended, "ending": plain(span.ending)}


def _by_outcome(retrains: Iterable[Mapping[str, Any]], cause: str) -> dict[str, int]:
    of_cause = [retrain["accepted"] for retrain in retrains if retrain["cause"] == cause]
    return {"accepted": sum(of_cause), "rejected": len(of_cause) - sum(of_cause)}


@dataclass(frozen=True)
class Row:
    """One line of the comparison: where its number stands in a replay's facts, how it is written, which is better."""

    label: str
    path: str
    form: str
    better: int = 0  # 1: more is better, -1: less is


def _performance_rows(measure: Performance) -> tuple[Row, ...]:
    name, kpi, better = measure.name, measure.kpi, 1 if measure.higher_is_better else -1
    return (
        Row(f"{name} loop", f"{kpi}.loop", kpi, better),
        Row(f"{name} frozen", f"{kpi}.frozen", kpi),
        Row("worst month against frozen", f"{kpi}.worst_month", f"{kpi}_gain", 1),
    )


_ROWS = (
    Row("incidents", "incidents", "count"),
    Row("first incident", "first_incident", "moment"),
    Row("  days after the watch began", "first_incident_days", "number"),
    Row("days with an open incident", "incident_days", "number"),
    Row("alerts", "alerts", "count"),
    Row("decisions: retrain", "decisions.retrain", "count"),
    Row("  hotfix_retrain", "decisions.hotfix_retrain", "count"),
    Row("  suggest", "decisions.suggest", "count"),
    Row("  ignore", "decisions.ignore", "count"),
    *(
        Row(f"{'retrains: ' if first else '  '}{cause} {outcome}", f"retrains.{cause}.{outcome}", "count")
        for cause in _CAUSES
        for outcome, first in (("accepted", cause == "drift"), ("rejected", False))
    ),
    Row("promotions", "promotions", "count"),
    Row("rollbacks", "rollbacks", "count"),
    Row("training CPU seconds", "training_cpu_seconds", "seconds", -1),
)


def rows_of(facts: Mapping[str, Any]) -> list[Row]:
    """The lines of a comparison; causes and actions that nowhere occurred are left out."""
    replays = facts["replays"]
    return [row for row in (*_performance_rows(measured_by(replays[0])), *_ROWS) if _told(replays, row)]


def diff_table(facts: Mapping[str, Any], width: int = 100) -> str:
    """The comparison as aligned text: one column a replay, no line longer than `width` while columns fit."""
    replays = facts["replays"]
    told = rows_of(facts)
    first = max(len(label) for label in (*(row.label for row in told), *(d["key"] for d in facts["differs"])))
    first = min(first, 40)
    room = max((width - first) // len(replays) - 2, 8)
    heads = [_cut(one["name"] + (" (partial)" if one["partial"] else ""), room, end=True) for one in replays]
    history = facts["history"]
    span = f"{moment(history['from'])} to {moment(history['to'])}"
    lines = [f"{facts['model']}: {history['rows']:,} rows, {span} ({history['history'][:19]})", ""]
    rows: list[tuple[str, list[str]]] = [("", heads)]
    rows += [(one["key"], [_cut(value, room) for value in one["values"]]) for one in facts["differs"]]
    if not facts["differs"]:
        lines.insert(1, "options and spec are the same")
    rows.append(("", [""] * len(heads)))
    rows += [(row.label, [_cell(one, row) for one in replays]) for row in told]
    wide = [max(len(cells[n]) for _, cells in rows) for n in range(len(heads))]
    for label, cells in rows:
        written = "".join(f"  {cell:>{wide[n]}}" for n, cell in enumerate(cells))
        lines.append(f"{_cut(label, first):<{first}}{written}".rstrip())
    return "\n".join(lines)


def _cut(text: str, letters: int, *, end: bool = False) -> str:
    if len(text) <= letters:
        return text
    return "…" + text[1 - letters :] if end else text[: letters - 1] + "…"


def _cell(replay: Mapping[str, Any], row: Row) -> str:
    value = _at(replay, row.path)
    return "none" if value is None and row.path.startswith("first_incident") else shown(value, row.form)


def _at(replay: Any, path: str) -> Any:
    for name in path.split("."):
        replay = replay[name]
    return replay


def _told(replays: Iterable[Mapping[str, Any]], row: Row) -> bool:
    return not row.path.startswith(("decisions.", "retrains.")) or any(_at(one, row.path) for one in replays)


def write_page(sides: Sequence[Left], facts: Mapping[str, Any], out: Path) -> None:
    """Write `diff_page` to the file; all of it or nothing. Raises InputError where it cannot be written."""
    write_whole(out, diff_page(sides, facts))


def diff_page(sides: Sequence[Left], facts: Mapping[str, Any]) -> str:
    """The same facts as one page that stands alone, with performance by month and the incidents of all."""
    span = min(side.start for side in sides), datetime.fromisoformat(facts["history"]["to"])
    names = [one["name"] for one in facts["replays"]]
    found = [(name, incidents(side.records)) for name, side in zip(names, sides, strict=True)]
    return render(
        "diff.html.j2",
        facts,
        rows=(rows := rows_of(facts)),
        best={row.path: _best(facts["replays"], row) for row in rows},
        measure=measured_by(facts["replays"][0]),
        months_svg=_months(facts["replays"], span),
        incidents_svg="".join(charts.incident_lanes(found, span, room) for room in (charts.WIDE, charts.NARROW)),
    )


def _months(replays: Sequence[Mapping[str, Any]], span: tuple[datetime, datetime]) -> str:
    """One line a replay; the frozen model as one grey line where it is the same in all, else left to the table."""
    measure = measured_by(replays[0])
    months = sorted({month["month"] for one in replays for month in one[measure.kpi]["by_month"]})

    def side(one: Mapping[str, Any], name: str) -> list[float | None]:
        known = {month["month"]: month[name] for month in one[measure.kpi]["by_month"]}
        return [known.get(month) for month in months]

    frozen = [side(one, "frozen") for one in replays]
    lines = [charts.Line("frozen", "frozen", frozen[0])] if all(values == frozen[0] for values in frozen) else []
    lines += [charts.Line(one["name"], f"side-{n % 8}", side(one, "loop")) for n, one in enumerate(replays)]
    how: dict[str, Any] = {"measure": measure, "period": replays[0][measure.kpi]["period"]}
    return "".join(
        charts.by_month(months, lines, span, room=room, name=name, **how)
        for name, room in (("months", charts.WIDE), ("months-narrow", charts.NARROW))
    )


def _best(replays: Sequence[Mapping[str, Any]], row: Row) -> list[int]:
    """Places of the best value as it is shown, where one direction is better and not all are the same."""
    values = [_at(one, row.path) for one in replays]
    known = [value for value in values if value is not None]
    if not row.better or len({shown(value, row.form) for value in known}) < 2:
        return []
    best = shown(max(known) if row.better > 0 else min(known), row.form)
    return [place for place, value in enumerate(values) if value is not None and shown(value, row.form) == best]
