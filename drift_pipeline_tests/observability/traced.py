"""A control store with an incident and what came of it, told as spans to a receiver of our own."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from drift_pipeline.clock import HOUR
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.loop.tracing import deliver_traces
from drift_pipeline_tests.alerts.worlds import KEY, World
from drift_pipeline_tests.observability.test_otel import Sink

MODEL, DECISION, RUN = "fraud", "fraud-1", "8c5bd0b4-4f4e-4a34-9a0c-1f4f3a5d9b11"
DIGEST = f"sha256:{'a' * 64}"
VALUE, PERSON = "4711.0815", "jane.doe@example.com"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "home")
    with closing(world.store):
        yield world


def commit(world: World, event: str, details: Mapping[str, Any], *puts: Put, **digests: str) -> None:
    """An hour after the record before."""
    world.clock.advance_to(world.clock.now() + HOUR)
    world.store.commit(Entry(PERSON, event, MODEL, digests, details), puts)


def incident(world: World) -> None:
    """Two hours after its onset."""
    onset = Put("incident", MODEL, {"key": KEY, "onset": "2026-03-01T11:00:00+00:00"})
    commit(world, "incident.opened", {"key": KEY, "features": [VALUE], "kpis": {"psi": VALUE}}, onset)


def retrained(world: World, key: str = KEY, trigger: str = "drift") -> None:
    """Decided, trained by a run of Dagster, proven and registered."""
    retrain = {"decision": DECISION, "incident": key, "trigger": trigger}
    of = {"decision": DECISION}
    made = {**of, "action": "retrain", "incident": key if trigger == "drift" else None, "reasons": [VALUE]}
    commit(world, "decision.made", made, Put("retrain", f"{MODEL}/{DECISION}", retrain))
    commit(world, "training.claimed", {**of, "by": RUN})
    commit(world, "training.started", {**of, "rows": 10, "version": "v2"})
    candidate = Put("candidate", f"{MODEL}/{DIGEST}", of)
    commit(world, "candidate.trained", {**of, "version": "v2"}, candidate, bundle=DIGEST)
    commit(world, "candidate.proven", {**of, "version": "v2"}, bundle=DIGEST)
    commit(world, "model.registered", {"version": "v2"}, bundle=DIGEST)


def rolled_out(world: World, *phases: str) -> None:
    for phase in phases:
        said = {"rollout_id": "fraud-v2-1", "phase": phase, "candidate": DIGEST, "reason": f"{VALUE} {PERSON}"}
        commit(world, f"rollout.{phase}", said, candidate=DIGEST)


def deliver(world: World, **options: Any) -> int:
    return deliver_traces(world.settings, world.store, seconds=math.inf, **options)


def spans_of(sink: Sink) -> list[Any]:
    bodies = map(ExportTraceServiceRequest.FromString, sink.bodies("/v1/traces"))
    return [span for body in bodies for r in body.resource_spans for s in r.scope_spans for span in s.spans]


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
