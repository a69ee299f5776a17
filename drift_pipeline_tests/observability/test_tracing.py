"""What came of an incident is one trace, told once under ids that a page can name; a receiver of our own takes it."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from drift_pipeline.alerts.alert import Teller
from drift_pipeline.alerts.delivery import alerts_after
from drift_pipeline.clock import HOUR, ManualClock, SystemClock
from drift_pipeline.components.traces import traces_sensor
from drift_pipeline.control.store import ControlStore, Entry, Put
from drift_pipeline.control.traces import span_id, trace_id
from drift_pipeline.loop.tracing import deliver_traces, told
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.observability.landings import Landings
from drift_pipeline.observability.otel import Outlet, Span, Telling, begun
from drift_pipeline.settings import Settings
from drift_pipeline_tests.alerts.worlds import AT, KEY, World
from drift_pipeline_tests.observability.test_otel import Sink, sink
from drift_pipeline_tests.parts import otel
from drift_pipeline_tests.replay.worlds import replayed

__all__ = ["sink"]

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


def test_a_later_call_goes_on_where_the_last_one_came_to(world: World, sink: Sink) -> None:
    incident(world)
    retrained(world)
    assert deliver(world) > 0
    assert deliver(world) == 0
    rolled_out(world, "shadow")
    assert deliver(world) == 0  # it lasts
    rolled_out(world, "canary")
    assert deliver(world) == 1
    ids = [span.span_id for span in spans_of(sink)]
    assert len(set(ids)) == len(ids) == 9


def test_a_receiver_that_is_down_loses_nothing_and_is_told(world: World, sink: Sink) -> None:
    sink.status = 400
    incident(world)
    assert deliver(world) == 0
    (line,) = told(world.store)
    assert line.startswith("1 records wait for http://127.0.0.1:")
    assert line.endswith("the spans were not taken")
    sink.status = 200
    assert deliver(world) == 0  # it pauses
    assert deliver(world, at_once=True) == 1
    assert told(world.store) == []


def test_it_is_off_without_an_exporter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    incident(world)
    assert deliver(world) == 0
    assert (told(world.store), world.store.recall("_traces")) == ([], None)


def test_variables_that_cannot_be_used_stop_nothing_and_are_told(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    incident(world)
    assert deliver(world) == 0
    assert "only http/protobuf" in caplog.text
    assert "only http/protobuf" in told(world.store)[0]


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


DELIVER = """
import sys
from pathlib import Path
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.tracing import deliver_traces
from drift_pipeline.settings import Settings
settings = Settings(home=Path(sys.argv[1]), database="")
deliver_traces(settings, ControlStore(settings.database_url, SystemClock()))
"""


@pytest.mark.live
def test_what_a_killed_process_told_is_told_again_as_the_same_spans(world: World, sink: Sink) -> None:
    incident(world)
    sink.go_on.clear()  # it has the request, and does not answer
    command = [sys.executable, "-c", DELIVER, str(world.settings.home)]
    with subprocess.Popen(command, env={**os.environ}) as process:
        until = time.monotonic() + 60
        while not sink.asked:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    sink.go_on.set()
    assert deliver(world, at_once=True) == 1
    assert {span.span_id.hex() for span in spans_of(sink)} == {span_id("production", MODEL, KEY)}


def test_two_processes_tell_each_span_once(world: World, sink: Sink) -> None:
    incident(world)
    sink.go_on.clear()
    thread = threading.Thread(target=deliver, args=(world,))
    thread.start()
    with closing(ControlStore(world.settings.database_url, ManualClock(world.clock.now()))) as other:
        until = time.monotonic() + 60
        while not sink.asked:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert deliver_traces(world.settings, other) == 0
    sink.go_on.set()
    thread.join(30)
    assert len(spans_of(sink)) == 1


def test_a_page_and_what_follows_it_name_the_trace(world: World) -> None:
    world.opened(MODEL, KEY)
    retrained(world)
    failed = {"decision": DECISION, "because": "it stopped"}
    world.commit("training.failed", MODEL, failed, messages=[world.alert(MODEL, DECISION, "training.failed")])
    world.commit("tick.failed", MODEL, {}, messages=[world.alert(MODEL, "tick.failed", "tick.failed")])
    world.followed("acknowledged", MODEL)
    teller = Teller(world.store, "production", "")
    alerts = [one for _, one in alerts_after(world.store, teller, (0, 0)) if one is not None]
    trace = trace_id("production", MODEL, KEY)
    assert [(one.what, one.trace_id) for one in alerts] == [
        ("incident.opened", trace),
        ("training.failed", trace),
        ("tick.failed", ""),
        ("incident.acknowledged", trace),
    ]
    assert ("trace", trace) in alerts[0].facts()


def test_a_request_keeps_its_ids_from_the_gateway_to_the_landing_that_links_to_it(sink: Sink) -> None:
    caller = f"00-{'a' * 32}-{'b' * 16}-01"
    own = begun(caller)
    assert (own[:36], own[36:52] == "b" * 16) == (caller[:36], False)
    with closing(Outlet("test")) as outlet:
        outlet.put(Telling([], Span("infer fraud", {"traceparent": caller}, 1, 2, {}, own)))
        landings = Landings(ManualClock(AT), outlet)
        landings.landed(MODEL, "gateway", 7, [own])
    served, landed = spans_of(sink)
    assert (f"00-{served.trace_id.hex()}-{served.span_id.hex()}-01", served.parent_span_id.hex()) == (own, "b" * 16)
    (link,) = landed.links
    assert (link.trace_id, link.span_id) == (served.trace_id, served.span_id)
    (last,) = landings.last[MODEL]
    assert last == f"{AT.isoformat()} 00-{landed.trace_id.hex()}-{landed.span_id.hex()}-01"
    assert attributes(landed) | {"drift.source": ""} == {
        **{"drift.model": MODEL, "drift.source": "", "drift.batch": 7, "drift.requests": 1}
    }


def test_an_incident_links_to_the_last_landing_before_it(world: World, sink: Sink) -> None:
    early, last, late = (f"00-{digit * 32}-{digit * 16}-01" for digit in "123")
    times = (AT, AT + HOUR, AT + 2 * HOUR)
    kept = [f"{at.isoformat()} {own}" for at, own in zip(times, (early, last, late), strict=True)]
    world.store.remember(Put("", CAPTURE, {"at": AT.isoformat(), "events": {}, "landed": {MODEL: kept}}))
    incident(world)
    deliver(world)
    (opened,) = spans_of(sink)
    assert [link.trace_id.hex() for link in opened.links] == ["2" * 32]


@pytest.mark.parametrize("landed", [None, {MODEL: ["nonsense"]}, {MODEL: 3}])
def test_what_capture_remembers_in_another_form_is_no_link(world: World, sink: Sink, landed: Any) -> None:
    world.store.remember(Put("", CAPTURE, {"at": AT.isoformat(), "events": {}, "landed": landed}))
    incident(world)
    assert deliver(world) == 1
    assert [list(span.links) for span in spans_of(sink)] == [[]]


@pytest.mark.parametrize(
    "caller", ["", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'A' * 32}"]
)
def test_a_caller_without_a_trace_begins_one(caller: str) -> None:
    assert begun(caller)[3:35] != "a" * 32
    assert begun(caller) != begun(caller)


def test_a_caller_that_is_not_sampled_is_linked_to_by_nobody() -> None:
    assert begun(f"00-{'a' * 32}-{'b' * 16}-00") == ""


@pytest.fixture
def replay(tmp_path: Path) -> Settings:
    """A copy of the shared replay's home."""
    return Settings(home=Path(shutil.copytree(replayed()[1], tmp_path / "replay")), database="")


def test_a_whole_replay_is_told_as_traces_in_which_each_span_has_its_parent(replay: Settings, sink: Sink) -> None:
    with closing(ControlStore(replay.database_url, SystemClock())) as store:
        sent = deliver_traces(replay, store, seconds=math.inf)
        opened = [record for record in store.records() if record.event == "incident.opened"]
        full = [record for record in store.records() if record.event == "rollout.full"]
    spans = spans_of(sink)
    assert (len(spans), bool(opened), bool(full)) == (sent, True, True)
    known = {(span.trace_id, span.span_id) for span in spans}
    assert len(known) == len(spans)
    below = [span for span in spans if span.parent_span_id]
    assert [span.name for span in below if (span.trace_id, span.parent_span_id) not in known] == []
    for record in opened:
        trace = trace_id(replay.environment, record.subject, record.details["key"])
        (first,) = (span for span in spans if span.trace_id.hex() == trace and not span.parent_span_id)
        assert (first.name, first.span_id.hex()) == ("incident.opened", trace[:16])
    names = {span.name for span in spans}
    assert {"decision.made", "queued", "prepare", "fit", "prove", "rollout.shadow", "rollout.canary"} <= names


def test_the_sensor_tells_and_says_how_many(replay: Settings, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_HOME", str(replay.home))
    monkeypatch.setenv("DRIFT_DATABASE", "")
    said = traces_sensor()(dg.build_sensor_context())
    assert isinstance(said, dg.SkipReason)
    assert said.skip_message == f"{len(spans_of(sink))} spans told"


@pytest.mark.live
@pytest.mark.usefixtures("otel_collector")
def test_a_real_collector_takes_the_trace(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = tmp_path / "out.jsonl", tmp_path / "collector.yaml"
    document = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "${env:DRIFT_OTLP_LISTEN}"}}}},
        "exporters": {"file": {"path": str(out), "flush_interval": "100ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    config.write_text(yaml.safe_dump(document))
    incident(world)
    retrained(world)
    with otel.running(config) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        sent = deliver(world)
        until = time.monotonic() + 60
        while not out.is_file() or not out.read_text().endswith("\n"):
            assert time.monotonic() < until
            time.sleep(0.1)
    told = [json.loads(line) for line in out.read_text().splitlines()]
    spans = [span for one in told for r in one["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]
    assert len(spans) == sent == 8
    assert {span["traceId"] for span in spans} == {trace_id("production", MODEL, KEY)}
    assert (spans[0]["name"], spans[0]["spanId"]) == ("incident.opened", span_id("production", MODEL, KEY))
