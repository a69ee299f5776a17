"""Real Prometheus and Alertmanager with the rules and routes of deploy/prometheus: who is paged, and how often."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.settings import Settings
from drift_pipeline_tests.parts import alertmanager, prometheus
from drift_pipeline_tests.parts.alertmanager import Alertmanager
from drift_pipeline_tests.parts.prometheus import DEPLOY, Prometheus
from drift_pipeline_tests.test_loop import SPAN
from drift_pipeline_tests.test_loop import World as Loop

PATIENCE_S, KEY = 60.0, "R" * 32
EVENT = {  # of PagerDuty's Events API v2, as its reference has it
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string"},
        "images": {"type": "array"},
        "links": {"type": "array"},
        "payload": {
            "type": "object",
            "required": ["summary", "source", "severity"],
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "source": {"type": "string", "minLength": 1},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "timestamp": {"type": "string"},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}


class Endpoint:
    """PagerDuty's Events API v2 at /v2/enqueue, which refuses what its schema does not allow; tickets at /ticket."""

    def __init__(self) -> None:
        self.events, self.tickets, self.refused = list[dict[str, Any]](), list[dict[str, Any]](), list[str]()
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = 200 if self.path == "/ticket" else told.take(body)
                (told.tickets if self.path == "/ticket" else []).append(body)
                answer = json.dumps({"status": "success", "message": "", "dedup_key": body.get("dedup_key")}).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Not to stderr."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, event: dict[str, Any]) -> int:
        try:
            jsonschema.validate(event, EVENT)
        except jsonschema.ValidationError as error:
            self.refused.append(error.message)
            return 400
        self.events.append(event)
        return 202

    def pages(self, about: str) -> Counter[tuple[str, str]]:
        """Events whose alert it is, by dedup key and action."""
        keys = {one["dedup_key"] for one in self.events if one.get("payload", {}).get("class") == about}
        return Counter((one["dedup_key"], one["event_action"]) for one in self.events if one["dedup_key"] in keys)

    def actions(self, about: str) -> list[str]:
        """What was done in turn to the one page about it."""
        pages = self.pages(about)
        assert len({key for key, _ in pages}) <= 1, pages
        return [one["event_action"] for one in self.events if one["dedup_key"] in {key for key, _ in pages}]


def until(so: Callable[[], bool], told: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


class World:
    """A loop with its exporter, scraped twice a second; alerts fire at once, a loop is dead after 3 s."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.endpoint = Endpoint()
        stack.callback(self.endpoint.server.server_close)
        stack.callback(self.endpoint.server.shutdown)
        (folder / "home").mkdir()
        self.loop = Loop(folder / "home")
        stack.callback(self.loop.store.close)
        settings = Settings(home=folder / "home", database="")
        metrics = LoopMetrics(settings, {"fraud": self.loop.spec}, SystemClock(), self._store)
        registry = CollectorRegistry()
        registry.register(metrics)
        server, thread = start_http_server(0, "127.0.0.1", registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.alertmanager: Alertmanager = stack.enter_context(alertmanager.running(self._routes(folder)))
        target = f"127.0.0.1:{server.server_port}"
        self.prometheus: Prometheus = stack.enter_context(prometheus.running(self._scraping(folder, target)))

    @contextmanager
    def _store(self) -> Iterator[ControlStore]:
        yield self.loop.store

    def _routes(self, folder: Path) -> dict[str, Any]:
        (folder / "pagerduty.key").write_text(KEY)
        (folder / "ticket.url").write_text(f"{self.endpoint.url}/ticket")
        text = (DEPLOY / "alertmanager.yaml").read_text()
        text = re.sub(r"group_wait: \w+", "group_wait: 1s", text)
        text = re.sub(r"group_interval: \w+", "group_interval: 1s", text)
        for name in ("pagerduty.key", "ticket.url"):
            text = text.replace(name, str(folder / name))
        routes: dict[str, Any] = yaml.safe_load(text)
        routes["global"] = {"pagerduty_url": f"{self.endpoint.url}/v2/enqueue"}
        return routes

    def _scraping(self, folder: Path, target: str) -> dict[str, Any]:
        rules = re.sub(r"for: \w+", "for: 0s", (DEPLOY / "alerts.yaml").read_text())
        dead = "drift_gateway_ticked_at_seconds) > 300"
        assert dead in rules
        (folder / "alerts.yaml").write_text(rules.replace(dead, dead.replace("300", "3")))
        return {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(folder / "alerts.yaml"), str(DEPLOY / "recording.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [self.alertmanager.url[7:]]}]}]},
            "scrape_configs": [{"job_name": "drift_exporter", "static_configs": [{"targets": [target]}]}],
        }

    def drift(self) -> None:
        """From the second day on, one column is elsewhere."""
        later = pl.col("_time") >= SPAN.end + DAY
        self.healthy = self.loop.rows
        self.loop.rows = self.healthy.with_columns(
            pl.when(later).then(pl.col("amount") + 3).otherwise("amount").alias("amount")
        )

    def tick(self) -> None:
        """Now, as the machine has it."""
        self.loop.clock.advance_to(SystemClock().now())
        self.loop.loop.observe()

    def told(self) -> object:
        return self.endpoint.events, self.endpoint.refused, self.alertmanager.alerts()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, promtool: None, amtool: None) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("alerting"), stack)


@pytest.mark.live
def test_a_drift_is_one_page_with_its_columns_and_ends_with_its_incident(world: World) -> None:
    world.drift()
    while not world.loop.loop.incident.open:
        world.loop.day()
    about, endpoint = "DriftIncident", world.endpoint
    until(lambda: endpoint.actions(about) == ["trigger"], world.told)
    (event,) = [one for one in endpoint.events if one["payload"]["class"] == about]
    assert f"incident {world.loop.loop.incident.key} is open" in event["payload"]["summary"]
    assert "amount PSI" in str(event["payload"]["custom_details"])  # which takes "fraud: ..." for a mapping
    world.prometheus.until('ALERTS{alertname=~"DriftKpi.*",alertstate="firing"}', bool)

    def kpis() -> list[dict[str, Any]]:
        return [one for one in world.alertmanager.alerts() if one["labels"]["alertname"].startswith("DriftKpi")]

    until(lambda: bool(kpis()) and all(one["status"]["state"] == "suppressed" for one in kpis()), world.told)
    world.loop.day()
    world.loop.rows = world.healthy
    for _ in range(60):
        if not world.loop.loop.incident.open:
            break
        world.loop.day()
    assert not world.loop.loop.incident.open
    until(lambda: endpoint.actions(about) == ["trigger", "resolve"], world.told)
    assert endpoint.refused == []


@pytest.mark.live
def test_a_loop_that_stops_is_a_page_that_ends_when_it_is_back(world: World) -> None:
    about, endpoint = "DriftLoopDead", world.endpoint
    until(lambda: endpoint.actions(about) == ["trigger"], world.told)  # its clock is a year behind: it ticked long ago
    ended = threading.Event()

    def go() -> None:
        while not ended.wait(0.3):
            world.tick()

    for count in (1, 2):
        ended.clear()
        ticking = threading.Thread(target=go)
        ticking.start()
        try:
            until(lambda: endpoint.actions(about) == ["trigger", "resolve"] * count, world.told)  # noqa: B023
        finally:
            ended.set()
            ticking.join()
        if count == 1:
            until(lambda: endpoint.actions(about) == ["trigger", "resolve", "trigger"], world.told)
    assert endpoint.refused == []
