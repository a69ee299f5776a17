"""A table stays as it was when it was young: few files, a short log, readers that miss nothing, writers in turn."""

import fcntl
import multiprocessing
import os
import shutil
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from drift_pipeline.bucket import Place
from drift_pipeline.clock import DAY, Window
from drift_pipeline.errors import ConflictError, IntegrityError
from drift_pipeline.telemetry import merging
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.telemetry.test_lake import ALL, START, outcomes, predictions

FEW = 32 + 8  # files or log entries between two merges


def numbered(batch: int) -> pl.DataFrame:
    return predictions(batch % 24).with_columns(_id=pl.lit(f"{batch}-") + pl.col("_id"))


def ids(frame: pl.DataFrame) -> list[str]:
    return sorted(frame["_id"]) if frame.height else []


def log_of(root: Path) -> tuple[int, int]:
    """Entries and bytes of the table's log."""
    files = list((root / "predictions" / "_delta_log").iterdir())
    return len(files), sum(file.stat().st_size for file in files)


def test_files_and_log_are_as_few_after_many_commits_as_after_some(tmp_path: Path) -> None:
    lake, reader, told = Lake(tmp_path, source="gateway"), Lake(tmp_path, source="loop"), list[str]()
    cursor, sizes = reader.cursor("predictions"), dict[int, int]()
    for batch in range(200):
        lake.append("predictions", numbered(batch), batch)
        entries, sizes[batch] = log_of(tmp_path)
        assert entries <= FEW
        if batch % 7 == 0:
            rows, cursor = reader.landed("predictions", cursor)
            told += ids(rows)
    told += ids(reader.landed("predictions", cursor)[0])
    assert sorted(told) == ids(lake.read("predictions", ALL)) == sorted(set(told))
    assert len(told) == 3 * 200
    assert len(DeltaTable(str(tmp_path / "predictions")).file_uris()) <= FEW
    assert max(sizes[batch] for batch in range(150, 200)) < 1.2 * max(sizes[batch] for batch in range(50, 100))
    assert Lake(tmp_path, source="gateway").last_batch("predictions") == 199


def test_the_log_is_asked_for_a_source_once_and_again_after_a_stranger_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real, path = list[str](), DeltaTable.transaction_version, str(tmp_path / "predictions")

    def counted(table: DeltaTable, source: str) -> int | None:
        asked.append(source)
        return real(table, source)

    monkeypatch.setattr(DeltaTable, "transaction_version", counted)
    one, other = (Lake(tmp_path, source=name) for name in ("one", "other"))
    for batch in range(10):
        assert one.append("predictions", numbered(batch), batch)
        assert other.append("predictions", numbered(100 + batch), batch)
    assert sorted(asked) == ["one", "other"]
    row = pl.DataFrame(DeltaTable(path).to_pyarrow_table().slice(0, 1))
    told = CommitProperties(app_transactions=[Transaction("one", 50)])
    write_deltalake(path, row, mode="append", commit_properties=told)
    before = one.read("predictions", ALL).height
    one.append("predictions", numbered(50), 50)
    assert (one.last_batch("predictions"), one.read("predictions", ALL).height) == (50, before)
    assert sorted(asked) == ["one", "one", "other"]


def test_processes_that_write_one_batch_each_merge_as_well(tmp_path: Path) -> None:
    for batch in range(70):
        Lake(tmp_path).append("predictions", numbered(batch), batch)
    assert len(DeltaTable(str(tmp_path / "predictions")).file_uris()) <= FEW


def _write(root: Path, stop: Any) -> None:
    lake, batch, tests = Lake(root, source="gateway"), 0, os.getppid()
    while not stop.is_set() and os.getppid() == tests:  # which may be interrupted
        lake.append("predictions", numbered(batch), batch)
        batch += 1


def test_who_reads_while_files_are_merged_and_deleted_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_GRACE_HOURS", 0)  # nothing stays for whoever began to read before
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=_write, args=(tmp_path, stop))
    writer.start()
    reader, keeper, cursor, told = Lake(tmp_path, source="loop"), Lake(tmp_path, source="keeper"), Cursor(), list[str]()
    try:
        while reader.cursor("predictions") == Cursor():
            time.sleep(0.05)
        for turn in range(30):
            rows, cursor = reader.landed("predictions", cursor)
            told += ids(rows)
            whole = ids(reader.read("predictions", ALL))
            assert set(told) <= set(whole)
            if turn % 5 == 0:
                keeper.compact("predictions")
    finally:
        stop.set()
        writer.join(60)
    told += ids(reader.landed("predictions", cursor)[0])
    assert sorted(told) == ids(Lake(tmp_path).read("predictions", ALL))
    assert len(told) > 0


def rewritten_at_random(root: Place, seed: int) -> None:
    """Three writers, of whom one merges, erases, drops and follows what lands: each row that stays is told once."""
    rng = np.random.default_rng(seed)
    writers = [Lake(root, source=source, flush_rows=rows) for source, rows in (("a", 1), ("b", 7), ("c", 1))]
    loop, cursor, told, gone = writers[1], Cursor(), list[str](), set[str]()
    for batch in range(36):  # so that one merge is the table's own
        frame = numbered(batch)
        writers[int(rng.integers(3))].append("predictions", frame, batch)
        match int(rng.integers(6)):
            case 0:
                loop.compact("predictions")
            case 1:
                gone |= set(frame["_id"][:1])
                loop.erase("predictions", "_id", gone)
            case 2:
                loop.drop("predictions", "_day = '1999-01-01'")
            case 3 | 4:
                rows, cursor = loop.landed("predictions", cursor)
                told += ids(rows)
    rows, cursor = loop.landed("predictions", cursor)
    told += ids(rows)
    assert len(told) == len(set(told))
    assert set(ids(loop.read("predictions", ALL))) == set(told) - gone
    loop.flush("predictions")
    assert Lake(root, source="d").landed("predictions", cursor)[0].is_empty()
    assert Lake(root, source="d").landed_rows("predictions", Cursor()) == len(set(told) - gone)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_rewritten_each_row_that_stays_is_told_once(tmp_path: Path, seed: int) -> None:
    rewritten_at_random(tmp_path, seed)


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda lake: lake.compact("predictions"),
        lambda lake: lake.drop("predictions", "_day = '1999-01-01'"),
        lambda lake: lake.erase("predictions", "_id", {"5-p005.00-0"}),
        lambda lake: [lake.append("predictions", numbered(batch), batch) for batch in range(10, 60)],
    ],
    ids=["merged", "past retention", "erased", "50 commits later"],
)
def test_what_was_pinned_reads_the_same_later_but_for_what_was_erased(
    tmp_path: Path, rewritten: Callable[[Lake], object]
) -> None:
    lake = Lake(tmp_path)
    for batch in range(10):
        lake.append("predictions", numbered(batch), batch)
        lake.append("outcomes", outcomes([f"{batch}-p{batch:06.2f}-0"], batch), batch)
        if batch == 5:
            versions = lake.versions()
            pinned = lake.read("predictions", ALL, versions["predictions"])
            labelled = lake.labelled(ALL, START + DAY, timedelta(hours=1), versions)
    assert (pinned.height, labelled.height) == (18, 6)
    rewritten(lake)
    kept = set(ids(lake.read("predictions", ALL)))
    later = Lake(tmp_path)
    assert later.read("predictions", ALL, versions["predictions"]).equals(pinned.filter(pl.col("_id").is_in(kept)))
    again = later.labelled(ALL, START + DAY, timedelta(hours=1), versions)
    assert again.equals(labelled.filter(pl.col("_id").is_in(kept)))


def test_the_log_tells_no_value_of_any_row(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for batch in range(40):
        lake.append("predictions", numbered(batch), batch)
    lake.compact("predictions")
    lake.erase("predictions", "_id", {"3-p003.00-0"})
    told = pl.DataFrame(DeltaTable(str(tmp_path / "predictions")).get_add_actions(flatten=True)).columns
    assert {name for name in told if name.startswith(("min.", "max."))} == {"min._landed", "max._landed"}


# what goes wrong


def _cut_last_commit(table: Path) -> None:
    last = max((table / "_delta_log").glob("*.json"))
    last.write_bytes(last.read_bytes()[:100])


def _lose_a_file(table: Path) -> None:
    next(table.rglob("_day=*/*.parquet")).unlink()


@pytest.mark.parametrize("broken", [_cut_last_commit, _lose_a_file])
@pytest.mark.parametrize("door", ["read", "landed", "find"])
def test_a_broken_table_is_said_so_by_name(tmp_path: Path, broken: Callable[[Path], None], door: str) -> None:
    lake = Lake(tmp_path)
    for batch in range(3):
        lake.append("predictions", numbered(batch), batch)
    broken(tmp_path / "predictions")
    doors: dict[str, Callable[[Lake], object]] = {
        "read": lambda other: other.read("predictions", ALL),
        "landed": lambda other: other.landed("predictions", Cursor()),
        "find": lambda other: other.find("predictions", pl.lit(True), ("_id",)),
    }
    with pytest.raises(IntegrityError, match=r"predictions: .*restore"):
        doors[door](Lake(tmp_path))


def test_a_turn_that_never_ends_is_a_conflict_and_the_batch_waits(tmp_path: Path) -> None:
    lake = Lake(tmp_path, patience_s=0.1)
    lake.append("predictions", numbered(0), 0)
    held = os.open(tmp_path / "predictions.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConflictError, match="another process writes it"):
        lake.append("predictions", numbered(1), 1)
    with pytest.raises(ConflictError, match="another process writes it"):
        lake.compact("predictions")
    os.close(held)
    lake.flush("predictions")
    assert lake.read("predictions", ALL).height == 6


def test_an_erasure_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("predictions", numbered(0), 0)
    orphan = tmp_path / "predictions" / "_day=2026-01-01" / "part-00000-killed.parquet"
    shutil.copy(next(orphan.parent.glob("*.parquet")), orphan)
    assert lake.erase("predictions", "_id", {"nobody"}) == 0
    assert not orphan.exists()
    assert lake.read("predictions", Window(START, START + DAY)).height == 3


@pytest.mark.parametrize("table", ["predictions", "outcomes"])
def test_nobody_else_on_the_machine_reads_lake_and_spool(tmp_path: Path, table: Table) -> None:
    (tmp_path / "lake" / "m").mkdir(parents=True, mode=0o755)  # as a home that was made before has it
    Lake(tmp_path / "lake" / "m").append(table, {"predictions": numbered(0)}.get(table, outcomes(["a"], 1)), 0)
    writer = SpoolWriter(tmp_path / "spool" / "gateway")
    writer.write([b"a"])
    folders = [tmp_path / "lake" / "m", tmp_path / "spool" / "gateway"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]
    assert {stat.S_IMODE(file.stat().st_mode) for file in folders[1].iterdir()} == {0o600}
