"""What tracing costs: `python -m drift_pipeline_tests.benchmarks.tracing [--days 180] [--rows 20000] [--ticks 60]`.

A synthetic history is replayed; all that its audit holds of incidents is told to a receiver of this process, then asked
where nothing is new, which is what the sensor pays each time, and where it is off. And what a traceparent adds to an
answered row: making it, and reading its line in capture, in pairs with a line without one. And what `drift tick` takes
of twenty models, of which rows landed since, with an exporter and without, in a seeded order. Prints CPU seconds, wall
seconds of the ticks, and exits with 1 where a pair's median ratio is above 1.05, or that of the ticks' medians.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import truediv
from pathlib import Path
from threading import Thread

import polars as pl

from drift_pipeline.clock import MINUTE, ManualClock, SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import model_of, opened
from drift_pipeline.loop.tracing import deliver_traces
from drift_pipeline.observability.otel import begun
from drift_pipeline.settings import Settings
from drift_pipeline.spec import read_spec
from drift_pipeline.telemetry.event import Prediction, read_event
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, Drift, synthetic_history
from drift_pipeline_tests.benchmarks.daemon import make_world
from drift_pipeline_tests.benchmarks.kpi_table import land

MOST, _CALLS, _ROUNDS = 1.05, 200, 181
_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_REPLAY = "from drift_pipeline.cli import main; import sys; main(sys.argv[1:])"


class _Taken(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not to stderr."""


@contextmanager
def receiving() -> Iterator[str]:
    """The address of a receiver that takes all."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Taken)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def exporting_to(url: str) -> Iterator[None]:
    """Without one where there is no url."""
    os.environ |= {_VARIABLE: url} if url else {}
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def tell(days: int, folder: Path) -> None:
    """Prints what telling a replay costs."""
    data, spec, home = folder / "history.parquet", folder / "spec.yaml", folder / "home"
    synthetic_history(days, 400, 3, drifts=(Drift("concept", day=days * 0.6),)).write_parquet(data)
    spec.write_text(SAMPLE_SPEC)
    command = [sys.executable, "-c", _REPLAY, "replay", str(data), "--spec", str(spec), "--out", str(home), "--json"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode not in (0, 1):
        sys.exit(ran.stderr)
    settings = Settings(home=home, database="")
    with closing(ControlStore(settings.database_url, SystemClock())) as store:
        off = _idle(settings, store)
        with receiving() as url, exporting_to(url):
            before = time.process_time()
            sent = deliver_traces(settings, store, seconds=600, at_once=True)
            told, on = time.process_time() - before, _idle(settings, store)
    print(f"{sent} spans of {days} days: {told:.2f} CPU seconds, the SDK's import and the receiver included")
    print(f"a call where nothing is new: {on * 1000:.2f} ms; where it is off: {off * 1000:.3f} ms")


def _idle(settings: Settings, store: ControlStore) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        deliver_traces(settings, store)
    return (time.perf_counter() - began) / _CALLS


def read(rows: int, folder: Path) -> float:
    """What a line with a traceparent costs capture's reader, as a multiple of one without."""
    path, now = folder / "spec.yaml", datetime.now(UTC)
    path.write_text(SAMPLE_SPEC)
    spec = read_spec(path)
    features = {name: 0.5 if kind == "numeric" else "a" for name, kind in spec.watched.items()}
    named = {"event": "prediction", "model": spec.name, "id": "a", "time": now.isoformat(), "version": "v1"}
    told = {**named, "route": "stable", "score": 0.5, "features": features}
    caller, before = f"00-{'a' * 32}-{'b' * 16}-01", time.process_time()
    for _ in range(rows):
        begun(caller)
    print(f"a traceparent: {(time.process_time() - before) / rows * 1e6:.2f} µs a request")
    lines = {"without": json.dumps(told).encode(), "with": json.dumps({**told, "traceparent": caller}).encode()}
    assert all(isinstance(read_event(line, {spec.name: spec}, now), Prediction) for line in lines.values())
    spent: dict[str, list[float]] = {name: [] for name in lines}
    each = max(1, rows * 9 // _ROUNDS)
    for number in range(_ROUNDS):
        for name in sorted(lines, reverse=bool(number % 2)):
            before = time.process_time()
            for _ in range(each):
                read_event(lines[name], {spec.name: spec}, now)
            spent[name].append(time.process_time() - before)
    without, with_it = (statistics.median(spent[name]) / each * 1e6 for name in ("without", "with"))
    ratio: float = statistics.median(map(truediv, spent["with"], spent["without"]))
    print(f"a line: {without:.1f} µs without, {with_it:.1f} µs with; {ratio:.3f} of {MOST} at most")
    return ratio


def tick(count: int, models: int, folder: Path) -> float:
    """What `drift tick` of all models takes with an exporter, as a multiple of what it takes without one."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    order = [True, False] * (count // 2)
    random.Random(0).shuffle(order)
    world = make_world(folder, models, 1)
    clock, specs = ManualClock(world.started), {name: model_of(world.settings, name) for name in world.names}
    rows = pl.DataFrame(world.rows).drop("_label").with_columns(_version=pl.lit("v1"), _route=pl.lit("stable"))
    with opened(world.settings, clock) as home, receiving() as url:
        fleet = Fleet(home, specs)
        for minute, on in enumerate(order):
            clock.advance_to(clock.now() + MINUTE)
            for name in specs:
                land(Lake(world.settings.lake / name, source="benchmark"), rows, minute, clock)
            with exporting_to(url if on else ""):
                began = time.perf_counter()
                fleet.tick(inline=False)
                deliver_traces(world.settings, home.store)
                spent[on].append(time.perf_counter() - began)
    off, traced = (statistics.median(spent[way][max(1, len(spent[way]) // 10) :]) for way in (False, True))
    ratio = traced / off
    print(f"a tick of {models} models: {off:.3f} s, {traced:.3f} s with an exporter; {ratio:.3f} of {MOST} at most")
    return ratio


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=180, help="more than 90, which are the reference")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--ticks", type=int, default=60)
    parser.add_argument("--models", type=int, default=20)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ratios = [read(given.rows, Path(folder))]
        tell(given.days, Path(folder))
        ratios.append(tick(given.ticks, given.models, Path(folder, "ticks")))
    sys.exit(max(ratios) > MOST)


if __name__ == "__main__":
    main()
