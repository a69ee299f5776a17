"""Chronicle: what became of a model's versions, incidents and decisions, told from its audit records in their order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.evidence.timeline import failed_gates
from drift_pipeline.rollout.observe import RECORDED

CHAMPION, RETIRED = "champion", "retired"


@dataclass
class VersionTold:
    """One version. `phase`: champion, retired, trained, proven, rejected, outdated, or that of its last rollout.

    digest: of its bundle; "" of a model that another system answers. rows: that it was trained on; None where nobody
    knows. gates: "" where they were not asked. answers_from, answers_to: its last reign, None where there is none, or
    no end. approved_by: labels of those whose approvals stand in the audit, by key id.
    """

    version: str
    digest: str
    trained_at: datetime
    rows: int | None
    decision: str = ""
    gates: str = ""
    phase: str = "trained"
    since: datetime | None = None
    answers_from: datetime | None = None
    answers_to: datetime | None = None
    approved_by: dict[str, str] = field(default_factory=dict)


@dataclass
class IncidentTold:
    """One incident. `kpis` and `features` as it last grew, `why` of each KPI when it opened.

    closed_by: loop, who closed it by hand, or the version whose reference ended it.
    """

    key: str
    opened_at: datetime
    kpis: list[str]
    features: list[str]
    why: str
    closed_at: datetime | None = None
    closed_by: str = ""
    acknowledged_by: str = ""


@dataclass(frozen=True)
class DecisionTold:
    """One decision of the policy. `asked_by` and `asked_for` of one that a person asked for; else "policy" and ""."""

    at: datetime
    decision: str
    trigger: str
    action: str
    incident: str
    reasons: tuple[str, ...]
    asked_by: str
    asked_for: str


def decisions(records: Iterable[AuditRecord]) -> list[DecisionTold]:
    """All of a model's, oldest first."""
    found = ((record, record.details) for record in records if record.event == "decision.made")
    return [
        DecisionTold(
            _at(record),
            said["decision"],
            said["trigger"],
            said["action"],
            said.get("incident") or "",
            tuple(map(str, said["reasons"])),
            record.actor,
            said.get("reason", ""),
        )
        for record, said in found
    ]


def incidents(records: Iterable[AuditRecord]) -> list[IncidentTold]:
    """All of a model's, oldest first."""
    found: dict[str, IncidentTold] = {}
    for record in records:
        said = record.details
        key = str(said.get("closes") if record.event == "reference.frozen" else said.get("key"))
        if record.event == "incident.opened":
            why = "; ".join(f"{name} {kpi['verdict']}: {kpi['reason']}" for name, kpi in said["kpis"].items())
            found[key] = IncidentTold(key, _at(record), [*said["kpis"]], [*said["features"]], why)
        elif key in found:
            _carry(found[key], record)
    return list(found.values())


def _carry(told: IncidentTold, record: AuditRecord) -> None:
    said = record.details
    match record.event:
        case "incident.joined" | "incident.reopened":
            told.kpis, told.features, told.closed_at, told.closed_by = [*said["kpis"]], [*said["features"]], None, ""
        case "incident.acknowledged":
            told.acknowledged_by = record.actor
        case "incident.closed" | "reference.frozen":
            told.closed_at = _at(record)
            told.closed_by = str(said["version"]) if "version" in said else record.actor


def versions(records: Iterable[AuditRecord]) -> list[VersionTold]:
    """All of a model's, in the order in which they were trained."""
    found: dict[str, VersionTold] = {}  # by digest
    for record in records:
        said, digest = record.details, record.digests.get("bundle", "")
        if record.event == "model.adopted":
            found[digest] = VersionTold(said["version"], digest, _at(record), said.get("rows"))
            _crown(found, digest, record)
        elif record.event == "candidate.trained":
            found[digest] = VersionTold(said["version"], digest, _at(record), said["rows"], str(said["decision"]))
        elif record.event.startswith("rollout."):
            _ship(found, record)
        elif digest in found:
            _prove(found[digest], record)
    return list(found.values())


def _prove(told: VersionTold, record: AuditRecord) -> None:
    said = record.details
    match record.event:
        case "candidate.proven" | "candidate.rejected":
            told.phase, told.since = record.event.removeprefix("candidate."), _at(record)
            failed = ", ".join(str(gate["name"]) for gate in failed_gates(said["results"]))
            told.gates = f"failed: {failed or 'none was asked'}" if told.phase == "rejected" else "passed"
        case "candidate.outdated":
            told.phase, told.since = "outdated", _at(record)
        case "approval.given" | "approval.accepted":
            told.approved_by[str(said["approver"])] = str(said.get("label") or record.actor)
        case "approval.withdrawn":
            told.approved_by.pop(str(said["file"]).split(".")[-3], None)


def _ship(found: dict[str, VersionTold], record: AuditRecord) -> None:
    phase = record.event.removeprefix("rollout.")
    candidate, champion = (_named(record.details, name) for name in ("candidate", "champion"))
    told = found.get(candidate)
    if phase == "full":
        _crown(found, candidate, record)
    elif phase == "rolled_back" and told is not None and told.phase == CHAMPION:
        _crown(found, champion, record)
    if told is not None and phase != "full":
        told.phase, told.since = phase, _at(record)


def _crown(found: Mapping[str, VersionTold], digest: str, record: AuditRecord) -> None:
    """This version answers from now on, and no other."""
    at = _at(record)
    for told in found.values():
        if told.phase == CHAMPION:
            told.phase, told.since, told.answers_to = RETIRED, at, at
    if digest in found:
        told = found[digest]
        told.phase, told.since, told.answers_from, told.answers_to = CHAMPION, at, at, None


def _named(said: Mapping[str, Any], name: str) -> str:
    return "" if said[name] == RECORDED else str(said[name])


def _at(record: AuditRecord) -> datetime:
    return datetime.fromisoformat(record.at)
