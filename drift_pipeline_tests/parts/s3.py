"""An S3-compatible object store: moto's server, whose buckets are in its memory.

It looks whether an object is there, and puts it, in two steps: without a lock around both, two writers that put the
same name at once under `If-None-Match: *` are now and then both told that theirs was new, as no real store does.
"""

import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from drift_pipeline_tests.parts.environment import Environment
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "AWS_ENDPOINT_URL"
ENVIRONMENT = Environment("s3", "s3-requirements.txt")
KEY, SECRET = "drift", "s3cr3t/w+th=signs"
find, install = ENVIRONMENT.find, ENVIRONMENT.install
ONE_WRITER_AT_A_TIME = """
import threading
from moto import server

lock = threading.Lock()

class Serialised(server.DomainDispatcherApplication):
    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return super().__call__(environ, start_response)
        with lock:
            return super().__call__(environ, start_response)

server.DomainDispatcherApplication = Serialised
server.main()
"""


class S3:
    """A server at `url`; `environment` is what a client of it has to be told."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment: Mapping[str, str] = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        self._numbers = count(1)
        command = [str(find()), "-c", ONE_WRITER_AT_A_TIME, "-H", "127.0.0.1", "-p", str(port)]
        self.server = Server(command, folder / "s3.log", self._answers, {"PYTHONPATH": ""})

    def bucket(self) -> str:
        """The name of a new one."""
        name = f"home-{next(self._numbers)}"
        self.ask("PUT", f"/{name}")
        return name

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """As the owner of everything; moto looks at no signature."""
        kind = {"content-type": "application/octet-stream"}
        request = urllib.request.Request(self.url + path, data, kind, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            told: bytes = answer.read()
            return told

    def _answers(self) -> bool:
        with suppress(OSError):
            self.ask("GET", "/moto-api/")
            return True
        return False


@contextmanager
def running() -> Iterator[S3]:
    """A server without a bucket. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-s3-") as folder:
        part = S3(Path(folder))
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
