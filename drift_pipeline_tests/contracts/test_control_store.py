"""The control store keeps its promises on SQLite and on a real PostgreSQL server."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from drift_pipeline.clock import ManualClock, SystemClock
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Entry, Message, Put, Record
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline_tests.control.test_store import ENTRY, _compete, json_bodies

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NUMBERS = count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.db'}"
    made: str = request.getfixturevalue("postgres_server").of(f"drift {next(NUMBERS)} \"'é%")
    return made


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    with closing(ControlStore(url, ManualClock(NOW))) as opened:
        yield opened


def test_a_commit_writes_all_or_nothing(store: ControlStore) -> None:
    record = store.commit(ENTRY, [Put("model", "fraud", {"champion": "v1"})], [Message("m1", "alert", {"page": True})])
    assert store.get("model", "fraud") == Record("model", "fraud", {"champion": "v1"}, generation=1)
    assert (store.pending(), store.head()) == ([Message("m1", "alert", {"page": True})], record)
    with pytest.raises(ConflictError, match="at generation 1, not 0"):
        store.commit(ENTRY, [Put("model", "other", {}), Put("model", "fraud", {})], [Message("m2", "alert", {})])
    with pytest.raises(InputError):
        store.commit(ENTRY, [Put("model", "other", {})], [Message("m", "alert", {"rows": 2**53})])
    assert [record.seq for record in store.records()] == [1]
    assert store.get("model", "other") is None
    assert [message.id for message in store.pending()] == ["m1"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(json_bodies)
def test_bodies_come_back_equal(store: ControlStore, body: dict[str, Any]) -> None:
    before = store.get("model", "fraud")
    store.commit(Entry("a", "b", "c", details=body), [Put("model", "fraud", body, before.generation if before else 0)])
    after, head = store.get("model", "fraud"), store.head()
    assert after is not None
    assert head is not None
    assert after.body == head.details == body
    assert store.attest(after) == after


KEYS = ["%", "A_/1", "a_/1", "a_/2", "ab/1", "b/1", "fraud/kpis/000000000001", "fraud/kpis~", "fraud_2/kpis/1", "é/1"]


def test_keys_are_found_by_their_bytes_whatever_the_locale(store: ControlStore) -> None:
    for key in reversed(KEYS):
        store.commit(ENTRY, [Put("run", key, {})], memory=[Put("", key, {})])
    assert store.keys("run") == [record.key for record in store.find("run")] == KEYS
    assert [record.key for record in store.recalled("")] == KEYS[:-1]  # no model's name goes past ~
    assert [record.key for record in store.find("run", "a_")] == ["a_/1", "a_/2"]
    assert [record.key for record in store.find("run", "", "/1")] == [
        "A_/1",
        "a_/1",
        "ab/1",
        "b/1",
        "fraud_2/kpis/1",
        "é/1",
    ]
    assert [record.key for record in store.recalled("fraud/kpis/")] == ["fraud/kpis/000000000001"]


def test_the_outbox_is_in_order_counts_attempts_and_knows_a_message_again(store: ControlStore) -> None:
    store.commit(ENTRY, messages=[Message(f"z{9 - n}", "lineage", {}) for n in range(3)])
    store.commit(ENTRY, messages=[Message("a", "alert", {}), Message("z9", "alert", {"again": True})])
    assert [message.id for message in store.pending()] == ["z9", "z8", "z7", "a"]
    assert [message.id for message in store.pending(limit=1, topic="alert")] == ["a"]
    store.failed("a", "timed out")
    assert store.pending(topic="alert") == [Message("a", "alert", {}, attempts=1)]
    store.delivered("a", "z8")
    store.delivered("a")
    assert [message.id for message in store.pending()] == ["z9", "z7"]
    with pytest.raises(InputError, match="no message 'no'"):
        store.failed("no", "x")


def test_what_is_remembered_has_generations_and_is_forgotten(store: ControlStore) -> None:
    store.remember(Put("", "fraud", {"n": 1}), Put("", "fraud/kpis/1", {}))
    store.remember(Put("", "fraud", {"n": 2}, expected=1))
    for expected in (0, 1, 3):
        with pytest.raises(ConflictError):
            store.remember(Put("", "other", {}), Put("", "fraud", {"n": 3}, expected=expected))
    store.forget(["fraud/kpis/1", "nosuch"])
    assert store.recalled("") == [Record("", "fraud", {"n": 2}, generation=2)]


def test_a_reader_sees_what_is_committed_and_makes_nothing(url: str, store: ControlStore) -> None:
    store.commit(ENTRY, [Put("model", "fraud", {"n": 1})], [Message("m1", "alert", {})])
    with closing(ControlReader(url)) as reader:
        snapshot = reader.snapshot()
        assert verify(reader.records(), snapshot=snapshot).ok
        store.commit(ENTRY, [Put("model", "fraud", {"n": 2}, expected=1)])
        assert [record.seq for record in reader.records(after=1)] == [2]
        assert [record.subject for record in reader.records(about="fraud")] == ["fraud", "fraud"]
    assert snapshot.head == 1


def test_a_schema_of_another_version_is_refused_with_a_sentence(url: str, store: ControlStore) -> None:
    with store._transaction(write=True) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    writing, reading = partial(ControlStore, url, SystemClock()), partial(ControlReader, url)
    openings: tuple[Callable[[], ControlReader], ...] = (writing, reading)
    for opening in openings:
        with pytest.raises(InputError, match=r"another drift-pipeline made .*schema 0099, here 0001"):
            opening()


def test_processes_at_once_make_one_store_and_one_gapless_chain(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    names, rounds = ("a", "b", "c"), 15
    start = context.Barrier(len(names))
    processes = [context.Process(target=_compete, args=(url, name, rounds, start)) for name in names]
    for process in processes:
        process.start()
    end = time.monotonic() + 90
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(ControlStore(url, SystemClock())) as store:
        records, counter = list(store.records()), store.get("counter", "n")
        assert verify(records, snapshot=store.snapshot()).ok
        assert [record.seq for record in records] == list(range(1, 3 * rounds + 4))
        assert [record.at for record in records] == sorted(record.at for record in records)
        assert counter is not None
        assert (counter.body["n"], counter.generation) == (3 * rounds, 3 * rounds)
