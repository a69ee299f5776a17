"""A home with trained versions and routes, as the loop would leave it, and requests for its gateway."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from starlette.applications import Starlette

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.serving.keys import add_producer
from drift_pipeline.serving.server import server_of
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.trainers import TRAINERS, fit
from drift_pipeline_tests.training.worlds import history, spec

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPECS: dict[str, ModelSpec] = {"fraud": spec()}


@cache
def model(seed: int, trainer: str = "gradient_boosting") -> bytes:
    """A trained pipeline as the registry keeps it; another seed is another model."""
    pipeline = TRAINERS[trainer].build({"max_iter": 50} if trainer == "gradient_boosting" else {}, SPECS["fraud"], seed)
    return dump_pipeline(fit(pipeline, history(1500, seed=seed), SPECS["fraud"].features))


class Home:
    """One model, `fraud`; what is told to the store is what its gateway follows."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder, database="")
        folder.mkdir(exist_ok=True)
        self.store = open_store(self.settings, SystemClock())
        self.registry = LocalRegistry(self.settings.registry)
        self.settings.registry.mkdir()

    def version(self, name: str, seed: int, data: bytes | None = None) -> dict[str, Any]:
        """A registered version's document."""
        bundle = self.registry.put({"version": name}, {"model.skops": model(seed) if data is None else data})
        return {"digest": bundle.digest, "version": name, "trained_from": AT.isoformat(), "unseen_from": AT.isoformat()}

    def put(self, kind: str, key: str, body: dict[str, Any]) -> None:
        found = self.store.get(kind, key)
        self.store.commit(Entry("test", "put", key), [Put(kind, key, body, found.generation if found else 0)])

    def champion(self, version: dict[str, Any], previous: dict[str, Any] | None = None) -> None:
        self.put("model", "fraud", {**version, **({"previous": previous} if previous else {})})

    def rollout(self, candidate: dict[str, Any], phase: Phase, rollout_id: str = "r1") -> None:
        self.put("candidate", f"fraud/{candidate['version']}", candidate)
        version, was = candidate["version"], "sha256:" + "0" * 64
        status = Status(rollout_id, "fraud", version, was, phase, since=AT, started=AT, reason="a test")
        self.put("rollout", "fraud", status.to_json())

    def producer(self, models: Sequence[str] = ("fraud",), rows_per_second: int = 100_000, name: str = "app") -> str:
        return add_producer(self.store, name, models, rows_per_second, "test")

    def spooled(self) -> list[bytes]:
        """Whole lines in the gateway's spool."""
        files = sorted((self.settings.home / "spool" / "gateway").glob("*.jsonl"))
        return [line for file in files for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def infer(rows: Sequence[tuple[float | None, float | None, str | None]], **more: Any) -> dict[str, Any]:
    """A request's body; rows are amount, age, device."""
    kinds = {"amount": "FP64", "age": "FP64", "device": "BYTES"}
    columns = zip(kinds.items(), zip(*rows, strict=True), strict=True)
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": list(data)}
        for (name, datatype), data in columns
    ]
    return {"inputs": tensors, **more}


@contextmanager
def listening(app: Starlette, **limits: Any) -> Iterator[str]:
    """The address of the application's server, on a thread of its own; `limits` are of its connections."""
    server = server_of(app, **limits)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        thread = Thread(target=server.run, args=([taken],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def heard(asks: httpx.Client) -> None:
    """Wait until the gateway has read keys and routes, and loaded what they name."""
    end = time.monotonic() + 60
    while True:
        with suppress(httpx.TransportError):  # short deadlines cut off who waits for a busy machine
            if asks.get("/v2").status_code != 503:
                return
        assert time.monotonic() < end, asks.get("/v2/health/ready").text
        time.sleep(0.02)


def until(asks: httpx.Client, wanted: str, path: str = "/metrics", seconds: float = 20) -> str:
    """Ask until the text tells what is wanted."""
    end = time.monotonic() + seconds
    while True:
        text = asks.get(path).text
        if wanted in text:
            return text
        assert time.monotonic() < end, f"{wanted!r} is not in {text}"
        time.sleep(0.02)
