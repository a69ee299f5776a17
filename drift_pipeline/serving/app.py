"""The gateway's HTTP: the Open Inference Protocol, outcomes and events of producers, health and metrics.

GET  /v2  /v2/models/{model}  /v2/models/{model}/versions/{version}      metadata
GET  /v2/health/live  /v2/health/ready                                   without a key; one is told which model and why
GET  /v2/models/{model}/ready                                            with a key of the model
GET  /metrics                                                            of the key's models, and how their loop stands
POST /v2/models/{model}/infer                                            scores, once their events are written
POST /v2/models/{model}/outcomes                                         labels, for predictions of any time
POST /v2/models/{model}/events                                           predictions of a model served elsewhere
POST /webhooks/pagerduty                                                 signed by PagerDuty, where a secret is set
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store
from drift_pipeline.loop.forms import FrozenSpecs
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.observability.otel import Outlet
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.serving.brake import Judge, RolledBack
from drift_pipeline.serving.endpoints import Endpoints, failed
from drift_pipeline.serving.gateway import Gateway
from drift_pipeline.serving.guard import SloCounts
from drift_pipeline.serving.paged import PATH, Paged
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.sources.spool import SpoolWriter


def never(_: SloCounts) -> None:
    """No canary is stopped."""


def make_app(
    settings: Settings,
    specs: Mapping[str, ModelSpec],
    spool: SpoolWriter,
    clock: Clock,
    *,
    judge_slo: Judge = never,
    rolled_back: RolledBack = lambda _model, _rollout, _reason: None,
    every_seconds: float = 1.0,
    rotate_seconds: float = 5.0,
    drills: bool = False,
    outlet: Outlet | None = None,
    pin: str = "",
) -> Starlette:
    """The ASGI application over a home's control store and registry. It closes spool and outlet when it is shut down.

    Args:
        judge_slo: told each second the counts of every canary, and for a day of a champion just promoted; a reason
            stops it here and now.
        rolled_back: told what was stopped, in a thread; called again until it returns.
        rotate_seconds: how long an event waits at most before capture may read it.
        drills: requests may ask for delays.
        outlet: is handed what was answered, for OTLP.
        pin: the one digest that answers, for the one model of `specs` (`pinned`); "" = as the routes say.

    Raises:
        SpecError: a spec declares other forms than its model was adopted with.
    """
    store, registry = open_store(settings, clock), registry_of(settings)
    gateway = Gateway(
        FrozenSpecs(store, specs),
        store,
        registry,
        spool,
        clock,
        judge_slo=judge_slo,
        rolled_back=rolled_back,
        every_seconds=every_seconds,
        rotate_seconds=rotate_seconds,
        drills=drills,
        outlet=outlet,
        pin=pin,
    )

    endpoints = Endpoints(gateway, LoopMetrics(settings, specs, clock, lambda: nullcontext(store)))
    asked = endpoints.all()
    if settings.pagerduty_webhook_secret.get_secret_value():
        asked.append(("POST", PATH, Paged(settings, gateway.specs, store, clock).answer))
    paths = [Route(path, endpoints.answered(endpoint), methods=[method]) for method, path, endpoint in asked]
    lifespan = partial(_following, gateway, store)
    app = Starlette(routes=paths, lifespan=lifespan, exception_handlers={HTTPException: _told_by_starlette})
    app.state.lost = lambda status: gateway.metrics.requests.labels("", str(status)).inc()
    return app


@asynccontextmanager
async def _following(gateway: Gateway, store: ControlStore, _: Starlette) -> AsyncIterator[None]:
    """The gateway follows its control store for as long as the application is up; in the end all is closed."""
    following = asyncio.create_task(gateway.run())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        try:
            gateway.spool.rotate()
        finally:
            gateway.spool.close()
            store.close()
            if gateway.outlet is not None:
                await asyncio.to_thread(gateway.outlet.close)


async def _told_by_starlette(_: Request, error: Exception) -> Response:
    """404 and 405 of paths that are not ours."""
    assert isinstance(error, HTTPException)
    return failed(error.status_code, f"{error.detail}; the paths begin with /v2, see GET /v2", error.headers)
