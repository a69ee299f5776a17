"""The causal chain of one version: from the first breached window to the last phase of its rollout, record by record.

```
breach -> incident -> decision -> data -> candidate -> gates -> approvals -> rollout -> outcome
adoption ----------------------------------------------------------------------------> outcome      (a first version)
```
Made of audit records alone, so a replay, a live home and a copy of either tell the same; what a chain lacks is said.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.timeline import plain, told
from drift_pipeline.rollout.observe import RECORDED


class Stage(StrEnum):
    """In the order in which one comes of the other."""

    ADOPTION = "adoption"
    BREACH = "breach"
    INCIDENT = "incident"
    DECISION = "decision"
    DATA = "data"
    CANDIDATE = "candidate"
    GATES = "gates"
    APPROVALS = "approvals"
    ROLLOUT = "rollout"
    OUTCOME = "outcome"


@dataclass(frozen=True)
class Step:
    """What one record says of the version. `lines`: its parts, such as one a gate. `facts`: the same as numbers.

    seq, at, actor, event, hash, digests, policy_digest: as the record has them.
    """

    stage: Stage
    seq: int
    at: str
    actor: str
    event: str
    words: str
    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    digests: Mapping[str, str]
    policy_digest: str | None
    hash: str


@dataclass(frozen=True)
class Chain:
    """`digest` is "" of a version that another system answers. `lacks`: (stage, why nothing is there)."""

    model: str
    version: str
    digest: str
    steps: tuple[Step, ...]
    lacks: tuple[tuple[Stage, str], ...]

    def of(self, stage: Stage) -> list[Step]:
        return [step for step in self.steps if step.stage is stage]

    @property
    def stages(self) -> list[Stage]:
        """Those that it has, or should have."""
        missing = {stage for stage, _ in self.lacks}
        return [stage for stage in Stage if stage in missing or self.of(stage)]

    def to_json(self) -> dict[str, Any]:
        lacks = [{"stage": str(stage), "why": why} for stage, why in self.lacks]
        return {**asdict(self), "steps": [asdict(step) for step in self.steps], "lacks": lacks}


@dataclass(frozen=True)
class _Of:
    """What a record has to name to be of the version. `trigger` is of the decision; "" where no record has it.

    followers: digests of those that took over from it.
    """

    version: str
    digest: str
    decision: str = ""
    incident: str = ""
    trigger: str = ""
    adopted: bool = False
    followers: frozenset[str] = frozenset()

    def bundle(self, record: AuditRecord) -> bool:
        return bool(self.digest) and record.digests.get("bundle") == self.digest


def chain_of(
    records: Iterable[AuditRecord], model: str, version: str, known: Mapping[str, Mapping[str, Any]] | None = None
) -> Chain:
    """The chain of one version of a model.

    Args:
        records: the model's, in order.
        version: its name, or its digest.
        known: what the control store holds of candidates and of what was adopted, by digest: who trained them.

    Raises:
        InputError: no record tells of such a version.
        LookupError, TypeError, ValueError, AttributeError: a record has not the form of its event.
    """
    said = list(records)
    of = _identify(said, model, version)
    steps = [step for record in said for step in _steps(record, of, known or {})]
    if last := [step for step in steps if step.event == "documents.written"][:-1]:
        steps = [step for step in steps if step not in last]  # a card is written at each change: the newest is linked
    return Chain(model, of.version, of.digest, tuple(steps), tuple(_lacks(steps, of)))


def known_versions(store: ControlReader, model: str) -> dict[str, Mapping[str, Any]]:
    """What the store holds of a model's candidates and of what was adopted, by digest. Errors as of `attest`."""
    found = [*store.find("adopted", f"{model}/"), *store.find("candidate", f"{model}/")]
    return {str(one.body["digest"]): store.attest(one).body for one in found}


def _identify(records: Sequence[AuditRecord], model: str, version: str) -> _Of:
    made = [record for record in records if record.event in ("model.adopted", "candidate.trained")]
    of = next((one for one in made if version in (one.details["version"], one.digests.get("bundle"))), None)
    if of is None:
        there = ", ".join(str(one.details["version"]) for one in made) or "none"
        raise InputError(f"{model} has no version {version!r}; there are: {there}")
    name, digest = str(of.details["version"]), of.digests.get("bundle", "")
    full = [record.details for record in records if record.event == "rollout.full"]
    followers = frozenset(str(said["candidate"]) for said in full if said["champion"] == (digest or RECORDED))
    if of.event == "model.adopted":
        return _Of(name, digest, adopted=True, followers=followers)
    decision = str(of.details["decision"])
    made_by = next((r for r in records if r.event == "decision.made" and r.details["decision"] == decision), None)
    incident, trigger = (str((made_by.details if made_by else {}).get(name) or "") for name in ("incident", "trigger"))
    return _Of(name, digest, decision, incident, trigger, followers=followers)


def _steps(record: AuditRecord, of: _Of, known: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """What a record says of the version: nothing, one step, or, of an opened incident, the breach and the incident."""
    room = record.event.partition(".")[0]
    return [
        Step(
            stage=stage,
            seq=record.seq,
            at=record.at,
            actor=record.actor,
            event=record.event,
            words=words,
            lines=tuple(map(plain, lines)),
            facts=facts,
            digests=record.digests,
            policy_digest=record.policy_digest,
            hash=record.hash,
        )
        for stage, words, lines, facts in _ROOMS.get(room, _other)(record, of, known)
    ]


_Said = tuple[Stage, str, Sequence[str], Mapping[str, Any]]
_Known = Mapping[str, Mapping[str, Any]]


def _sentence(record: AuditRecord, of: _Of) -> str:
    found = told(record, {of.digest: of.version})
    return found.words if found else plain(", ".join(f"{name} {value}" for name, value in record.details.items()))


def _incident(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    said = record.details
    if not of.incident or said.get("key") != of.incident:
        return []
    kpis = [{"kpi": name, **_numbers(kpi)} for name, kpi in (said.get("kpis") or {}).items()]
    facts = {"key": of.incident, "kpis": kpis, "features": said.get("features", [])}
    steps: list[_Said] = [(Stage.INCIDENT, f"{_sentence(record, of)} ({of.incident})", (), facts)]
    if record.event in ("incident.opened", "incident.joined", "incident.reopened"):
        breached = [(one, kpi) for one, kpi in zip(kpis, said["kpis"].values(), strict=True)]
        lines = [f"{one['kpi']} {_told_kpi(one)}; {kpi['reason']}" for one, kpi in breached]
        worst = ", ".join(f"{one['kpi']} {one['verdict']}" for one in kpis) or "no KPI is named"
        steps.insert(0, (Stage.BREACH, f"windows to {record.at[:16].replace('T', ' ')}: {worst}", lines, facts))
    return steps


def _numbers(kpi: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kpi.get(name) for name in ("verdict", "window", "value", "threshold", "bound", "n")}


def _told_kpi(kpi: Mapping[str, Any]) -> str:
    value, threshold = (
        f"{n:.4g}" if isinstance(n, int | float) else "unknown" for n in (kpi["value"], kpi["threshold"])
    )
    return f"{kpi['verdict']} over {kpi['window']}: {value}, threshold {threshold}, n {kpi['n']}"


def _decision(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    """The one that the version was trained for, and those that were made of its incident before."""
    said = record.details
    ours = said.get("decision") == of.decision
    if of.adopted or not (ours or (of.incident and said.get("incident") == of.incident and _before(said, of))):
        return []
    words = f"{said['decision']}: {_sentence(record, of)}"
    asked = [f"asked for by {record.actor}: {said['reason']}"] if said.get("reason") else []
    facts = {name: said.get(name) for name in ("decision", "action", "trigger", "incident", "reasons", "reason")}
    return [(Stage.DECISION, words, asked, facts)]


def _before(said: Mapping[str, Any], of: _Of) -> bool:
    """Decisions are numbered."""
    numbers = [int(str(name).rpartition("-")[2]) for name in (said["decision"], of.decision)]
    return numbers[0] < numbers[1]


def _training(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    said = record.details
    if of.adopted or said.get("decision") != of.decision:
        return []
    if record.event != "training.started":
        because = said.get("because") or (f"by {said['by']}" if "by" in said else "")
        return [(Stage.CANDIDATE, plain(f"{record.event.replace('.', ' ')} {because}"), (), dict(said))]
    facts = {"delta": {name: said[name] for name in ("predictions", "outcomes") if name in said}}
    facts |= {"rows": said["rows"], "proving_rows": said["block"]}
    versions = ", ".join(f"{name} at Delta version {version}" for name, version in facts["delta"].items())
    source = {name: value for name, value in said.get("source", {"kind": "lake"}).items() if name != "inputs"}
    lines = [versions] if versions else []
    lines += [", ".join(f"{name} {value}" for name, value in source.items())] if source["kind"] != "lake" else []
    return [(Stage.DATA, _sentence(record, of), lines, {**facts, "source": source})]


def _candidate(record: AuditRecord, of: _Of, known: _Known) -> list[_Said]:
    if not of.bundle(record):
        return []
    said = record.details
    if record.event == "candidate.trained":
        body = known.get(of.digest, {})
        data, trainer = body.get("data") or {}, body.get("trainer")
        facts = {"rows": said["rows"], "trainer": trainer, "data": data, "cost": body.get("cost")}
        lines = [f"trainer key {trainer}" if trainer else "the control store holds no record of who trained it"]
        lines += [f"of rows from {data['from'][:16]} to {data['to'][:16]}"] if data else []
        return [(Stage.CANDIDATE, _sentence(record, of), lines, facts)]
    if "results" not in said:
        return [(Stage.GATES, plain(f"{record.event.replace('.', ' ')}: {said.get('because', '')}"), (), dict(said))]
    lines = [f"{gate['name']} {str(gate['outcome']).upper()}: {gate['reason']}" for gate in said["results"]]
    return [(Stage.GATES, _sentence(record, of), lines, {"gates": said["results"], "proven_on": said["proven_on"]})]


def _model(record: AuditRecord, of: _Of, known: _Known) -> list[_Said]:
    ours = of.bundle(record) or (not of.digest and record.details.get("version") == of.version)
    if not ours:
        return []
    if record.event == "model.adopted":
        trainer = known.get(of.digest, {}).get("trainer")
        origin = record.details.get("origin")
        lines = [f"trainer key {trainer}"] if trainer else []
        lines += [f"from {origin}"] if origin else []
        return [
            (Stage.ADOPTION, _sentence(record, of), lines, {"rows": record.details.get("rows"), "trainer": trainer})
        ]
    stage = Stage.ROLLOUT if record.event == "model.registered" else Stage.OUTCOME
    return [(stage, _sentence(record, of), (), dict(record.details))]


def _rollout(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    said = record.details
    candidate, champion = (str(said[name]) for name in ("candidate", "champion"))
    ended = record.event in ("rollout.full", "rollout.rolled_back")
    facts = {name: said[name] for name in ("rollout_id", "phase", "since", "reason")}
    if of.digest and candidate == of.digest:
        return [
            (Stage.OUTCOME if ended else Stage.ROLLOUT, _sentence(record, of), [f"verdict: {said['reason']}"], facts)
        ]
    if ended and candidate in of.followers and champion == (of.digest or RECORDED):
        again = "again" if record.event == "rollout.rolled_back" else "no more"
        return [(Stage.OUTCOME, f"{of.version} answers {again}: {_sentence(record, of)}", (), facts)]
    return []


def _reference(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    return [(Stage.OUTCOME, _sentence(record, of), (), dict(record.details))] if _names(record, of) else []


def _documents(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    if not _names(record, of):
        return []
    files = record.details["files"]
    lines = [f"{name} {digest}" for name, digest in files.items()]
    return [(Stage.OUTCOME, f"{of.version}'s documents are written: {', '.join(files)}", lines, dict(record.details))]


def _names(record: AuditRecord, of: _Of) -> bool:
    return record.details.get("version") == of.version


def _approval(record: AuditRecord, of: _Of, _: _Known) -> list[_Said]:
    """Approvals and waivers: of its bundle, or of its name where they came before there was one."""
    if not (of.bundle(record) or ("bundle" not in record.digests and _names(record, of))):
        return []
    reason = record.details.get("reason")
    return [(Stage.APPROVALS, _sentence(record, of), [str(reason)] if reason else [], dict(record.details))]


def _other(*_: object) -> list[_Said]:
    return []


_ROOMS: Mapping[str, Callable[[AuditRecord, _Of, _Known], list[_Said]]] = {
    "incident": _incident,
    "decision": _decision,
    "training": _training,
    "candidate": _candidate,
    "model": _model,
    "rollout": _rollout,
    "reference": _reference,
    "documents": _documents,
    "approval": _approval,
    "waiver": _approval,
}


def _lacks(steps: Sequence[Step], of: _Of) -> Iterable[tuple[Stage, str]]:
    there = {step.stage for step in steps}
    wanted = _adopted_lacks(of) if of.adopted else _trained_lacks(steps, of)
    yield from ((stage, why) for stage, why in wanted if stage not in there)


def _adopted_lacks(of: _Of) -> list[tuple[Stage, str]]:
    return [(Stage.OUTCOME, f"{of.version} has no reference yet: its adoption is not at its end")]


def _trained_lacks(steps: Sequence[Step], of: _Of) -> list[tuple[Stage, str]]:
    events = {step.event for step in steps}
    asked = f"none: the decision was asked for by {of.trigger}" if of.trigger else "no record tells of one"
    proven, shipped = "candidate.proven" in events, "rollout.full" in events
    rejected = "none: its gates did not pass" if "candidate.rejected" in events else "none yet"
    return [
        (Stage.BREACH, asked),
        (Stage.INCIDENT, asked),
        (Stage.DECISION, f"no record tells of {of.decision}"),
        (Stage.DATA, "no record pins its data"),
        (Stage.GATES, "they were not asked yet"),
        (Stage.APPROVALS, "none was asked for" if shipped else rejected),
        (Stage.ROLLOUT, "it has not begun" if proven else rejected),
        (Stage.OUTCOME, rejected if not proven else "none yet: it answers nobody on its own"),
    ]
