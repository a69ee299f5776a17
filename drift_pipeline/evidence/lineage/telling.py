"""What an audit record, or a day that is over, is as run events: every stage begins, and completes or fails.

```
ingest -> monitor (a day, an incident) -> decide -> pin -> fit -> prove -> register -> rollout -> evidence
adopt -> profile (a reference)
```
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.evidence.lineage.events import (
    COMPLETE,
    FAIL,
    RUNNING,
    START,
    Event,
    Facet,
    Naming,
    Run,
    asserted,
    facet,
    metrics,
    schema,
    written,
)
from drift_pipeline.spec import ModelSpec

_JUDGED = ("OK", "WARN", "BREACH")


@dataclass(frozen=True)
class Day:
    """A day of a model that is over.

    rows, outcomes: how many have a time of the day, and `landed` the Delta versions that hold them all, by table.
    nulls: rows of predictions that lack a column. kpis: (name, verdict, reason) as its last tick said. ticks: how many.
    """

    day: date
    rows: int
    outcomes: int
    landed: Mapping[str, int]
    nulls: Mapping[str, int]
    kpis: tuple[tuple[str, str, str], ...]
    ticks: int


@dataclass
class Teller:
    """Tells records in their order.

    runs: those that began and did not end, by key, and which Dagster run holds a decision; kept from call to call.
    decided: of a bundle's digest, the decision that it was trained for; "" where nobody knows.
    """

    naming: Naming
    specs: Mapping[str, ModelSpec]
    decided: Callable[[str, str], str]
    runs: dict[str, str] = field(default_factory=dict)

    def of_record(self, record: AuditRecord) -> list[Event]:
        """None of a record that no stage is told by.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it has not the form of its event.
        """
        teller = _TELLERS.get(record.event)
        return [] if teller is None else list(teller(_Record(self, record)))

    def of_day(self, model: str, day: Day) -> list[Event]:
        """What landed, and what the monitor said of it; nothing of a day without either."""
        begin, end = (f"{at.isoformat()}T00:00:00Z" for at in (day.day, day.day + timedelta(days=1)))
        facets = {"nominalTime": facet("nominalTime", nominalStartTime=begin, nominalEndTime=end)}
        found = []
        if day.rows or day.outcomes:
            found += self._day(model, "ingest", day, (begin, end), facets)
        if day.ticks:
            found += self._day(model, "monitor", day, (begin, end), facets)
        return found

    def _day(self, model: str, stage: str, day: Day, span: tuple[str, str], facets: Mapping[str, Facet]) -> list[Event]:
        run, naming, spec = Run(model, stage, day.day.isoformat()), self.naming, self.specs.get(model)
        rows = naming.table(model, "predictions", version=day.landed.get("predictions"), facets=schema(spec, "score"))
        labels = naming.table(model, "outcomes", version=day.landed.get("outcomes"))
        if stage == "ingest":
            inputs = [naming.dataset(model, "requests", facets=schema(spec))]
            rows["facets"] |= naming.scored(model, spec, "requests")
            outputs = [{**rows, "outputFacets": written(day.rows)}, {**labels, "outputFacets": written(day.outcomes)}]
        else:
            said = _asserted(day.kpis)
            inputs = [{**rows, "inputFacets": {**metrics(day.rows, day.nulls), **said}}, labels]
            outputs = [naming.table(model, "kpis", outputFacets=written(day.ticks * len(day.kpis)))]
        owner = spec.owner if spec else ""
        return [
            naming.event(START, span[0], run, owner=owner, facets=facets),
            naming.event(COMPLETE, span[1], run, owner=owner, facets=facets, inputs=inputs, outputs=outputs),
        ]


@dataclass(frozen=True)
class _Record:
    """One record, and how it is told."""

    teller: Teller
    record: AuditRecord

    @property
    def said(self) -> Mapping[str, Any]:
        return self.record.details

    @property
    def model(self) -> str:
        return self.record.subject

    @property
    def spec(self) -> ModelSpec | None:
        return self.teller.specs.get(self.model)

    @property
    def naming(self) -> Naming:
        return self.teller.naming

    def run(self, stage: str, subject: object) -> Run:
        return Run(self.model, stage, str(subject))

    def decision(self, name: object) -> Run | None:
        return self.run("decide", name) if name else None

    def of_bundle(self, digest: str) -> Run | None:
        """The decision that it was trained for."""
        return self.decision(self.teller.decided(self.model, digest))

    def begin(self, run: Run, **more: Any) -> Event:
        self.teller.runs[run.key] = self.record.at
        return self._event(START, run, **more)

    def end(self, kind: str, run: Run, **more: Any) -> Iterator[Event]:
        """It begins first, where nobody told so."""
        if run.key not in self.teller.runs:
            yield self._event(START, run, parent=more.get("parent"))
        self.teller.runs.pop(run.key, None)
        if kind == FAIL:
            why = str(more.pop("why"))
            more["facets"] = {"errorMessage": facet("errorMessage", message=why, programmingLanguage="PYTHON")}
        yield self._event(kind, run, **more)

    def once(self, run: Run, **more: Any) -> Iterator[Event]:
        return self.end(COMPLETE, run, **more)

    def goes_on(self, run: Run, **more: Any) -> Iterator[Event]:
        if run.key not in self.teller.runs:
            yield self.begin(run, **more)
        yield self._event(RUNNING, run, **more)

    def _event(self, kind: str, run: Run, **more: Any) -> Event:
        more.pop("why", None)
        ours = {"drift": self._drift(run), **more.pop("facets", {})}
        owner = self.spec.owner if self.spec else ""
        return self.naming.event(kind, self.record.at, run, owner=owner, facets=ours, **more)

    def _drift(self, run: Run) -> Facet:
        """Which record tells it, with its digests, and the Dagster run that worked on it, where one did."""
        record = self.record
        return facet(
            "drift",
            audit_seq=record.seq,
            audit_hash=record.hash,
            audit_event=record.event,
            digests=dict(record.digests),
            policy_digest=record.policy_digest,
            dagster_run_id=self.teller.runs.get(_held(self.model, run.subject)),
        )

    def let_go(self, decision: object) -> None:
        self.teller.runs.pop(_held(self.model, str(decision)), None)

    def pinned(self) -> dict[str, Any]:
        said, spec = self.said, self.spec
        return self.naming.dataset(
            self.model, "training_dataset", version=said["decision"], facets=schema(spec, "label")
        )


def _asserted(kpis: Iterable[tuple[str, str, str]]) -> dict[str, Facet]:
    """(name, verdict, reason) of KPIs; what was not judged was not asserted."""
    return asserted(
        (name, verdict != "BREACH", f"{verdict}: {why}") for name, verdict, why in kpis if verdict in _JUDGED
    )


def _held(model: str, decision: str) -> str:
    return f"{model}|held|{decision}"


def _adopted(at: _Record) -> Iterator[Event]:
    digest, version = at.record.digests.get("bundle"), at.said["version"]
    rows = at.naming.table(at.model, "predictions", facets=schema(at.spec, "score"))
    made = at.naming.dataset(
        at.model, "model", version=digest, facets=at.naming.scored(at.model, at.spec, "predictions", version)
    )
    yield from at.once(at.run("adopt", version), inputs=[rows], outputs=[made])


def _frozen(at: _Record) -> Iterator[Event]:
    said = at.said
    rows = at.naming.table(
        at.model, "predictions", facets=schema(at.spec, "score"), inputFacets=metrics(int(said["rows"]))
    )
    made = at.naming.dataset(at.model, "reference", version=at.record.digests["reference"])
    yield from at.once(at.run("profile", f"{said['version']}@{at.record.seq}"), inputs=[rows], outputs=[made])


def _incident(at: _Record) -> Iterator[Event]:
    """The one that opens it is what decisions come of; what becomes of it comes of that one."""
    said = at.said
    first = at.run("monitor", said["key"])
    run = first if at.record.event == "incident.opened" else at.run("monitor", f"{said['key']}@{at.record.seq}")
    held = _asserted((name, kpi["verdict"], kpi["reason"]) for name, kpi in said["kpis"].items())
    rows = at.naming.table(at.model, "predictions", facets=schema(at.spec, "score"), inputFacets=held)
    parent = None if run == first else first
    yield from at.once(run, parent=parent, inputs=[rows], outputs=[at.naming.table(at.model, "kpis")])


def _decided(at: _Record) -> Iterator[Event]:
    said = at.said
    parent = at.run("monitor", said["incident"]) if said["incident"] else None
    made = at.naming.dataset(at.model, "decisions", version=said["decision"])
    inputs = [at.naming.table(at.model, "kpis")]
    yield from at.once(at.run("decide", said["decision"]), parent=parent, inputs=inputs, outputs=[made])


def _claimed(at: _Record) -> Iterator[Event]:
    """Nothing is told, and a Dagster run is remembered: what it makes names it."""
    try:
        at.teller.runs[_held(at.model, at.said["decision"])] = str(UUID(at.said["by"]))
    except ValueError:  # a process
        at.let_go(at.said["decision"])
    yield from ()


def _started(at: _Record) -> Iterator[Event]:
    said, parent = at.said, at.decision(at.said["decision"])
    inputs = [
        at.naming.table(
            at.model, table, version=said[table], facets=schema(at.spec, "score") if table[0] == "p" else {}
        )
        for table in ("predictions", "outcomes")
        if table in said
    ]
    outputs = [{**at.pinned(), "outputFacets": written(int(said["rows"]))}]
    yield from at.once(at.run("pin", said["decision"]), parent=parent, inputs=inputs, outputs=outputs)
    yield at.begin(at.run("fit", said["decision"]), parent=parent, inputs=[at.pinned()])


def _trained(at: _Record) -> Iterator[Event]:
    said, parent, digest = at.said, at.decision(at.said["decision"]), at.record.digests["bundle"]
    facets = at.naming.scored(at.model, at.spec, "training_dataset", said["version"])
    made = at.naming.dataset(at.model, "candidate", version=digest, facets=facets)
    rows = {**at.pinned(), "inputFacets": metrics(int(said["rows"]))}
    yield from at.end(COMPLETE, at.run("fit", said["decision"]), parent=parent, inputs=[rows], outputs=[made])
    given = [at.pinned(), at.naming.dataset(at.model, "candidate", version=digest)]
    yield at.begin(at.run("prove", said["decision"]), parent=parent, inputs=given)


def _proven(at: _Record) -> Iterator[Event]:
    """A rejection is an answer, too: the proof came to its end, and its gates tell which did not pass."""
    said, digest = at.said, at.record.digests["bundle"]
    gates = asserted((gate["name"], gate["outcome"] == "pass", str(gate["reason"])) for gate in said["results"])
    rows = {**at.pinned(), "inputFacets": {**metrics(int(said["proven_on"]["rows"])), **gates}}
    given = [rows, at.naming.dataset(at.model, "candidate", version=digest)]
    facets = at.naming.scored(at.model, at.spec, "training_dataset", said["version"])
    made = at.naming.dataset(at.model, "evaluation", version=digest, facets=facets)
    run = at.run("prove", said["decision"])
    yield from at.end(COMPLETE, run, parent=at.decision(said["decision"]), inputs=given, outputs=[made])
    at.let_go(said["decision"])


def _came_to_nothing(at: _Record) -> Iterator[Event]:
    """What was under way fails: the proof, the training, or else the pinning."""
    decision, under_way = at.said["decision"], at.teller.runs
    runs = [at.run(stage, decision) for stage in ("prove", "fit", "pin")]
    run = next((one for one in runs if one.key in under_way), runs[-1])
    yield from at.end(FAIL, run, parent=at.decision(decision), why=at.said["because"])
    at.let_go(decision)


def _registered(at: _Record) -> Iterator[Event]:
    digest, version = at.record.digests["bundle"], at.said["version"]
    given = at.naming.dataset(at.model, "candidate", version=digest)
    made = at.naming.dataset(at.model, "model", version=digest)
    yield from at.once(at.run("register", version), parent=at.of_bundle(digest), inputs=[given], outputs=[made])


def _rolled(at: _Record) -> Iterator[Event]:
    said = at.said
    run = at.run("rollout", said["rollout_id"])
    more: dict[str, Any] = {
        "parent": at.of_bundle(said["candidate"]),
        "inputs": [at.naming.dataset(at.model, "model", version=said["candidate"])],
        "outputs": [at.naming.dataset(at.model, "champion", version=said["candidate"])],
    }
    match said["phase"]:
        case "full":
            yield from at.end(COMPLETE, run, **more)
        case "rolled_back" if run.key in at.teller.runs:
            yield from at.end(FAIL, run, why=said["reason"], **more)
        case "rolled_back":  # of a champion: its rollout ended long ago
            more["outputs"] = [at.naming.dataset(at.model, "champion", version=said["champion"])]
            yield from at.once(at.run("rollback", f"{said['rollout_id']}@{at.record.seq}"), **more)
        case _ if run.key in at.teller.runs:
            yield from at.goes_on(run, **more)
        case _:
            yield at.begin(run, **more)


def _documented(at: _Record) -> Iterator[Event]:
    version = at.said["version"]
    made = [
        at.naming.dataset(at.model, f"documents.{version}.{name}", version=digest)
        for name, digest in at.said["files"].items()
    ]
    given = [at.naming.dataset(at.model, "evaluation")]
    yield from at.once(at.run("evidence", f"{version}@{at.record.seq}"), inputs=given, outputs=made)


_TELLERS: Mapping[str, Callable[[_Record], Iterator[Event]]] = {
    "model.adopted": _adopted,
    "reference.frozen": _frozen,
    "incident.opened": _incident,
    "incident.joined": _incident,
    "incident.reopened": _incident,
    "incident.closed": _incident,
    "decision.made": _decided,
    "training.claimed": _claimed,
    "training.renewed": _claimed,
    "training.started": _started,
    "training.refused": _came_to_nothing,
    "training.failed": _came_to_nothing,
    "candidate.trained": _trained,
    "candidate.proven": _proven,
    "candidate.rejected": _proven,
    "model.registered": _registered,
    "rollout.shadow": _rolled,
    "rollout.awaiting_approval": _rolled,
    "rollout.canary": _rolled,
    "rollout.full": _rolled,
    "rollout.rolled_back": _rolled,
    "documents.written": _documented,
}
