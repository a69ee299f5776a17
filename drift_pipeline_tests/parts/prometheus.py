"""Prometheus: its server and promtool, as Debian builds them, taken out of the package: no service is started."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline_tests.parts.building import whole
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.debian import unpacked
from drift_pipeline_tests.parts.server import PATIENCE_S, Server, free_port

VARIABLE = "DRIFT_PROMETHEUS_URL"
DEPLOY = HERE.parents[1] / "deploy" / "prometheus"


def find() -> Path:
    """The folder of `prometheus` and `promtool`. Raises MissingError."""
    if (ours := installed("prometheus") / "usr" / "bin").is_dir():
        return ours
    if (found := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(found).parent
    raise MissingError(
        "no Prometheus: python -m drift_pipeline_tests.parts install prometheus fetches it, seconds with apt-get"
    )


def install() -> Path:
    """Debian's package, unpacked into the cache; the machine's own where there is one. Raises MissingError."""
    with suppress(MissingError):
        return find()
    pin = pinned("prometheus")
    wanted = {pin["package"]: pin["version"]}
    whole(installed("prometheus"), lambda folder: unpacked("Prometheus", wanted, folder))
    return find()


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """
    Args:
        given: on its stdin.

    Raises:
        MissingError: it is not built.
    """
    command = [str(find() / "promtool"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


class Prometheus:
    """A server at `url` with a configuration of its own."""

    def __init__(self, folder: Path, configuration: dict[str, Any], lookback: str) -> None:
        port = free_port()
        self.url, self._file = f"http://127.0.0.1:{port}", folder / "prometheus.yaml"
        self._file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        where = (f"--config.file={self._file}", f"--storage.tsdb.path={folder / 'tsdb'}")
        listen = f"--web.listen-address=127.0.0.1:{port}"
        command = [str(find() / "prometheus"), *where, listen, f"--query.lookback-delta={lookback}"]
        self.server = Server(command, folder / "prometheus.log", self._answers)

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        asked = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{asked}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant vector, by their labels."""
        found = self.ask("query", query=promql)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def until(self, promql: str, wanted: Callable[[list[tuple[dict[str, str], float]]], bool]) -> None:
        """Ask again until the answer is what is wanted."""
        end = time.monotonic() + PATIENCE_S
        while not wanted(found := self.query(promql)):
            if time.monotonic() > end:
                raise TimeoutError(f"{promql} is {found}; alerts: {self.ask('alerts')}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def running(configuration: dict[str, Any] | None = None, lookback: str = "15s") -> Iterator[Prometheus]:
    """A server; None = one that scrapes nothing. `lookback`: how long a sample counts. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-prometheus-") as folder:
        part = Prometheus(Path(folder), configuration or {}, lookback)
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
