"""The live demo on real parts: events by OpenTelemetry and Kafka, OPA decides, PostgreSQL and a bucket lie beneath.

Beside it a second machine, a home of its own on the same database and bucket: its gateway and its capture are killed on
the way, and begun anew.
"""

import itertools
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from drift_pipeline.bucket import Bucket
from drift_pipeline.clock import SystemClock, Window
from drift_pipeline.control.store import AuditRecord, ControlReader
from drift_pipeline.errors import DriftError
from drift_pipeline.serving.demo import CHANGE_S, MODEL, SPEED
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.integration.drill import command, demo, end_all, free_port, is_ready, until
from drift_pipeline_tests.integration.test_live_loop import WAY, typed
from drift_pipeline_tests.parts import otel
from drift_pipeline_tests.parts.kafka import Kafka
from drift_pipeline_tests.parts.opa import Opa
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.telemetry.topics import Topic

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("otel_collector")]
DRIFT = ("--drift", f"concept@{CHANGE_S}s:1.25", "--drift", f"covariate@{CHANGE_S}s:0.6")


ROW = {"session_length_s": 312.5, "items_viewed": 6.0, "price_eur": 19.9, "days_since_visit": 2.0}
LEVELS = {"device": "phone", "country": "DE", "age_band": "30-44"}


class Asker(threading.Thread):
    """Asks a gateway all the time until `stop` is set; `answered`: the ids that it was given an answer for."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__()
        self._url, self._key = f"{url}/v2/models/{MODEL}/infer", key
        self.stop, self.answered = threading.Event(), set[str]()

    def run(self) -> None:
        inputs = [_input(name, "FP64", value) for name, value in ROW.items()]
        inputs += [_input(name, "BYTES", value) for name, value in LEVELS.items()]
        with httpx.Client(headers={"X-API-Key": self._key}, timeout=10, trust_env=False) as client:
            for number in itertools.count():
                if self.stop.wait(0.5):  # no label is told of these: many more, and too few rows had theirs
                    return
                name = f"own-{number}"
                body = {"id": name, "parameters": {"entity": "asker"}, "inputs": inputs}
                with suppress(httpx.HTTPError):
                    if client.post(self._url, json=body).status_code == 200:
                        self.answered.add(name)


def _input(name: str, datatype: str, value: object) -> dict[str, object]:
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


class Machine:
    """Processes of one home, by name; a killed one is begun anew with the same arguments."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir()
        self._folder, self._environment = folder, {**environment, "DRIFT_HOME": str(folder)}
        self._processes: dict[str, tuple[tuple[str, ...], subprocess.Popen[bytes]]] = {}

    def start(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command(arguments), env=self._environment, stdout=log, stderr=log)
        self._processes[name] = arguments, process

    def kill(self, name: str) -> None:
        arguments, process = self._processes[name]
        process.kill()
        process.wait()
        self.start(name, *arguments)

    def end(self) -> None:
        end_all([process for _, process in reversed(self._processes.values())])


def test_a_drift_is_made_good_and_a_slow_canary_comes_back_on_real_parts_and_two_machines(
    tmp_path: Path, kafka_broker: Kafka, opa_server: Opa, postgres_server: Postgres, s3_place: Bucket
) -> None:
    topic, home = Topic(kafka_broker.brokers, partitions=4), tmp_path / "demo"
    to_kafka = {"DRIFT_KAFKA_BROKERS": topic.brokers, "DRIFT_KAFKA_TOPIC": topic.name}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DRIFT_"))}
    with otel.running(otel.DEPLOY / "collector.yaml", to_kafka) as collector:
        parts = {
            **kept,
            "DRIFT_DATABASE": postgres_server.url,
            "DRIFT_STORE": s3_place.url,
            "DRIFT_OPA_URL": opa_server.url,
            "DRIFT_SOURCE": topic.url,
            "DRIFT_DRILL": f"{SPEED}@{datetime.now(UTC).isoformat()}",
            "DRIFT_MODELS": str(home / "models"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_TRACES_EXPORTER": "none",
        }
        first, second = free_port(), free_port()
        beside = Machine(tmp_path / "beside", parts)
        with demo(home, parts, first) as process:
            try:
                answered = kill_beside(process, beside, parts, first, second)
                told, _ = process.communicate(timeout=2400)
            finally:
                beside.end()
        assert process.returncode == 0, told
        records = list(recorded(postgres_server.url))
        assert_it_went_its_way(records, told)
        assert_each_landed_once(Lake(s3_place / "lake" / MODEL), answered)
    environment = {**parts, "DRIFT_HOME": str(home)}
    assert "records verified" in typed("audit", "verify", environment=environment).stdout


def kill_beside(
    process: "subprocess.Popen[str]", beside: Machine, parts: Mapping[str, str], first: int, second: int
) -> set[str]:
    """The second machine takes traffic of its own, and each of its processes is killed once; the ids that somebody was
    answered before, between and after."""
    until(process, lambda: is_ready(f"http://127.0.0.1:{first}/v2/health/ready"), 600)
    key = typed("producer", "add", "beside", environment=parts).stdout.strip()
    beside.start("gateway", "serve", "--drills", "--port", str(second))
    beside.start("capture", "capture")
    url = f"http://127.0.0.1:{second}"
    until(process, lambda: is_ready(f"{url}/v2/health/ready"), 300)
    asked = ("--rate", "30", "--for", "3m", "--seed", "7")
    beside.start("traffic", "simulate", MODEL, "--url", url, "--key", key, *asked, *DRIFT)
    asker = Asker(url, key)
    asker.start()

    def answered_more() -> None:
        before = len(asker.answered)
        until(process, lambda: len(asker.answered) >= before + 20, 120)

    try:
        until(process, lambda: "incident.opened" in events(parts), 600)
        answered_more()
        beside.kill("gateway")
        until(process, lambda: "candidate.trained" in events(parts), 600)
        answered_more()
        beside.kill("capture")
        answered_more()
    finally:
        asker.stop.set()
        asker.join()
    return asker.answered


def recorded(url: str) -> Iterator[AuditRecord]:
    with closing(ControlReader(url)) as store:
        yield from store.records()


def events(parts: Mapping[str, str]) -> list[str]:
    with suppress(DriftError):
        return [record.event for record in recorded(parts["DRIFT_DATABASE"])]
    return []


def assert_it_went_its_way(records: list[AuditRecord], told: str) -> None:
    way = iter(record.event for record in records)
    assert [event for event in WAY if event not in way] == [], told
    back = [record.actor for record in records if record.event == "rollout.rolled_back"]
    assert back == ["ada", "gateway"]
    decided = [record for record in records if record.event == "decision.made"]
    assert decided
    assert all(record.policy_digest for record in decided)


def assert_each_landed_once(lake: Lake, answered: set[str]) -> None:
    """Each event came by a spool and by Kafka; what was asked as a kill cut the answer off may have landed, too."""
    now = SystemClock().now()
    rows = lake.read("predictions", Window(now - timedelta(days=60), now + timedelta(days=60)))
    counted = Counter(rows["_id"].to_list())
    assert max(counted.values()) == 1
    assert answered - counted.keys() == set()
    traffic = {id.partition("-")[0] for id in counted if id.startswith("sim")}
    assert len(traffic) == 3, traffic  # the demo's of both acts, and the second machine's
