"""A control store with incidents in it, whoever is told of them, and endpoints of our own that take what is posted."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline.alerts.alert import Alert, Teller
from drift_pipeline.alerts.delivery import ChannelRun, Progress, recalled
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.settings import Settings

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "ab12cd34ef56-20260301T1100"
KPIS = {"psi": {"verdict": "BREACH", "reason": "PSI 0.41 over 30d, threshold 0.2"}}
COLUMNS = [
    {"name": "amount", "direction": "higher", "psi": 0.41, "window": "30d"},
    {"name": "device", "direction": "more of ios", "psi": 0.22, "window": "1d"},
    {"name": "age", "direction": "lower", "psi": 0.2, "window": "30d"},
    {"name": "fourth", "direction": "lower", "psi": 0.1, "window": "30d"},
]


class World:
    """Writes to a store what the loop would."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(AT)
        self.settings = Settings(
            home=folder, database="", alerts_file=folder / "alerts.yaml", pages_url="http://pages/"
        )
        folder.mkdir(exist_ok=True)
        self.store = ControlStore(self.settings.database_url, self.clock)

    def commit(self, event: str, model: str, details: Mapping[str, Any], **more: Any) -> None:
        self.store.commit(Entry("loop", event, model, details=details), **more)

    def alert(self, model: str, key: str, what: str, why: str = "so it is") -> Message:
        body = {"model": model, "what": what, "why": why, "at": self.clock.now().isoformat()}
        return Message(f"{model}:{key}:{what}", ALERTS, {**body, "owner": f"{model}@example.com"})

    def opened(self, model: str = "fraud", key: str = KEY, why: str = "psi BREACH: PSI 0.41 over 30d") -> None:
        """An incident, with what it found and what the policy said to it."""
        at = self.clock.now().isoformat()
        known = self.store.get("incident", model)
        incident, before = {"key": key, "onset": "2026-03-01T11:00:00+00:00"}, known.generation if known else 0
        puts = [
            Put("finding", f"{model}/{key}", {"key": key, "at": at, "kpis": KPIS, "columns": COLUMNS}),
            Put("incident", model, incident, before),
        ]
        said = [self.alert(model, key, "incident.opened", why)]
        self.commit("incident.opened", model, {"key": key, "kpis": KPIS}, puts=puts, messages=said)
        decision = {"decision": f"{model}-1", "action": "retrain", "incident": key, "reasons": ["psi is over"]}
        self.commit("decision.made", model, decision)

    def followed(self, event: str, model: str = "fraud", key: str = KEY) -> None:
        """The incident is reopened, acknowledged or closed."""
        self.commit(f"incident.{event}", model, {"key": key, "kpis": KPIS, "reason": "seen"})

    def routes(self, channels: Mapping[str, Any], routes: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the YAML; without routes all goes to all."""
        assert self.settings.alerts_file is not None
        to = [*routes] or [{"channels": [*channels]}]
        self.settings.alerts_file.write_text(
            yaml.safe_dump({"channels": dict(channels), "routes": to}, sort_keys=False)
        )


@dataclass
class Heard:
    """A receiver that keeps what it takes; `wrong` may raise instead."""

    taken: list[Alert] = field(default_factory=list)
    wrong: Callable[[Alert], None] = lambda _: None

    def send(self, alert: Alert) -> None:
        self.wrong(alert)
        self.taken.append(alert)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Of each the incident's model and the action."""
        return [(alert.model, str(alert.action)) for alert in self.taken]


def run(world: World, receiver: Heard, name: str = "pager", wanted: Callable[[Alert], bool] = lambda _: True) -> None:
    """One call's delivery to a channel that was there from the beginning."""
    teller = Teller(world.store, "production", "http://pages")
    ChannelRun(name, world.store, teller, world.clock, wanted, lambda: receiver).run(time.monotonic() + 60)


def kept(world: World, name: str = "pager") -> Progress:
    found = recalled(world.store, name)[0]
    assert found is not None
    return found


def down(_: Alert) -> None:
    raise UnavailableError("is not reached: ConnectError")


def refuses(key: str) -> Callable[[Alert], None]:
    def wrong(alert: Alert) -> None:
        if key in alert.incident:
            raise InputError("answers 400: it refuses the alert")

    return wrong


@dataclass
class Endpoint:
    """What was posted: path, headers, body; `answer` says what is answered to a body."""

    url: str = ""
    posted: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[bytes], tuple[int, bytes]] = lambda _: (202, b"")

    @property
    def documents(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.posted]


@contextmanager
def listening() -> Iterator[Endpoint]:
    """An HTTP server of this machine."""
    at = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, told = at.answer(body)
            if 200 <= status < 300:
                at.posted.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    at.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield at
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
