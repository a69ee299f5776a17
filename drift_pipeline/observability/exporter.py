"""The exporter: a process that answers Prometheus with a home's metrics, and does nothing else."""

import signal
from threading import Event

from prometheus_client import CollectorRegistry, start_http_server

from drift_pipeline.errors import InputError
from drift_pipeline.logs import announce
from drift_pipeline.observability.metrics import LoopMetrics


def serve(metrics: LoopMetrics, host: str, port: int, log: str = "") -> None:
    """Answer until SIGINT or SIGTERM. Port 0 is any free one; stderr tells which, in the form that `log` asks for.

    Raises:
        InputError: the address is taken.
    """
    registry, stop = CollectorRegistry(), Event()
    registry.register(metrics)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot listen here: {error}; give another --port") from error
    shown = f"[{host}]" if ":" in host else host
    announce(f"metrics on http://{shown}:{server.server_port}/metrics", log)
    stop.wait()
    server.shutdown()
    server.server_close()
    thread.join()
