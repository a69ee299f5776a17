"""What `write` took is read, whoever dies; numbers only grow; a full disk leaves a spool that reads."""

import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.telemetry.sources.spool import SpoolReader, SpoolWriter


def read(folder: Path) -> list[list[bytes]]:
    return [segment.lines() for segment in SpoolReader(folder).closed()]


def numbers(folder: Path) -> list[int]:
    return [segment.number for segment in SpoolReader(folder).closed()]


def test_lines_are_read_in_order_once_their_segment_is_closed(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    writer.write([b"a", b"b"])
    writer.write([])
    writer.write([b"c"])
    assert read(tmp_path / "spool") == []
    writer.rotate()
    assert read(tmp_path / "spool") == [[b"a", b"b", b"c"]]
    writer.rotate()
    assert numbers(tmp_path / "spool") == [1]


def test_a_folder_that_is_not_there_has_no_segments(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path / "none").closed() == []


def test_a_segment_closes_itself_before_it_grows_too_long(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=100)
    for number in range(7):
        writer.write([b"%030d" % number])
    assert [len(lines) for lines in read(tmp_path)] == [3, 3]
    writer.write([b"x" * 500])
    writer.write([b"y"])
    assert [lines[0][:1] for lines in read(tmp_path)] == [b"0", b"0", b"0", b"x"]


def test_numbers_grow_after_a_restart_and_after_all_was_consumed(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(3):
        writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
        for segment in reader.closed():
            seen.append(segment.number)
            reader.done(segment)
            reader.done(segment)
        writer.write([b"a"])
        writer.close()
    assert seen == [1, 2]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first = SpoolWriter(tmp_path)
    with pytest.raises(InputError, match="another writer has this spool"):
        SpoolWriter(tmp_path)
    first.write([b"a"])
    first.close()
    second = SpoolWriter(tmp_path)
    assert read(tmp_path) == [[b"a"]]
    second.close()
    with pytest.raises(UnavailableError):
        first.write([b"b"])


def test_a_path_that_cannot_be_a_spool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is no folder to write a spool in"):
        SpoolWriter(tmp_path / "file")


def test_a_line_is_one_line(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    with pytest.raises(InputError, match="an event is one line"):
        writer.write([b"a", b"b\nc"])
    writer.rotate()
    assert read(tmp_path) == []


def test_a_torn_last_line_of_a_dead_writer_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / f"{41:020}.jsonl").write_bytes(b"whole\nto")
    SpoolWriter(tmp_path)
    assert (numbers(tmp_path), read(tmp_path)) == ([41], [[b"whole", b"to"]])


def test_threads_share_a_writer(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=1000)

    def work(name: int) -> None:
        for number in range(200):
            writer.write([b"%d-%d" % (name, number), b"%d+%d" % (name, number)])
            if number % 50 == 0:
                writer.rotate()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.rotate()
    lines = [line for segment in read(tmp_path) for line in segment]
    assert sorted(lines) == sorted(
        b"%d%s%d" % (name, sign, n) for name in range(4) for n in range(200) for sign in (b"-", b"+")
    )
    for name in range(4):
        mine = [line for line in lines if line.startswith(b"%d-" % name)]
        assert mine == [b"%d-%d" % (name, n) for n in range(200)]


DYING = """
import sys
from pathlib import Path
from drift_pipeline.telemetry.sources.spool import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), segment_bytes=2000)
number = int(sys.argv[2])
while True:
    writer.write([b"%d" % number, b"%d" % (number + 1)])
    number += 2
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    taken = 0
    for death in range(3):
        command = [sys.executable, "-c", DYING, str(tmp_path), str(taken)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(100 + 700 * death)]
            process.kill()
            acknowledged = int([*told, *process.stdout.read().splitlines()][-1])
        SpoolWriter(tmp_path).close()
        lines = [int(line) for segment in read(tmp_path) for line in segment]
        assert lines == list(range(len(lines)))
        assert len(lines) in (acknowledged, acknowledged + 2)
        taken = len(lines)


def full_disk(folder: Path) -> None:
    """A limit on a file's size fails a write as a full disk does: part of it is taken, then nothing."""
    writer = SpoolWriter(folder)
    writer.write([b"before"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the spool takes no events"):
            writer.write([b"lost line one", b"lost line two"])
    writer.write([b"small"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer.write([b"after"])
    writer.rotate()
    os._exit(0 if read(folder) == [[b"before", b"small", b"after"]] else 1)


def test_a_full_disk_takes_nothing_and_leaves_whole_lines(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=full_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_segment_that_cannot_be_begun_leaves_the_old_one_open(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.write([b"a"])
    (tmp_path / f"{2:020}.jsonl").mkdir()
    with pytest.raises(UnavailableError, match="no segment can be begun"):
        writer.rotate()
    (tmp_path / f"{2:020}.jsonl").rmdir()
    writer.write([b"b"])
    writer.rotate()
    assert read(tmp_path) == [[b"a", b"b"]]


def test_a_segment_that_cannot_be_read_or_deleted_says_so(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number:020}.jsonl").mkdir()
    reader = SpoolReader(tmp_path)
    (segment,) = reader.closed()
    with pytest.raises(UnavailableError, match="cannot be read"):
        segment.lines()
    with pytest.raises(UnavailableError, match="cannot be deleted"):
        reader.done(segment)
