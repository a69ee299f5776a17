"""Evidently's own UI on a workspace, in a process of its own on a free port."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Served:
    """`url` is http://127.0.0.1:PORT."""

    url: str
    process: "subprocess.Popen[bytes]"

    def answer(self, path: str, body: Any = None) -> Any:
        """JSON of a path below /api, asked again until the process answers or has ended."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}/api/{path}", data, {"Content-Type": "application/json"})
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(asked, timeout=5) as found:
                    return json.load(found)
            except OSError:
                time.sleep(0.3)
        raise AssertionError(f"{asked.full_url} did not answer; the process ended with {self.process.poll()}")


@contextmanager
def evidently_ui(workspace: Path) -> Iterator[Served]:
    """The README's command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("evidently")), "ui", "--workspace", str(workspace)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    with subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as started:
        try:
            yield Served(f"http://127.0.0.1:{port}", started)
        finally:
            os.killpg(started.pid, signal.SIGTERM)
