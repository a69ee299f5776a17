"""The lake keeps its promises in a folder and in a bucket of a real S3-compatible server."""

import io
import multiprocessing
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from drift_pipeline.bucket import Bucket, Objects, Place
from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.errors import IntegrityError
from drift_pipeline.telemetry import merging
from drift_pipeline.telemetry.lake import Cursor, Lake
from drift_pipeline.telemetry.storage import InBucket
from drift_pipeline_tests.telemetry.test_delta import ids, numbered, rewritten_at_random
from drift_pipeline_tests.telemetry.test_lake import ALL, START, expect, outcomes, predictions

IN_BUCKET = pytest.param("bucket", marks=pytest.mark.live)
SECRET = "ada@example.com"


@pytest.fixture(params=["folder", IN_BUCKET])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Of a lake that is not there yet."""
    if request.param == "folder":
        return tmp_path / "lake"
    place: Bucket = request.getfixturevalue("s3_place")
    return place / "lake"


def contents(root: Place) -> dict[str, bytes]:
    """Every file or object below the place, by name."""
    if isinstance(root, Path):
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    objects = Objects(root)
    return {name: objects.get(name) or b"" for name in objects.names()}


def told(found: dict[str, bytes], text: str) -> list[str]:
    """Names of those that hold the text, also inside of what Parquet packs."""
    packed = {name: pl.read_parquet(io.BytesIO(data)) for name, data in found.items() if name.endswith(".parquet")}
    inside = [name for name, rows in packed.items() if text in str(rows.cast(pl.String, strict=False).rows())]
    return sorted({*inside, *(name for name, data in found.items() if text.encode() in data)})


def test_what_was_taken_is_read_by_others_and_a_commit_is_a_version(root: Place) -> None:
    writer, reader = Lake(root), Lake(root, source="reader")
    assert reader.read("predictions", ALL).is_empty()
    assert reader.version("predictions") == -1
    for batch in range(3):
        assert writer.append("predictions", predictions(24 * batch), batch)
        expect(reader, *(predictions(24 * hour) for hour in range(batch + 1)))
        assert reader.version("predictions") == writer.version("predictions") == batch
    expect(reader, predictions(24), window=Window(START + DAY, START + 2 * DAY))
    assert reader.read("predictions", ALL, columns=("x",)).columns == ["_id", "_time", "x"]
    assert reader.daily("predictions", ALL)["_rows"].to_list() == [3, 3, 3]


def test_a_batch_counts_once_for_its_source(root: Place) -> None:
    web, again, batch = Lake(root, source="web"), Lake(root, source="web"), Lake(root, source="batch")
    assert web.append("predictions", predictions(0), 7)
    assert not again.append("predictions", predictions(0), 7)
    assert not again.append("predictions", predictions(1), 6)
    assert batch.append("predictions", predictions(2), 0)
    assert again.append("predictions", predictions(1), 8)
    assert web.last_batch("predictions") == 8
    expect(web, predictions(0), predictions(1), predictions(2))


def test_a_column_that_comes_later_is_null_before(root: Place) -> None:
    lake = Lake(root)
    lake.append("predictions", predictions(0), 0)
    lake.append("predictions", predictions(1).with_columns(new=pl.lit(1.5)), 1)
    assert lake.read("predictions", ALL)["new"].to_list() == [None] * 3 + [1.5] * 3


def test_labels_are_joined_as_of_a_time_and_as_pinned(root: Place) -> None:
    lake = Lake(root)
    lake.append("predictions", predictions(0), 0)
    lake.append("outcomes", outcomes(["p000.00-0"], hour=2, label=0), 0)
    versions = lake.versions()
    lake.append("outcomes", outcomes(["p000.00-1"], hour=4, label=1), 1)
    window = Window(START, START + HOUR)
    assert lake.labelled(window, START + 5 * HOUR, HOUR)["_label"].to_list() == [0, 1]
    assert lake.labelled(window, START + 3 * HOUR, HOUR)["_label"].to_list() == [0]
    assert Lake(root).labelled(window, START + 5 * HOUR, HOUR, versions)["_label"].to_list() == [0]


def test_whatever_is_rewritten_each_row_that_stays_is_told_once(root: Place) -> None:
    rewritten_at_random(root, seed=1)


def test_what_was_pinned_reads_the_same_after_a_merge_and_an_erasure(root: Place) -> None:
    lake = Lake(root)
    for batch in range(4):
        lake.append("predictions", numbered(batch), batch)
        if batch == 2:
            pinned, version = lake.read("predictions", ALL), lake.version("predictions")
    assert lake.compact("predictions") > 0
    assert lake.erase("predictions", "_id", {"1-p001.00-0"}) == 1
    later = Lake(root).read("predictions", ALL, version)
    assert_frame_equal(later, pinned.filter(pl.col("_id") != "1-p001.00-0"))


def test_after_an_erasure_nothing_that_lies_there_tells_of_the_row(root: Place) -> None:
    lake = Lake(root)
    for batch in range(3):
        frame = numbered(batch).with_columns(device=pl.lit(SECRET) if batch == 1 else pl.col("device"))
        lake.append("predictions", frame, batch)
    lying = contents(root)
    assert len(told(lying, SECRET)) == 1
    left = next(name for name in told(lying, SECRET))
    orphan = f"predictions/{left.split('/')[1]}/part-00000-killed.parquet"  # of a writer that died before its commit
    if isinstance(root, Path):
        (root / orphan).write_bytes(lying[left])
    else:
        Objects(root).put(orphan, lying[left])
    assert lake.erase("predictions", "device", {SECRET}) == 3
    assert told(contents(root), SECRET) == []
    assert lake.read("predictions", ALL).height == 6
    assert lake.append("predictions", numbered(9), 9)


def test_days_past_retention_go_for_good(root: Place) -> None:
    lake = Lake(root)
    for batch, hour in enumerate((0, 24, 48)):
        lake.append("predictions", predictions(hour), batch)
    never = (START + 900 * DAY).date(), (START + 900 * DAY).date()
    assert lake.size("predictions", (START + DAY).date(), never)[0] == 3
    assert lake.drop("predictions", "_day < '2026-01-02'") == 3
    assert told(contents(root), "p000.00-0") == []
    expect(lake, predictions(24), predictions(48))


@pytest.mark.parametrize("read", ["landed", "read"])
def test_a_table_that_is_an_older_copy_is_said_so(root: Place, read: str) -> None:
    lake = Lake(root)
    lake.append("predictions", predictions(0), 0)
    with pytest.raises(IntegrityError, match=r"stands at version 0, and 7 was read before: it is an older copy"):
        lake.landed("predictions", Cursor(7)) if read == "landed" else lake.read("predictions", ALL, 7)


# processes that share it


def _write(root: Place, source: str, batches: int, stop: Any) -> None:
    lake = Lake(root, source=source)
    for batch in range(batches):
        if stop.is_set():
            return
        lake.append("predictions", numbered(batch).with_columns(_id=pl.lit(f"{source}-") + pl.col("_id")), batch)
        time.sleep(0.02)  # a writer that never pauses keeps the others out, on one machine


def _on_another_machine(root: Place, number: int) -> Place:
    return root if isinstance(root, Path) else Bucket(root.url, root.beside.with_name(f"machine-{number}"))


def test_machines_that_write_at_once_lose_and_repeat_nothing(root: Place) -> None:
    """The tables are not there yet, so that they also make them at once; each has locks of its own."""
    context = multiprocessing.get_context("spawn")
    stop, many = context.Event(), 12
    writers = [
        context.Process(target=_write, args=(_on_another_machine(root, number), f"w{number}", many, stop))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    loop, cursor, seen = Lake(root, source="loop"), Cursor(), list[str]()
    while any(writer.is_alive() for writer in writers):
        rows, cursor = loop.landed("predictions", cursor)
        seen += ids(rows)
        time.sleep(0.05)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    seen += ids(loop.landed("predictions", cursor)[0])
    assert sorted(seen) == ids(loop.read("predictions", ALL)) == sorted(set(seen))
    assert len(seen) == 3 * many * 3


def test_an_erasure_and_merges_beside_writers_of_other_machines_lose_nothing(
    root: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_GRACE_HOURS", 1)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writers = [
        context.Process(target=_write, args=(_on_another_machine(root, number), f"w{number}", 10_000, stop))
        for number in range(2)
    ]
    keeper, victim = Lake(root, source="keeper"), numbered(0)
    keeper.append("predictions", victim, 0)
    for writer in writers:
        writer.start()
    cursor, seen, begun, until = Cursor(), list[str](), set[str](), time.monotonic() + 300
    try:
        while not {"w0", "w1"} <= begun and time.monotonic() < until:
            time.sleep(0.02)
            begun = {row[:2] for row in ids(keeper.read("predictions", ALL))}
        until = time.monotonic() + 60
        for turn in range(4):
            while keeper.landed_rows("predictions", cursor) < 6 and time.monotonic() < until:
                time.sleep(0.02)
            rows, cursor = keeper.landed("predictions", cursor)
            seen += ids(rows)
            if turn % 2:
                keeper.erase("predictions", "_id", set(victim["_id"]))
            else:
                keeper.compact("predictions")
    finally:
        stop.set()
        for writer in writers:
            writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    seen += ids(keeper.landed("predictions", cursor)[0])
    kept = ids(Lake(root).read("predictions", ALL))
    assert len(seen) == len(set(seen))
    assert kept == sorted(set(seen) - set(victim["_id"]))
    numbers = {name: [int(row.split("-")[1]) for row in kept if row.startswith(name)] for name in ("w0", "w1")}
    for landed in numbers.values():  # every batch up to the last one, whole
        assert landed
        assert sorted(landed) == sorted(3 * list(range(max(landed) + 1)))


@pytest.mark.live
def test_a_merge_beside_that_of_another_machine_repeats_no_row(
    s3_place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Lake(s3_place / "lake"), Lake(_on_another_machine(s3_place / "lake", 1))
    for batch in range(6):
        ours.append("predictions", numbered(batch), batch)
    outdate, left = InBucket.outdate, [theirs]

    def and_another_is_faster(self: InBucket, handle: DeltaTable) -> None:
        outdate(self, handle)
        if left:
            assert left.pop().compact("predictions") == 6

    monkeypatch.setattr(InBucket, "outdate", and_another_is_faster)
    ours.compact("predictions")
    assert not left
    kept = ids(Lake(s3_place / "lake").read("predictions", ALL))
    assert kept == sorted(row for batch in range(6) for row in ids(numbered(batch)))


def test_a_writer_that_was_killed_goes_on_where_it_was(root: Place) -> None:
    context = multiprocessing.get_context("spawn")
    reader, until, never = Lake(root, source="reader"), time.monotonic() + 120, context.Event()
    for _ in range(2):
        had = reader.landed_rows("predictions", Cursor())
        writer = context.Process(target=_write, args=(root, "w", 10_000, never))
        writer.start()
        while reader.landed_rows("predictions", Cursor()) < had + 9 and time.monotonic() < until:
            time.sleep(0.02)
        writer.kill()
        writer.join(60)
    last = Lake(root, source="w").last_batch("predictions")
    landed = [int(row.split("-")[1]) for row in ids(reader.read("predictions", ALL))]
    assert last >= 5
    assert sorted(landed) == sorted(3 * list(range(last + 1)))


def test_late_labels_count_up_to_twice_the_delay(root: Place) -> None:
    lake, window = Lake(root), Window(START, START + HOUR)
    lake.append("predictions", predictions(0), 0)
    lake.append("outcomes", outcomes(["p000.00-2"], hour=(window.length + 2 * HOUR + 7 * DAY) / HOUR), 0)
    assert lake.labelled(window, START + 20 * DAY, HOUR).is_empty()
    assert lake.labelled(window, START + 20 * DAY, timedelta(hours=1.01)).height == 1
