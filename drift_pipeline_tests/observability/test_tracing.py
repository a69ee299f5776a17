"""Traces are told once, in order, whatever becomes of the receiver or of who tells them."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml

from drift_pipeline.clock import ManualClock, SystemClock
from drift_pipeline.components.traces import traces_sensor
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.traces import span_id, trace_id
from drift_pipeline.loop.tracing import deliver_traces, told
from drift_pipeline.observability import span_sink
from drift_pipeline.settings import Settings
from drift_pipeline_tests.alerts.worlds import KEY, World
from drift_pipeline_tests.observability.test_otel import Sink, sink
from drift_pipeline_tests.observability.traced import (
    MODEL,
    deliver,
    incident,
    retrained,
    rolled_out,
    spans_of,
    world,
)
from drift_pipeline_tests.parts import otel
from drift_pipeline_tests.replay.worlds import replayed

__all__ = ["sink", "world"]


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
    sink.status = 404
    incident(world)
    assert deliver(world) == 0
    (line,) = told(world.store)
    assert line.startswith("1 records wait for http://127.0.0.1:")
    assert line.endswith("the receiver answers 404")
    sink.status = 200
    assert deliver(world) == 0  # it pauses
    assert deliver(world, at_once=True) == 1
    assert told(world.store) == []


def test_a_receiver_that_hangs_holds_nobody_up(world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sink, "TIMEOUT_S", 0.2)
    sink.go_on.clear()
    incident(world)
    assert deliver(world) == 0
    assert "1 records wait" in told(world.store)[0]
    assert deliver(world) == 0  # it is not asked in the pause
    assert sink.asked in (1, 2)  # the SDK may ask again at once
    sink.go_on.set()
    monkeypatch.setattr(span_sink, "TIMEOUT_S", 5.0)
    assert deliver(world, at_once=True) == 1


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
    assert {"decision.made", "queued", "fit", "prove", "rollout.shadow", "rollout.canary"} <= names


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
