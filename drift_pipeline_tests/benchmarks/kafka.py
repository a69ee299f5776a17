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
from functools import partial
from pathlib import Path
from threading import Event as Stop

import numpy as np
import polars as pl
from confluent_kafka import Consumer
from deltalake import write_deltalake

from drift_pipeline.clock import HOUR, SystemClock, Window
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.kafka.client import Address
from drift_pipeline.telemetry.sources.kafka.consumer import KafkaLog
from drift_pipeline.telemetry.sources.positions import Positions
from drift_pipeline_tests.detection.worlds import spec_of
from drift_pipeline_tests.parts import kafka
from drift_pipeline_tests.telemetry import topics
from drift_pipeline_tests.telemetry.test_capture import prediction
from drift_pipeline_tests.telemetry.topics import Topic, child, landed, until

NUMERIC, LEVELS = tuple(f"x{n}" for n in range(20)), tuple(f"kind{n}" for n in range(4))
SPECS: dict[str, ModelSpec] = {"m": spec_of(*NUMERIC, categorical=LEVELS)}
PATIENCE_S = 3600.0


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


def kills(broker: kafka.Kafka, count: int, partitions: int, times: int, seed: int) -> bool:
    """Whether each event is in the lake once."""
    topic, rng, group = Topic(broker.brokers, partitions), random.Random(seed), "killed"
    stop, sent = Stop(), [0]

    def reached(due: int) -> bool:
        return sent[0] >= due

    def grew(rows: int) -> bool:
        return landed(root).height >= rows

    def produce() -> None:
        at = datetime.now(UTC) - timedelta(seconds=1)
        for start in range(0, count, 1000):
            topic.send(*(prediction(f"p{n}", at) for n in range(start, min(count, start + 1000))))
            sent[0] = min(count, start + 1000)
        stop.set()

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        captures = [stack.enter_context(child(root, topic.url, group)) for _ in range(2)]
        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        before = 0
        for number in range(times):
            due = count * (number + 1) // (times + 1)
            until(partial(reached, due), f"{due} events are sent", PATIENCE_S)
            until(partial(grew, min(before + 1, count)), "more has landed", PATIENCE_S)
            before = landed(root).height
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
            print(f"kill {number + 1}: {what}, {sent[0]:,} sent, {before:,} landed", flush=True)
        until(stop.is_set, "all is sent", PATIENCE_S)
        until(lambda: landed(root).height >= count, "all has landed", PATIENCE_S)
        time.sleep(3)  # for what would come twice
        ids = landed(root)["_id"]
        print(f"{count:,} events, {times} kills: {ids.len():,} rows, {ids.n_unique():,} ids")
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
