"""VictoriaLogs: a store of log lines that takes Loki's push protocol and OTLP. It is not Loki, and has no LogQL."""

import json
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drift_pipeline_tests.parts.building import built
from drift_pipeline_tests.parts.cache import MissingError, installed, pinned
from drift_pipeline_tests.parts.server import PATIENCE_S, Server, free_port

VARIABLE = "VICTORIALOGS_URL"


def find() -> Path:
    """The server. Raises MissingError."""
    if (ours := installed("victorialogs") / "victorialogs").is_file():
        return ours
    raise MissingError(
        "no VictoriaLogs: python -m drift_pipeline_tests.parts install victorialogs builds it, a minute with Go"
    )


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    return built("victorialogs", f"{pinned('victorialogs')['module']}/app/victoria-logs")


class VictoriaLogs:
    """A server at `url`; `otlp` is where an OTLP exporter sends to, `push` what speaks Loki's push protocol."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.otlp, self.push = f"{self.url}/insert/opentelemetry", f"{self.url}/insert/loki/api/v1/push"
        command = [str(find()), f"-storageDataPath={folder / 'data'}", f"-httpListenAddr=127.0.0.1:{port}"]
        self.server = Server(command, folder / "victorialogs.log", self._answers)

    def lines(self, query: str) -> list[dict[str, Any]]:
        """What LogsQL finds, each line with its fields; its words are `_msg`."""
        asked = urllib.parse.urlencode({"query": query}).encode()
        with urllib.request.urlopen(f"{self.url}/select/logsql/query", data=asked, timeout=10) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]

    def line(self, query: str) -> dict[str, Any]:
        """The one line that LogsQL finds, waited for: what was taken is found within seconds."""
        end = time.monotonic() + PATIENCE_S
        while not (found := self.lines(query)):
            if time.monotonic() > end:
                raise TimeoutError(f"no line of {query}; there are {self.lines('*')[:20]}")
            time.sleep(0.1)
        (line,) = found
        return line

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def running() -> Iterator[VictoriaLogs]:
    """A server. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-victorialogs-") as folder:
        part = VictoriaLogs(Path(folder))
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
