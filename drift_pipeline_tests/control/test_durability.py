"""What a power failure leaves of a control store in SQLite: all that a commit returned from, and all that was told."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control import checkpoints as writing
from drift_pipeline.control import engine
from drift_pipeline.control.checkpoints import Checkpoints
from drift_pipeline.control.store import ControlReader, ControlStore, Entry, Message, Put, Record
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import UnavailableError
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ENTRY = Entry("loop", "decided", "fraud")


class Disk:
    """Keeps of a home's database what has been synced, which is what a power failure leaves."""

    def __init__(self, home: Path, kept: Path) -> None:
        self.file, self._kept = home / "control.db", kept
        self.syncs = 0
        self.broken = False

    def sync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")) != self.file.with_name("control.db-wal"):
            return  # a reader's of what was kept
        self.syncs += 1
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.file}{suffix}", self._kept)

    def left(self) -> list[str]:
        """The subjects of the records that are still there."""
        with closing(ControlReader(f"sqlite:///{self._kept / 'control.db'}")) as store:
            return [record.subject for record in store.records()]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path, tmp_path / "kept")
    monkeypatch.setattr(engine, "_fdatasync", made.sync)
    return made


@pytest.fixture
def store(disk: Disk) -> Iterator[ControlStore]:
    with closing(ControlStore(f"sqlite:///{disk.file}", ManualClock(NOW))) as made:
        yield made


def test_sqlite_logs_ahead_and_leaves_the_sync_of_a_commit_to_us(store: ControlStore) -> None:
    names = ("journal_mode", "synchronous", "wal_autocheckpoint")
    with store._engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    assert pragmas == ["wal", 1, 4000]


def test_a_database_without_a_log_syncs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_logged", lambda _: False)
    with closing(ControlStore(f"sqlite:///{tmp_path / 'control.db'}", ManualClock(NOW))) as store:
        store.commit(ENTRY)
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_power_failure_leaves_each_commit_that_returned(store: ControlStore, disk: Disk) -> None:
    for number in range(5):
        before = disk.syncs
        store.commit(Entry("loop", "decided", f"model {number}"), [Put("model", f"model {number}", {})])
        assert disk.syncs == before + 1
        assert disk.left()[-1] == f"model {number}"


def test_what_a_tick_remembers_costs_no_sync_and_the_next_commit_syncs_it(store: ControlStore, disk: Disk) -> None:
    before = disk.syncs
    store.remember(Put("", "tick", {"n": 1}))
    store.revise("tick", lambda found: {**found, "n": 2})
    assert disk.syncs == before
    store.commit(ENTRY)
    with closing(ControlReader(f"sqlite:///{disk._kept / 'control.db'}")) as left:
        tick = left.recall("tick")
    assert tick == Record("", "tick", {"n": 2}, 2)


def test_what_another_process_committed_is_synced_before_it_is_told(
    store: ControlStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That process has committed, and its own sync is still under way."""
    with closing(ControlStore(f"sqlite:///{disk.file}", ManualClock(NOW))) as other:
        for told in (store.pending, lambda: store.messages("page", 1, 99), lambda: list(store.records())):
            subject = f"model {disk.syncs}"
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(engine, "_fdatasync", lambda _: None)
                other.commit(Entry("loop", "decided", subject), messages=[Message(subject, "page", {})])
            assert subject not in disk.left()
            assert told()
            assert disk.left()[-1] == subject


def test_a_checkpoint_never_counts_what_a_power_failure_takes_back(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[int]()

    def kept(path: Path, data: str) -> None:
        write_whole(path, data)
        written.append(int(path.name.partition(".")[0]))
        assert len(disk.left()) >= written[-1]

    with closing(open_store(Settings(home=tmp_path, database=""), ManualClock(NOW))) as store:
        assert isinstance(store._checkpoints, Checkpoints)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(engine, "_fdatasync", lambda _: None)
            for _ in range(3):
                store.commit(ENTRY)
            lost = len(list(store.records())) - len(disk.left())
        monkeypatch.setattr(writing, "write_whole", kept)
        store.checkpoint()
        store._clock.advance_to(NOW + timedelta(days=1))  # type: ignore[attr-defined]
        store.commit(Entry("loop", "rollout.began", "fraud"))
        assert lost == 3
        assert len(written) == 2
        assert written[-1] == len(disk.left())


def test_a_disk_that_cannot_sync_is_told_and_the_next_commit_goes_on(store: ControlStore, disk: Disk) -> None:
    disk.broken = True
    with pytest.raises(UnavailableError, match=r"may not outlast a power failure: .*Input/output error"):
        store.commit(ENTRY)
    disk.broken = False
    assert store.commit(ENTRY).seq == 2
    assert len(disk.left()) == 2
