"""A fake lineage backend: a real HTTP server on this machine that keeps what it is sent, and fails as it is told to."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeBackend:
    """`answers`: the statuses of the next requests, then 201 for all; `pause_s` before each answer.

    events: what was answered with 201, in order. asked: every request's path and authorization.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    refuses: str = ""  # a job that is answered with `refusal`
    refusal: int = 422
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def once(self) -> list[dict[str, Any]]:
        """As a backend keeps them: a run's event of a kind and time once, where it first came."""
        return list({key_of(event): event for event in reversed(self.events)}.values())[::-1]

    def take(self, event: dict[str, Any], path: str, key: str) -> int:
        self.asked.append((path, key))
        time.sleep(self.pause_s)
        status = self.answers.pop(0) if self.answers else 201
        status = self.refusal if self.refuses and event["job"]["name"] == self.refuses else status
        if status == 201:
            self.events.append(event)
        return status


def key_of(event: dict[str, Any]) -> tuple[str, str, str]:
    return event["run"]["runId"], event["eventType"], event["eventTime"]


def in_order(events: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [key_of(event) for event in events]


@contextmanager
def fake_backend(port: int = 0) -> Iterator[FakeBackend]:
    fake = FakeBackend()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = fake.take(json.loads(body), self.path, self.headers.get("authorization", ""))
            try:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:  # who asked did not wait, or was killed
                return

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Answers) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield fake
        finally:
            server.shutdown()
            serving.join()
