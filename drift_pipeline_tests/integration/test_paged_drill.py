"""The live demo, scraped and paged: by Prometheus and Alertmanager, and by Pub/Sub with who pages from there.

Each way ends at an endpoint of its own that checks PagerDuty's schema. In a drill the loop's times are the drill's: the
rules of deploy/prometheus are given its clock for `time()`, and fire at once.
"""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml

from drift_pipeline.alerts.alert import dedup_key
from drift_pipeline.control.store import ControlReader
from drift_pipeline.errors import DriftError
from drift_pipeline.serving.demo import MODEL, SPEED
from drift_pipeline_tests.alerts.pagerduty import PagerDuty, paging
from drift_pipeline_tests.alerts.test_live import Subscriber, channel
from drift_pipeline_tests.alerts.worlds import listening
from drift_pipeline_tests.integration.drill import command, demo, free_port, is_ready, until
from drift_pipeline_tests.observability import deployed
from drift_pipeline_tests.parts import alertmanager, prometheus
from drift_pipeline_tests.parts.fixtures import pubsub_server
from drift_pipeline_tests.parts.prometheus import DEPLOY
from drift_pipeline_tests.parts.pubsub import PubSub
from drift_pipeline_tests.parts.server import Server

__all__ = ["pubsub_server"]
pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("promtool", "amtool")]
ROUTING_KEY, DEAD_S, PATIENCE_S = "R" * 32, 45, 900.0
SCRAPED = {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "2s"}


class Relay:
    """Somebody's own program that pages from the topic: what it is told goes to PagerDuty under the key it is told."""

    def __init__(self, subscriber: Subscriber, pager: PagerDuty) -> None:
        self.subscriber, self.pager = subscriber, pager

    def passing_on(self, so: Callable[[], object]) -> Callable[[], object]:
        """The same question, asked once all that waits was passed on."""

        def asked() -> object:
            self._pass_on()
            return so()

        return asked

    def _pass_on(self) -> None:
        for message in self.subscriber.pull():
            told = json.loads(message.data)["data"]
            words = {"summary": told["why"], "source": told["environment"], "severity": "critical"}
            event = {"routing_key": ROUTING_KEY, "event_action": told["action"], "dedup_key": told["dedup_key"]}
            payload = {"payload": {**words, "class": told["what"]}} if told["action"] == "trigger" else {}
            httpx.post(self.pager.url, json={**event, **payload}, trust_env=False).raise_for_status()


def rules_of(folder: Path, since: datetime) -> Path:
    """The alerts as deployed, by the drill's clock; a loop is dead after DEAD_S seconds of the machine's."""
    text = re.sub(r"for: \w+", "for: 0s", (DEPLOY / "alerts.yaml").read_text())
    dead = "drift_gateway_ticked_at_seconds) > 300"
    assert dead in text
    text = text.replace(dead, dead.replace("300", str(DEAD_S * SPEED)))
    began = since.timestamp()
    (folder / "alerts.yaml").write_text(text.replace("time()", f"({began} + {SPEED} * (time() - {began}))"))
    return folder / "alerts.yaml"


def scraping(folder: Path, rules: Path, alerts: str, gateway: int, exporter: int) -> dict[str, object]:
    """Prometheus' configuration: both jobs of deploy/prometheus; the key is the one that `drift up` makes."""
    told = deployed.scraping(f"127.0.0.1:{exporter}", alerts.removeprefix("http://"))
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    job["authorization"]["credentials_file"] = str(folder / "demo" / "keys" / "gateway.key")
    told["scrape_configs"].append(job | {"static_configs": [{"targets": [f"127.0.0.1:{gateway}"]}]})
    return told | {"global": SCRAPED, "rule_files": [str(rules), str(DEPLOY / "recording.yaml")]}


def exporter(home: Path, environment: dict[str, str], port: int) -> Server:
    run = command(("exporter", "--port", str(port), "--home", str(home)))
    return Server(
        run, home / "logs" / "exporter.log", lambda: is_ready(f"http://127.0.0.1:{port}/metrics"), environment
    )


def events(home: Path) -> list[tuple[str, str]]:
    """The audit's, each with the incident that it is of."""
    with suppress(DriftError), closing(ControlReader(f"sqlite:///{home / 'control.db'}")) as store:
        return [(record.event, str(record.details.get("key", ""))) for record in store.records()]
    return []


def done(pager: PagerDuty, key: str) -> list[str]:
    """What was done in turn to one page."""
    return [one["event_action"] for one in [*pager.events] if one["dedup_key"] == key]


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Dagster's daemon, below the process: it does nothing, and nobody is told."""
    (daemon,) = (one for one in below(pid) if b"dagster._daemon\0run" in Path(f"/proc/{one}/cmdline").read_bytes())
    os.kill(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon, signal.SIGCONT)


def below(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        for thread in Path(f"/proc/{one}/task").glob("*"):
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


@pytest.fixture
def subscriber(pubsub_server: PubSub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subscriber]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_server.url)
    made = Subscriber("drill")
    yield made
    made.close()


def test_a_drift_of_the_drill_is_one_page_by_each_way_and_so_is_a_loop_that_hangs(
    tmp_path: Path, subscriber: Subscriber
) -> None:
    """The channel's name is none that keeps Alertmanager from paging the same incident."""
    home, since, gateway, told_at = tmp_path / "demo", datetime.now(UTC), free_port(), free_port()
    topic = {"events": channel(subscriber).model_dump()}
    (tmp_path / "to.yaml").write_text(yaml.safe_dump({"channels": topic, "routes": [{"channels": ["events"]}]}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DRIFT_"))}
    drill = {"DRIFT_DRILL": f"{SPEED}@{since.isoformat()}", "DRIFT_ALERTS": str(tmp_path / "to.yaml")}
    environment = {**kept, **drill, "DRIFT_MODELS": str(home / "models")}
    with ExitStack() as stack:
        pager, by_topic = stack.enter_context(paging()), stack.enter_context(paging())
        tickets = stack.enter_context(listening())
        relay = Relay(subscriber, by_topic)
        process = stack.enter_context(demo(home, environment, gateway))

        def wait(so: Callable[[], object]) -> None:
            until(process, relay.passing_on(so), PATIENCE_S)

        wait(lambda: is_ready(f"http://127.0.0.1:{gateway}/v2/health/ready"))
        teller = exporter(home, environment, told_at)
        stack.callback(teller.stop)
        teller.start()
        routes = deployed.routes(tmp_path, ROUTING_KEY, pager.url, f"{tickets.url}/ticket")
        for route in (routes["route"], *routes["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "5s"}
        alerts = stack.enter_context(alertmanager.running(routes))
        configuration = scraping(tmp_path, rules_of(tmp_path, since), alerts.url, gateway, told_at)
        server = stack.enter_context(prometheus.running(configuration, lookback="30s"))
        server.until("count(drift_up == 1) == 2", bool)  # by both
        wait(lambda: "incident.opened" in [event for event, _ in events(home)])
        opened = next(key for event, key in events(home) if event == "incident.opened")
        page = dedup_key(f"production/{MODEL}/{opened}")
        ways = (pager, by_topic)
        wait(lambda: all(done(way, page) == ["trigger"] for way in ways))
        assert {one["payload"]["class"] for way in ways for one in way.events if one["dedup_key"] == page} == {
            "DriftIncident",
            "incident.opened",
        }
        wait(lambda: "model.promoted" in [event for event, _ in events(home)])
        wait(lambda: all(done(way, page)[-1] == "resolve" for way in ways))
        assert [done(way, page) for way in ways] == [["trigger", "resolve"]] * 2

        def dead() -> list[str]:
            return pager.actions("DriftLoopDead")

        wait(lambda: dead()[-1:] != ["trigger"])  # of a machine too busy to tick
        before = dead()
        with hanging(process.pid):
            wait(lambda: dead() == [*before, "trigger"])
        wait(lambda: dead() == [*before, "trigger", "resolve"])
        assert [way.refused for way in ways] == [[], []]
