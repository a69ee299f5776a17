"""What a replay left in its folder, read back: the summary and the audit chain; and the spans of time it tells of."""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.control.store import AuditRecord, ControlReader
from drift_pipeline.detection.judging.performance import PERFORMANCE, Performance, measured_by
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.timeline import plain
from drift_pipeline.rollout.plan import version_of

SUMMARY, STORE, KPIS = "summary.json", "control.db", "kpis.parquet"
_FORM = (
    *("model", "rows", "history", "options", "spec", "from", "to", "evaluations", "incidents", "decisions"),
    *("reigns", "retrains", "promotions", "rollbacks", "rejected_candidates", "alerts", "training_cpu_seconds"),
    *("audit", "wall_seconds", "partial"),
)


@dataclass(frozen=True)
class Span:
    """A time with a name; `end` None: it lasted until the replay ended."""

    name: str
    start: datetime
    end: datetime | None
    note: str = ""


@dataclass(frozen=True)
class IncidentSpan:
    """One incident from its opening to its end; re-openings are part of it. They are numbered from 1."""

    key: str
    opened: datetime
    ended: datetime | None
    ending: str
    number: int = 1


@dataclass(frozen=True)
class Left:
    """A replay's folder in memory. `findings` are the control store's, by incident key, `candidates` by digest."""

    folder: Path
    summary: Mapping[str, Any]
    records: tuple[AuditRecord, ...]
    findings: Mapping[str, Mapping[str, Any]]
    candidates: Mapping[str, Mapping[str, Any]]

    @property
    def performance(self) -> Performance:
        """What the summary's `auroc` or `mae` is measured by."""
        return measured_by(self.summary)

    @property
    def start(self) -> datetime:
        """When the watch began: the end of the reference span."""
        adopted = [record for record in self.records if record.event == "model.adopted"]
        return at(adopted[0]) if adopted else datetime.fromisoformat(self.summary["from"])

    @property
    def end(self) -> datetime:
        return datetime.fromisoformat(self.summary["to"])


def read_folder(folder: Path) -> Left:
    """Nothing in the folder is changed.

    Raises:
        InputError: it is no replay's folder (what is missing is named), or of an older form.
    """
    missing = [name for name in (SUMMARY, STORE, KPIS) if not (folder / name).is_file()]
    if missing:
        there = "there is no such folder" if not folder.is_dir() else f"holds no {', '.join(missing)}"
        raise InputError(f"{folder}: {there}, so it is no replay's folder; name what drift replay wrote to --out")
    summary = read_summary(folder / SUMMARY)
    with closing(ControlReader(f"sqlite:///{folder / STORE}")) as store:
        findings, candidates = bodies(store, summary["model"])
        return Left(folder, summary, tuple(store.records()), findings, candidates)


def read_summary(path: Path) -> Mapping[str, Any]:
    """Raises InputError where it is no summary, or one of an older form."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not the JSON of a replay's summary: {error}") from error
    if not isinstance(summary, dict):
        raise InputError(f"{path}: is not a replay's summary but a {type(summary).__name__}")
    absent = [name for name in _FORM if name not in summary]
    measures = [measure.kpi for measure in PERFORMANCE.values()]
    absent += [] if set(measures) & set(summary) else [" or ".join(measures)]
    if absent:
        raise InputError(f"{path}: is of an older form, without {', '.join(absent)}; replay the history again")
    return summary


def bodies(store: ControlReader, model: str) -> tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]]]:
    """What was found at each incident, by its key, and the record of each candidate, by its bundle's digest."""
    findings = {str(found.body["key"]): found.body for found in store.find("finding", f"{model}/")}
    candidates = store.find("candidate", f"{model}/")
    return findings, {found.key.removeprefix(f"{model}/"): found.body for found in candidates}


def at(record: AuditRecord) -> datetime:
    return datetime.fromisoformat(record.at)


def incidents(records: Iterable[AuditRecord]) -> list[IncidentSpan]:
    """In the order of their opening. A champion that takes over ends what was open on the reference before it."""
    spans: dict[str, IncidentSpan] = {}
    for record in records:
        if record.event == "incident.opened":
            key = record.details["key"]
            spans[key] = IncidentSpan(key, at(record), None, "", len(spans.keys() - {key}) + 1)
        elif record.event == "incident.reopened" and record.details["key"] in spans:
            spans[record.details["key"]] = replace(spans[record.details["key"]], ended=None, ending="")
        elif record.event == "incident.closed" and record.details["key"] in spans:
            span = spans[record.details["key"]]
            by_hand = f"closed by {record.actor}: {record.details['reason']}" if "reason" in record.details else ""
            spans[span.key] = replace(span, ended=at(record), ending=by_hand or "back within half the thresholds")
        elif record.event == "reference.frozen" and record.details.get("closes") in spans:
            span = spans[record.details["closes"]]
            ending = f"{record.details['version']} took over and is watched anew"
            spans[span.key] = replace(span, ended=at(record), ending=ending)
    return list(spans.values())


def reigns(summary: Mapping[str, Any]) -> list[Span]:
    """Who was champion when."""
    times = [(r["version"], *(datetime.fromisoformat(r[name]) for name in ("from", "to"))) for r in summary["reigns"]]
    return [Span(version, start, end) for version, start, end in times]


def reigns_of(records: Iterable[AuditRecord]) -> list[Span]:
    """Who was champion when, from the audit alone; the last one is it still."""
    versions, found = dict[str, str](), list[Span]()
    for record in records:
        said = record.details
        if "bundle" in record.digests and "version" in said:
            versions[record.digests["bundle"]] = str(said["version"])
        if record.event in ("model.adopted", "model.promoted"):
            name = str(said["version"])
        elif record.event == "rollout.rolled_back" and found and _took_back(said, versions, found[-1].name):
            name = versions.get(record.digests.get("champion", ""), "the version before")
        else:
            continue
        if found:
            found[-1] = replace(found[-1], end=at(record))
        found.append(Span(name, at(record), None))
    return found


def _took_back(said: Mapping[str, Any], versions: Mapping[str, str], champion: str) -> bool:
    """Whether a rollback took the place of the champion, and not of a candidate."""
    return versions.get(str(said["candidate"])) == champion


def phases(records: Iterable[AuditRecord]) -> list[Span]:
    """The phases of every rollout; `note` is the version. `full` and `rolled_back` end where they begin."""
    found: list[Span] = []
    for record in records:
        if not record.event.startswith("rollout."):
            continue
        phase, rollout = str(record.details["phase"]), str(record.details["rollout_id"])
        version, now = plain(version_of(record.subject, rollout)), at(record)
        if found and found[-1].note == version and found[-1].end is None:
            found[-1] = replace(found[-1], end=now)
        found.append(Span(phase, now, now if phase in ("full", "rolled_back") else None, version))
    return found
