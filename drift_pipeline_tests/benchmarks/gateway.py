"""What the gateway costs beside a bare endpoint: prints a table. `python -m drift_pipeline_tests.benchmarks.gateway`.

Each server is a process of its own beside this one, which asks: K connections, each of which sends its next request
when the last is answered. Requests are of one row, 24 features. Measured in turn, several times, the best kept:

- bare: a Starlette endpoint that reads the same request, scores it as the loop does (pandas, scikit-learn) and answers;
- nothing: the same endpoint without a score: what HTTP and JSON alone take here;
- gateway, no spool: the gateway, whose events go nowhere;
- gateway: as it is served;
- gateway, shadow: the same while a rollout is in the shadow;
- gateway, canary: while a tenth of the rows goes to the candidate.

Then counts what was answered against what is in the spool.

`--shadow` asks one gateway at a steady rate, beside a capture that runs all the time, and turns a rollout's shadow on
and off by turns: what it adds to the times of the same round, and whether all that was answered is in the lake, once.
A request's time counts from when it was due.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, SystemClock, Window
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.trainers import TRAINERS, fit

NUMERIC = [f"x{k}" for k in range(20)]
LEVELS = [f"c{k}" for k in range(4)]
SPEC = ModelSpec.model_validate(
    {
        "name": "fraud",
        "owner": "nobody",
        "task": "binary_classification",
        "features": {**dict.fromkeys(NUMERIC, "numeric"), **dict.fromkeys(LEVELS, "categorical")},
        "outcome": {"column": "label"},
    }
)
KINDS = ("bare", "nothing", "gateway, no spool", "gateway", "gateway, shadow", "gateway, canary")


@dataclass(frozen=True)
class Figure:
    """Of one load: requests a second, and the milliseconds that half, 95 % and 99 % of them stayed below."""

    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def rows(n: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {name: random.normal(size=n) for name in NUMERIC}
    columns |= {name: random.choice([f"level {k}" for k in range(20)], n) for name in LEVELS}
    columns["_label"] = (random.random(n) < 1 / (1 + np.exp(-columns["x0"]))).astype(np.int8)
    return pl.DataFrame(columns)


def model(seed: int) -> bytes:
    pipeline = TRAINERS["gradient_boosting"].build({"max_iter": 150, "max_leaf_nodes": 8}, SPEC, seed)
    return dump_pipeline(fit(pipeline, rows(5000, seed), SPEC.features))


# Servers


def bare(data: bytes, scores: bool) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from drift_pipeline.registry.bundle import load_pipeline
    from drift_pipeline.training.trainers import score

    pipeline = load_pipeline(data)
    types = {"FP64": pl.Float64, "BYTES": pl.String}

    async def infer(request: Any) -> JSONResponse:
        asked = await request.json()
        told = [0.5]
        if scores:
            tensors = asked["inputs"]
            frame = pl.DataFrame([pl.Series(t["name"], t["data"], dtype=types[t["datatype"]]) for t in tensors])
            told = score(pipeline, frame, SPEC.features).tolist()
        output = {"name": "score", "shape": [len(told)], "datatype": "FP64", "data": told}
        return JSONResponse({"model_name": "fraud", "model_version": "v1", "outputs": [output]})

    async def ready(_: Any) -> JSONResponse:
        return JSONResponse({})

    return Starlette(routes=[Route("/v2/models/fraud/infer", infer, methods=["POST"]), Route("/v2", ready)])


def run_server(kind: str, home: Path) -> None:
    import uvicorn

    from drift_pipeline.serving.app import make_app
    from drift_pipeline.serving.capturing import capturing
    from drift_pipeline.serving.server import serve
    from drift_pipeline.settings import Settings
    from drift_pipeline.telemetry.sources.spool import SpoolWriter

    class Nowhere(SpoolWriter):
        def write(self, lines: Any) -> None: ...

    settings = Settings(home=home, database="")
    if kind == "capture":
        sys.stderr.write("capture on :0\n")
        with capturing(settings, {"fraud": SPEC}, SystemClock()) as (landing, stop):
            landing.run(stop, 2.0)
        return
    if kind.startswith("gateway") and "no spool" not in kind:
        serve(settings, {"fraud": SPEC}, "127.0.0.1", 0, SystemClock())
        return
    app = bare((home / "model.skops").read_bytes(), kind == "bare")
    if kind.startswith("gateway"):
        app = make_app(settings, {"fraud": SPEC}, Nowhere(home / "nowhere"), SystemClock())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stderr.write(f"gateway on http://127.0.0.1:{listening.getsockname()[1]}\n")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


@contextmanager
def server(kind: str, home: Path) -> Iterator[int]:
    """The port of a server of this kind, in a process of its own."""
    command = [sys.executable, "-m", "drift_pipeline_tests.benchmarks.gateway", "--serve", kind, "--home", str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield int(process.stderr.readline().rsplit(":", 1)[1])
        finally:
            process.terminate()
            process.wait(30)


# Load


def requests(key: str, n: int) -> list[bytes]:
    """One row each, as bytes of HTTP/1.1."""
    asked = []
    for row in rows(n, 99).drop("_label").iter_rows(named=True):
        tensors = [
            {"name": name, "shape": [1], "datatype": "FP64" if kind == "numeric" else "BYTES", "data": [row[name]]}
            for name, kind in SPEC.features.items()
        ]
        body = json.dumps({"inputs": tensors}).encode()
        head = ("POST /v2/models/fraud/infer HTTP/1.1", "Host: x", f"X-API-Key: {key}", f"Content-Length: {len(body)}")
        asked.append("\r\n".join((*head, "\r\n")).encode() + body)
    return asked


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """The status of one answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return int(head[9:12])


async def load(port: int, asked: list[bytes], connections: int, seconds: float) -> list[float]:
    """Seconds that each request took; all of them were answered with 200."""
    took: list[float] = []

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at, end = number, time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            status = await exchange(reader, writer, asked[at % len(asked)])
            took.append(time.perf_counter() - began)
            if status != 200:
                raise RuntimeError(f"answered {status}")
            at += connections
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(ask, range(connections)))
    return took


async def ready(port: int, key: str) -> None:
    """Wait until it answers, and has heard of the key."""
    request = f"GET /v2 HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode()
    for _ in range(600):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status = await exchange(reader, writer, request)
            writer.close()
            await writer.wait_closed()
            if status == 200:
                return
        except ConnectionError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the server does not answer")


def figure(took: list[float], seconds: float) -> Figure:
    p50, p95, p99 = 1000 * np.quantile(took, [0.5, 0.95, 0.99])
    return Figure(len(took) / seconds, float(p50), float(p95), float(p99))


def measure(
    seconds: float, repeats: int, connections: int, kinds: Sequence[str] = KINDS
) -> tuple[dict[str, Figure], int, int]:
    """Each kind's best figure; how many requests the gateways with a spool answered, and how many events it holds."""
    from drift_pipeline_tests.serving.worlds import Home

    found: dict[str, Figure] = {}
    answered = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        (home.settings.home / "model.skops").write_bytes(model(0))
        champion, candidate = home.version("v1", 0, model(0)), home.version("v2", 1, model(1))
        home.champion(champion)
        key = home.producer(rows_per_second=1_000_000)
        asked = requests(key, 200)
        for _ in range(repeats):
            for kind in kinds:
                stage = {"gateway, shadow": Phase.SHADOW, "gateway, canary": Phase.CANARY}.get(kind, Phase.FULL)
                home.rollout(candidate, stage)
                with server(kind, home.settings.home) as port:
                    asyncio.run(ready(port, key))
                    warm = asyncio.run(load(port, asked, connections, min(0.5, seconds)))
                    took = asyncio.run(load(port, asked, connections, seconds))
                if kind.startswith("gateway") and "no spool" not in kind:
                    answered += len(warm) + len(took)
                new = figure(took, seconds)
                if kind not in found or new.requests_per_second > found[kind].requests_per_second:
                    found[kind] = new
        spooled = len(home.spooled())
        home.store.close()
    return found, answered, spooled


@dataclass(frozen=True)
class Shadow:
    """Milliseconds by round, without a shadow and with one, and what was counted."""

    p50_ms: list[tuple[float, float]]
    p95_ms: list[tuple[float, float]]
    answered: int
    landed: int
    distinct: int
    mirrored: int


async def paced(port: int, asked: list[bytes], connections: int, seconds: float, rate: float) -> list[float]:
    """Seconds from when each request was due to its answer; each connection takes the next one that is due."""
    took: list[float] = []
    due = iter(range(int(rate * seconds)))
    began = time.perf_counter()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in due:
            at = began + number / rate
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            if await exchange(reader, writer, asked[number % len(asked)]) != 200:
                raise RuntimeError("not answered with 200")
            took.append(time.perf_counter() - at)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return took


def measure_shadow(rounds: int, seconds: float, rate: float, connections: int) -> Shadow:
    """Each round has a part without and one with a shadow, in turn first."""
    from drift_pipeline_tests.serving.worlds import Home

    p50, p95, answered = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        champion, candidate = home.version("v1", 0, model(0)), home.version("v2", 1, model(1))
        home.champion(champion)
        asked = requests(home.producer(rows_per_second=1_000_000), 200)
        key = asked[0].split(b"X-API-Key: ")[1].split(b"\r\n")[0].decode()
        with server("gateway", home.settings.home) as port, server("capture", home.settings.home):
            asyncio.run(ready(port, key))
            answered += len(asyncio.run(paced(port, asked, connections, seconds, rate)))
            for number in range(rounds):
                times = {}
                for on in (False, True) if number % 2 else (True, False):
                    home.rollout(candidate, Phase.SHADOW if on else Phase.ROLLED_BACK, f"r{number}")
                    time.sleep(5)  # the gateway follows each second, capture lands each two
                    took = asyncio.run(paced(port, asked, connections, seconds, rate))
                    answered += len(took)
                    times[on] = figure(took, seconds)
                p50.append((times[False].p50_ms, times[True].p50_ms))
                p95.append((times[False].p95_ms, times[True].p95_ms))
                print(f"round {number + 1}/{rounds}: p95 {p95[-1][0]:.2f}, {p95[-1][1]:.2f} ms", file=sys.stderr)
            lake = Lake(home.settings.lake / "fraud")
            end, now = time.monotonic() + 60, SystemClock().now()
            landed = pl.DataFrame()
            while landed.height < answered and time.monotonic() < end:
                time.sleep(2)
                landed = lake.read("predictions", Window(now - DAY, now + DAY))
            mirrored = lake.read("shadow", Window(now - DAY, now + DAY)).height
        home.store.close()
    return Shadow(p50, p95, answered, landed.height, landed["_id"].n_unique(), mirrored)


def show_shadow(found: Shadow) -> None:
    for name, times in (("p50", found.p50_ms), ("p95", found.p95_ms)):
        ratios = sorted(on / off for off, on in times)
        off, on = (float(np.median([pair[side] for pair in times])) for side in (0, 1))
        told = f"{len(ratios)} rounds, ratio median {np.median(ratios):.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(f"{name}: {off:.2f} ms without, {on:.2f} ms with a shadow; {told}")
    print(f"answered {found.answered:,}, in the lake {found.landed:,} with {found.distinct:,} ids")
    print(f"scored by the shadow {found.mirrored:,}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shadow", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second of --shadow")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--serve", choices=(*KINDS, "capture"))
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    if options.serve:
        run_server(options.serve, options.home)
        return
    if options.shadow:
        show_shadow(measure_shadow(options.rounds, options.seconds, options.rate, options.connections))
        return
    found, answered, spooled = measure(options.seconds, options.repeats, options.connections)
    print(f"{'':20}{'requests/s':>12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'beside bare':>13}")
    for kind, one in found.items():
        ratio = one.requests_per_second / found["bare"].requests_per_second
        times = f"{one.p50_ms:9.2f}{one.p95_ms:9.2f}{one.p99_ms:9.2f}"
        print(f"{kind:20}{one.requests_per_second:12,.0f}{times}{ratio:12.2f}x")
    print(f"answered {answered:,}, in the spool {spooled:,}")


if __name__ == "__main__":
    main()
