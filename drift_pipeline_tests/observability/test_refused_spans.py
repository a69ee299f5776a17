"""Spans that a receiver refuses for ever are left out and told, and the others go on; what may pass loses nothing."""

from collections.abc import Callable

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from drift_pipeline.loop import suspects
from drift_pipeline.loop.suspects import PATIENCE
from drift_pipeline.loop.tracing import told
from drift_pipeline.observability import span_sink
from drift_pipeline_tests.alerts.worlds import KEY, World
from drift_pipeline_tests.observability.test_otel import Sink, sink
from drift_pipeline_tests.observability.traced import (
    commit,
    deliver,
    incident,
    retrained,
    rolled_out,
    spans_of,
    world,
)

__all__ = ["sink", "world"]


def refuses(name: bytes, status: int = 400) -> Callable[[bytes], tuple[int, bytes]]:
    """A receiver that does not take what has the name in it."""
    said = Status(message=f"no {name.decode()} here").SerializeToString()
    return lambda body: (status, said) if name in body else TAKEN


def rejects(count: int, why: str = "too old") -> Callable[[bytes], tuple[int, bytes]]:
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans, said.partial_success.error_message = count, why
    return lambda _: (200, said.SerializeToString())


TAKEN = 200, b""


def names(sink: Sink) -> list[str]:
    return [span.name for span in spans_of(sink)]


def test_spans_that_are_refused_are_left_out_and_told_and_the_others_go_on(
    world: World, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = refuses(b"prove")
    incident(world)
    retrained(world)
    assert deliver(world) == 6
    assert names(sink) == ["incident.opened", "decision.made", "queued", "prepare", "fit", "model.registered"]
    (line,) = told(world.store)
    assert line == "2 spans were refused; the last: 2 of 2 up to record 6: the receiver answers 400: no prove here"
    assert "2 of 2 up to record 6" in caplog.text
    rolled_out(world, "shadow", "canary")
    assert (deliver(world), told(world.store)) == (1, [line])


def test_where_all_is_refused_it_is_the_receiver_and_nothing_is_left_out(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a proxy that wants TLS, and answers 400 to whatever it is sent."""
    monkeypatch.setattr(suspects, "MOST", 2)
    sink.status = 400
    incident(world)
    for _ in range(5):  # more than are tried in a row
        commit(world, "incident.acknowledged", {"key": KEY})
    for _ in range(PATIENCE + 1):
        assert deliver(world, at_once=True) == 0
    assert told(world.store) == [f"6 records wait for http://127.0.0.1:{sink.server_port}: the receiver answers 400"]
    sink.status = 200
    assert deliver(world, at_once=True) == 6
    assert (names(sink)[0], told(world.store)) == ("incident.opened", [])


def test_the_last_span_is_left_out_once_one_after_it_goes(world: World, sink: Sink) -> None:
    sink.answer = refuses(b"rollout.shadow")
    incident(world)
    retrained(world)
    rolled_out(world, "shadow", "canary")
    assert deliver(world) == 8
    assert "1 records wait" in told(world.store)[0]
    assert deliver(world, at_once=True) == 0
    rolled_out(world, "full")
    assert deliver(world, at_once=True) == 2
    assert [line[:21] for line in told(world.store)] == ["1 spans were refused;"]


def test_one_that_comes_to_itself_just_then_loses_nothing(world: World, sink: Sink) -> None:
    """The second is taken since the receiver takes everything again: so does it then with the first."""
    asked = list[bytes]()

    def answer(body: bytes) -> tuple[int, bytes]:
        asked.append(body)
        return TAKEN if len(asked) > 2 else (400, b"")

    sink.answer = answer
    incident(world)
    commit(world, "incident.acknowledged", {"key": KEY})
    assert deliver(world) == 2  # both, the first alone; the second, the first again
    assert (sorted(names(sink)), told(world.store)) == (["incident.acknowledged", "incident.opened"], [])


@pytest.mark.parametrize("status", [302, 401, 404, 429, 503])
def test_what_may_pass_is_tried_again_however_often(
    world: World, sink: Sink, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.answer = refuses(b"incident.opened", status)
    incident(world)
    commit(world, "incident.acknowledged", {"key": KEY})
    with monkeypatch.context() as patch:
        patch.setattr(span_sink, "TIMEOUT_S", 0.7)  # the SDK would try again after 0.8 s or more
        for _ in range(10):
            deliver(world, at_once=True)
    assert (names(sink), told(world.store)[0][:24]) == ([], "2 records wait for http:")
    sink.answer = lambda _: TAKEN
    assert (deliver(world, at_once=True), told(world.store)) == (2, [])


def test_a_receiver_that_nobody_reaches_costs_no_span(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident(world)
    with monkeypatch.context() as patch:
        patch.setattr(span_sink, "TIMEOUT_S", 0.7)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        for _ in range(10):
            assert deliver(world, at_once=True) == 0
        assert told(world.store)[0].endswith("the receiver does not answer")
    assert (deliver(world, at_once=True), told(world.store)) == (1, [])


def test_spans_that_a_receiver_breaks_on_do_not_hold_the_others_for_ever(world: World, sink: Sink) -> None:
    sink.answer = refuses(b"incident.opened", 500)
    incident(world)
    commit(world, "incident.acknowledged", {"key": KEY})
    for _ in range(PATIENCE):
        assert deliver(world, at_once=True) == 0
    assert deliver(world, at_once=True) == 1
    (line,) = told(world.store)
    assert line.endswith("1 of 1 up to record 1: the receiver answers 500: no incident.opened here")


def test_a_receiver_that_takes_little_at_once_is_told_all(world: World, sink: Sink) -> None:
    sink.answer = lambda body: TAKEN if len(body) < 2000 else (413, b"")
    incident(world)
    retrained(world)
    assert (deliver(world), told(world.store)) == (8, [])
    assert len(sink.got) > 1


def test_what_a_partial_success_rejects_is_told_and_not_sent_again(world: World, sink: Sink) -> None:
    sink.answer = rejects(3)
    incident(world)
    retrained(world)
    assert deliver(world) == 5
    assert told(world.store) == ["3 spans were refused; the last: 3 of 8 up to record 7: too old"]
    assert (deliver(world, at_once=True), sink.asked) == (0, 1)
    sink.answer = rejects(99, "\x1b[2Jone\nline")
    rolled_out(world, "shadow", "canary")
    assert deliver(world) == 0
    assert told(world.store) == ["4 spans were refused; the last: 1 of 1 up to record 9: [2Jone line"]
    sink.answer = rejects(0, "slow down")
    rolled_out(world, "full")
    assert (deliver(world), sink.asked) == (2, 3)
    sink.answer = lambda _: (200, b"<html>no protobuf")
    commit(world, "incident.acknowledged", {"key": KEY})
    assert deliver(world) == 1
