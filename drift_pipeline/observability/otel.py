"""OTLP out: events as log records and requests as spans, sent by the OpenTelemetry SDK on threads of its own.

Who hands something over never waits: it goes into a bounded queue, and what finds that full, or is refused by who
receives it, is counted and logged. Where to send is said by the SDK's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`_HEADERS`, `_CERTIFICATE`, `_TIMEOUT`, `_COMPRESSION`, each also for `_LOGS_` and `_TRACES_`, `OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`. A log record's body is the event as a map.
"""

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from threading import Event, Lock, Thread
from typing import Any

from drift_pipeline.errors import InputError

log = logging.getLogger(__name__)
MOST_EVENTS, MOST_BYTES = 20_000, 64_000_000  # that wait
IN_FLIGHT = 1024  # handed to the SDK, whose own queues hold twice as many of each kind, and drop in silence
PAUSE_S, TOLD_EVERY_S, PATIENCE_S = 0.1, 60.0, 5.0
SCOPE, SPANS_REFUSED = "drift_pipeline", "spans refused"


@dataclass(frozen=True, slots=True)
class Span:
    """A request that was answered, or what else was done. `headers` may hold the caller's traceparent and tracestate;
    times are in nanoseconds since 1970. `own`: its traceparent, "" = any. `links`: traceparents of what it came of.
    `served`: whether somebody asked for it."""

    name: str
    headers: Mapping[str, str]
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    own: str = ""
    links: Sequence[str] = ()
    served: bool = True


@dataclass(frozen=True, slots=True)
class Telling:
    """Events, each as its JSON, and the span of the request that they came of."""

    events: Sequence[bytes]
    span: Span | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(map(len, self.events)))


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the SDK's variables name somebody to send to."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return any(environment.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", "LOGS_", "TRACES_"))


def begun(caller: str) -> str:
    """The traceparent of a span that begins now: in the caller's trace, else in one of its own.

    Args:
        caller: a traceparent, or whatever came in its place; "" is returned of one that is not sampled.

    >>> begun("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")[:36]
    '00-0af7651916cd43dd8448eb211c80319c-'
    """
    from opentelemetry.trace import get_current_span

    found = get_current_span(_callers({"traceparent": caller})).get_span_context()
    if found.is_valid and not found.trace_flags.sampled:
        return ""
    return f"00-{f'{found.trace_id:032x}' if found.is_valid else token_hex(16)}-{token_hex(8)}-01"


def _callers(headers: Mapping[str, str]) -> Any:
    """The SDK's context of a caller's span, by the headers that tell it."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(headers, Context())


@contextmanager
def usable() -> Iterator[None]:
    """Raises InputError where the SDK is not installed, or its variables cannot be used."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"OTLP needs the extra otel: pip install 'drift-pipeline[otel]' ({error}), or take "
            "OTEL_EXPORTER_OTLP_ENDPOINT out of the environment"
        ) from error
    except ValueError as error:
        raise InputError(f"an OTEL_ variable cannot be used: {error}") from error


def resource(service: str) -> Any:
    """What sends, by the environment's name for it, else this one."""
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": service})


def given_ids() -> Any:
    """What a tracer takes ids from: those that it was given last, else random ones."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Given(RandomIdGenerator):
        _trace = _span = 0

        def give(self, trace: str = "0", span: str = "0") -> None:
            self._trace, self._span = int(trace, 16), int(span, 16)

        def generate_trace_id(self) -> int:
            return self._trace or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self._span or super().generate_span_id()

    return Given()


def context_of(trace: str, span: str) -> Any:
    """The SDK's name of a span elsewhere, of its ids."""
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class Outlet:
    """Sends what it is given, until it is closed. Its methods may be called from any thread."""

    def __init__(self, service: str, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        """
        Args:
            service: the `service.name` where the environment gives none.

        Raises:
            InputError: the SDK is not installed, or its variables cannot be used.
        """
        self._most_events, self._most_bytes = most_events, most_bytes
        self._waiting, self._events, self._bytes = deque[Telling](), 0, 0
        self._turn, self._closing, self._lost = Lock(), Event(), Counter[str]()
        self._told_at, self._told = float("-inf"), 0
        with usable():
            self._sdk = _Sdk(service, self._lose)
        self._thread = Thread(target=self._run, name="otlp-out", daemon=True)
        self._thread.start()

    @property
    def traces(self) -> bool:
        """Whether spans are sent."""
        return self._sdk.traces

    @property
    def lost(self) -> Mapping[str, int]:
        """Events and spans that were not sent, since the start: `full` found no room, `refused` were not taken."""
        return dict(self._lost)

    def put(self, telling: Telling) -> bool:
        """Never waits. False where there was no room for it, which is counted."""
        count = len(telling.events)
        with self._turn:
            if self._closing.is_set() or (
                self._waiting
                and (self._events + count > self._most_events or self._bytes + telling.size > self._most_bytes)
            ):
                self._lost["full"] += max(1, count)
                return False
            self._waiting.append(telling)
            self._events += count
            self._bytes += telling.size
        return True

    def close(self, patience_s: float = PATIENCE_S) -> bool:
        """Send what waits; False where the time did not suffice for all of it."""
        self._closing.set()
        self._thread.join(patience_s)
        with self._turn:
            left = self._events + self._sdk.in_flight
        if left:
            log.warning("OTLP: %d events and spans were not sent before the end", left)
        return not left

    def _run(self) -> None:
        while True:
            ending = self._closing.wait(PAUSE_S)
            while (telling := self._next()) is not None:
                self._sdk.wait_for_room()
                try:
                    self._sdk.emit(telling)
                except Exception as error:  # the edge of the thread: one telling is lost, not all that follow
                    log.exception("OTLP: %s", error)
                    self._lose("broken", max(1, len(telling.events)))
            self._tell()
            if ending:
                self._sdk.close()
                self._tell()
                return

    def _next(self) -> Telling | None:
        with self._turn:
            if not self._waiting:
                return None
            telling = self._waiting.popleft()
            self._events -= len(telling.events)
            self._bytes -= telling.size
            return telling

    def _lose(self, why: str, count: int) -> None:
        with self._turn:
            self._lost[why] += count

    def _tell(self) -> None:
        lost, now = sum(self._lost.values()), time.monotonic()
        if lost > self._told and (now - self._told_at >= TOLD_EVERY_S or self._closing.is_set()):
            advice = "; OTEL_TRACES_EXPORTER=none where the Collector keeps no traces" * (SPANS_REFUSED in self._lost)
            log.warning("OTLP: %d events and spans were not sent so far: %s%s", lost, dict(self._lost), advice)
            self._told, self._told_at = lost, now


class _Sdk:
    """The SDK's providers, with exporters that say what became of what they were given."""

    def __init__(self, service: str, lose: Any) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._emitted, self._finished, self._turn, self._lose = 0, 0, Lock(), lose
        of = resource(service)
        room: dict[str, Any] = {"max_queue_size": 2 * IN_FLIGHT, "max_export_batch_size": IN_FLIGHT // 2}
        self._logs = self._traces = None
        if sends("LOGS"):
            self._logs = LoggerProvider(of, shutdown_on_exit=False)
            exporter = _counted(OTLPLogExporter, "events refused", self)
            self._logs.add_log_record_processor(BatchLogRecordProcessor(exporter, **room))
            self._logger = self._logs.get_logger(SCOPE)
        if sends("TRACES"):
            self._ids = given_ids()
            self._traces = TracerProvider(resource=of, shutdown_on_exit=False, id_generator=self._ids)
            exporter = _counted(OTLPSpanExporter, SPANS_REFUSED, self)
            self._traces.add_span_processor(BatchSpanProcessor(exporter, **room))
            self._tracer = self._traces.get_tracer(SCOPE)

    @property
    def traces(self) -> bool:
        return self._traces is not None

    @property
    def in_flight(self) -> int:
        return self._emitted - self._finished

    def wait_for_room(self) -> None:
        while self.in_flight >= IN_FLIGHT:
            time.sleep(PAUSE_S / 10)

    def emit(self, telling: Telling) -> None:
        from opentelemetry.context import Context

        context = Context()
        if telling.span is not None and self._traces is not None:
            context = self._span(telling.span)
        if self._logs is None:
            return
        for event in telling.events:
            self.wait_for_room()
            body = json.loads(event)
            with self._turn:
                self._emitted += 1
            self._logger.emit(
                timestamp=_nanoseconds(body.get("time")),
                context=context,
                body=body,
                event_name=f"drift.{body.get('event')}",
            )

    def _span(self, request: Span) -> Any:
        """The context of the request's span, which goes on with the caller's trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind, set_span_in_context

        kind, attributes = SpanKind.SERVER if request.served else SpanKind.INTERNAL, dict(request.attributes)
        links, began = [Link(context_of(*one.split("-")[1:3])) for one in request.links], request.began_ns
        self._ids.give(*request.own.split("-")[1:3])
        span = self._tracer.start_span(request.name, _callers(request.headers), kind, attributes, links, began)
        if span.is_recording() and span.get_span_context().trace_flags.sampled:
            with self._turn:
                self._emitted += 1
        span.end(end_time=request.ended_ns)
        return set_span_in_context(span, Context())

    def finished(self, count: int, lost: str) -> None:
        """`lost`: why they were not taken, or empty."""
        with self._turn:
            self._finished += count
        if lost:
            self._lose(lost, count)

    def close(self) -> None:
        for provider in (self._logs, self._traces):
            if provider is not None:
                provider.shutdown()


def _counted(exporter: Any, refused: str, sdk: _Sdk) -> Any:
    """An exporter that tells the outcome of each batch, `refused` of one that was not taken."""

    class Counted(exporter):  # type: ignore[misc]
        def export(self, batch: Sequence[Any], **options: Any) -> Any:
            lost = refused
            try:
                if (result := super().export(batch, **options)).name == "SUCCESS":
                    lost = ""
                return result
            finally:
                sdk.finished(len(batch), lost)

    return Counted()


def sends(signal: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment wants this signal, of LOGS and TRACES, and says where to. Raises ValueError."""
    asked = (f"OTEL_EXPORTER_OTLP_{of}PROTOCOL" for of in (f"{signal}_", ""))
    protocol = next(filter(None, map(environment.get, asked)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not sent here, only http/protobuf")
    if environment.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() != "otlp":
        return False
    return any(environment.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", f"{signal}_"))


def _nanoseconds(time: object) -> int | None:
    """Since 1970, of an event's time."""
    try:
        return int(datetime.fromisoformat(str(time)).timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        return None
