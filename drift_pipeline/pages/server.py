"""The pages as a process, which ends cleanly when it is told to."""

import signal
import socket

from drift_pipeline.clock import Clock
from drift_pipeline.errors import InputError
from drift_pipeline.logs import announce
from drift_pipeline.pages.door import key_for
from drift_pipeline.settings import Settings

MOST_AT_ONCE = 64


def serve(settings: Settings, clock: Clock, host: str, port: int, dagster: str = "") -> None:
    """Serve until SIGINT or SIGTERM. Port 0 is any free one; stderr tells which.

    Raises:
        InputError: the address is taken, or can be reached from elsewhere and there is no key.
    """
    import uvicorn

    from drift_pipeline.pages.app import make_app

    key = key_for(settings, host)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot listen here: {error}; give another --port") from error
    with listening:
        config = uvicorn.Config(
            make_app(settings, clock, key, dagster),
            access_log=False,
            proxy_headers=False,
            server_header=False,
            log_level="error",
            log_config=None,
            ws="none",
            limit_concurrency=MOST_AT_ONCE,
        )
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, lambda *_: None)  # uvicorn raises them once more when all is done
        shown = f"[{host}]" if ":" in host else host
        announce(f"pages on http://{shown}:{listening.getsockname()[1]}/", settings.log)
        uvicorn.Server(config).run(sockets=[listening])
