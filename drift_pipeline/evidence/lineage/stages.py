"""What each event of the audit tells of its stage.

```
monitor (an incident) -> decide -> pin -> fit -> prove -> register -> rollout -> evidence
adopt -> profile (a reference)
```
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from drift_pipeline.evidence.lineage.events import COMPLETE, FAIL, Event, asserted, judged, metrics, schema, written
from drift_pipeline.evidence.lineage.record import ToldRecord


def _adopted(at: ToldRecord) -> Iterator[Event]:
    digest, version = at.record.digests.get("bundle"), at.said["version"]
    rows = at.naming.table(at.model, "predictions", facets=schema(at.spec, "score"))
    made = at.naming.dataset(
        at.model, "model", version=digest, facets=at.naming.scored(at.model, at.spec, "predictions", version)
    )
    yield from at.once(at.run("adopt", version), inputs=[rows], outputs=[made])


def _frozen(at: ToldRecord) -> Iterator[Event]:
    said = at.said
    rows = at.naming.table(
        at.model, "predictions", facets=schema(at.spec, "score"), inputFacets=metrics(int(said["rows"]))
    )
    made = at.naming.dataset(at.model, "reference", version=at.record.digests["reference"])
    yield from at.once(at.run("profile", f"{said['version']}@{at.record.seq}"), inputs=[rows], outputs=[made])


def _incident(at: ToldRecord) -> Iterator[Event]:
    """The one that opens it is what decisions come of; what becomes of it comes of that one."""
    said = at.said
    first = at.run("monitor", said["key"])
    run = first if at.record.event == "incident.opened" else at.run("monitor", f"{said['key']}@{at.record.seq}")
    held = judged((name, kpi["verdict"], kpi["reason"]) for name, kpi in said["kpis"].items())
    rows = at.naming.table(at.model, "predictions", facets=schema(at.spec, "score"), inputFacets=held)
    parent = None if run == first else first
    yield from at.once(run, parent=parent, inputs=[rows], outputs=[at.naming.table(at.model, "kpis")])


def _decided(at: ToldRecord) -> Iterator[Event]:
    said = at.said
    parent = at.run("monitor", said["incident"]) if said["incident"] else None
    made = at.naming.dataset(at.model, "decisions", version=said["decision"])
    inputs = [at.naming.table(at.model, "kpis")]
    yield from at.once(at.run("decide", said["decision"]), parent=parent, inputs=inputs, outputs=[made])


def _claimed(at: ToldRecord) -> Iterator[Event]:
    """Nothing is told, and a Dagster run is remembered: what it makes names it."""
    try:
        at.hold(at.said["decision"], str(UUID(at.said["by"])))
    except ValueError:  # a process
        at.let_go(at.said["decision"])
    yield from ()


def _started(at: ToldRecord) -> Iterator[Event]:
    said, parent = at.said, at.decision(at.said["decision"])
    inputs = [
        at.naming.table(
            at.model, table, version=said[table], facets=schema(at.spec, "score") if table[0] == "p" else {}
        )
        for table in ("predictions", "outcomes")
        if table in said
    ]
    inputs += [at.naming.elsewhere(one) for one in said.get("source", {}).get("inputs", ())]
    outputs = [{**at.pinned(), "outputFacets": written(int(said["rows"]))}]
    yield from at.once(at.run("pin", said["decision"]), parent=parent, inputs=inputs, outputs=outputs)
    yield at.begin(at.run("fit", said["decision"]), parent=parent, inputs=[at.pinned()])


def _trained(at: ToldRecord) -> Iterator[Event]:
    said, parent, digest = at.said, at.decision(at.said["decision"]), at.record.digests["bundle"]
    facets = at.naming.scored(at.model, at.spec, "training_dataset", said["version"])
    made = at.naming.dataset(at.model, "candidate", version=digest, facets=facets)
    rows = {**at.pinned(), "inputFacets": metrics(int(said["rows"]))}
    yield from at.end(COMPLETE, at.run("fit", said["decision"]), parent=parent, inputs=[rows], outputs=[made])
    given = [at.pinned(), at.naming.dataset(at.model, "candidate", version=digest)]
    yield at.begin(at.run("prove", said["decision"]), parent=parent, inputs=given)


def _proven(at: ToldRecord) -> Iterator[Event]:
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


def _came_to_nothing(at: ToldRecord) -> Iterator[Event]:
    """What was under way fails: the proof, the training, or else the pinning."""
    decision, under_way = at.said["decision"], at.runs
    runs = [at.run(stage, decision) for stage in ("prove", "fit", "pin")]
    run = next((one for one in runs if one.key in under_way), runs[-1])
    yield from at.end(FAIL, run, parent=at.decision(decision), why=at.said["because"])
    at.let_go(decision)


def _registered(at: ToldRecord) -> Iterator[Event]:
    digest, version = at.record.digests["bundle"], at.said["version"]
    given = at.naming.dataset(at.model, "candidate", version=digest)
    made = at.naming.dataset(at.model, "model", version=digest)
    yield from at.once(at.run("register", version), parent=at.of_bundle(digest), inputs=[given], outputs=[made])


def _rolled(at: ToldRecord) -> Iterator[Event]:
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
        case "rolled_back" if run.key in at.runs:
            yield from at.end(FAIL, run, why=said["reason"], **more)
        case "rolled_back":  # of a champion: its rollout ended long ago
            more["outputs"] = [at.naming.dataset(at.model, "champion", version=said["champion"])]
            yield from at.once(at.run("rollback", f"{said['rollout_id']}@{at.record.seq}"), **more)
        case _ if run.key in at.runs:
            yield at.go_on(run, **more)
        case _:
            yield at.begin(run, **more)


def _documented(at: ToldRecord) -> Iterator[Event]:
    version = at.said["version"]
    made = [
        at.naming.dataset(at.model, f"documents.{version}.{name}", version=digest)
        for name, digest in at.said["files"].items()
    ]
    given = [at.naming.dataset(at.model, "evaluation")]
    yield from at.once(at.run("evidence", f"{version}@{at.record.seq}"), inputs=given, outputs=made)


STAGES: Mapping[str, Callable[[ToldRecord], Iterator[Event]]] = {
    "model.adopted": _adopted,
    "reference.frozen": _frozen,
    "reference.restored": _frozen,
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
