"""The gateway's endpoints: who may ask, what is answered, and that its events are written before an answer leaves."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from drift_pipeline import __version__
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.logs import about
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.observability.otel import Span, Telling, begun
from drift_pipeline.serving.answer import Answer, answer, joined
from drift_pipeline.serving.entrance import (
    answering,
    key_holder,
    not_ready,
    producer_of,
    served_of,
    spec_and_allowance,
    spec_for,
    troubles,
)
from drift_pipeline.serving.gateway import Gateway
from drift_pipeline.serving.keys import ANY_MODEL
from drift_pipeline.serving.metrics import visible
from drift_pipeline.serving.models import Served
from drift_pipeline.serving.pinned import is_copy
from drift_pipeline.serving.protocol import Ask, Items, metadata, read_ask, read_document, response
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import EXTERNAL, DeadLetter, off_form_of, read_event

MOST_EVENTS = 10_000
Endpoint = Callable[[Request], Awaitable[Response]]
LOST = 499  # as others count a client that went away before its answer
LOOP_AGE_S, LOOP_WAIT_S = 5.0, 2.0
SLICE_ROWS = 100  # some 3 ms
_SOON = {"Retry-After": "1"}
_LONGEST_TOLD = 1000
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")  # of a traceparent


class Told(BaseModel):
    """One outcome. The event's reader checks the rest, as it does for what comes by another way."""

    model_config = ConfigDict(extra="forbid")

    id: str
    label: Any
    time: str | None = None


class Outcomes(BaseModel):
    outcomes: Items[Told]


class Events(BaseModel):
    events: Items[dict[str, Any]]


class Endpoints:
    """The endpoints; `answered` turns what they raise into an answer, and counts it."""

    def __init__(self, gateway: Gateway, loop: LoopMetrics) -> None:
        self._gateway, self._loop = gateway, loop
        self._reading: asyncio.Future[bytes] | None = None

    def all(self) -> list[tuple[str, str, Endpoint]]:
        model = "/v2/models/{model}"
        return [
            ("GET", "/v2", self.server),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", self.ready),
            ("GET", "/metrics", self.metrics),
            ("GET", model, self.model),
            ("GET", model + "/versions/{version}", self.model),
            ("GET", model + "/ready", self.model_ready),
            ("POST", model + "/infer", self.infer),
            ("POST", model + "/outcomes", self.outcomes),
            ("POST", model + "/events", self.events),
        ]

    def answered(self, endpoint: Endpoint) -> Endpoint:
        async def run(request: Request) -> Response:
            trace = _TRACE.match(request.headers.get("traceparent", ""))
            try:
                with about(trace_id=trace[1]) if trace else nullcontext():
                    told = await endpoint(request)
            except HTTPException as refusal:
                told = failed(refusal.status_code, refusal.detail, refusal.headers)
            except InputError as error:
                told = failed(400, str(error))
            except UnavailableError as error:
                told = failed(503, str(error), _SOON)
            except ClientDisconnect:  # nobody hears the answer; it is counted
                told = failed(LOST, "the client went away")
            name = request.path_params.get("model", "")
            name = name if name in self._gateway.specs else ""
            self._gateway.metrics.requests.labels(name, str(told.status_code)).inc()
            return told

        return run

    async def server(self, request: Request) -> Response:
        await producer_of(request, self._gateway)
        return _json({"name": "drift_pipeline", "version": __version__, "extensions": []})

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Not before each model that has a champion is loaded; later troubles are told, and stop nothing.

        Which models, only a key of theirs is told.
        """
        gateway, producer = self._gateway, await key_holder(request, self._gateway)
        reasons = {name: why for name in gateway.specs if (why := not_ready(name, gateway))}
        if reasons:
            told = sorted({why for name, why in reasons.items() if producer and producer.may(name)})
            why = "; ".join(told) or "a model is not loaded; a key of that model is told which"
            return _json({"ready": False, "error": why}, 503, _SOON)
        shown = {name: why for name, why in troubles(gateway).items() if producer and (not name or producer.may(name))}
        return _json({"ready": True, **({"problems": shown} if shown else {})})

    async def metrics(self, request: Request) -> Response:
        """Of the key's own models; of the home as a whole only a key of all models is told."""
        gateway, producer = self._gateway, await producer_of(request, self._gateway)
        loop = await self._of_loop()
        with gateway.callers.allowance(producer).looking():
            text = gateway.metrics.text(producer.may)
            text += visible(loop, producer.may, others=producer.may(ANY_MODEL))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _of_loop(self) -> bytes:
        """Read once for all who ask within some seconds; nothing where the control store hangs."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._loop.text, LOOP_AGE_S))
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._reading), LOOP_WAIT_S)
        return b""

    async def model(self, request: Request) -> Response:
        spec = await spec_for(request, self._gateway)
        served = self._gateway.models.served.get(spec.name)
        versions = list(dict.fromkeys(version.name for version in served.loaded.values())) if served else []
        wanted = request.path_params.get("version")
        if wanted is not None and wanted not in versions:
            loaded = ", ".join(versions) or "none"
            raise HTTPException(404, f"{spec.name}: no version {wanted!r} is loaded; there are: {loaded}")
        return _json(metadata(spec, versions if wanted is None else [wanted]))

    async def model_ready(self, request: Request) -> Response:
        spec = await spec_for(request, self._gateway)
        served_of(spec, self._gateway)
        return _json({"name": spec.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        began, gateway, began_ns = time.perf_counter(), self._gateway, time.time_ns()
        spec, allowance = await spec_and_allowance(request, self._gateway)
        own = begun(request.headers.get("traceparent", "")) if gateway.outlet and gateway.outlet.traces else ""
        async with allowance.body(request) as body:
            with allowance.parsing():
                ask = read_ask(body, spec)
                allowance.take_rows(len(ask.rows))
            served, answered = await answering(request, spec, gateway)
            gateway.count_off_form(spec.name, ask.off_form)
            if gateway.drills and ask.delay_ms:
                await asyncio.sleep(ask.delay_ms / 1000)
            found = await self._answer(spec, served, ask, began, allowance.producer.name, own)
        if answered:
            gateway.write(spec.name, found.events)
            if gateway.outlet is not None:
                gateway.outlet.put(_telling(request, spec, ask, found, began_ns, own))
            gateway.recent.add(spec.name, ask.ids)
        for count in found.counts:
            gateway.count(spec.name, count)
        for failure in found.failures:
            gateway.say_once(spec.name, failure)
        gateway.metrics.seconds.labels(spec.name, found.route).observe(time.perf_counter() - began)
        if not answered:
            return Response(status_code=204)
        if all(score is None for score in found.scores):
            raise HTTPException(500, f"{spec.name}: {served.champion.name} gave no usable score; its owner can see why")
        parameters: dict[str, object] = {"route": found.route}
        versions, version = set(found.versions), found.versions[0]
        if len(versions) > 1:
            parameters["versions"], version = found.versions, served.champion.name
        return _json(response(spec, ask, version, parameters, found.scores))

    async def _answer(self, spec: ModelSpec, served: Served, ask: Ask, began: float, producer: str, own: str) -> Answer:
        """Between two slices of a long request others are answered."""
        parts: list[Answer] = []
        for part in ask.parts(SLICE_ROWS):
            if parts:
                await asyncio.sleep(0)
            now = self._gateway.clock.now()
            drills = self._gateway.drills
            parts.append(answer(spec, served, part, now, began, time.perf_counter, drills, producer, own))
        return joined(parts)

    async def outcomes(self, request: Request) -> Response:
        """All are written. Those of predictions that this gateway knows are `taken`; those that wait for theirs are
        `waiting`: answered long ago, by another gateway, or never."""
        now = self._gateway.clock.now().isoformat()
        shared = {"event": "outcome"}

        def read(body: bytes) -> list[dict[str, Any]]:
            told = read_document(Outcomes, body).outcomes
            return [
                {**shared, "id": one.id, "time": one.time or now, "label": one.label, "stamped": not one.time}
                for one in told
            ]

        spec, events = await self._written(request, "outcomes", read)
        taken = sum(self._gateway.recent.knows(spec.name, event["id"]) for event in events)
        return _json({"taken": taken, "waiting": len(events) - taken}, 202)

    async def events(self, request: Request) -> Response:
        shared = {"event": "prediction", "route": EXTERNAL}

        def read(body: bytes) -> list[dict[str, Any]]:
            return [{**one, **shared} for one in read_document(Events, body).events]

        spec, events = await self._written(request, "events", read)
        self._gateway.recent.add(spec.name, (event["id"] for event in events))
        return _json({"taken": len(events)}, 202)

    async def _written(
        self, request: Request, what: str, read: Callable[[bytes], list[dict[str, Any]]]
    ) -> tuple[ModelSpec, list[dict[str, Any]]]:
        """All of them are written, or none; of a copy that a pinned gateway was sent, none."""
        spec, allowance = await spec_and_allowance(request, self._gateway)
        lines, now, off_form = [], self._gateway.clock.now(), Counter[str]()
        async with allowance.body(request) as body:
            with allowance.parsing():
                events = read(body)
                if not 1 <= len(events) <= MOST_EVENTS:
                    raise InputError(f"{what}: {len(events)} of them; send 1 to {MOST_EVENTS:,} in a request")
                allowance.take_rows(len(events))
            for start in range(0, len(events), SLICE_ROWS):
                with allowance.parsing():
                    for place, event in enumerate(events[start : start + SLICE_ROWS], start):
                        line = to_json({**event, "model": spec.name, "producer": allowance.producer.name})
                        if isinstance(found := read_event(line, self._gateway.specs, now), DeadLetter):
                            raise InputError(f"{what}.{place}: {found.reason}")
                        off_form.update(off_form_of(found, spec))
                        lines.append(line)
                await asyncio.sleep(0)  # others are answered
        self._gateway.count_off_form(spec.name, off_form)
        if not (self._gateway.models.pin and is_copy(request)):
            self._gateway.write(spec.name, lines)
        return spec, events


def _telling(request: Request, spec: ModelSpec, ask: Ask, found: Answer, began_ns: int, own: str) -> Telling:
    """What was answered, as OTLP tells it; the trace goes on where the caller has one."""
    headers = {name: request.headers[name] for name in ("traceparent", "tracestate") if name in request.headers}
    attributes = {
        "drift.model": spec.name,
        "drift.versions": [*dict.fromkeys(found.versions)],
        "drift.route": found.route,
        "drift.prediction_ids": ask.ids,
    }
    span = Span(f"infer {spec.name}", headers, began_ns, time.time_ns(), attributes, own)
    return Telling(found.events, span)


def _json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(document), status, headers, media_type="application/json")


def failed(status: int, told: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": told[:_LONGEST_TOLD]}, status, headers)
