"""A drill: a home whose gateway is a process, on a clock that runs many times as fast."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.serving.demo import CRON, MODEL, SPEC
from drift_pipeline.serving.up import DRIFT
from drift_pipeline.telemetry.synthetic import synthetic_history


class Drill:
    """One home under `folder`. Use as a context manager: what it started ends with it."""

    def __init__(self, folder: Path, speed: int, retrain: str) -> None:
        self.folder, self.home = folder, folder / "home"
        (folder / "models" / MODEL).mkdir(parents=True)
        spec = re.sub("retrain: .*", f'retrain: {{cron: "{CRON}", {retrain}}}', SPEC)
        (folder / "models" / MODEL / "defs.yaml").write_text(spec)
        began = datetime.now(UTC)
        self.environment = {
            **os.environ,
            "DRIFT_MODELS": str(folder / "models"),
            "DRIFT_HOME": str(self.home),
            "DRIFT_DRILL": f"{speed}@{began.isoformat()}",
            "DRIFT_TICK_SECONDS": "5",
        }
        start = (began - timedelta(days=42)).replace(hour=0, minute=0, second=0, microsecond=0)
        synthetic_history(42, 100, 0, score=False, start=start).write_parquet(folder / "history.parquet")
        self.port, self.dagster_port, self.pages_port = free_port(), free_port(), free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Drill":
        self.drift("adopt", MODEL, "--data", str(self.folder / "history.parquet"))
        self.drift("key", str(self.folder / "ada.pem"), "--label", "Ada", "--home", str(self.home))
        self.store = ControlStore(f"sqlite:///{self.home / 'control.db'}", SystemClock())
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.end()

    def end(self) -> None:
        """What was started last, first."""
        end_all(self._running[::-1])
        self._running.clear()

    def serve(self) -> str:
        """Start the gateway alone; its address, at which it answers."""
        self._start("serve", "--port", str(self.port))
        url = f"http://127.0.0.1:{self.port}"
        self.until(lambda: is_ready(f"{url}/v2/health/ready"), 60, "the gateway")
        return url

    def drift(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end."""
        ended = subprocess.run(command(arguments), env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
        return ended.stdout

    def _start(self, *arguments: str) -> None:
        log = (self.folder / f"{arguments[0]}-{len(self._running)}.log").open("wb")
        with log:
            process = subprocess.Popen(command(arguments), env=self.environment, stdout=log, stderr=log)
        self._running.append(process)

    def until(self, holds: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for it; the drill's story so far is told where it does not come."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, f"no {what} within {seconds} s\n{self.story()}"
            time.sleep(0.5)
        return found

    def events(self) -> list[str]:
        return [record.event for record in self.store.records()]

    def paged(self) -> list[str]:
        """What people were paged about, in order."""
        return [json.loads(line)["what"] for line in (self.home / "alerts.jsonl").read_text().splitlines()]

    def story(self) -> str:
        told = [f"{r.seq} {r.at} {r.actor} {r.event} {json.dumps(dict(r.details))[:300]}" for r in self.store.records()]
        logs = list((self.home / "logs").glob("*.log")) + sorted(self.folder.glob("*.log"))
        return "\n".join([*told, *(f"-- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)])


@contextmanager
def demo(home: Path, environment: Mapping[str, str], port: int) -> Iterator["subprocess.Popen[str]"]:
    """`drift demo --live --end`, whose gateway listens at the port."""
    ports = ("--port", str(port), "--dagster-port", str(free_port()), "--pages-port", str(free_port()))
    process = subprocess.Popen(
        command(("demo", "--live", "--end", "--home", str(home), *ports)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def until(process: "subprocess.Popen[str]", holds: Callable[[], object], seconds: float) -> None:
    """Wait for it; what the process told is told where it does not come, or where the process ended."""
    end = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.terminate()
            raise AssertionError(process.communicate(timeout=60)[0])
        time.sleep(0.5)


def command(arguments: Sequence[str]) -> list[str]:
    return [*DRIFT, *arguments]


def end_all(running: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Interrupt one after the other as Ctrl-C does; their exit codes. One that does not listen is killed."""
    for process in running:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
    return [process.wait() for process in running]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
