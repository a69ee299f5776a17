"""From an event that is sent to Kafka to the decision that it is part of, under steady load; prints a table.

`python -m drift_pipeline_tests.benchmarks.kafka_latency [--rate N] [--seconds N] [--tick-seconds N]`. A broker of one
node, a producer that sends at a bounded rate (`EventProducer`) and `drift capture` are processes of their own; this one
ticks as Dagster's sensor does, without launching what a decision asks for. An event's latency is from its own time,
when it was sent, to the end of the first tick whose verdict counts it. Halfway three of 24 features move by one sd, and
the time to the incident and to the policy's decision is told.

Without --rate it is half of what capture alone lands in this process before. Ends with 1 where an event is lost: it is
not counted, or counted twice.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl

from drift_pipeline.clock import SystemClock
from drift_pipeline.components.sensors import TICK_S
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.home import Home, model_of, opened
from drift_pipeline.observability import lag
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline.telemetry.sources.kafka import EventProducer
from drift_pipeline.telemetry.tables.table import Table as Given
from drift_pipeline_tests.benchmarks import kafka as throughput
from drift_pipeline_tests.benchmarks.kafka import LEVELS, NUMERIC
from drift_pipeline_tests.parts import kafka
from drift_pipeline_tests.telemetry.topics import Topic, until

NAME, DAYS, ROWS_PER_DAY = "m", 14, 2000
MOVED, SIZE = NUMERIC[:3], 1.0
TRIED = 20_000  # events, for the rate where none is given
SLICE_S = 0.02
PATIENCE_S = 180.0  # after the last event, for those that are not counted yet; and for the first to land
ATTRIBUTES = {
    "name": NAME,
    "owner": "ml@example.com",
    "task": "binary_classification",
    "columns": {"timestamp": "ts", "prediction_id": "id"},
    "features": dict.fromkeys(NUMERIC, "numeric") | dict.fromkeys(LEVELS, "categorical"),
    "prediction": {"score": "score"},
    "outcome": {"column": "y"},
    "retrain": {"trainer": "logistic_regression", "trials": 1},
}


def columns(rng: np.random.Generator, size: int) -> dict[str, pl.Series]:
    """Features and a score."""
    numbers = {name: pl.Series(rng.standard_normal(size)) for name in NUMERIC}
    levels = {name: pl.Series([f"level{n}" for n in rng.integers(0, 12, size)]) for name in LEVELS}
    return {**numbers, **levels, "score": pl.Series(rng.random(size))}


def make_home(folder: Path) -> tuple[Settings, ModelSpec]:
    """A model that is served elsewhere, adopted with two weeks of its past."""
    (folder / "models" / NAME).mkdir(parents=True)
    document = {"type": "drift_pipeline.components.MonitoredModel", "attributes": ATTRIBUTES}
    (folder / "models" / NAME / "defs.yaml").write_text(json.dumps(document), encoding="utf-8")
    settings = Settings(home=folder / "home", models=folder / "models", database="")
    spec, size, rng = model_of(settings, NAME), DAYS * ROWS_PER_DAY, np.random.default_rng(0)
    before = pl.duration(seconds=86_400 // ROWS_PER_DAY * (size - pl.int_range(size)))
    past = pl.DataFrame(columns(rng, size)).with_columns(
        id=pl.lit("h") + pl.int_range(size).cast(pl.String),
        ts=pl.lit(datetime.now(UTC)) - before,
        y=(pl.Series(rng.random(size)) < pl.col("score")).cast(pl.Int8),
    )
    with opened(settings, SystemClock(), new=True) as home:
        adopt(home, spec, read_history(Given.of(past), spec), external=True)
    return settings, spec


def produce(url: str, rate: float, count: int) -> None:
    """At this rate, or as fast as it goes; from the half on the features are moved. Its own process."""
    rng, began, sent = np.random.default_rng(1), time.monotonic(), 0
    with EventProducer(url, producer="benchmark") as events:
        while sent < count:
            rows = pl.DataFrame(columns(rng, min(5_000, count - sent)))
            for row in rows.iter_rows(named=True):
                while sent >= (time.monotonic() - began) * rate:
                    time.sleep(SLICE_S)
                moved = {name: row[name] + SIZE * (sent >= count // 2) for name in MOVED}
                score = row.pop("score")
                events.prediction(NAME, f"p{sent}", {**row, **moved}, version="elsewhere", score=score)
                sent += 1


@contextmanager
def capturing(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """`drift capture`, in a process of its own, ended by SIGTERM."""
    homes = {"DRIFT_HOME": str(folder / "home"), "DRIFT_MODELS": str(folder / "models")}
    command = [sys.executable, "-c", "from drift_pipeline.cli import main; main()", "capture", "--source", url]
    with (folder / "capture.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **homes}, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Ticks:
    """What each tick that ended well counted, and when it ended, in seconds since 1970."""

    took: list[float] = field(default_factory=list)
    counted: list[pl.DataFrame] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)  # in Kafka, as capture told last
    failed: int = 0

    def tick(self, home: Home, fleet: Fleet, every: float) -> None:
        read, found = Lake.landed, list[pl.DataFrame]()

        def landed(lake: Lake, table: Table, since: Cursor) -> tuple[pl.DataFrame, Cursor]:
            rows, cursor = read(lake, table, since)
            if table == "predictions" and rows.height:
                found.append(rows.select("_id", "_time"))
            return rows, cursor

        began = time.monotonic()
        with patch.object(Lake, "landed", landed):
            ticked = fleet.tick(inline=False, seconds=TICK_S, every=every)
        ended = time.time()
        if wrong := [one for one in ticked if isinstance(one, Failed)]:
            self.failed += 1
            print(f"a tick failed: {wrong[0]}", file=sys.stderr)
        elif ticked:
            self.took.append(time.monotonic() - began)
            self.counted += [frame.with_columns(ended=pl.lit(ended)) for frame in found]
            captured = home.store.recall(CAPTURE)
            known = lag.known(captured.body, home.clock.now()) if captured else []
            self.waited.append(sum(messages for _, (messages, _) in known))

    @property
    def events(self) -> int:
        return sum(frame.height for frame in self.counted)


@dataclass(frozen=True)
class Run:
    """What a run came to; `record` of the incident and of the decision after the drift began, in seconds since 1970."""

    ticks: Ticks
    rows_counted: int
    landed: int
    records: dict[str, float]


def run(folder: Path, settings: Settings, spec: ModelSpec, topic: Topic, rate: float, count: int, tick_s: int) -> Run:
    ticks, soon, every = Ticks(), max(tick_s // 6, 1), 0.9 * (tick_s - 1)
    producer = multiprocessing.get_context("spawn").Process(target=produce, args=(topic.url, rate, count), daemon=True)
    with opened(settings, SystemClock()) as home, capturing(folder, topic.url) as capture:
        fleet, head = Fleet(home, {NAME: spec}, apart=True), home.store.head()
        until(lambda: home.store.recall(CAPTURE), "capture has begun", PATIENCE_S)
        producer.start()
        began = told = ended = time.monotonic()
        end = began + 3 * count / rate + PATIENCE_S
        while ticks.events < count and time.monotonic() < end:
            at = time.monotonic()
            if capture.poll() is not None or producer.exitcode not in (None, 0):
                print((folder / "capture.log").read_text(encoding="utf-8")[-2000:], file=sys.stderr)
                raise SystemExit("capture or producer ended before its time")
            if producer.is_alive():
                ended = at
            else:
                end = min(end, ended + PATIENCE_S)
            ticks.tick(home, fleet, every)
            if at - told >= 30:
                told = at
                print(f"{at - began:.0f} s: {ticks.events:,} of {count:,} events counted", file=sys.stderr, flush=True)
            time.sleep(max(soon - (time.monotonic() - at), 0.0))
        producer.join(10)
        drifted = _drifted_at(ticks, count)
        records = dict[str, float]()
        for record in home.store.records(head.seq if head else None):
            at_s = datetime.fromisoformat(record.at).timestamp()
            if drifted is not None and at_s >= drifted and record.event in ("incident.opened", "decision.made"):
                records.setdefault(record.event, at_s - drifted)
        rows_counted = fleet.loop(spec).monitor.rows_counted()
        lake = Lake(settings.lake / NAME)
        landed = lake.find("predictions", pl.col("_id").str.starts_with("p"), ("_id",)).height
    return Run(ticks, rows_counted, landed, records)


def _drifted_at(ticks: Ticks, count: int) -> float | None:
    first = [frame.filter(pl.col("_id") == f"p{count // 2}") for frame in ticks.counted]
    found = [frame["_time"][0].timestamp() for frame in first if frame.height]
    return found[0] if found else None


def show(found: Run, count: int, tick_s: int) -> bool:
    """Print it; whether each event was counted once."""
    ticks = found.ticks
    counted = pl.concat(ticks.counted) if ticks.counted else pl.DataFrame({"_id": [], "_time": [], "ended": []})
    ids = counted["_id"].n_unique()
    whole = found.landed == found.rows_counted == counted.height == ids == count
    print(
        f"{count:,} events sent; {found.landed:,} landed, {counted.height:,} read by ticks, {ids:,} ids, "
        f"{found.rows_counted:,} in the profiles: {'each once' if whole else 'LOST OR TWICE'}"
    )
    if counted.is_empty():
        return False
    times = counted["_time"].dt.epoch("us") / 1e6
    span = float(times.max()) - float(times.min())  # type: ignore[arg-type]
    latency, took = (counted["ended"] - times).to_numpy(), np.array(ticks.took)
    told = ", ".join(f"p{p} {np.quantile(latency, p / 100):.1f}" for p in (50, 95, 99))
    print(f"{count / span:,.0f} events/s for {span:.0f} s; at most {max(ticks.waited):,} in Kafka when a tick looked")
    print(f"seconds from event to decision: {told}, at most {latency.max():.1f}")
    print(
        f"{len(took)} ticks, one due each {tick_s} s: p50 {np.median(took):.2f} s, at most {took.max():.2f} s; "
        f"{ticks.failed} failed"
    )
    for event in ("incident.opened", "decision.made"):
        after = f"{found.records[event]:.0f} s" if event in found.records else "none"
        print(f"{SIZE:g} sd in {len(MOVED)} of 24 features: from the first such event to {event}: {after}")
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, help="events a second; else half of what capture alone lands")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--events", type=int, default=1_000_000, help="at most; then it is over sooner")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--tick-seconds", type=int, default=Settings().tick_seconds, help="DRIFT_TICK_SECONDS")
    given = parser.parse_args()
    with kafka.running() as broker, tempfile.TemporaryDirectory() as name:
        folder, rate = Path(name), given.rate
        if rate is None:
            topic = Topic(broker.brokers, given.partitions)
            throughput.send(topic, TRIED, seed=1)
            rate = TRIED / throughput.captured(topic, folder / "tried", TRIED) / 2
            print(f"capture alone lands {2 * rate:,.0f} events/s; half of it is sent", flush=True)
            topic.delete()
        settings, spec = make_home(folder)
        count = min(int(rate * given.seconds), given.events)
        topic = Topic(broker.brokers, given.partitions)
        found = run(folder, settings, spec, topic, rate, count, given.tick_seconds)
        return int(not show(found, count, given.tick_seconds))


if __name__ == "__main__":
    sys.exit(main())
