"""From a broken canary to none: prints a table. `python -m drift_pipeline_tests.benchmarks.slo`.

`drift serve --drills` is a process of its own; each run is a new rollout there, its canary at 10 %. Single rows are
sent at a steady rate, all fine at first; then the canary alone breaks:

- latency: it takes `--delay-ms` for a row (the spec allows 150), and holds up the gateway meanwhile;
- errors: it raises on the rows that come now, which the champion scores (an age beyond what the canary can scale).

Measured from the moment the first broken request that went to the canary was sent:

- last canary answer: when the last request that was sent to the canary was answered; none was from then on;
- rolled back: when the control store was seen to say so.

At most 64 requests are under way: a gateway that is held up makes the traffic late, as a pool of clients would.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from drift_pipeline.clock import SystemClock
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.training.trainers import TRAINERS, fit
from drift_pipeline_tests.serving.worlds import SPECS, Home, heard, infer, until
from drift_pipeline_tests.training.worlds import history

MODELS = """\
name: fraud
owner: ml@example.com
task: binary_classification
features: {amount: numeric, age: numeric, device: categorical}
outcome: {column: label, delay: 6h}
protected: {region: categorical}
"""
Document = dict[str, Any]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
KINDS, RATES = ("latency", "errors"), (100, 300)
SERVE = "from drift_pipeline.cli import main; main(['serve', '--drills', '--port', '0'])"
TOO_LARGE = 1.7e308  # divided by the canary's scale of 0.1 it is infinite
QUIET_SECONDS, PATIENCE_SECONDS = 2.0, 120.0
IN_FLIGHT = 64
SHOWN_BY = 60  # requests after the canary's last: had it still 10 %, all would miss it once in 500 times


@dataclass(frozen=True)
class Breach:
    """What breaks, at which rate, after how many seconds in which the canary does well."""

    kind: str
    rate: int
    fine_seconds: float
    delay_ms: float


@dataclass(frozen=True)
class Answered:
    """One request, in seconds of the monotonic clock; `route` is who it was sent to, "" where nothing came back."""

    sent: float
    answered: float
    broken: bool
    route: str


@dataclass(frozen=True)
class Run:
    """Seconds from the first broken canary request. `canary_rows` were broken and sent to the canary; `statuses`
    counts all answers, before and after."""

    breach: Breach
    last_canary_answer: float
    rolled_back: float
    canary_rows: int
    sent_per_second: float
    statuses: Counter[str]


def canary(kind: str) -> bytes:
    """Of an "errors" run one that cannot scale a large age; else like the champion."""
    spec, rows = SPECS["fraud"], history(1500, seed=1)
    if kind == "errors":
        pipeline = TRAINERS["logistic_regression"].build({}, spec, 1)
        return dump_pipeline(fit(pipeline, rows.with_columns(pl.col("age") / 10), spec.features))
    return dump_pipeline(fit(TRAINERS["gradient_boosting"].build({"max_iter": 50}, spec, 1), rows, spec.features))


@contextmanager
def served(home: Home, models: Path) -> Iterator[httpx.Client]:
    environment = {**os.environ, "DRIFT_HOME": str(home.settings.home), "DRIFT_MODELS": str(models)}
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().removeprefix("gateway on ").strip()
            with httpx.Client(base_url=address, headers={"X-API-Key": home.producer()}, trust_env=False) as client:
                heard(client)
                yield client
        finally:
            process.terminate()
            process.communicate()


@dataclass
class Traffic:
    """One run's traffic. `broken` and `ended` are set while it runs."""

    port: int
    key: str
    breach: Breach
    prefix: str
    answers: list[Answered] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    broken: bool = False
    ended: bool = False

    async def run(self) -> None:
        """Connections are kept, as many as requests may be under way; a library's client takes half the machine."""
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(IN_FLIGHT):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", self.port))
        drawn, began, number = random.Random(0), time.monotonic(), 0
        async with asyncio.TaskGroup() as sending:
            while not self.ended:
                await asyncio.sleep(max(0.0, began + number / self.breach.rate - time.monotonic()))
                row = (drawn.gauss(), drawn.gauss(), drawn.choice(("phone", "tv", "web")))
                sending.create_task(self._send(await free.get(), free, f"{self.prefix}-{number}", row))
                number += 1
        while not free.empty():
            _, writer = free.get_nowait()
            writer.close()
            await writer.wait_closed()

    async def _send(
        self, connection: Connection, free: "asyncio.Queue[Connection]", name: str, row: tuple[float, float, str]
    ) -> None:
        broken = self.broken
        row = (row[0], TOO_LARGE, row[2]) if broken and self.breach.kind == "errors" else row
        slow = {"canary_delay_ms": self.breach.delay_ms} if broken and self.breach.kind == "latency" else {}
        body = json.dumps(infer([row], id=name, parameters=slow)).encode()
        sent = time.monotonic()
        status, told = await exchange(*connection, self.key, body)
        self.statuses[str(status)] += 1
        route = json.loads(told)["parameters"]["route"] if status == 200 else ""
        self.answers.append(Answered(sent, time.monotonic(), broken, route))
        free.put_nowait(connection)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, body: bytes
) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = ("POST /v2/models/fraud/infer HTTP/1.1", "Host: x", f"X-API-Key: {key}", f"Content-Length: {len(body)}")
    writer.write("\r\n".join((*head, "\r\n")).encode() + body)
    told = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in told.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(told[9:12]), await reader.readexactly(int(length.split(b":")[1]))


async def rolled_back(home: Home) -> float:
    """When the control store says so."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = await asyncio.to_thread(home.store.get, "rollout", "fraud")
        if found is not None and found.body["phase"] == Phase.ROLLED_BACK:
            return time.monotonic()
        if time.monotonic() > end:
            raise RuntimeError(f"no rollback within {PATIENCE_SECONDS} s: {found and found.body}")
        await asyncio.sleep(0.02)


async def break_canary(home: Home, traffic: Traffic) -> Run:
    sending = asyncio.create_task(traffic.run())
    await asyncio.sleep(traffic.breach.fine_seconds)
    traffic.broken = True
    try:
        said = await rolled_back(home)
        await asyncio.sleep(QUIET_SECONDS)
    finally:
        traffic.ended = True
        await sending
    return measured(traffic, said)


def measured(traffic: Traffic, said: float) -> Run:
    inside = [one for one in traffic.answers if one.route == "canary"]
    broken = [one for one in inside if one.broken]
    began, last = min(one.sent for one in broken), max(one.answered for one in inside)
    after = sum(one.sent > last for one in traffic.answers)
    if after < SHOWN_BY:
        raise RuntimeError(f"only {after} requests came after the last of the canary: nothing is shown")
    span = max(one.sent for one in traffic.answers) - min(one.sent for one in traffic.answers)
    sent_per_second = len(traffic.answers) / span
    return Run(traffic.breach, last - began, said - began, len(broken), sent_per_second, traffic.statuses)


def run(home: Home, client: httpx.Client, versions: Mapping[str, Document], turn: int, breach: Breach) -> Run:
    """A rollout of its own, as a loop leaves it when it enters the canary."""
    now, rollout, candidate = SystemClock().now(), f"fraud-r{turn}", versions[breach.kind]
    digests = str(candidate["digest"]), str(versions["champion"]["digest"])
    status = Status(rollout, "fraud", *digests, Phase.CANARY, now, now, "a benchmark")
    home.put("rollout", "fraud", status.to_json())
    until(client, 'canary_weight_percent{model="fraud"} 10.0')
    assert client.base_url.port is not None
    traffic = Traffic(client.base_url.port, client.headers["X-API-Key"], breach, rollout)
    return asyncio.run(break_canary(home, traffic))


@contextmanager
def opened() -> Iterator[tuple[Home, httpx.Client, dict[str, Document]]]:
    """A home, its gateway, and the versions there: the champion, and a canary for each kind of failure."""
    with tempfile.TemporaryDirectory() as folder:
        home, models = Home(Path(folder) / "home"), Path(folder) / "models"
        (models / "fraud").mkdir(parents=True)
        (models / "fraud" / "defs.yaml").write_text(MODELS)
        versions = {"champion": home.version("v1", 0)}
        home.champion(versions["champion"])
        for kind in KINDS:
            versions[kind] = home.version(f"v2-{kind}", 1, canary(kind))
            home.put("candidate", f"fraud/{versions[kind]['digest']}", versions[kind])
        try:
            with served(home, models) as client:
                yield home, client, versions
        finally:
            home.store.close()


def spread(seconds: list[float]) -> str:
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return f"{p50:8.2f}{p95:8.2f}{max(seconds):8.2f}"


def line(name: str, runs: list[Run]) -> str:
    rows, rate = (np.median([getattr(one, what) for one in runs]) for what in ("canary_rows", "sent_per_second"))
    answers, said = [one.last_canary_answer for one in runs], [one.rolled_back for one in runs]
    return f"{name:20}{len(runs):6}{spread(answers)}   {spread(said)}{rows:14.0f}{rate:9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20, help="All kinds and rates in turn.")
    parser.add_argument("--delay-ms", type=float, default=300.0, help="Of a slow canary, for a row.")
    parser.add_argument("--fine-seconds", type=float, default=4.0, help="How long the canary does well before.")
    options = parser.parse_args()
    turns, runs = list(product(RATES, KINDS)), []
    with opened() as (home, client, versions):
        for turn in range(options.runs):
            rate, kind = turns[turn % len(turns)]
            breach = Breach(kind, rate, options.fine_seconds, options.delay_ms)
            runs.append(found := run(home, client, versions, turn, breach))
            told = f"last canary answer {found.last_canary_answer:.2f} s, rolled back {found.rolled_back:.2f} s"
            told = f"{turn + 1}/{options.runs} {kind} {rate}/s: {told}, {dict(found.statuses)}"
            print(told, file=sys.stderr, flush=True)
    print(
        f"{'seconds':20}{'':6}{'last canary answer':>24}   {'control store says so':>24}{'broken rows':>14}{'rows':>9}"
    )
    quantiles = f"{'p50':>8}{'p95':>8}{'max':>8}"
    print(f"{'':20}{'runs':>6}{quantiles}   {quantiles}{'to the canary':>14}{'/s':>9}")
    for kind, rate in product(KINDS, RATES):
        if own := [one for one in runs if (one.breach.kind, one.breach.rate) == (kind, rate)]:
            print(line(f"{kind}, {rate} rows/s", own))
    print(line("all", runs))


if __name__ == "__main__":
    main()
