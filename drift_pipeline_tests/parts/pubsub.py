"""Google Cloud Pub/Sub: Google's own fake server (pstest), which keeps everything in memory."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drift_pipeline_tests.parts.building import built
from drift_pipeline_tests.parts.cache import MissingError, installed
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "PUBSUB_EMULATOR_HOST"


def find() -> Path:
    """The server's program. Raises MissingError."""
    if (ours := installed("pubsub") / "pubsub").is_file():
        return ours
    raise MissingError("no Pub/Sub: python -m drift_pipeline_tests.parts install pubsub builds it, a minute with Go")


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    return built("pubsub", ".")


class PubSub:
    """A server at `url`, HOST:PORT as PUBSUB_EMULATOR_HOST wants it. What it holds is gone once it is killed."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.url = f"127.0.0.1:{self._port}"
        self.server = Server([str(find()), "-port", str(self._port)], folder / "pubsub.log", self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def running() -> Iterator[PubSub]:
    """A server. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-pubsub-") as folder:
        part = PubSub(Path(folder))
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
