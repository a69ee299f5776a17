"""Landings as spans: where what requests left in a spool meets the loop.

A landing links to some of the requests whose answers it landed, and an incident links to the last landing before it:
each is a trace of its own, since one landing is of many requests, and one incident of many landings.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice

from drift_pipeline.clock import Clock
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import DriftError
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.observability.otel import Outlet, Span, Telling, begun, wanted
from drift_pipeline.telemetry.event import TRACEPARENT

log = logging.getLogger(__name__)
LANDED = "landed"  # in what capture remembers: of each model the last landings, as "time traceparent"
MOST_LINKS, _KEPT = 8, 3


class Landings:
    """Of one capture. `last`: of each model the last landings, the newest at the end."""

    def __init__(self, clock: Clock, outlet: Outlet) -> None:
        self._clock, self._outlet = clock, outlet
        self.last: dict[str, Sequence[str]] = {}

    def landed(self, model: str, source: str, number: int, requests: Sequence[str]) -> None:
        """Never waits; a span that finds no room is lost, as the outlet tells.

        Args:
            requests: traceparents of those whose answers landed; what has not the form of one is linked to by nobody.
        """
        own, at, now = begun(""), self._clock.now(), time.time_ns()
        about = {"drift.model": model, "drift.source": source, "drift.batch": number, "drift.requests": len(requests)}
        links = [*islice(filter(TRACEPARENT.fullmatch, requests), MOST_LINKS)]
        span = Span(f"landed {model}", {}, now, now, about, own, links, served=False)
        self._outlet.put(Telling([], span))
        self.last[model] = [*self.last.get(model, ()), f"{at.isoformat()} {own}"][-_KEPT:]


@contextmanager
def tracing(clock: Clock) -> Iterator[Landings | None]:
    """None without an exporter of spans, and where it cannot be used, which is logged: capture goes on without."""
    outlet = None
    try:
        outlet = Outlet("drift-capture") if wanted() else None
    except DriftError as error:
        log.warning("landings are not traced: %s", error)
    try:
        yield Landings(clock, outlet) if outlet is not None and outlet.traces else None
    finally:
        if outlet is not None:
            outlet.close()


def merged(*landed: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Of each model the last landings, of several captures."""
    models = sorted({model for of in landed for model in of})
    return {model: sorted({one for of in landed for one in of.get(model, ())})[-_KEPT:] for model in models}


def before(store: ControlReader, model: str, at: str) -> tuple[str, ...]:
    """The traceparent of the last landing of a model that is known and was not later than `at`, if there is one."""
    with suppress(DriftError, ValueError, TypeError, AttributeError):  # a link that is missing loses nothing else
        found = store.recall(CAPTURE)
        kept = [one.split(" ") for one in (found.body.get(LANDED, {}) if found else {}).get(model, ())]
        known = [own for time, own in kept if datetime.fromisoformat(time) <= datetime.fromisoformat(at)]
        return tuple(known[-1:])
    return ()
