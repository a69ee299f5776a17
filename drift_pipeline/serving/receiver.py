"""The OTLP/HTTP receiver that `drift capture` runs: events of producers as log records, written to a spool of its own.

POST /v1/logs                  protobuf or JSON, plain or gzip; answered once its events are safe on disk
POST /v1/traces  /v1/metrics   404: they are not kept here
GET  /health                   without a key; 503 until the keys are read

Senders try again after 429, 502, 503 and 504, and drop what another answer refuses. So a log record that is no event
is taken as a dead letter, and told in the answer (`partial_success`); only a body that cannot be read is refused.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime
from threading import Event as Stop
from threading import Thread
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import DriftError, InputError, UnavailableError
from drift_pipeline.logs import announce
from drift_pipeline.loop.forms import FrozenSpecs
from drift_pipeline.serving.allowance import Allowance
from drift_pipeline.serving.callers import Callers
from drift_pipeline.serving.endpoints import LOST, SLICE_ROWS
from drift_pipeline.serving.entrance import producer_of
from drift_pipeline.serving.gateway import repeat
from drift_pipeline.serving.keys import Producer, producers
from drift_pipeline.serving.server import server_of
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import EXTERNAL, ROUTES, DeadLetter, read_event
from drift_pipeline.telemetry.letters import dead_letter, refused_line
from drift_pipeline.telemetry.sources.otlp import Budget, Record, TooMuchError, answered, inflated, read_logs, status
from drift_pipeline.telemetry.sources.spool import SpoolWriter

if TYPE_CHECKING:
    from starlette.applications import Starlette

SOURCE = "otlp"
MOST_BYTES = 8 * 1024 * 1024  # of one body, as sent and inflated
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_ADDRESS = re.compile(r"otlp://(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[^:/@?#\[\]]+)):(?P<port>\d{1,5})/?")
_SOON = {"Retry-After": "1"}
_NOT_KEPT = "traces and metrics are not kept here: send them to a back end for them, and log records to /v1/logs"


class Receiver:
    """On one event loop, as the gateway; without the control store it goes on with the keys that it last heard."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        store: ControlStore,
        spool: SpoolWriter,
        clock: Clock,
        every_seconds: float,
    ) -> None:
        self.callers = Callers(store, every_seconds, most_bytes=MOST_BYTES, most_values=None)
        self.heard = False
        self._given, self._store, self._spool, self._clock = specs, store, spool, clock
        self._specs: dict[str, ModelSpec] = {}
        self._unread: set[str] = set()  # models whose spec cannot be had: capture reads their events once it can
        self._every = every_seconds

    async def run(self) -> None:
        """Until it is cancelled."""
        await asyncio.gather(repeat(self.follow, self._every), repeat(self.rotate, self._every))

    async def follow(self) -> None:
        """Take up keys and specs."""
        known, self._specs, self._unread = await asyncio.to_thread(self._asked)
        self.callers.heard(known)
        self.heard = True

    async def rotate(self) -> None:
        """Hand over what was written."""
        await asyncio.to_thread(self._spool.rotate)

    def _asked(self) -> tuple[list[Producer], dict[str, ModelSpec], set[str]]:
        known, specs, unread = producers(self._store), dict[str, ModelSpec](), set[str]()
        for model in self._given:
            try:
                specs[model] = self._given[model]
            except DriftError:
                unread.add(model)
        return known, specs, unread

    @property
    def _known(self) -> set[str]:
        return {*self._specs, *self._unread}

    async def health(self, _: Request) -> Response:
        code, headers = (200, {}) if self.heard else (503, _SOON)
        return Response(to_json({"ready": self.heard}), code, headers, media_type=JSON)

    async def not_kept(self, request: Request) -> Response:
        return refusal(request, 404, _NOT_KEPT)

    async def logs(self, request: Request) -> Response:
        try:
            as_json = _as_json(request)
            taken, reasons = await self._take(request, as_json)
        except HTTPException as error:
            return refusal(request, error.status_code, error.detail, error.headers)
        except TooMuchError as error:
            return refusal(request, 413, str(error))
        except InputError as error:
            return refusal(request, 400, str(error))
        except UnavailableError as error:
            return refusal(request, 503, str(error), _SOON)
        except ClientDisconnect:  # nobody hears the answer
            return refusal(request, LOST, "the client went away")
        told = (
            f"of {taken:,} log records {len(reasons):,} are no events, and were laid aside: {reasons[0]}"
            if reasons
            else ""
        )
        return Response(answered(len(reasons), told, as_json=as_json), media_type=JSON if as_json else PROTOBUF)

    async def _take(self, request: Request, as_json: bool) -> tuple[int, list[str]]:
        """How many records were written, and why some of them are no events. All are written, or none."""
        packed = _is_gzip(request)
        producer = await producer_of(request, self)
        allowance = self.callers.allowance(producer)
        async with allowance.body(request) as sent:
            with allowance.parsing():
                body = inflated(sent, MOST_BYTES) if packed else sent
                allowance.charge_bytes(max(0, len(body) - len(sent)))
                records = read_logs(body, as_json=as_json)
            allowance.charge_rows(len(records))
            lines, reasons, foreign = await self._lines(records, allowance)
            if lines:
                self._spool.write(lines)
                await asyncio.to_thread(self._spool.sync)
        for model in foreign:
            await self.callers.record_refusal(producer, model if model in self._known else "")
        return len(records), reasons

    async def _lines(self, records: Sequence[Record], allowance: Allowance) -> tuple[list[bytes], list[str], set[str]]:
        """Between two slices others are answered."""
        lines, reasons, foreign, budget = list[bytes](), list[str](), set[str](), Budget()
        producer, now = allowance.producer, self._clock.now()
        own = {model: spec for model, spec in self._specs.items() if producer.may(model)}
        for start in range(0, len(records), SLICE_ROWS):
            with allowance.parsing():
                for record in records[start : start + SLICE_ROWS]:
                    event = record.event(budget)
                    if isinstance(event, dict) and event.get("event") == "prediction" and record.traceparent:
                        event.setdefault("traceparent", record.traceparent)
                    line = self._line(event, producer, own, now)
                    if isinstance(line, DeadLetter):
                        reasons.append(line.reason)
                        line = refused_line(line)
                        if isinstance(event, dict) and not _may(producer, event):
                            foreign.add(event["model"])
                    lines.append(line)
            await asyncio.sleep(0)
        return lines, reasons, foreign

    def _line(
        self, event: dict[str, Any] | bytes, producer: Producer, specs: Mapping[str, ModelSpec], now: datetime
    ) -> bytes | DeadLetter:
        """The event as the spool holds it: whose it is says the key, and it was answered elsewhere.

        Args:
            specs: of the models that the key is for; of others it learns nothing.
        """
        if isinstance(event, bytes):
            return dead_letter(event, now, "the body of the log record is neither a map nor an object of JSON")
        line = to_json(event)
        if not _may(producer, event):
            return dead_letter(line, now, f"model: the key of {producer.name} is not for {event['model'][:100]!r}")
        if odd := _taken_for_ours(event):
            model = event.get("model")
            return dead_letter(line, now, odd, model if isinstance(model, str) and model in specs else "")
        line = to_json({**event, **_ours(event, producer, now)})
        if isinstance(event.get("model"), str) and event["model"] in self._unread:
            return line
        found = read_event(line, specs, now)
        return found if isinstance(found, DeadLetter) else line


def _ours(event: Mapping[str, Any], producer: Producer, now: datetime) -> dict[str, Any]:
    """What the receiver says of an event."""
    match event.get("event"):
        case "prediction":
            return {"route": event.get("route", EXTERNAL), "producer": producer.name}
        case "outcome":
            stamp = {} if "time" in event else {"time": now.isoformat(), "stamped": True}
            return {"producer": producer.name, **stamp}
    return {}


def _may(producer: Producer, event: Mapping[str, Any]) -> bool:
    """Of what names no model at all, the reader tells."""
    return not isinstance(event.get("model"), str) or producer.may(event["model"])


def _taken_for_ours(event: Mapping[str, Any]) -> str:
    """Why the event says of itself what only a gateway may say; "" where it does not."""
    if event.get("event") == "prediction" and event.get("route", EXTERNAL) in ROUTES[:-1]:
        return f"route: {event['route']!r} is what a gateway answered, which its own spool lands; send {EXTERNAL!r}"
    return "unknown key 'stamped'" if "stamped" in event else ""


def _as_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise HTTPException(415, f"the Content-Type {kind[:100]!r} is neither {PROTOBUF} nor {JSON}")
    return kind == JSON


def _is_gzip(request: Request) -> bool:
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip"):
        raise HTTPException(415, f"the Content-Encoding {coding[:100]!r} is not gzip")
    return coding == "gzip"


def refusal(request: Request, code: int, told: str, headers: Mapping[str, str] | None = None) -> Response:
    """A `google.rpc.Status`, in the form of the request."""
    as_json = JSON in request.headers.get("content-type", "").lower()
    return Response(status(told, as_json=as_json), code, headers, media_type=JSON if as_json else PROTOBUF)


def make_receiver(
    specs: Mapping[str, ModelSpec], store: ControlStore, spool: SpoolWriter, clock: Clock, every_seconds: float = 1.0
) -> "Starlette":
    """The ASGI application; it closes the spool when it is shut down."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    receiver = Receiver(specs, store, spool, clock, every_seconds)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(receiver.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            try:
                spool.rotate()
            finally:
                spool.close()

    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refusal(request, error.status_code, f"{error.detail}: send log records to /v1/logs", error.headers)

    paths = [Route("/v1/logs", receiver.logs, methods=["POST"]), Route("/health", receiver.health)]
    paths += [Route(path, receiver.not_kept, methods=["POST"]) for path in ("/v1/traces", "/v1/metrics")]
    app = Starlette(routes=paths, lifespan=lifespan, exception_handlers={HTTPException: told})
    app.state.lost = lambda _: None
    return app


def address_of(url: str) -> tuple[str, int]:
    """Host and port of otlp://HOST:PORT. Raises InputError."""
    found = _ADDRESS.fullmatch(url)
    if found is None or int(found["port"]) > 65535:
        raise InputError(
            f"{url!r} is no source: write otlp://HOST:PORT, such as otlp://127.0.0.1:4318; port 0: any free"
        )
    return found["six"] or found["host"], int(found["port"])


@contextmanager
def receiving(settings: Settings, specs: Mapping[str, ModelSpec], clock: Clock, url: str, stop: Stop) -> Iterator[None]:
    """A receiver on a thread of its own, beside the capture that lands what it writes; `stop` is set if it ends early.

    Raises:
        InputError: the address cannot be had, or another receiver writes this home's spool.
        UnavailableError: it ended by itself.
    """
    _require_otlp()
    host, port = address_of(url)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{url}: cannot listen here: {error}; give another port") from error
    with listening, closing(open_store(settings, clock)) as store:
        spool = SpoolWriter(settings.home / "spool" / SOURCE)
        server = server_of(make_receiver(FrozenSpecs(store, specs), store, spool, clock))
        ended = list[BaseException | None]()

        def run() -> None:
            try:
                server.run(sockets=[listening])
                ended.append(None)
            except BaseException as error:  # the edge of the thread; uvicorn may even exit
                ended.append(error)
            finally:
                stop.set()

        thread = Thread(target=run, name=SOURCE)
        thread.start()
        shown = f"[{host}]" if ":" in host else host
        announce(f"otlp on http://{shown}:{listening.getsockname()[1]}", settings.log)
        try:
            yield
        finally:
            early = bool(ended)
            server.should_exit = True
            thread.join()
        if early:
            raise UnavailableError(f"{url}: the receiver ended by itself: {ended[0] or 'its server stopped'}")


def _require_otlp() -> None:
    try:
        import google.rpc.status_pb2  # noqa: F401
        import opentelemetry.proto.collector.logs.v1.logs_service_pb2  # noqa: F401
    except ImportError as error:
        raise InputError("OTLP needs the extra otel: pip install 'drift-pipeline[otel]'") from error
