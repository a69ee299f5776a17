"""The gateway as a process of its own: how it starts, and what is left when it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import InputError
from drift_pipeline.serving.server import serve
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import SPECS, Home, heard, infer

SCRIPT = """
import sys
from pathlib import Path
from drift_pipeline.clock import SystemClock
from drift_pipeline.serving.server import serve
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import SPECS
serve(Settings(home=Path(sys.argv[1]), database=""), SPECS, "127.0.0.1", 0, SystemClock())
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    yield home
    home.store.close()


@contextmanager
def served(home: Home) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    headers = {"Authorization": f"Bearer {home.producer()}"}
    command = [sys.executable, "-c", SCRIPT, str(home.settings.home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().removeprefix("gateway on ").strip()
            with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
                heard(client)
                yield process, client
        finally:
            process.kill()


def ask_until_it_dies(client: httpx.Client, worker: int) -> list[str]:
    """Ids of all that was answered."""
    answered = []
    for number in range(100_000):
        body = infer([(0.5, 1.0, "tv")] * 3, id=f"{worker}-{number}")
        try:
            told = client.post("/v2/models/fraud/infer", json=body)
        except httpx.HTTPError:
            break
        assert told.status_code == 200, told.text
        answered += [f"{worker}-{number}-{row}" for row in range(3)]
    return answered


@pytest.mark.live
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_every_answer_is_in_the_spool_however_the_gateway_ends(home: Home, ending: signal.Signals) -> None:
    with served(home) as (process, client), ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask_until_it_dies, client, worker) for worker in range(2)]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(ending)
        code = process.wait(30)
        answered = [id for worker in asking for id in worker.result()]
    written = [json.loads(line)["id"] for line in home.spooled()]
    assert len(answered) > 100
    assert set(answered) <= set(written)
    assert len(written) == len(set(written))
    assert code == (-ending if ending == signal.SIGKILL else 0)
    if ending != signal.SIGKILL:
        assert len(written) == len(answered)


def test_an_address_that_is_taken_is_told(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen here"):
        serve(home.settings, SPECS, "127.0.0.1", taken.getsockname()[1], SystemClock())


def test_a_second_gateway_of_a_home_is_refused(home: Home) -> None:
    writer = SpoolWriter(home.settings.home / "spool" / "gateway")
    with pytest.raises(InputError, match="another writer has this spool"):
        serve(home.settings, SPECS, "127.0.0.1", 0, SystemClock())
    writer.close()
