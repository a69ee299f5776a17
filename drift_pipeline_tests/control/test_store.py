"""State, audit record and message are written together or not at all, by any number of processes, through any crash."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from drift_pipeline.clock import ManualClock, SystemClock
from drift_pipeline.control import engine
from drift_pipeline.control import reader as reading
from drift_pipeline.control.store import ControlStore, Entry, Message, Put, Record
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import ConflictError, InputError, IntegrityError, UnavailableError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ENTRY = Entry("loop", "promoted", "fraud")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'control.db'}"


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    with closing(ControlStore(url, ManualClock(NOW))) as opened:
        yield opened


def test_a_commit_writes_state_audit_and_message(store: ControlStore) -> None:
    record = store.commit(ENTRY, [Put("model", "fraud", {"champion": "v1"})], [Message("m1", "alert", {"page": True})])
    assert store.get("model", "fraud") == Record("model", "fraud", {"champion": "v1"}, generation=1)
    assert store.pending() == [Message("m1", "alert", {"page": True})]
    assert list(store.records()) == [record]
    assert store.head() == record
    assert (record.seq, record.at, record.event) == (1, "2026-03-01T00:00:00.000000Z", "promoted")


def test_an_empty_store_says_so(store: ControlStore) -> None:
    assert store.get("model", "fraud") is None
    assert store.head() is None
    assert (store.find("model"), store.pending(), list(store.records())) == ([], [], [])


@pytest.mark.parametrize("expected", [1, 3, -1])
def test_a_generation_that_does_not_fit_writes_nothing(store: ControlStore, expected: int) -> None:
    store.commit(ENTRY, [Put("model", "fraud", {"n": 1})])
    store.commit(ENTRY, [Put("model", "fraud", {"n": 2}, expected=1)])
    puts = [Put("model", "other", {}), Put("model", "fraud", {"n": 3}, expected=expected)]
    with pytest.raises(ConflictError, match=f"model fraud is at generation 2, not {expected}"):
        store.commit(ENTRY, puts, [Message("m", "alert", {})])
    assert store.find("model") == [Record("model", "fraud", {"n": 2}, generation=2)]
    assert store.pending() == []
    assert [record.seq for record in store.records()] == [1, 2]


def test_what_exists_is_not_created_and_what_is_absent_is_not_changed(store: ControlStore) -> None:
    with pytest.raises(ConflictError, match="at generation 0, not 1"):
        store.commit(ENTRY, [Put("model", "fraud", {}, expected=1)])
    store.commit(ENTRY, [Put("model", "fraud", {})])
    with pytest.raises(ConflictError, match="at generation 1, not 0"):
        store.commit(ENTRY, [Put("model", "fraud", {})])


@pytest.mark.parametrize(
    "arguments",
    [
        (Entry("loop", "x", "y", details={"psi": float("nan")}), (), ()),
        (Entry("loop", "x", "y", digests={"report": "abc"}), (), ()),
        (ENTRY, [Put("model", "fraud", {"psi": float("inf")})], ()),
        (ENTRY, [Put("model", "fraud", {})], [Message("m", "alert", {"rows": 2**53})]),
    ],
)
def test_what_is_not_json_writes_nothing(store: ControlStore, arguments: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError):
        store.commit(*arguments)
    assert (store.get("model", "fraud"), store.pending(), store.head()) == (None, [], None)


def test_a_none_for_a_key_is_not_called_damage(store: ControlStore) -> None:
    with pytest.raises(SQLAlchemyError):
        store.commit(ENTRY, [Put("model", None, {})])  # type: ignore[arg-type]
    assert store.head() is None


json_bodies = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-9, 9),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(json_bodies)
def test_bodies_come_back_equal(store: ControlStore, body: dict[str, Any]) -> None:
    before = store.get("model", "fraud")
    store.commit(Entry("a", "b", "c", details=body), [Put("model", "fraud", body, before.generation if before else 0)])
    after, head = store.get("model", "fraud"), store.head()
    assert after is not None
    assert head is not None
    assert after.body == head.details == body


def test_find_takes_the_prefix_literally(store: ControlStore) -> None:
    for key in ("b/1", "a_/2", "a_/1", "ab/1", "A_/1", "é/1", "%"):
        store.commit(ENTRY, [Put("run", key, {})])
    store.commit(ENTRY, [Put("model", "a_/9", {})])
    assert [record.key for record in store.find("run", "a_")] == ["a_/1", "a_/2"]
    assert [record.key for record in store.find("run", "é")] == ["é/1"]
    assert [record.key for record in store.find("run", "%")] == ["%"]
    assert len(store.find("run")) == 7


def test_a_repeated_message_is_ignored_even_after_delivery(store: ControlStore) -> None:
    store.commit(ENTRY, messages=[Message("m1", "alert", {"n": 1}), Message("m1", "alert", {"n": 2})])
    assert store.pending() == [Message("m1", "alert", {"n": 1})]
    store.delivered("m1")
    store.commit(ENTRY, messages=[Message("m1", "alert", {"n": 1})])
    assert store.pending() == []


def test_pending_is_oldest_first_and_one_topic_does_not_starve_another(store: ControlStore) -> None:
    store.commit(ENTRY, messages=[Message(f"z{9 - n}", "lineage", {}) for n in range(5)])
    store.commit(ENTRY, messages=[Message("a", "alert", {})])
    assert [message.id for message in store.pending()] == ["z9", "z8", "z7", "z6", "z5", "a"]
    assert [message.id for message in store.pending(limit=2)] == ["z9", "z8"]
    assert [message.id for message in store.pending(limit=2, topic="alert")] == ["a"]


def test_failed_attempts_are_counted_and_keep_the_message(store: ControlStore) -> None:
    store.commit(ENTRY, messages=[Message("m1", "alert", {})])
    store.failed("m1", "timed out")
    store.failed("m1", "timed out")
    assert store.pending() == [Message("m1", "alert", {}, attempts=2)]
    store.delivered("m1")
    store.delivered("m1")
    store.failed("m1", "a slow worker reports late")
    assert store.pending() == []


@pytest.mark.parametrize("call", [lambda s: s.delivered("no"), lambda s: s.failed("no", "x")])
def test_a_message_that_never_was_is_refused(store: ControlStore, call: Any) -> None:
    with pytest.raises(InputError, match="no message 'no'"):
        call(store)


def test_records_are_read_in_pages_while_others_write(store: ControlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAGE", 2)
    for _ in range(4):
        store.commit(ENTRY)
    reader = store.records(after=1)
    assert next(reader).seq == 2
    store.commit(ENTRY)
    assert [record.seq for record in reader] == [3, 4, 5]


def test_time_is_the_clocks(url: str) -> None:
    clock = ManualClock(NOW)
    with closing(ControlStore(url, clock)) as store:
        store.commit(ENTRY)
        clock.advance_to(NOW + timedelta(microseconds=1))
        assert store.commit(ENTRY).at == "2026-03-01T00:00:00.000001Z"


def test_a_locked_database_is_unavailable_and_readers_do_not_wait(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
    with (
        closing(ControlStore(url, ManualClock(NOW))) as store,
        closing(sqlite3.connect(tmp_path / "control.db", isolation_level=None)) as other,
    ):
        store.commit(ENTRY)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="locked"):
            store.commit(ENTRY)
        assert [record.seq for record in store.records()] == [1]


def test_a_file_that_is_no_database_is_damaged_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(IntegrityError, match="not a database"):
        ControlStore(f"sqlite:///{path}", ManualClock(NOW))
    assert path.read_bytes() == b"precious" * 1000


@pytest.mark.parametrize("url", ["", "nosuch://x", "control.db", "mysql://u:p@h/d", "postgresql+nosuch://h/d"])
def test_a_url_that_no_driver_serves_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="url"):
        ControlStore(url, ManualClock(NOW))


def test_a_store_in_memory_works_within_one_thread() -> None:
    with closing(ControlStore("sqlite://", ManualClock(NOW))) as store:
        store.commit(ENTRY, [Put("model", "fraud", {})])
        assert store.commit(ENTRY).seq == 2


def test_opening_the_store_needs_no_cryptography() -> None:
    heavy = "{'cryptography', 'securesystemslib', 'pydantic', 'numpy'}"
    code = f"import sys, drift_pipeline.control.store; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def _compete(url: str, name: str, rounds: int, start: Barrier) -> None:
    """Create the tables, claim one key, then count one counter up: all at the same time as the others."""
    start.wait(60)
    with closing(ControlStore(url, SystemClock())) as store:
        try:
            store.commit(Entry(name, "claimed", "slot"), [Put("slot", "one", {"winner": name})])
        except ConflictError:
            store.commit(Entry(name, "lost", "slot"))
        done = 0
        while done < rounds:
            seen = store.get("counter", "n")
            body, generation = ({"n": seen.body["n"] + 1}, seen.generation) if seen else ({"n": 1}, 0)
            try:
                store.commit(
                    Entry(name, "counted", "n"),
                    [Put("counter", "n", body, generation)],
                    [Message(f"{name}/{done}", "count", {})],
                )
            except ConflictError:
                continue
            done += 1


def test_processes_at_once_yield_one_gapless_chain_and_one_winner(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    names, rounds = ("a", "b", "c"), 20
    start = context.Barrier(len(names))
    processes = [context.Process(target=_compete, args=(url, name, rounds, start)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(ControlStore(url, SystemClock())) as store:
        records = list(store.records())
        assert verify(records).ok
        assert [record.seq for record in records] == list(range(1, 3 * rounds + 4))
        assert [record.at for record in records] == sorted(record.at for record in records)
        claims = [record.actor for record in records if record.event == "claimed"]
        slot, counter = store.get("slot", "one"), store.get("counter", "n")
        assert slot is not None
        assert [slot.body["winner"]] == claims
        assert counter is not None
        assert (counter.body["n"], counter.generation) == (3 * rounds, 3 * rounds)
        assert len(store.pending(limit=1000)) == 3 * rounds


_OPEN_NEW_FILES_AT_ONCE = """
import os, sys
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore, Entry

def child(url, start):
    os.read(start, 1)
    store = ControlStore(url, SystemClock())
    store.commit(Entry("loop", "opened", "store"))
    store.close()
    os._exit(0)

for number in range(8):
    start, go = os.pipe()
    children = []
    for _ in range(6):
        if (pid := os.fork()) == 0:
            os.close(go)
            child(f"sqlite:///{sys.argv[1]}/{number}.db", start)
        children.append(pid)
    os.close(go)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
"""


def test_processes_that_open_a_new_file_at_once_all_get_in(tmp_path: Path) -> None:
    """The switch of a new file to WAL is the one step that SQLite does not queue."""
    subprocess.run([sys.executable, "-c", _OPEN_NEW_FILES_AT_ONCE, str(tmp_path)], check=True, timeout=120)
    for number in range(8):
        with closing(ControlStore(f"sqlite:///{tmp_path}/{number}.db", SystemClock())) as store:
            assert verify(store.records()).records == 6


# Forks once a kill point, so that SQLAlchemy is imported once. The store's second commit dies before its k-th
# statement, COMMIT included; when there is no k-th any more, the child lives and the parent stops.
_KILL_AT_EACH_STATEMENT = """
import os, signal, sys
from datetime import UTC, datetime
from sqlalchemy import Pool, event
from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore, Entry, Message, Put

def die_at(k):
    count = 0
    def step(*_):
        nonlocal count
        count += 1
        if count == k:
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(Pool, "checkout", lambda held, *_: held.set_trace_callback(step))

def child(url, k):
    store = ControlStore(url, ManualClock(datetime(2026, 3, 1, tzinfo=UTC)))
    store.commit(Entry("loop", "first", "fraud"), [Put("model", "fraud", {"n": 1})], [Message("m1", "alert", {})])
    die_at(k)
    store.commit(Entry("loop", "second", "fraud"), [Put("model", "fraud", {"n": 2}, 1), Put("model", "new", {})],
                 [Message("m2", "alert", {})])
    os._exit(0)

k = 0
while True:
    k += 1
    if (pid := os.fork()) == 0:
        child(f"sqlite:///{sys.argv[1]}/{k}.db", k)
    status = os.waitpid(pid, 0)[1]
    print(k, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


def _told(url: str) -> tuple[int, list[str], int]:
    """The state's number, the pending ids and the count of audit records, after the chain was verified."""
    with closing(ControlStore(url, ManualClock(NOW))) as store:
        found = verify(store.records())
        assert found.ok, found.reason
        state = store.get("model", "fraud")
        assert state is not None
        assert state.generation == state.body["n"]
        return state.generation, [message.id for message in store.pending(limit=10**6)], found.records


def test_a_kill_before_any_statement_of_a_commit_leaves_nothing_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILL_AT_EACH_STATEMENT, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    *killed, (last, lived) = [tuple(map(int, line.split())) for line in printed.splitlines()]
    assert len(killed) >= 8  # BEGIN, head, two puts of two, message, audit, COMMIT
    assert {code for _, code in killed} == {signal.SIGKILL}
    assert lived == 0
    for point, _ in killed:
        assert _told(f"sqlite:///{tmp_path / str(point)}.db") == (1, ["m1"], 1)
    assert _told(f"sqlite:///{tmp_path / str(last)}.db") == (2, ["m1", "m2"], 2)


_COMMIT_FOR_EVER = """
import sys
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore, Entry, Message, Put

store = ControlStore(sys.argv[1], SystemClock())
while True:
    seen = store.get("model", "fraud")
    n = seen.generation if seen else 0
    put, message = Put("model", "fraud", {"n": n + 1}, n), Message(str(n), "t", {})
    store.commit(Entry("loop", "counted", "fraud"), [put], [message])
    print(n + 1, flush=True)
"""


@pytest.mark.parametrize("milliseconds", [3, 37])
def test_a_kill_at_any_moment_keeps_every_commit_that_returned(url: str, milliseconds: int) -> None:
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", _COMMIT_FOR_EVER, url], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(milliseconds / 1000)
            os.kill(process.pid, signal.SIGKILL)
            returned = [int(line) for line in process.stdout.read().split()]
        generation, ids, count = _told(url)
        assert generation == count == len(ids)
        assert generation >= max(returned, default=1)


def test_nobody_else_on_the_machine_reads_the_store(url: str, tmp_path: Path) -> None:
    (tmp_path / "control.db").touch(mode=0o644)  # as a home that was made before has it
    with closing(ControlStore(url, ManualClock(NOW))) as opened:
        opened.commit(ENTRY, [Put("model", "fraud", {"champion": "v1"})])
        assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("control.db*")} == {0o600}
