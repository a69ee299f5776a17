"""OTLP through a real Collector, configured by the files of deploy/otel, to capture and its lake: each event once."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml

from drift_pipeline.observability.sender import EventSender
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.parts import otel
from drift_pipeline_tests.parts.kafka import Kafka
from drift_pipeline_tests.parts.server import Server, free_port
from drift_pipeline_tests.serving.test_receiver import FEATURES, prediction
from drift_pipeline_tests.serving.test_server import SCRIPT as GATEWAY
from drift_pipeline_tests.serving.worlds import Home, heard, infer
from drift_pipeline_tests.telemetry.test_capture import ALL
from drift_pipeline_tests.telemetry.test_otlp import request
from drift_pipeline_tests.telemetry.topics import Topic

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("otel_collector")]

CONFIGS = sorted(otel.DEPLOY.glob("*.yaml"))
VARIABLES = {"DRIFT_KEY": "key", "PATH": os.environ["PATH"]}
TRACE = "0af7651916cd43dd8448eb211c80319c"
CAPTURE = """
import sys
from pathlib import Path
from drift_pipeline.clock import SystemClock
from drift_pipeline.serving.capturing import capturing
from drift_pipeline.settings import Settings
from drift_pipeline_tests.serving.worlds import SPECS
settings, clock = Settings(home=Path(sys.argv[1]), database=""), SystemClock()
with capturing(settings, SPECS, clock, [sys.argv[2]]) as (capture, stop):
    capture.run(stop, 0.2)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.store.close()


@contextmanager
def capturing(home: Home) -> Iterator[tuple[Server, str]]:
    """`drift capture --source otlp://...` of the home, and its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    command = [sys.executable, "-c", CAPTURE, str(home.settings.home), f"otlp://127.0.0.1:{port}"]
    server = Server(command, home.settings.home.parent / "capture.log", answers)
    try:
        server.start()
        yield server, url
    finally:
        server.stop()


@contextmanager
def collecting(home: Home) -> Iterator[tuple[otel.Collector, Server]]:
    """A Collector that hands over to a capture, with a key of its own."""
    key = home.producer(name="collector")
    with capturing(home) as (capture, url):
        to = {"DRIFT_CAPTURE_URL": url, "DRIFT_KEY": key}
        with otel.running(otel.DEPLOY / "collector-capture.yaml", to) as collector:
            yield collector, capture


def landed(home: Home, table: Any = "predictions") -> list[str]:
    folder = home.settings.home / "lake" / "fraud" / str(table)
    if not (folder / "_delta_log").is_dir():
        return []
    return [str(id) for id in Lake(home.settings.lake / "fraud").read(table, ALL)["_id"].to_list()]


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_the_collector_takes_its_files_and_refuses_a_misspelt_key(config: Path, tmp_path: Path) -> None:
    variables = {**VARIABLES, "DRIFT_OTEL_QUEUE": str(tmp_path)}
    assert otel.validated(config, variables)[0] == 0, otel.validated(config, variables)[1]
    bad = tmp_path / config.name
    bad.write_text(config.read_text().replace("sending_queue:", "sending_qeue:"))
    code, told = otel.validated(bad, variables)
    assert (code != 0, "sending_qeue" in told) == (True, True)


def test_each_event_of_a_sender_lands_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting(home) as (collector, _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with EventSender() as sender:
            for number in range(2000):
                assert sender.prediction("fraud", str(number), version="7", features=FEATURES, score=0.5)
                assert sender.outcome("fraud", str(number), number % 2)
        assert sender.lost == {}
        until(lambda: len(landed(home)) >= 2000 and len(landed(home, "outcomes")) >= 2000)
    for table in ("predictions", "outcomes"):
        assert sorted(map(int, landed(home, table))) == list(range(2000))


@pytest.mark.parametrize("victim", ["collector", "capture"])
def test_what_the_collector_acknowledged_lands_once_whoever_is_killed_meanwhile(home: Home, victim: str) -> None:
    acknowledged, stop = list[str](), Event()

    def produce(url: str) -> None:
        """Batches, each sent until it is acknowledged, as the SDK does."""
        with httpx.Client(base_url=url, timeout=10) as client:
            number = 0
            while not stop.is_set():
                ids = [f"{number}-{k}" for k in range(20)]
                body = request(*(prediction(id) for id in ids)).SerializeToString()
                with suppress(httpx.HTTPError):
                    told = client.post("/v1/logs", content=body, headers={"Content-Type": "application/x-protobuf"})
                    if told.status_code == 200:
                        acknowledged.extend(ids)
                        number += 1
                        continue
                time.sleep(0.02)

    with collecting(home) as (collector, capture):
        producer = Thread(target=produce, args=(collector.url,))
        producer.start()
        try:
            server = collector.server if victim == "collector" else capture
            for _ in range(2):
                had = len(acknowledged)
                until(lambda had=had: len(acknowledged) > had + 200)  # type: ignore[misc]
                server.kill()
                server.start()
            had = len(acknowledged)
            until(lambda: len(acknowledged) > had + 200)
        finally:
            stop.set()
            producer.join()
        until(lambda: set(acknowledged) <= set(landed(home)))
    found = landed(home)
    assert len(found) == len(set(found))


def test_each_event_goes_by_the_collector_and_kafka_into_the_lake_once(
    home: Home, kafka_broker: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, count = Topic(kafka_broker.brokers, partitions=2), 1000
    to = {"DRIFT_KAFKA_BROKERS": topic.brokers, "DRIFT_KAFKA_TOPIC": topic.name, "DRIFT_OTEL_QUEUE": str(tmp_path)}
    command = [sys.executable, "-c", CAPTURE, str(home.settings.home), topic.url]
    capture = Server(command, tmp_path / "capture.log", lambda: True)
    with otel.running(otel.DEPLOY / "collector.yaml", to) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        try:
            with EventSender() as sender:
                for number in range(count):
                    assert sender.prediction("fraud", str(number), version="7", features=FEATURES, score=0.5)
                    assert sender.outcome("fraud", str(number), number % 2)
            assert sender.lost == {}
            collector.server.kill()
            collector.server.start()
            capture.start()
            until(lambda: len(landed(home)) >= count and len(landed(home, "outcomes")) >= count)
        finally:
            capture.stop()
    for table in ("predictions", "outcomes"):
        assert sorted(map(int, landed(home, table))) == list(range(count))
    assert Lake(home.settings.dead_letters).read("dead_letters", ALL).is_empty()


def test_the_gateway_tells_a_collector_its_events_and_a_span_that_carries_the_predictions_id(
    home: Home, tmp_path: Path
) -> None:
    home.champion(home.version("v1", 0))
    out, config = tmp_path / "out.jsonl", tmp_path / "collector.yaml"
    pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
    document = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "${env:DRIFT_OTLP_LISTEN}"}}}},
        "exporters": {"file": {"path": str(out), "flush_interval": "100ms"}},
        "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": {"logs": pipeline, "traces": pipeline}},
    }
    config.write_text(yaml.safe_dump(document))
    with otel.running(config) as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        command = [sys.executable, "-c", GATEWAY, str(home.settings.home)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as gateway:
            assert gateway.stderr is not None
            address = gateway.stderr.readline().removeprefix("gateway on ").strip()
            headers = {"Authorization": f"Bearer {home.producer()}", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
                heard(client)
                body = infer([(0.5, 1.0, "tv")] * 2, id="r")
                assert client.post("/v2/models/fraud/infer", json=body).status_code == 200
            gateway.terminate()
            gateway.wait(30)
        until(lambda: out.is_file() and out.read_text().count("\n") >= 2)
    told = [json.loads(line) for line in out.read_text().splitlines()]
    spans = [span for one in told for r in one.get("resourceSpans", ()) for s in r["scopeSpans"] for span in s["spans"]]
    logs = [log for one in told for r in one.get("resourceLogs", ()) for s in r["scopeLogs"] for log in s["logRecords"]]
    (span,) = spans
    attributes = {one["key"]: one["value"] for one in span["attributes"]}
    ids = [value["stringValue"] for value in attributes["drift.prediction_ids"]["arrayValue"]["values"]]
    assert (span["name"], span["traceId"], ids) == ("infer fraud", TRACE, ["r-0", "r-1"])
    assert [_text(log["body"], "id") for log in logs] == ids
    assert [log["traceId"] for log in logs] == [TRACE, TRACE]
    assert [json.loads(line)["id"] for line in home.spooled()] == ids
    own = f"00-{TRACE}-{span['spanId']}-01"
    assert [json.loads(line)["traceparent"] for line in home.spooled()] == [own, own]


def _text(body: Mapping[str, Any], key: str) -> str:
    return str(next(one["value"]["stringValue"] for one in body["kvlistValue"]["values"] if one["key"] == key))
