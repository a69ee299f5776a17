"""The gateway's metrics, in the words of Prometheus; a registry of its own, so that two gateways do not mix."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from drift_pipeline.serving.models import Served

_MODEL = re.compile(rb'model="([a-z0-9_]+)"')
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Labels hold only what specs and the control store name, never what a caller wrote."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def made(kind: Any, name: str, told: str, *labels: str, **options: Any) -> Any:
            return kind(f"drift_gateway_{name}", told, labels, registry=registry, **options)

        self.requests = made(Counter, "requests", "Requests by model and HTTP status.", "model", "status")
        self.seconds = made(
            Histogram, "request_seconds", "Time to an answer of infer.", "model", "route", buckets=_SECONDS
        )
        self.rows = made(
            Counter, "rows", "Rows answered, by the version they were sent to.", "model", "version", "route"
        )
        self.errors = made(Counter, "row_errors", "Rows without a usable score.", "model", "version", "route")
        self.off_form = made(Counter, "off_form", "Values that do not fit their column's form.", "model", "column")
        self.spool_failures = made(Counter, "spool_failures", "Times that the spool did not take events.", "model")
        self.unsent = made(Gauge, "otlp_unsent", "Events and spans that OTLP did not take, since the start.", "reason")
        self.weight = made(Gauge, "canary_weight_percent", "Share of the traffic that the canary is sent.", "model")
        self.loaded = made(
            Gauge, "loaded_version", "1 for what is loaded.", "model", "role", "version", "digest", "way"
        )
        self.problems = made(Gauge, "load_problems", "1 while a version of the model cannot be loaded.", "model")
        self.ticked_at = made(Gauge, "ticked_at_seconds", "When the model's loop last ticked, since 1970.", "model")
        self.waits = made(Gauge, "spool_oldest_seconds", "Age of the oldest event that waits to land in the lake.")
        self.routes_age = made(Gauge, "routes_age_seconds", "Time since the control store last told the routes.")

    def text(self, may_know: Callable[[str], bool]) -> bytes:
        """As Prometheus reads it, without the lines of models that the reader may not know of."""
        return visible(generate_latest(self._registry), may_know)

    def show(self, model: str, served: "Served | None", *, has_problem: bool) -> None:
        """What is loaded of a model, and how much its canary is sent."""
        self.problems.labels(model).set(has_problem)
        if served is None:
            return
        self.weight.labels(model).set(served.weight)
        with suppress(KeyError):  # nothing was shown yet
            self.loaded.remove_by_labels({"model": model})
        for role, version in served.loaded.items():
            way = "taken_apart" if version.scorer.taken_apart else "whole"
            self.loaded.labels(model, role, version.name, version.digest, way).set(1)


def visible(text: bytes, may_know: Callable[[str], bool], *, others: bool = True) -> bytes:
    """The lines of models that the reader may know of, and of the `others`, which are of no model."""
    known = cache(may_know)

    def shown(line: bytes) -> bool:
        of = _MODEL.search(line)
        return known(of[1].decode()) if of else others or line.startswith(b"#")

    return b"".join(line for line in text.splitlines(keepends=True) if shown(line))
