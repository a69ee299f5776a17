"""Spans whose ids are given, sent by the OpenTelemetry SDK's exporter, and whether they were taken.

Where to is said by the SDK's own variables, as in `otel`. Nothing is sampled: what is told is rare, and pages name it.
"""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from drift_pipeline.errors import UnavailableError
from drift_pipeline.observability.otel import SCOPE, context_of, given_ids, resource, sends, usable
from drift_pipeline.observability.spans import ToldSpan

TIMEOUT_S = 5.0  # of a request and its retries


def traced(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the SDK's variables name somebody to send spans to. Raises InputError where they cannot be used."""
    with usable():
        return environment.get("OTEL_SDK_DISABLED", "").lower() != "true" and sends("TRACES", environment)


def destination(environment: Mapping[str, str] = os.environ) -> str:
    """Where spans go, without what may be a secret."""
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return url.rpartition("@")[2].partition("?")[0]


class SpanSink:
    """Of one thread; to be closed, or left."""

    def __init__(self, service: str = "drift-loop") -> None:
        """
        Args:
            service: the `service.name` where the environment gives none.

        Raises:
            InputError: the SDK is not installed, or its variables cannot be used.
        """
        with usable():
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            self._exporter: Any = OTLPSpanExporter(timeout=TIMEOUT_S)
            self._made = InMemorySpanExporter()
            self._ids = given_ids()
            provider = TracerProvider(ALWAYS_ON, resource(service), shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(SimpleSpanProcessor(self._made))
        self._tracer = provider.get_tracer(SCOPE)

    def send(self, spans: Sequence[ToldSpan]) -> None:
        """Raises UnavailableError where they were not taken: they are to be sent again."""
        self._made.clear()
        for span in spans:
            self._make(span)
        if self._exporter.export(self._made.get_finished_spans()).name != "SUCCESS":
            raise UnavailableError("the spans were not taken")

    def _make(self, told: ToldSpan) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, Status, StatusCode, set_span_in_context

        self._ids.give(told.trace, told.span)
        parent = Context()
        if told.parent:
            parent = set_span_in_context(NonRecordingSpan(context_of(told.trace, told.parent)), parent)
        links = [Link(context_of(*one.split("-")[1:3])) for one in told.links]
        span = self._tracer.start_span(
            told.name, parent, attributes=dict(told.attributes), links=links, start_time=told.began_ns
        )
        if told.failed:
            span.set_status(Status(StatusCode.ERROR, told.failed))
        span.end(end_time=told.ended_ns)

    def close(self) -> None:
        self._exporter.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
