"""Topics of a real broker, what producers send to them, and captures that read them, in this process and as children.

`python -m drift_pipeline_tests.telemetry.topics FOLDER URL GROUP` is such a child, until it is killed.
"""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Stop
from typing import Any

import polars as pl
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import UnavailableError
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.kafka.client import Address
from drift_pipeline.telemetry.sources.kafka.consumer import KafkaLog
from drift_pipeline.telemetry.sources.positions import Positions
from drift_pipeline_tests.telemetry.test_capture import SPECS, Site, mirror

PATIENCE_S = 90.0


def until(done: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < end, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.05)


class Topic:
    """Of a name that no other test has; made at once."""

    def __init__(self, brokers: str, partitions: int = 1, config: Mapping[str, Any] | None = None) -> None:
        self.brokers, self.partitions, self.name = brokers, partitions, f"t{uuid.uuid4().hex[:12]}"
        self._config = {"bootstrap.servers": brokers, "log_level": 0, **(config or {})}
        self.admin = AdminClient(self._config)
        self.producer = Producer({**self._config, "enable.idempotence": True, "linger.ms": 5})
        self.make()

    @property
    def url(self) -> str:
        return f"kafka://{self.brokers}/{self.name}"

    def make(self) -> None:
        def made() -> bool:
            (answer,) = self.admin.create_topics([NewTopic(self.name, self.partitions, 1)]).values()
            return answer.exception(30) is None

        until(made, f"{self.name} is made")
        until(lambda: self.name in self.admin.list_topics(timeout=10).topics, f"{self.name} is known")

    def delete(self) -> None:
        (answer,) = self.admin.delete_topics([self.name]).values()
        answer.result(30)
        until(lambda: self.name not in self.admin.list_topics(timeout=10).topics, f"{self.name} is gone")

    def forget_before(self, offset: int, partition: int = 0) -> None:
        """As retention does."""
        (answer,) = self.admin.delete_records([TopicPartition(self.name, partition, offset)]).values()
        answer.result(30)

    def send(self, *events: dict[str, Any] | bytes, partition: int | None = None, **more: Any) -> None:
        """Each keyed by its id; back once the broker has them all."""
        where: dict[str, Any] = {} if partition is None else {"partition": partition}
        for one in events:
            value = one if isinstance(one, bytes) else json.dumps(one).encode()
            key = None if isinstance(one, bytes) else one["id"]
            while True:
                try:
                    self.producer.produce(self.name, value, key, **where, **more)
                    break
                except BufferError:
                    self.producer.poll(0.1)
        assert self.producer.flush(PATIENCE_S) == 0

    def read(self, count: int) -> list[Message]:
        """The first so many messages, of whatever partition."""
        group = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer, found = Consumer({**self._config, **group}), list[Message]()
        consumer.subscribe([self.name])
        try:
            end = time.monotonic() + PATIENCE_S
            while len(found) < count and time.monotonic() < end:
                found += consumer.consume(count, 0.2)
        finally:
            consumer.close()
        assert [one.error() for one in found] == [None] * count
        return found


class KafkaSite(Site):
    """A site whose capture reads a topic beside its spool."""

    def __init__(self, root: Path, url: str, group: str = "", **settings: Any) -> None:
        self.url, self.group = url, group or uuid.uuid4().hex
        self.settings = Settings(home=root, database="", **settings)
        self.log: KafkaLog | None = None
        super().__init__(root, mirror=mirror)

    def begin(self) -> None:
        """A capture of a new process; what the one before had in its hands is lost."""
        self.close()
        self.lakes = {}
        address, now = Address.of(self.url), self.clock.now
        self.log = KafkaLog(address, self.settings, self.group, Positions(self.lake_of), now)
        self.capture = Capture(
            self.root / "spool",
            self.lake_of,
            SPECS,
            self.clock,
            self.mirror,
            failed=self.failures.append,
            logs=[self.log],
        )

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def positions(self) -> Positions:
        return Positions(lambda model, source: Lake(self.root / "lake" / (model or "dead_letters"), source))


@contextmanager
def child(root: Path, url: str, group: str) -> Iterator[subprocess.Popen[bytes]]:
    """A capture of its own process, killed at the end."""
    command = [sys.executable, "-m", "drift_pipeline_tests.telemetry.topics", str(root), url, group]
    with (root / f"{uuid.uuid4().hex}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def capture_for_ever(root: Path, url: str, group: str) -> None:
    lakes: dict[tuple[str, str], Lake] = {}

    def lake_of(model: str, source: str) -> Lake:
        folder = root / "lake" / (model or "dead_letters")
        return lakes.setdefault((model, source), Lake(folder, source))

    clock = SystemClock()
    log = KafkaLog(Address.of(url), Settings(home=root, database=""), group, Positions(lake_of), clock.now)
    Capture(root / "spool", lake_of, SPECS, clock, mirror, logs=[log]).run(Stop(), 0.05)


def tried(site: KafkaSite) -> bool:
    """A step, which may fail for what does not answer."""
    try:
        site.capture.step()
    except UnavailableError:
        time.sleep(0.1)
    return True


def landed(root: Path, model: str = "m") -> pl.DataFrame:
    """Ids of the predictions on disk."""
    return Lake(root / "lake" / model).find("predictions", pl.lit(value=True), ("_id",))


if __name__ == "__main__":
    capture_for_ever(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
