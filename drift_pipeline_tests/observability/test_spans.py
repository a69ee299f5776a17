"""What came of an incident, or of a decision, is one trace; each stage is told once, when it ends."""

from datetime import timedelta
from typing import Any

from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.traces import span_id, trace_id
from drift_pipeline.loop.tracing import told
from drift_pipeline_tests.alerts.worlds import KEY, World
from drift_pipeline_tests.observability.test_otel import Sink, sink
from drift_pipeline_tests.observability.traced import (
    DECISION,
    MODEL,
    PERSON,
    RUN,
    VALUE,
    attributes,
    commit,
    deliver,
    incident,
    retrained,
    rolled_out,
    spans_of,
    world,
)

__all__ = ["sink", "world"]


def hours(span: Any) -> float:
    return float((span.end_time_unix_nano - span.start_time_unix_nano) / 3_600e9)


def test_an_incident_is_one_trace_from_its_onset_to_its_end(world: World, sink: Sink) -> None:
    incident(world)
    retrained(world)
    rolled_out(world, "shadow", "awaiting_approval", "canary", "full")
    commit(world, "reference.frozen", {"closes": KEY, "version": "v2", "rows": 5})
    assert deliver(world) == len(spans := spans_of(sink))
    assert {span.trace_id.hex() for span in spans} == {trace_id("production", MODEL, KEY)}
    assert [(span.name, round(hours(span), 3)) for span in spans] == [
        ("incident.opened", 2.0),  # since its onset
        ("decision.made", 0.0),
        ("queued", 1.0),
        ("prepare", 1.0),
        ("fit", 1.0),
        ("prove", 1.0),
        ("candidate.proven", 0.0),
        ("model.registered", 0.0),
        ("rollout.shadow", 1.0),
        ("rollout.awaiting_approval", 1.0),
        ("rollout.canary", 1.0),
        ("rollout.full", 0.0),
        ("incident.open", 11.0),
        ("reference.frozen", 0.0),
    ]


def test_a_stage_is_below_its_decision_which_is_below_its_incident(world: World, sink: Sink) -> None:
    incident(world)
    retrained(world)
    rolled_out(world, "shadow", "canary", "rolled_back")
    deliver(world)
    spans = {span.name: span for span in spans_of(sink)}
    first, decision = span_id("production", MODEL, KEY), span_id("production", MODEL, DECISION)
    assert (spans["incident.opened"].span_id.hex(), spans["incident.opened"].parent_span_id) == (first, b"")
    made = spans["decision.made"]
    assert (made.span_id.hex(), made.parent_span_id.hex()) == (decision, first)
    below = ("fit", "prove", "model.registered", "rollout.shadow", "rollout.canary", "rollout.rolled_back")
    assert {spans[name].parent_span_id.hex() for name in below} == {decision}
    about = attributes(spans["fit"])
    assert about | {"drift.audit.seq": 0} == {
        **{"drift.environment": "production", "drift.model": MODEL, "drift.incident": KEY, "drift.decision": DECISION},
        **{"drift.run": RUN, "drift.version": "v2", "drift.audit.seq": 0, "drift.audit.event": "training.started"},
        "drift.ended_by": "candidate.trained",
    }
    assert attributes(spans["rollout.canary"])["drift.rollout"] == "fraud-v2-1"
    failed = {name for name, span in spans.items() if span.status.code == span.status.STATUS_CODE_ERROR}
    assert failed == {"rollout.canary", "rollout.rolled_back"}


def test_no_span_holds_a_value_a_person_or_what_somebody_typed(world: World, sink: Sink) -> None:
    incident(world)
    retrained(world)
    rolled_out(world, "shadow", "rolled_back")
    deliver(world)
    sent = b"".join(sink.bodies("/v1/traces"))
    assert (VALUE.encode() in sent, PERSON.encode() in sent, KEY.encode() in sent) == (False, False, True)


def test_what_the_calendar_asked_for_is_a_trace_of_its_decision(world: World, sink: Sink) -> None:
    retrained(world, key="schedule-20260301T0000", trigger="schedule")
    deliver(world)
    spans = spans_of(sink)
    assert {span.trace_id.hex() for span in spans} == {trace_id("production", MODEL, DECISION)}
    first, *others = spans
    assert (first.name, first.span_id.hex(), first.parent_span_id) == (
        "decision.made",
        span_id("production", MODEL, DECISION),
        b"",
    )
    assert {span.parent_span_id for span in others} == {first.span_id}
    assert "drift.incident" not in attributes(first)


def test_a_training_that_lapsed_fails_and_who_takes_it_over_is_told(world: World, sink: Sink) -> None:
    incident(world)
    of = {"decision": DECISION}
    commit(world, "training.claimed", {**of, "by": RUN})
    commit(world, "training.lapsed", {**of, "because": f"{VALUE} of {PERSON}"})
    commit(world, "training.claimed", {**of, "by": "process 7 ab"})
    commit(world, "training.renewed", {**of, "by": RUN.replace("8", "9")})
    commit(world, "training.failed", {**of, "because": VALUE})
    deliver(world)
    spans = spans_of(sink)[1:]
    found = [(span.name, span.status.code, attributes(span).get("drift.run")) for span in spans]
    other = RUN.replace("8", "9")
    assert found == [
        ("prepare", 2, RUN),
        ("queued", 0, None),
        ("training.renewed", 0, other),
        ("prepare", 2, other),
        ("training.failed", 2, other),
    ]


def test_a_record_that_has_not_the_form_of_its_event_is_left_out(world: World, sink: Sink) -> None:
    world.store.commit(
        Entry("loop", "incident.opened", MODEL, details={"key": KEY}),
        [Put("incident", MODEL, {"key": KEY, "onset": "yesterday"})],
    )
    commit(world, "incident.acknowledged", {"key": KEY})
    assert deliver(world) == 1
    assert told(world.store) == ["1 records were left out"]


def test_a_clock_that_was_set_back_makes_no_span_that_ends_before_it_begins(world: World, sink: Sink) -> None:
    incident(world)
    commit(world, "training.claimed", {"decision": DECISION, "by": RUN})
    world.clock._now -= timedelta(days=2)
    commit(world, "training.failed", {"decision": DECISION})
    deliver(world)
    assert min(map(hours, spans_of(sink))) >= 0
