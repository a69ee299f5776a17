"""Producers' keys and their rates."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError, NothingToDoError
from drift_pipeline.serving.allowance import Bucket
from drift_pipeline.serving.keys import add_producer, key_hash, producers, revoke_producer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    store = ControlStore(f"sqlite:///{tmp_path / 'control.db'}", ManualClock(datetime(2026, 3, 1, tzinfo=UTC)))
    yield store
    store.close()


def test_a_key_is_told_once_and_kept_nowhere(store: ControlStore, tmp_path: Path) -> None:
    key = add_producer(store, "app", ["fraud"], 100, "ada")
    (known,) = producers(store)
    assert known.sha256 == key_hash(key)
    assert (known.may("fraud"), known.may("churn")) == (True, False)
    (record,) = store.records()
    assert (record.actor, record.event, record.subject) == ("ada", "producer.added", "app")
    assert record.details == {"models": ["fraud"], "rows_per_second": 100}
    store.close()
    assert not any(key.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_a_star_is_every_model(store: ControlStore) -> None:
    add_producer(store, "app", ["*"], 100, "ada")
    assert producers(store)[0].may("whatever")


def test_a_key_is_revoked_once_and_its_name_may_get_a_new_one(store: ControlStore) -> None:
    first = add_producer(store, "app", ["fraud"], 100, "ada")
    with pytest.raises(InputError, match="app has a key already"):
        add_producer(store, "app", ["fraud"], 100, "ada")
    revoke_producer(store, "app", "bob", "it leaked")
    with pytest.raises(NothingToDoError, match="app: its key was revoked before"):
        revoke_producer(store, "app", "bob", "it leaked")
    assert producers(store)[0].revoked
    assert add_producer(store, "app", ["fraud"], 100, "ada") != first
    assert not producers(store)[0].revoked
    assert [record.event for record in store.records()] == ["producer.added", "producer.revoked", "producer.added"]


def test_an_unknown_producer_and_an_empty_one_are_refused(store: ControlStore) -> None:
    with pytest.raises(InputError, match="no producer 'app'; there are: none"):
        revoke_producer(store, "app", "bob", "it leaked")
    for name, models, rate in (("", ["fraud"], 1), ("app", [], 1), ("app", ["fraud"], 0)):
        with pytest.raises(InputError):
            add_producer(store, name, models, rate, "ada")


def test_a_bucket_holds_two_seconds_and_fills_as_time_goes_by() -> None:
    now = [1000.0]
    bucket = Bucket(10, 20, lambda: now[0])
    assert [bucket.take(10) for _ in range(3)] == [0.0, 0.0, 1.0]
    now[0] += 0.5
    assert bucket.take(10) == pytest.approx(0.5)
    assert bucket.take(5) == 0.0
    now[0] += 3600
    assert [bucket.take(20), bucket.take(1)] == [0.0, pytest.approx(0.1)]


def test_more_than_a_bucket_ever_holds_never_passes_and_takes_nothing() -> None:
    bucket = Bucket(10, 20, lambda: 0.0)
    assert [bucket.take(21), bucket.take(20)] == [float("inf"), 0.0]


def test_a_debt_is_paid_first() -> None:
    now = [0.0]
    bucket = Bucket(10, 20, lambda: now[0])
    bucket.charge(40)
    assert [bucket.seconds_to(0), bucket.take(1)] == [2.0, pytest.approx(2.1)]
    now[0] += 3
    assert [bucket.seconds_to(0), bucket.take(10)] == [0.0, 0.0]


@pytest.mark.parametrize("body", ["garbage", "{}", "[1]", '{"models":["a"],"revoked":false,"rows_per_second":"many"}'])
def test_a_damaged_row_is_nobodys_and_hides_no_other_producer(store: ControlStore, tmp_path: Path, body: str) -> None:
    for name in ("shop", "app"):
        add_producer(store, name, ["fraud"], 10, "ada")
    with closing(sqlite3.connect(tmp_path / "control.db")) as connection, connection:
        connection.execute("UPDATE state SET body = ? WHERE kind = 'producer' AND key = 'app'", (body,))
    add_producer(store, "web", ["fraud"], 10, "ada")
    assert [producer.name for producer in producers(store)] == ["shop", "web"]
