"""What is sent as OTLP costs its caller nothing, says what was lost, and is the event that the spool holds."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from drift_pipeline.errors import InputError
from drift_pipeline.observability.otel import Outlet, Span, Telling, wanted
from drift_pipeline.observability.sender import EventSender
from drift_pipeline.telemetry.sources.otlp import Budget, read_logs

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EVENT = {
    "event": "prediction",
    "id": "a",
    "time": "2026-03-01T12:00:00+00:00",
    "score": None,
    "features": {"amount": 1.5, "age": 3, "device": "tv", "region": None, "old": True},
}


class Sink(ThreadingHTTPServer):
    """Takes OTLP, or answers by `status`, or else by `answer`. Hangs while `go_on` is not set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, bytes]] = []
        self.status, self.go_on, self.asked = 200, threading.Event(), 0
        self.go_on.set()
        self.answer: Callable[[bytes], tuple[int, bytes]] = lambda _: (self.status, b"")

    def bodies(self, path: str) -> list[bytes]:
        return [body for at, body in self.got if at == path]

    def events(self) -> list[Any]:
        budget = Budget()
        return [one.event(budget) for body in self.bodies("/v1/logs") for one in read_logs(body, as_json=False)]


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.go_on.wait()
        status, said = self.server.answer(body)
        if status == 200:
            self.server.got.append((self.path, body))
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Not to stderr."""


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    sink = Sink()
    thread = threading.Thread(target=sink.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{sink.server_port}")
    try:
        yield sink
    finally:
        sink.go_on.set()
        sink.shutdown()
        thread.join()
        sink.server_close()


@contextmanager
def outlet(**bounds: int) -> Iterator[Outlet]:
    one = Outlet("test", **bounds)
    try:
        yield one
    finally:
        one.close(30)


def telling(*events: dict[str, Any], headers: dict[str, str] | None = None) -> Telling:
    span = Span("infer m", headers or {}, 10**18, 10**18 + 5, {"drift.prediction_ids": [str(e["id"]) for e in events]})
    return Telling([json.dumps(event).encode() for event in events], span)


def test_the_event_comes_as_it_was_written_with_the_span_of_its_request_in_the_callers_trace(sink: Sink) -> None:
    with outlet() as one:
        assert one.put(telling(EVENT, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}))
    assert sink.events() == [EVENT]
    (body,) = sink.bodies("/v1/logs")
    sent = ExportLogsServiceRequest.FromString(body).resource_logs[0]
    record = sent.scope_logs[0].log_records[0]
    assert (record.event_name, record.time_unix_nano) == ("drift.prediction", 1772366400 * 10**9)
    (body,) = sink.bodies("/v1/traces")
    span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.parent_span_id.hex(), record.trace_id.hex()) == (TRACE, PARENT, TRACE)
    assert record.span_id == span.span_id
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (10**18, 10**18 + 5)
    assert [value.string_value for value in span.attributes[0].value.array_value.values] == ["a"]
    assert {one.key: one.value.string_value for one in sent.resource.attributes}["service.name"] == "test"


def test_a_callers_trace_that_is_none_or_is_not_sampled_is_followed(sink: Sink) -> None:
    with outlet() as one:
        one.put(telling(EVENT, headers={"traceparent": "nonsense"}))
        one.put(telling(EVENT, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
    assert sink.events() == [EVENT, EVENT]
    spans = [
        span
        for body in sink.bodies("/v1/traces")
        for span in ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    ]
    assert [span.parent_span_id for span in spans] == [b""]


def test_who_sends_never_waits_and_what_finds_no_room_is_counted_and_told(
    sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.go_on.clear()
    with outlet(most_events=100) as one:
        began = time.monotonic()
        taken = [one.put(telling({**EVENT, "id": str(number)})) for number in range(5000)]
        assert time.monotonic() - began < 5
        assert taken[0]
        assert one.lost["full"] == taken.count(False) > 0
        sink.go_on.set()
    assert len(sink.events()) == taken.count(True)
    assert "were not sent so far" in caplog.text


def test_one_telling_of_more_than_there_is_room_for_is_taken_when_nothing_else_waits(sink: Sink) -> None:
    with outlet(most_events=1) as one:
        assert one.put(telling(EVENT, EVENT, EVENT))
    assert len(sink.events()) == 3


def test_what_the_receiver_refuses_is_counted(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    sink.status = 400
    with outlet() as one:
        one.put(telling(EVENT, EVENT))
    assert one.lost == {"events refused": 2, "spans refused": 1}
    assert "OTEL_TRACES_EXPORTER=none" in caplog.text


def test_more_than_the_sdk_holds_at_once_all_arrives(sink: Sink) -> None:
    with outlet() as one:
        for number in range(0, 6000, 100):
            assert one.put(telling(*({**EVENT, "id": str(k)} for k in range(number, number + 100))))
    assert [event["id"] for event in sink.events()] == [str(number) for number in range(6000)]
    assert one.lost == {}


def test_a_receiver_that_hangs_does_not_hold_up_the_end(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    sink.go_on.clear()
    one = Outlet("test")
    one.put(telling(EVENT))
    began = time.monotonic()
    assert not one.close(0.5)
    assert time.monotonic() - began < 10
    assert "were not sent before the end" in caplog.text
    assert not one.put(telling(EVENT))
    sink.go_on.set()
    one.close(30)


def test_logs_alone(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with outlet() as one:
        one.put(telling(EVENT))
    assert {path for path, _ in sink.got} == {"/v1/logs"}


def test_it_is_off_unless_the_environment_says_where_to_send() -> None:
    assert not wanted({})
    assert wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert wanted({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://x"})
    assert not wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})


def test_a_protocol_that_is_not_sent_is_told(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InputError, match="only http/protobuf"):
        Outlet("test")


def test_a_sender_sends_events_as_the_receiver_takes_them(sink: Sink) -> None:
    with EventSender() as sender:
        assert sender.prediction("fraud", "a", version="7", features={"amount": 1.5, "device": None}, score=0.2)
        assert sender.outcome("fraud", "a", 1)
        for bad in ({"amount": float("nan")}, {"amount": {1}}):
            with pytest.raises(InputError, match="fraud b"):
                sender.prediction("fraud", "b", version="7", features=bad)  # type: ignore[arg-type]
    first, second = sink.events()
    assert first | {"time": ""} == {
        **{"event": "prediction", "model": "fraud", "id": "a", "time": "", "version": "7", "route": "external"},
        **{"score": 0.2, "latency_ms": None, "entity": None, "features": {"amount": 1.5, "device": None}},
    }
    assert second | {"time": ""} == {"event": "outcome", "model": "fraud", "id": "a", "time": "", "label": 1}
    assert sender.lost == {}


def test_a_sender_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with pytest.raises(InputError, match="set OTEL_EXPORTER_OTLP_ENDPOINT"):
        EventSender()


@pytest.mark.parametrize("status", [200, 302, 400])
def test_what_a_receiver_rejects_of_a_batch_is_counted(sink: Sink, status: int) -> None:
    said = ExportLogsServiceResponse()
    said.partial_success.rejected_log_records = 2
    sink.answer = lambda _: (status, said.SerializeToString())
    with outlet() as one:
        assert one.put(Telling([json.dumps(EVENT).encode()] * 3))
    assert one.lost == {"events refused": 2 if status == 200 else 3}
