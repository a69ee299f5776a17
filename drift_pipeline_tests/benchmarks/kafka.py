"""From Kafka to the lake: sustained events a second beside a bare consumer and a bare Delta append; prints a table.

`python -m drift_pipeline_tests.benchmarks.kafka [--events N] [--partitions N] [--kills N]`. One broker of one node and
one process, which reads the same topic three times: with confluent-kafka alone; with capture, into the lake; and, of
the rows that capture landed, appends the same batches with deltalake alone. Events have 24 features.

`--kills N` sends the events to another topic while two captures of their own processes read it, and kills broker and
captures in turn. Then each event is in the lake once, or it ends with 1.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from confluent_kafka import Consumer
from deltalake import write_deltalake

from drift_pipeline.clock import HOUR, SystemClock, Window
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Cursor, Lake
from drift_pipeline.telemetry.sources.kafka.client import Address
from drift_pipeline.telemetry.sources.kafka.consumer import KafkaLog
from drift_pipeline.telemetry.sources.positions import Positions
from drift_pipeline_tests.detection.worlds import spec_of
from drift_pipeline_tests.parts import kafka
from drift_pipeline_tests.telemetry import topics
from drift_pipeline_tests.telemetry.test_capture import prediction
from drift_pipeline_tests.telemetry.topics import Topic, child, landed

NUMERIC, LEVELS = tuple(f"x{n}" for n in range(20)), tuple(f"kind{n}" for n in range(4))
SPECS: dict[str, ModelSpec] = {"m": spec_of(*NUMERIC, categorical=LEVELS)}
PATIENCE_S = 3600.0
AHEAD = 20_000  # events that are sent and have not landed, so that kills meet both sides at work


def events(count: int, seed: int) -> Iterator[bytes]:
    """Predictions of the last hour, in order."""
    rng, now = np.random.default_rng(seed), datetime.now(UTC)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        numbers, levels = rng.standard_normal((size, 20)), rng.integers(0, 12, (size, 4))
        for row in range(size):
            features = dict(zip(NUMERIC, numbers[row].tolist(), strict=True))
            features |= {name: f"level{level}" for name, level in zip(LEVELS, levels[row], strict=True)}
            at = now - HOUR + HOUR * ((start + row) / count)
            fixed = {"event": "prediction", "model": "m", "version": "v1", "route": "external", "score": 0.5}
            yield json.dumps({**fixed, "id": f"p{start + row}", "time": at.isoformat(), "features": features}).encode()


def send(topic: Topic, count: int, seed: int) -> int:
    """All of them; how many bytes."""
    size = 0
    for number, value in enumerate(events(count, seed)):
        size += len(value)
        while True:
            try:
                topic.producer.produce(topic.name, value, f"m/p{number}")
                break
            except BufferError:
                topic.producer.poll(0.1)
    assert topic.producer.flush(PATIENCE_S) == 0
    return size


def bare_consumer(topic: Topic, count: int) -> float:
    """Seconds to read all, from the first message on."""
    group = {"group.id": "bare", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer, found, began = Consumer({"bootstrap.servers": topic.brokers, **group}), 0, 0.0
    consumer.subscribe([topic.name])
    while found < count:
        some = consumer.consume(500, 1.0)
        began = began or (time.perf_counter() if some else 0.0)
        found += sum(one.error() is None for one in some)
    took = time.perf_counter() - began
    consumer.close()
    return took


def captured(topic: Topic, root: Path, count: int) -> float:
    """Seconds until all is in the lake, from the first message on."""
    lakes: dict[tuple[str, str], Lake] = {}

    def lake_of(model: str, source: str) -> Lake:
        return lakes.setdefault((model, source), Lake(root / (model or "_dead_letters"), source))

    settings, clock = Settings(home=root, database=""), SystemClock()
    log = KafkaLog(Address.of(topic.url), settings, "measured", Positions(lake_of), clock.now)
    capture = Capture(root / "spool", lake_of, SPECS, clock, lambda *_: None, logs=[log])
    found, began = 0, 0.0
    try:
        while found < count:
            before = time.perf_counter()
            landed_now = capture.step().predictions
            began = began or (before if landed_now else 0.0)
            found += landed_now
        took = time.perf_counter() - began
        assert found == count
    finally:
        log.close()
    return took


def bare_append(rows: pl.DataFrame, path: Path, at_once: int) -> float:
    """Seconds to append the rows in as many commits."""
    began = time.perf_counter()
    for start in range(0, rows.height, at_once):
        write_deltalake(str(path), rows[start : start + at_once], mode="append", partition_by=["_day"])
    return time.perf_counter() - began


def rates(broker: kafka.Kafka, count: int, partitions: int) -> None:
    topic = Topic(broker.brokers, partitions)
    size = send(topic, count, seed=1)
    print(f"{count:,} events of {size / count:,.0f} bytes, 24 features, {partitions} partitions")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ours = captured(topic, root, count)
        lake = Lake(root / "m")
        now = datetime.now(UTC)
        rows = lake.read("predictions", Window(now - 3 * HOUR, now + HOUR))
        commits = max(1, lake.version("predictions") + 1)
        assert rows["_id"].n_unique() == rows.height == count
        days = rows.with_columns(pl.col("_time").dt.strftime("%Y-%m-%d").alias("_day"))
        theirs = bare_append(days, root / "bare", -(-count // commits))
    bare = bare_consumer(topic, count)
    found = {"confluent-kafka alone": bare, f"deltalake alone, {commits} commits": theirs, "Kafka -> lake": ours}
    for name, took in found.items():
        print(f"{name:32} {count / took:12,.0f} events/s   {ours / took:6.2f} times as fast as ours")
    both = bare + theirs
    print(f"{'both alone, one after the other':32} {count / both:12,.0f} events/s   {ours / both:6.2f}")


class Sending:
    """Events of one topic, sent by a thread that also looks what has landed, and is never `AHEAD` of that."""

    def __init__(self, topic: Topic, count: int, root: Path) -> None:
        self.topic, self.count, self.sent, self.landed = topic, count, 0, 0
        self._lake, self._began, self._told = Lake(root / "lake" / "m"), time.monotonic(), time.monotonic()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        at = datetime.now(UTC) - timedelta(seconds=1)
        while self.landed < self.count:
            if self.sent < self.count and self.sent - self.landed < AHEAD:
                end = min(self.count, self.sent + 1000)
                self.topic.send(*(prediction(f"p{n}", at) for n in range(self.sent, end)))
                self.sent = end
            else:
                self._look()
                time.sleep(0.5)

    def wait(self, due: int) -> None:
        """Until so many have landed; raises AssertionError where that takes longer than `PATIENCE_S`."""
        end = time.monotonic() + PATIENCE_S
        while self.landed < due:
            told = f"{self.sent:,} sent, {self.landed:,} of {due:,} landed"
            assert time.monotonic() < end, told
            assert self._thread.is_alive(), told
            time.sleep(0.2)

    def _look(self) -> None:
        """Says each half minute how it goes."""
        self.landed, now = self._lake.landed_rows("predictions", Cursor()), time.monotonic()
        if now - self._told >= 30:
            self._told, rate = now, self.landed / (now - self._began)
            left = f", {(self.count - self.landed) / rate:,.0f} s left" if rate else ""
            told = f"{self.sent:,} sent, {self.landed:,} landed, {rate:,.0f} events/s{left}"
            print(told, file=sys.stderr, flush=True)


def kills(broker: kafka.Kafka, count: int, partitions: int, times: int, seed: int) -> bool:
    """Whether each event is in the lake once."""
    topic, rng, group, began = Topic(broker.brokers, partitions), random.Random(seed), "killed", time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        captures = [stack.enter_context(child(root, topic.url, group)) for _ in range(2)]
        sending = Sending(topic, count, root)
        for number in range(times):
            sending.wait(count * (number + 1) // (times + 1))
            if number % 2:
                broker.server.kill()
                broker.server.start()
                what = "broker"
            else:
                victim = captures.pop(rng.randrange(2))
                victim.kill()
                victim.wait()
                captures.append(stack.enter_context(child(root, topic.url, group)))
                what = "capture"
            print(f"kill {number + 1}: {what}, {sending.sent:,} sent, {sending.landed:,} landed", flush=True)
        sending.wait(count)
        took = time.monotonic() - began
        time.sleep(3)  # for what would come twice
        ids = landed(root)["_id"]
        print(f"{count:,} events, {times} kills, {took:,.0f} s: {ids.len():,} rows, {ids.n_unique():,} ids")
        return bool(ids.len() == ids.n_unique() == count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    topics.PATIENCE_S = PATIENCE_S
    with kafka.running() as broker:
        if given.kills:
            return int(not kills(broker, given.events, given.partitions, given.kills, given.seed))
        rates(broker, given.events, given.partitions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
