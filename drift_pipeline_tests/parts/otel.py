"""OpenTelemetry Collector: a build of the components that `deploy/otel` uses, run with its files."""

import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from drift_pipeline_tests.parts.building import built
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
DEPLOY = HERE.parents[1] / "deploy" / "otel"


def find() -> Path:
    """The collector; another build on the machine may lack components, so only ours counts. Raises MissingError."""
    if (ours := installed("otel") / "otel").is_file():
        return ours
    raise MissingError("no collector: python -m drift_pipeline_tests.parts install otel builds it, minutes with Go")


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    return built("otel", ".")


def validated(config: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit code of the collector's own check of a file, and what it says."""
    command = [str(find()), "validate", f"--config={config}"]
    ran = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr


class Collector:
    """A server that takes OTLP/HTTP at `url`, configured by a file and its variables; its queue outlives a `kill`."""

    def __init__(self, folder: Path, config: Path, environment: Mapping[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {
            "DRIFT_OTLP_LISTEN": f"127.0.0.1:{port}",
            "DRIFT_OTEL_QUEUE": str(folder / "queue"),
            "DRIFT_OTEL_METRICS": "none",
        }
        command = [str(find()), f"--config={config}"]
        self.server = Server(command, folder / "otel.log", self._answers, {**own, **environment})

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False
        return True


@contextmanager
def running(
    config: Path = DEPLOY / "collector-capture.yaml", environment: Mapping[str, str] | None = None
) -> Iterator[Collector]:
    """A collector. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-otel-") as folder:
        part = Collector(Path(folder), config, environment or {})
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
