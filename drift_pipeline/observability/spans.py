"""The audit as spans: what an incident, or a decision without one, came to, a record or a stage each.

```
incident.opened                    from the first tick that found it until it opened
|- incident.open                   until it is closed
|- decision.made                   no length
   |- queued, prepare, fit, prove  each until the record that ends it: trained, proven, or failed
   |- model.registered             no length
   |- rollout.shadow, rollout.canary, ...   a phase lasts until the next one
```
A stage is told when it ends, so that no span changes once it was told. A record that begins no stage is a span of no
length. No attribute holds a feature's value, a person or what somebody typed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.traces import body_of, decision_of, key_of, span_id, trace_id
from drift_pipeline.observability.landings import before

OPENED, DECIDED = "incident.opened", "decision.made"
_ROLLOUT, _ENDS = "rollout.", ("incident.closed", "reference.frozen")
_PHASES = ("rollout.shadow", "rollout.awaiting_approval", "rollout.canary")
_CLAIMED, _GOES_ON = "training.claimed", "training.renewed"
_BEGINS = {  # an event, and the stage that goes on from it
    OPENED: "incident.open",
    "incident.reopened": "incident.open",
    _CLAIMED: "prepare",
    "training.started": "fit",
    "candidate.trained": "prove",
    "training.lapsed": "queued",
    "training.handed_back": "queued",
    **dict(zip(_PHASES, _PHASES, strict=True)),
}
_TRAINED = ("training.", "candidate.trained", "candidate.proven", "candidate.rejected")
_FAILED = ("training.failed", "training.refused", "training.lapsed", "rollout.rolled_back")
_TRAINS = ("retrain", "hotfix_retrain")


@dataclass(frozen=True)
class ToldSpan:
    """A span whose ids are given, in hexadecimal digits. Times are in nanoseconds since 1970.

    parent: "" = the first of its trace. failed: "" = it did not. links: traceparents of what it came of.
    """

    name: str
    trace: str
    span: str
    parent: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int]
    failed: str = ""
    links: tuple[str, ...] = ()


@dataclass
class Spans:
    """Tells records in their order.

    stages: those that began and did not end, by what they are of; changed as spans are made, and kept from call to
    call.
    """

    store: ControlReader
    environment: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of_record(self, record: AuditRecord) -> list[ToldSpan]:
        """None of a record that came of no incident and no decision.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it has not the form of its event.
        """
        key = key_of(self.store, record.subject, record.event, record.details, record.digests)
        return list(self._spans(record, key)) if key else []

    def _spans(self, record: AuditRecord, key: str) -> Iterator[ToldSpan]:
        event, said, at = record.event, record.details, _nanoseconds(record.at)
        decision = "" if _of_incident(event) else decision_of(self.store, record.subject, said, record.digests)
        trace, first = trace_id(self.environment, record.subject, key), span_id(self.environment, record.subject, key)
        parent = span_id(self.environment, record.subject, decision) if decision else first
        told = self._attributes(record, key, decision)
        of = _stage_of(record, key, decision)
        if of in self.stages and event == _GOES_ON:
            self.stages[of] = {**self.stages[of], "attributes": told}
        elif of in self.stages:
            yield _ended(self.stages.pop(of), trace, at, event)
        stage = _BEGINS.get(event)
        if event == DECIDED and said.get("action") in _TRAINS:
            stage, of = "queued", f"{record.subject}|{decision}"
        failed = event if event in _FAILED else ""
        if event == OPENED:
            onset, links = min(self._onset(record, key), at), before(self.store, record.subject, record.at)
            yield ToldSpan(OPENED, trace, first, "", onset, at, told, links=links)
        elif event == DECIDED:
            yield ToldSpan(DECIDED, trace, parent, "" if parent == first else first, at, at, told)
        elif stage is None:
            yield ToldSpan(event, trace, record.hash[:16], parent, at, at, told, failed)
        if stage is not None:
            told = {name: one for name, one in told.items() if (stage, name) != ("queued", "drift.run")}
            begun = {"name": stage, "span": _of_stage(record), "parent": parent, "at": record.at, "attributes": told}
            self.stages[of] = begun

    def _attributes(self, record: AuditRecord, key: str, decision: str) -> dict[str, str | int]:
        """What it is about. Who holds a training is told where it is a run of Dagster."""
        said = record.details
        held = self.stages.get(f"{record.subject}|{decision}", {}) if record.event != _CLAIMED else {}
        named = {
            "drift.environment": self.environment,
            "drift.model": record.subject,
            "drift.incident": "" if key == decision else key,
            "drift.decision": decision,
            "drift.rollout": said.get("rollout_id"),
            "drift.version": said.get("version"),
            "drift.run": _run(said.get("by")) or held.get("attributes", {}).get("drift.run"),
        }
        found: dict[str, str | int] = {name: one for name, one in named.items() if isinstance(one, str) and one}
        return {**found, "drift.audit.seq": record.seq, "drift.audit.event": record.event}

    def _onset(self, record: AuditRecord, key: str) -> int:
        """The first tick of what opened it; when it opened, where it is not known any more."""
        body = body_of(self.store, "incident", record.subject)
        onset = body.get("onset") if body.get("key") == key else None
        return _nanoseconds(str(onset or record.at))


def _ended(stage: Mapping[str, Any], trace: str, at: int, event: str) -> ToldSpan:
    told = {**stage["attributes"], "drift.ended_by": event}
    failed = event if event in _FAILED else ""
    began = min(_nanoseconds(stage["at"]), at)  # a clock may have been set back
    return ToldSpan(stage["name"], trace, stage["span"], stage["parent"], began, at, told, failed)


def _stage_of(record: AuditRecord, key: str, decision: str) -> str:
    """What the record may end a stage of."""
    event = record.event
    if _of_incident(event):
        return f"{record.subject}|incident|{key}" if event in (*_ENDS, *_BEGINS) else ""
    if event.startswith(_ROLLOUT):
        return f"{record.subject}|rollout|{record.details.get('rollout_id')}"
    return f"{record.subject}|{decision}" if event.startswith(_TRAINED) else ""


def _of_incident(event: str) -> bool:
    return event.startswith("incident.") or event in _ENDS


def _of_stage(record: AuditRecord) -> str:
    """The id of the stage that a record begins."""
    return record.hash[16:32]


def _run(holder: object) -> str:
    try:
        return str(UUID(holder)) if isinstance(holder, str) else ""
    except ValueError:  # a process
        return ""


def _nanoseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1_000_000) * 1000
