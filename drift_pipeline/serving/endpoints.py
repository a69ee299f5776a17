"""The gateway's endpoints: who may ask, what is answered, and that its events are written before an answer leaves."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from drift_pipeline import __version__
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.serving.answer import answer
from drift_pipeline.serving.gateway import Gateway
from drift_pipeline.serving.keys import Producer, key_hash
from drift_pipeline.serving.models import Served
from drift_pipeline.serving.protocol import metadata, read_ask, read_document, response
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import EXTERNAL, DeadLetter, off_form_of, read_event

MOST_EVENTS = 10_000
MOST_BYTES = 16 * 1024 * 1024
Endpoint = Callable[[Request], Awaitable[Response]]
_BEARER = {"WWW-Authenticate": "Bearer"}


class Told(BaseModel):
    """One outcome. The event's reader checks the rest, as it does for what comes by another way."""

    model_config = ConfigDict(extra="forbid")

    id: str
    label: Any
    time: str | None = None


class Outcomes(BaseModel):
    outcomes: list[Told]


class Events(BaseModel):
    events: list[dict[str, Any]]


class Endpoints:
    """The endpoints; `answered` turns what they raise into an answer, and counts it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

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
            try:
                told = await endpoint(request)
            except HTTPException as refusal:
                told = failed(refusal.status_code, refusal.detail, refusal.headers)
            except InputError as error:
                told = failed(400, str(error))
            except UnavailableError as error:
                told = failed(503, str(error), {"Retry-After": "1"})
            name = request.path_params.get("model", "")
            name = name if name in self._gateway.specs else ""
            self._gateway.metrics.requests.labels(name, str(told.status_code)).inc()
            return told

        return run

    async def server(self, request: Request) -> Response:
        await self._producer(request)
        return _json({"name": "drift_pipeline", "version": __version__, "extensions": []})

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """Not before each model that has a champion is loaded; later troubles are told, and stop nothing."""
        gateway = self._gateway
        reasons = {name: why for name in gateway.specs if (why := gateway.not_ready(name))}
        troubles = {**gateway.models.problems, **({"": gateway.trouble} if gateway.trouble else {})}
        if reasons:
            return _json({"ready": False, "error": "; ".join(sorted(set(reasons.values())))}, 503, {"Retry-After": "1"})
        return _json({"ready": True, **({"problems": troubles} if troubles else {})})

    async def metrics(self, _: Request) -> Response:
        return Response(self._gateway.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def model(self, request: Request) -> Response:
        spec = await self._allowed(request, await self._producer(request))
        served = self._gateway.models.served.get(spec.name)
        versions = list(dict.fromkeys(version.name for version in served.loaded.values())) if served else []
        wanted = request.path_params.get("version")
        if wanted is not None and wanted not in versions:
            loaded = ", ".join(versions) or "none"
            raise HTTPException(404, f"{spec.name}: no version {wanted!r} is loaded; there are: {loaded}")
        return _json(metadata(spec, versions if wanted is None else [wanted]))

    async def model_ready(self, request: Request) -> Response:
        spec = self._spec(request)
        self._served(spec)
        return _json({"name": spec.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        began, gateway = time.perf_counter(), self._gateway
        producer = await self._producer(request)
        spec = await self._allowed(request, producer)
        body = await _body(request)
        ask = read_ask(body, spec)
        self._take(producer, len(ask.rows))
        served = self._served(spec)
        gateway.count_off_form(spec.name, ask.off_form)
        if gateway.drills and ask.delay_ms:
            await asyncio.sleep(ask.delay_ms / 1000)
        found = answer(spec, served, ask, gateway.clock.now(), began, time.perf_counter, gateway.drills, producer.name)
        gateway.write(spec.name, found.events)
        for count in found.counts:
            gateway.count(spec.name, count)
        for failure in found.failures:
            gateway.say_once(spec.name, failure)
        gateway.metrics.seconds.labels(spec.name, found.route).observe(time.perf_counter() - began)
        if all(score is None for score in found.scores):
            raise HTTPException(500, f"{spec.name}: {served.champion.name} gave no usable score; its owner can see why")
        parameters: dict[str, object] = {"route": found.route}
        versions, version = set(found.versions), found.versions[0]
        if len(versions) > 1:
            parameters["versions"], version = found.versions, served.champion.name
        return _json(response(spec, ask, version, parameters, found.scores))

    async def outcomes(self, request: Request) -> Response:
        now = self._gateway.clock.now().isoformat()
        spec, producer = await self._known(request)
        told = read_document(Outcomes, await _body(request)).outcomes
        shared = {"event": "outcome", "model": spec.name, "producer": producer.name}
        events = [
            {**shared, "id": one.id, "time": one.time or now, "label": one.label, "stamped": not one.time}
            for one in told
        ]
        return self._taken(spec, producer, "outcomes", events)

    async def events(self, request: Request) -> Response:
        spec, producer = await self._known(request)
        told = read_document(Events, await _body(request)).events
        shared = {"event": "prediction", "model": spec.name, "route": EXTERNAL, "producer": producer.name}
        return self._taken(spec, producer, "events", [{**one, **shared} for one in told])

    def _taken(self, spec: ModelSpec, producer: Producer, what: str, events: list[dict[str, Any]]) -> Response:
        """All of them are written, or none."""
        if not 1 <= len(events) <= MOST_EVENTS:
            raise InputError(f"{what}: {len(events)} of them; send 1 to {MOST_EVENTS:,} in a request")
        lines, now, off_form = [], self._gateway.clock.now(), Counter[str]()
        for place, event in enumerate(events):
            line = to_json(event)
            if isinstance(read := read_event(line, self._gateway.specs, now), DeadLetter):
                raise InputError(f"{what}.{place}: {read.reason}")
            off_form.update(off_form_of(read, spec))
            lines.append(line)
        self._take(producer, len(lines))
        self._gateway.count_off_form(spec.name, off_form)
        self._gateway.write(spec.name, lines)
        return _json({"taken": len(lines)}, 202)

    async def _producer(self, request: Request) -> Producer:
        """401 without a key that is known."""
        if not self._gateway.heard:
            raise UnavailableError("the keys were not read yet; ask again")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        producer = await self._gateway.producer_of(key_hash(key))
        if producer is None:
            said = "send a producer's key in the header Authorization: Bearer KEY, or X-API-Key"
            raise HTTPException(401, f"the key is {'unknown or revoked' if key else 'missing'}; {said}", _BEARER)
        return producer

    async def _allowed(self, request: Request, producer: Producer) -> ModelSpec:
        """403 before 404, so that a key learns nothing of others' models."""
        model = request.path_params["model"]
        if not producer.may(model):
            await self._gateway.record_refusal(producer, model)
            raise HTTPException(403, f"the key of {producer.name} is not for the model {model!r}; ask for one that is")
        return self._spec(request)

    async def _known(self, request: Request) -> tuple[ModelSpec, Producer]:
        producer = await self._producer(request)
        return await self._allowed(request, producer), producer

    def _spec(self, request: Request) -> ModelSpec:
        model = request.path_params["model"]
        if model not in self._gateway.specs:
            raise HTTPException(404, f"there is no model {model!r} here; check the path, /v2/models/MODEL")
        return self._gateway.specs[model]

    def _served(self, spec: ModelSpec) -> Served:
        """503 while it is not loaded."""
        models = self._gateway.models
        if spec.name in models.elsewhere:
            raise HTTPException(404, f"{spec.name} is served elsewhere; here only its events and outcomes are taken")
        if served := models.served.get(spec.name):
            return served
        why = self._gateway.not_ready(spec.name) or f"{spec.name} has no champion yet: adopt it first"
        raise UnavailableError(why)

    def _take(self, producer: Producer, rows: int) -> None:
        wait = self._gateway.take(producer, rows)
        rate = f"{producer.name} may send {producer.rows_per_second:,} rows a second"
        if math.isinf(wait):
            raise HTTPException(413, f"{rows:,} rows at once; {rate}, twice that at once: send smaller requests")
        if wait:
            raise HTTPException(429, f"{rate}; wait, then send again", {"Retry-After": str(math.ceil(wait))})


async def _body(request: Request) -> bytes:
    """413 as soon as it is too long, however long it says it is."""
    parts, length = [], 0
    async for part in request.stream():
        parts.append(part)
        length += len(part)
        if length > MOST_BYTES:
            raise HTTPException(413, f"the body is longer than {MOST_BYTES:,} bytes; send fewer rows in a request")
    return b"".join(parts)


def _json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(document), status, headers, media_type="application/json")


def failed(status: int, told: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": told}, status, headers)
