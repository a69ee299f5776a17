"""Real Prometheus and Alertmanager with the rules and routes of deploy/prometheus: who is paged, and how often."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from drift_pipeline.alerts.alert import dedup_key
from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop import concerns
from drift_pipeline.loop.fleet import FAILED
from drift_pipeline.loop.operating import close_incident
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.settings import Settings
from drift_pipeline_tests.alerts.pagerduty import paging
from drift_pipeline_tests.alerts.worlds import listening
from drift_pipeline_tests.observability import deployed
from drift_pipeline_tests.parts import alertmanager, prometheus
from drift_pipeline_tests.parts.alertmanager import Alertmanager
from drift_pipeline_tests.parts.prometheus import DEPLOY, Prometheus
from drift_pipeline_tests.test_loop import World as Loop

PATIENCE_S, KEY = 180.0, "R" * 32


def until(so: Callable[[], bool], told: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


class World:
    """A loop with its exporter, scraped each second; alerts fire at once, a loop is dead after 6 s."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.pager = stack.enter_context(paging())
        self.tickets = stack.enter_context(listening())
        (folder / "home").mkdir()
        self.loop = Loop(folder / "home")
        stack.callback(self.loop.store.close)
        settings = Settings(home=folder / "home", database="", alerts_file=folder / "alerts-to.yaml")
        assert settings.alerts_file is not None
        channel = {"kind": "pagerduty", "secret": "ALERTING_KEY", "url": self.pager.url}
        routing = {"channels": {"pager": channel}, "routes": [{"severity": "page", "channels": ["pager"]}]}
        settings.alerts_file.write_text(yaml.safe_dump(routing))
        self.outbox = Alerting(settings, self.loop.store, SystemClock())
        metrics = LoopMetrics(settings, {"fraud": self.loop.spec}, SystemClock(), self._store)
        registry = CollectorRegistry()
        registry.register(metrics)
        server, thread = start_http_server(0, "127.0.0.1", registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        told = self._routes(folder)
        self.alertmanager: Alertmanager = stack.enter_context(alertmanager.running(told))
        scraped = self._scraping(folder, f"127.0.0.1:{server.server_port}")
        self.prometheus: Prometheus = stack.enter_context(prometheus.running(scraped))

    @contextmanager
    def _store(self) -> Iterator[ControlStore]:
        yield self.loop.store

    def _routes(self, folder: Path) -> dict[str, Any]:
        told = deployed.routes(folder, KEY, self.pager.url, f"{self.tickets.url}/ticket")
        for route in (told["route"], *told["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        return told

    def _scraping(self, folder: Path, exporter: str) -> dict[str, Any]:
        rules = re.sub(r"for: \w+", "for: 0s", (DEPLOY / "alerts.yaml").read_text())
        dead = "drift_gateway_ticked_at_seconds) > 300"
        assert dead in rules
        (folder / "alerts.yaml").write_text(rules.replace(dead, dead.replace("300", "6")))
        told = deployed.scraping(exporter, self.alertmanager.url.removeprefix("http://"))
        told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        told["rule_files"] = [str(folder / "alerts.yaml"), str(DEPLOY / "recording.yaml")]
        return told

    def drift(self) -> str:
        """The name of the incident that opens."""
        self.healthy = self.loop.rows
        return f"production/fraud/{self.loop.drift()}"

    def recover(self) -> None:
        """Until the incident is over."""
        self.loop.day()
        self.loop.rows = self.healthy
        for _ in range(60):
            if not self.loop.loop.incident.open:
                return
            self.loop.day()
        raise AssertionError("the incident does not end")

    def tick(self) -> None:
        """Now, as the machine has it."""
        self.loop.clock.advance_to(SystemClock().now())
        self.loop.loop.observe()

    def told(self) -> object:
        return self.pager.events, self.pager.refused, self.alertmanager.alerts()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, promtool: None, amtool: None) -> Iterator[World]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALERTING_KEY", KEY)
        yield World(tmp_path_factory.mktemp("alerting"), stack)


@pytest.mark.live
def test_a_drift_is_one_page_with_its_columns_and_ends_with_its_incident(world: World) -> None:
    name, about, pager = world.drift(), "DriftIncident", world.pager
    until(lambda: pager.actions(about) == ["trigger"], world.told)
    ((_, event),) = pager.triggers(about)
    assert f"incident {name} is open" in event["payload"]["summary"]
    assert "amount PSI" in str(event["payload"]["custom_details"])  # which takes "fraud: ..." for a mapping
    world.prometheus.until('ALERTS{alertname=~"DriftKpi.*",alertstate="firing"}', bool)

    def kpis() -> list[Any]:
        return [one for one in world.alertmanager.alerts() if one["labels"]["alertname"].startswith("DriftKpi")]

    until(lambda: bool(kpis()) and all(one["status"]["state"] == "suppressed" for one in kpis()), world.told)
    world.recover()
    until(lambda: pager.actions(about) == ["trigger", "resolve"], world.told)
    assert pager.refused == []


@pytest.mark.live
def test_an_incident_that_alertmanager_pages_first_is_one_page_once_the_outbox_tells_it(world: World) -> None:
    pager = world.pager
    world.outbox.deliver()  # the incident before
    key = dedup_key(world.drift())
    before = pager.pages[key]
    until(lambda: key in pager.open, world.told)
    came = len(pager.events)
    world.outbox.deliver()
    told = [one for one in pager.events[came:] if "incident." in one.get("payload", {}).get("class", "")]
    assert [(one["event_action"], one["dedup_key"]) for one in told] == [("trigger", key)]

    def states() -> list[str]:
        alerts = world.alertmanager.alerts()
        return [one["status"]["state"] for one in alerts if one["labels"]["alertname"] == "DriftIncident"]

    until(lambda: states() == ["suppressed"], world.told)
    close_incident(world.loop.loop, "ada", "seen")
    world.outbox.deliver()
    until(lambda: states() == [], world.told)
    assert (pager.pages[key] - before, key in pager.open, pager.refused) == (1, False, [])


@pytest.mark.live
def test_a_loop_that_stops_is_a_page_that_ends_when_it_is_back(world: World) -> None:
    about, pager = "DriftLoopDead", world.pager
    until(lambda: pager.actions(about) == ["trigger"], world.told)  # its clock is a year behind: it ticked long ago
    ended = threading.Event()

    def go() -> None:
        while not ended.wait(1):
            world.tick()

    for count in (1, 2):
        ended.clear()
        ticking = threading.Thread(target=go)
        ticking.start()
        try:
            until(lambda: pager.actions(about) == ["trigger", "resolve"] * count, world.told)  # noqa: B023
        finally:
            ended.set()
            ticking.join()
        if count == 1:
            until(lambda: pager.actions(about) == ["trigger", "resolve", "trigger"], world.told)
    assert pager.refused == []


@pytest.mark.live
def test_a_tick_that_fails_and_was_paged_by_the_outbox_is_no_second_page(world: World) -> None:
    world.tick()
    concerns.tell(world.loop.store, "fraud", "o", FAILED, "it fails", SystemClock().now(), actor="loop")
    world.outbox.deliver()
    until(lambda: world.pager.actions(FAILED) == ["trigger"], world.told)

    def states() -> list[str]:
        alerts = world.alertmanager.alerts()
        return [one["status"]["state"] for one in alerts if one["labels"]["alertname"] == "DriftLoopDead"]

    until(lambda: states() == ["suppressed"], world.told)
    world.tick()
    until(lambda: states() != ["suppressed"], world.told)
