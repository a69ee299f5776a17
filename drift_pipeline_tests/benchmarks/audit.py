"""How many audited transitions a second a store takes, and how long a million records take to verify.

`python -m drift_pipeline_tests.benchmarks.audit [--transitions 4000] [--processes 4] [--records 1000000]`. Each process
changes a row of its own, with an audit record and a message in the outbox in the same durable transaction, on one
SQLite database with signed checkpoints. Beside it, in the same run, as many processes insert rows of the same size with
SQLAlchemy alone, one durable transaction each, which SQLite syncs. Exit code 1 where a transition is lost or the chain
does not hold.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.audit import GENESIS, Entry, Wrote, seal
from drift_pipeline.control.checkpoints import read_checkpoints
from drift_pipeline.control.engine import make_engine
from drift_pipeline.control.schema import audit
from drift_pipeline.control.store import ControlReader, ControlStore, Message, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.control.verifying import verify
from drift_pipeline.settings import Settings

DIGEST = "sha256:" + "ab" * 32
AT_ONCE = 10_000  # records of one insert
Worker = Callable[[Path, int, int, Barrier], None]


def transitions(home: Path, number: int, count: int, ready: Barrier) -> None:
    ready.wait()
    with closing(open_store(Settings(home=home, database=""), SystemClock())) as store:
        for step in range(count):
            entry = Entry(f"worker {number}", "benchmark.step", f"model_{number}", {"bundle": DIGEST}, {"step": step})
            put = Put("benchmark", f"model_{number}", {"step": step, "digest": DIGEST}, expected=step)
            store.commit(entry, [put], [Message(f"{number}/{step}", "benchmark", {"step": step})])


def bare_engine(home: Path) -> sa.Engine:
    """Of a database whose commits SQLite itself makes durable."""
    engine = sa.create_engine(f"sqlite:///{home / 'bare.db'}", connect_args={"timeout": 30})

    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def inserts(home: Path, _: int, count: int, ready: Barrier) -> None:
    """Of a body as long as that of a record."""
    ready.wait()
    engine, body = bare_engine(home), "x" * 900
    for _ in range(count):
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO bare (body) VALUES (:body)"), {"body": body})
    engine.dispose()


def a_second(work: Worker, home: Path, processes: int, count: int) -> float:
    """How many of them all processes did a second, from when all have started to the last one's end."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    workers = [context.Process(target=work, args=(home, number, count, ready)) for number in range(processes)]
    for worker in workers:
        worker.start()
    ready.wait(60)
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"a worker of {work.__name__} failed")
    return processes * count / (time.perf_counter() - began)


def filled(home: Path, count: int) -> ControlReader:
    """A store with so many records, written in bulk: the rest of the chain is what `seal` makes of them."""
    url = f"sqlite:///{home / 'long.db'}"
    with closing(ControlStore(url, SystemClock())):
        pass
    engine, head, at = make_engine(url), GENESIS, SystemClock().now()
    for first in range(1, count + 1, AT_ONCE):
        rows = []
        for seq in range(first, min(first + AT_ONCE, count + 1)):
            key = f"model_{seq % 100}"
            entry = Entry("loop", "benchmark.step", key, {"bundle": DIGEST}, {"step": seq, "reason": "measured"})
            record = seal(entry, at, seq, head, Wrote({"benchmark": {key: DIGEST}}))
            head = record.hash
            rows.append({"seq": seq, "body": record.body.decode(), "hash": record.hash})
        with engine.begin() as connection:
            connection.execute(sa.insert(audit), rows)
    engine.dispose()
    return ControlReader(url)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=4000, help="of all processes together")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--records", type=int, default=1_000_000)
    asked = parser.parse_args(arguments)
    each = asked.transitions // asked.processes
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(home=home, database="")
        open_store(settings, SystemClock()).close()
        with bare_engine(home).begin() as connection:
            connection.execute(sa.text("CREATE TABLE bare (id INTEGER PRIMARY KEY, body TEXT)"))
        bare = a_second(inserts, home, asked.processes, each)
        ours = a_second(transitions, home, asked.processes, each)
        with closing(ControlReader(settings.database_url)) as store:
            checkpoints = read_checkpoints(settings.checkpoints)
            found = verify(store.records(), checkpoints=checkpoints, snapshot=store.snapshot())
            steps = sum(record.event == "benchmark.step" for record in store.records())
        lost = asked.processes * each - steps
        print(f"{asked.processes} processes: {ours:,.0f} audited transitions/s, {bare:,.0f} bare inserts/s,", end=" ")
        print(f"ratio {bare / ours:.2f}; lost {lost}; {found.records:,} records verify: {found.ok} {found.reason}")
        with closing(filled(home, asked.records)) as store:
            began = time.perf_counter()
            long = verify(store.records())
            print(f"{long.records:,} records verified in {time.perf_counter() - began:.1f} s: {long.ok} {long.reason}")
    return 0 if not lost and found.ok and long.ok else 1


if __name__ == "__main__":
    sys.exit(main())
