"""What telling OTLP costs the gateway's callers: prints a table. `python -m drift_pipeline_tests.benchmarks.otlp`.

One gateway a part, off and on by turns, which sends to a process that takes all. Requests of one row, 24 features: as
many as go through, then at a steady rate, where a request's time counts from when it was due. Ratios are of one round.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from drift_pipeline_tests.benchmarks.gateway import Figure, figure, load, model, paced, ready, requests, server

SINK = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *told): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@contextmanager
def sink() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def measure(rounds: int, seconds: float, rate: float, connections: int) -> dict[str, list[tuple[Figure, Figure]]]:
    """Of each round, off and on, by how it was asked."""
    from drift_pipeline_tests.serving.worlds import Home

    found: defaultdict[str, list[tuple[Figure, Figure]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, sink() as url:
        home = Home(Path(folder) / "home")
        home.champion(home.version("v1", 0, model(0)))
        key = home.producer(rows_per_second=1_000_000)
        asked = requests(key, 200)
        for number in range(rounds):
            of: dict[bool, list[Figure]] = {}
            for on in (False, True) if number % 2 else (True, False):
                os.environ.pop(ENDPOINT, None)
                if on:
                    os.environ[ENDPOINT] = url
                with server("gateway", home.settings.home) as port:
                    asyncio.run(ready(port, key))
                    asyncio.run(load(port, asked, connections, 0.5))
                    most = asyncio.run(load(port, asked, connections, seconds))
                    steady = asyncio.run(paced(port, asked, connections, seconds, rate))
                of[on] = [figure(most, seconds), figure(steady, seconds)]
            for name, off, on_ in zip(("most", "steady"), of[False], of[True], strict=True):
                found[name].append((off, on_))
        os.environ.pop(ENDPOINT, None)
        home.store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    for name, pairs in measure(options.rounds, options.seconds, options.rate, options.connections).items():
        for what in ("requests_per_second", "p50_ms", "p95_ms", "p99_ms"):
            off, on = (np.array([getattr(pair[side], what) for pair in pairs]) for side in (0, 1))
            ratios = np.sort(on / off)
            told = f"ratio median {np.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
            print(f"{name:8}{what:22}{np.median(off):10.2f} off{np.median(on):10.2f} on  {told}")


if __name__ == "__main__":
    main()
