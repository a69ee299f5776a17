"""Spans whose ids are given, sent by the OpenTelemetry SDK's exporter, and what became of them.

Where to is said by the SDK's own variables, as in `otel`. Nothing is sampled: what is told is rare, and pages name it.
"""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from drift_pipeline.errors import UnavailableError
from drift_pipeline.observability.answers import Answers
from drift_pipeline.observability.otel import SCOPE, context_of, given_ids, resource, sends, usable
from drift_pipeline.observability.spans import ToldSpan

TIMEOUT_S = 5.0  # of a request and its retries
_REFUSED = (400, 413, 422)  # it is the spans that are wrong; anything else may pass
_BROKEN = 500  # a Collector's, too, whose own receiver refuses them


def traced(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the SDK's variables name somebody to send spans to. Raises InputError where they cannot be used."""
    with usable():
        return environment.get("OTEL_SDK_DISABLED", "").lower() != "true" and sends("TRACES", environment)


def destination(environment: Mapping[str, str] = os.environ) -> str:
    """Where spans go, without what may be a secret."""
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return url.rpartition("@")[2].partition("?")[0]


class RefusedSpansError(Exception):
    """None of them is taken, and never will be as long as one of them is among them."""


class SpanSink:
    """Of one thread; to be closed, or left."""

    def __init__(self, service: str = "drift-loop", *, patient: bool = True) -> None:
        """
        Args:
            service: the `service.name` where the environment gives none.
            patient: a receiver that breaks (500) may take them later; else it refuses them.

        Raises:
            InputError: the SDK is not installed, or its variables cannot be used.
        """
        with usable():
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            self._answers, self._refused = Answers(), _REFUSED if patient else (*_REFUSED, _BROKEN)
            self._exporter: Any = OTLPSpanExporter(timeout=TIMEOUT_S, session=self._answers.session)
            self._made = InMemorySpanExporter()
            self._ids = given_ids()
            provider = TracerProvider(ALWAYS_ON, resource(service), shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(SimpleSpanProcessor(self._made))
        self._tracer = provider.get_tracer(SCOPE)

    def send(self, spans: Sequence[ToldSpan]) -> tuple[int, str]:
        """How many of them were rejected for ever while the others were taken, and why.

        Raises:
            RefusedSpansError: it takes none of them.
            UnavailableError: it may take them later.
        """
        self._made.clear()
        self._answers.forget()
        try:
            for span in spans:
                self._make(span)
            made = self._made.get_finished_spans()
            sent = self._exporter.export(made).name == "SUCCESS"
            if not sent and not self._answers.status:
                _encoded(made)
        except (TypeError, ValueError) as error:
            raise RefusedSpansError(f"cannot be written as OTLP: {type(error).__name__}") from error
        answers = self._answers
        if sent and answers.taken:
            return answers.refused(len(spans)), answers.why
        told = f"answers {answers.status}" if answers.status else "does not answer"
        told = f"the receiver {told}{f': {answers.why}' if answers.why else ''}"
        raise RefusedSpansError(told) if answers.status in self._refused else UnavailableError(told)

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


def _encoded(spans: Sequence[Any]) -> None:
    """Raises what the exporter only logs, of a span that cannot be encoded."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    encode_spans(spans).SerializePartialToString()
