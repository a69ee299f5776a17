"""Kafka's clients: addresses, settings and passwords, producers, events in Avro."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event as Stop
from typing import Any

import polars as pl
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop.home import models_of, reading
from drift_pipeline.observability import lag
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.capture import Captured
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources import Lag
from drift_pipeline.telemetry.sources.kafka import EventProducer, consumer
from drift_pipeline_tests.parts import kafka
from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.fixtures import lacking
from drift_pipeline_tests.parts.kafka import Kafka
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.telemetry.test_capture import NOW, prediction
from drift_pipeline_tests.telemetry.topics import KafkaSite, Topic, tried, until
from drift_pipeline_tests.test_cli_live import MODEL, laid_out

pytestmark = pytest.mark.live  # a real broker


# brokers and addresses that do not answer


def test_a_topic_that_is_not_there_is_waited_for(kafka_broker: Kafka, topic: Topic, sites: Any) -> None:
    topic.delete()
    site = sites(topic.url)
    with pytest.raises(UnavailableError, match=f"{topic.name}: there is no such topic; create it .*; capture waits"):
        site.capture.once(Stop())
    topic.make()
    topic.send(prediction("a"))
    until(lambda: tried(site) and site.ids() == ["a"], "the event has landed")


def test_a_broker_that_does_not_answer_is_one_sentence(sites: Any) -> None:
    site = sites("kafka://127.0.0.1:9/t")
    with pytest.raises(UnavailableError, match=r"^kafka://127.0.0.1:9/t: no broker answers; capture waits for it$"):
        site.capture.once(Stop())
    assert site.capture.refused() == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://h:1", "is no name of a topic"),
        ("kafka://h/t", "is not kafka://HOST:PORT"),
        ("kafka://h:99999/t", "a port is from 1 to 65535"),
        ("kafka://h:1,/t", "is not kafka://HOST:PORT"),
        ("kafka://h:1/t,t", "names a topic twice"),
        ("kafka://h:1/t?x=1", "is not kafka://HOST:PORT"),
        ("kafka://u:secret@h:1/t", "holds no user or password"),
        ("kafka://h:1/a/b", "is no name of a topic"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(sites: Any, url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        sites(url)
    assert "secret" not in str(refused.value)


# producers


def test_what_a_producer_tells_lands_and_two_producers_ids_are_two(topic: Topic, sites: Any) -> None:
    for name in ("checkout", "search"):
        with EventProducer(topic.url, producer=name) as events:
            for n in range(20):
                events.prediction("m", f"{n}", {"x": float(n), "kind": "a"}, version="v7", score=0.5, time=NOW)
            events.outcome("m", "3", label=1, time=NOW)
    site = sites(topic.url)
    assert site.capture.once(Stop()) == Captured(1, predictions=40, outcomes=2, shared_ids=20)
    assert set(site.rows()["_route"]) == {"external"}
    assert topic.read(1)[0].key() == b"m/0"


def test_a_producer_refuses_what_is_no_event_and_says_what_was_not_taken(topic: Topic) -> None:
    events = EventProducer(topic.url)
    with pytest.raises(InputError, match="has no zone"):
        events.outcome("m", "a", 1, time=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InputError, match="is no event: Out of range float"):
        events.prediction("m", "a", {"x": float("nan")}, version="v1")
    with pytest.raises(InputError, match="cannot be sent"):
        events.prediction("m", "a", {"x": "x" * 1_100_000}, version="v1")
    events.flush()
    down = EventProducer("kafka://127.0.0.1:9/t")
    down.outcome("m", "a", 1)
    with pytest.raises(UnavailableError, match="1 events wait: no broker answers"):
        down.flush(3)


def test_the_command_lands_a_topic_and_its_group_is_the_homes(
    topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out(tmp_path)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    history = tmp_path / "history.parquet"
    assert drift("adopt", MODEL, "--data", history, "--external").code == 0
    watched = next(iter(models_of(Settings()).values())).watched
    rows = pl.read_parquet(history)[-50:].select(list(watched)).to_dicts()
    with EventProducer(topic.url) as events:
        for number, row in enumerate(rows):
            events.prediction(MODEL, f"k{number}", row, version="v1", score=0.5)
    found = [drift("capture", "--once", "--json", "--source", topic.url) for _ in range(2)]
    assert [(one.code, json.loads(one.out)["predictions"]) for one in found] == [(0, 50), (0, 0)]
    with reading(Settings()) as store:
        captured = store.recall(CAPTURE)
    assert captured is not None
    assert lag.known(captured.body, SystemClock().now()) == [((topic.name, "0"), (0, None))]
    groups = topic.admin.list_consumer_groups().result(30).valid
    assert sum(one.group_id.startswith("drift-") for one in groups) == 1
    command = [sys.executable, "-c", "from drift_pipeline.cli import main; main()", "capture", "--source", topic.url]
    with subprocess.Popen([*command, "--every", "1s"], stderr=subprocess.PIPE, text=True) as process:
        try:
            with EventProducer(topic.url) as events:
                events.prediction(MODEL, "last", rows[0], version="v1", score=0.5)
            lake = Lake(tmp_path / "home" / "lake" / MODEL)
            until(lambda: lake.find("predictions", pl.col("_id") == "last", ("_id",)).height, "it has landed")
            process.terminate()
            said = process.communicate(timeout=60)[1].splitlines()
            assert {json.loads(line)["level"] for line in said} == {"INFO"}
            assert process.returncode == 0
        finally:
            process.kill()


# how far behind a capture is


def test_a_capture_tells_how_many_messages_of_each_partition_wait(kafka_broker: Kafka, sites: Any) -> None:
    topic = Topic(kafka_broker.brokers, partitions=2)
    site = sites(topic.url)
    assert site.log.lags() == []  # nothing is known yet
    topic.send(*(prediction(f"a{n}") for n in range(30)), partition=0, timestamp=1_700_000_000_000)
    site.capture.once(Stop())
    assert site.log.lags() == [Lag(topic.name, 0, 0, None), Lag(topic.name, 1, 0, None)]
    topic.send(*(prediction(f"b{n}") for n in range(20)), partition=1, timestamp=1_700_000_100_000)

    def seen() -> bool:
        for _ in site.log.batches(Stop()):  # and given up before it is done
            return True
        return False

    until(seen, "messages have come")
    assert by_partition(site) == {0: (0, None), 1: (20, 1_700_000_100)}
    site.capture.once(Stop())
    assert by_partition(site) == {0: (0, None), 1: (0, None)}


def by_partition(site: KafkaSite) -> dict[int, tuple[int, float | None]]:
    assert site.log is not None
    return {one.partition: (one.messages, one.oldest_at) for one in site.log.lags()}


def test_a_capture_in_the_midst_of_a_backlog_tells_what_is_left_of_it(
    topic: Topic, sites: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "BATCH_MESSAGES", 500)
    sent_at = 1_700_000_000_000
    for n in range(3):
        topic.send(*(prediction(f"{n}/{m}") for m in range(500)), partition=0, timestamp=sent_at + 1000 * n)
    site = sites(topic.url)
    left = list[int]()

    def step() -> bool:
        site.capture.step()
        left.extend(messages for messages, _ in by_partition(site).values())
        return len(site.ids()) == 1500

    until(step, "all has landed")
    assert {1500 - len(site.ids())} == {left[-1]} == {0}
    assert any(0 < one < 1500 for one in left)
    assert left == sorted(left, reverse=True)


# Avro


def test_events_in_avro_land_and_what_is_no_datum_is_a_dead_letter(
    topic: Topic, sites: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SchemaRegistryClient.new_client({"url": "mock://events"})
    monkeypatch.setattr(SchemaRegistryClient, "new_client", staticmethod(lambda _: registry))
    encode = AvroSerializer(registry, json.dumps(SCHEMA))
    about = SerializationContext(topic.name, MessageField.VALUE)
    event = {**prediction("a"), "time": NOW, "score": None}
    datum = encode(event, about)
    assert datum is not None
    topic.send(datum, prediction("b"), datum[:20], b"\0\0\0\0\x63" + datum[5:], partition=0)
    site = sites(topic.url, kafka_schemas="mock://events")
    assert site.capture.once(Stop()) == Captured(1, predictions=2, dead_letters=2)
    assert site.rows().select("_id", "_time", "_score", "x").rows() == [("a", NOW, None, 1.5), ("b", NOW, 0.5, 1.5)]
    reasons = site.rows("dead_letters", "dead_letters")["_reason"].to_list()
    assert sorted(one[:22] for one in reasons) == ["Avro: is no datum of s", "Avro: the registry has"]


SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Prediction",
    "fields": [
        *({"name": name, "type": "string"} for name in ("event", "model", "id", "version", "route")),
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "score", "type": ["null", "double"]},
        {
            "name": "features",
            "type": {
                "type": "record",
                "name": "Features",
                "fields": [{"name": "x", "type": "double"}, {"name": "kind", "type": ["null", "string"]}],
            },
        },
    ],
}


# TLS and passwords


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, Path]]:
    """A broker that speaks TLS and asks for a password, and the certificate of its authority, which is its own."""
    try:
        kafka.find()
    except MissingError as error:
        lacking("kafka", error)
    folder = tmp_path_factory.mktemp("tls")
    listener = kafka.guarded(folder, "alice", PASSWORD)
    with kafka.running(listener) as part:
        yield part, folder / "ca.pem"


PASSWORD = "s3cret-of-alice"


def test_tls_and_a_password_open_a_broker_and_nothing_less_does(
    guarded: tuple[Kafka, Path], sites: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker, authority = guarded
    config = {"security.protocol": "sasl_ssl", "ssl.ca.location": str(authority), "sasl.mechanisms": "PLAIN"}
    topic = Topic(broker.brokers, config={**config, "sasl.username": "alice", "sasl.password": PASSWORD})
    topic.send(prediction("a"), b"poison")
    letters = Topic(broker.brokers, config={**config, "sasl.username": "alice", "sasl.password": PASSWORD})
    right = {
        "kafka_security": "sasl_ssl",
        "kafka_ca": authority,
        "kafka_mechanism": "PLAIN",
        "kafka_username": "alice",
        "kafka_password": PASSWORD,
        "kafka_dead_letters": letters.name,
    }
    site = sites(topic.url, **right)
    assert site.capture.once(Stop()) == Captured(1, predictions=1, dead_letters=1)
    for change, said in (
        ({"kafka_password": "wrong"}, "user or password are refused"),
        ({"kafka_ca": None}, "TLS failed; set DRIFT_KAFKA_CA"),
    ):
        with pytest.raises(UnavailableError, match=said) as refused:
            sites(topic.url, **{**right, **change}).capture.once(Stop())
        assert PASSWORD not in str(refused.value)
    assert PASSWORD not in caplog.text + repr(site.settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kafka_security": "sasl_ssl"}, "set DRIFT_KAFKA_USERNAME and DRIFT_KAFKA_PASSWORD"),
        ({"kafka_password": PASSWORD}, "set DRIFT_KAFKA_SECURITY to sasl_ssl"),
        ({"kafka_security": "ssl", "kafka_ca": Path("/nowhere.pem")}, "DRIFT_KAFKA_CA: /nowhere.pem is no file"),
        ({"kafka_ca": Path(__file__)}, "DRIFT_KAFKA_SECURITY=plaintext has no TLS"),
        ({"kafka_security": "ssl", "kafka_ca": Path(__file__)}, "cannot be made of the DRIFT_KAFKA_ settings"),
    ],
)
def test_settings_that_do_not_fit_are_refused(sites: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        sites("kafka://h:1/t", **settings)
    assert PASSWORD not in str(refused.value)
