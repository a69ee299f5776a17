"""The gateway as a process: one event loop, which ends cleanly when it is told to."""

import signal
import socket
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import InputError
from drift_pipeline.logs import announce
from drift_pipeline.observability.otel import Outlet, wanted
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.pinned import require
from drift_pipeline.serving.slo import brake_of, slo_of
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.sources.spool import SpoolWriter

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

SOURCE = "gateway"


def server_of(app: "Starlette", **limits: Any) -> "uvicorn.Server":
    """A server whose connections are bounded; `limits` are the Door's.

    What strangers send is counted and not logged, and their addresses are those that they connect from. The
    application's `state.lost` is told the status of each connection that is closed here.
    """
    import uvicorn

    from drift_pipeline.serving.connections import Door, connections_of

    door = Door(app.state.lost, **limits)
    how: dict[str, Any] = {
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "log_level": "error",
        "log_config": None,
    }
    return uvicorn.Server(uvicorn.Config(app, http=connections_of(door), ws="none", **how))


def serve(
    settings: Settings,
    specs: Mapping[str, ModelSpec],
    host: str,
    port: int,
    clock: Clock,
    pin: str = "",
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM; then requests under way are finished and the spool is handed over.

    Port 0 is any free one; stderr tells which. `pin` and `options` are `make_app`'s.

    Raises:
        InputError: the address is taken, another gateway writes this home's spool, a spec is not what its model was
            adopted with, or what `pin` names may not answer (`pinned.require`).
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot listen here: {error}; give another --port") from error
    with listening, closing(open_store(settings, clock)) as store:
        registry = registry_of(settings)
        if pin:
            (spec,) = specs.values()
            require(store, registry, spec, pin)
        brake = brake_of(settings, specs, store, registry, clock)
        guarded = {"judge_slo": slo_of(specs), "rolled_back": brake, **options}
        spool = SpoolWriter(settings.home / "spool" / SOURCE)
        outlet = Outlet("drift-gateway") if wanted() else None
        app = make_app(settings, specs, spool, clock, outlet=outlet, pin=pin, **guarded)
        server = server_of(app)
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, lambda *_: None)  # uvicorn raises them once more when all is done
        shown = f"[{host}]" if ":" in host else host
        announce(f"gateway on http://{shown}:{listening.getsockname()[1]}", settings.log)
        server.run(sockets=[listening])
