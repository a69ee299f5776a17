"""What cannot be read for the metrics is told as well; and the exporter as a process."""

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from drift_pipeline.cli import drift
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.control.trust import read_store
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.observability.metrics import LoopMetrics, size_of
from drift_pipeline.observability.series import SERIES
from drift_pipeline.serving.up import DRIFT
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.faults.machine import filled, small_disk
from drift_pipeline_tests.observability.worlds import AT, World, read
from drift_pipeline_tests.parts import prometheus


def test_a_store_that_does_not_answer_is_told_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def down() -> Iterator[ControlStore]:
        raise UnavailableError("the control store did not answer")
        yield

    metrics = LoopMetrics(world.settings, {}, world.clock, down)
    for times in (1, 2):
        told = read(metrics.text(0).decode())
        assert told["drift_up"] == {(): 0}
        assert told["drift_exporter_errors_total"][("control_store",)] == times
    assert "drift_last_tick_timestamp_seconds" not in told
    assert len(caplog.records) == 1


def test_one_model_whose_memory_is_damaged_hides_no_other(world: World) -> None:
    world.ticked()
    world.put("model", "churn", {"version": "v9"})
    world.store.remember(Put("", "churn", {"at": "yesterday", "seen": 3}))
    told = world.told()
    assert told["drift_up"] == {(): 1}
    assert told["drift_exporter_errors_total"][("model",)] == 1
    assert ("fraud",) in told["drift_model_verdict"]


def test_rows_that_are_no_json_are_counted_and_left_out(world: World) -> None:
    import sqlalchemy as sa

    world.ticked()
    world.put("model", "churn", {"version": "v9"})
    with world.store._transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE state SET body = '{\"version\": ' WHERE key = 'churn'"))
    told = world.told()
    assert told["drift_up"] == {(): 1}
    assert told["drift_exporter_errors_total"][("control_store",)] == 1
    assert list(told["drift_model_verdict"]) == [("fraud",)]


NAMES = ['say "ah"', "two\nlines", "back\\slash\\n", "{psi=1}", "ψ 雪 \u202e", " ", "\x00\x1b[2J"]


def test_whatever_a_name_holds_is_read_as_it_is(world: World) -> None:
    named(world)
    told = world.told()
    assert list(told["drift_column_psi"]) == [("fraud", name, "30d") for name in NAMES[:5]]
    assert set(told["drift_concern_active"]) == {("fraud", name) for name in NAMES}
    assert {labels[0] for labels in told["drift_channel_sent_total"]} == {one for one in NAMES if one.isascii()}
    assert told["drift_exporter_errors_total"][("model",)] == 0


def test_a_folder_whose_name_is_no_text_hides_nothing(world: World) -> None:
    writer = SpoolWriter(world.settings.home / "spool" / "gateway" / "waiting" / os.fsdecode(b"caf\xe9"))
    writer.write([b"{}"])
    writer.rotate()
    writer.close()
    assert list(world.told()["drift_spool_oldest_event_timestamp_seconds"]) == [("caf?",)]


def named(world: World) -> None:
    """Columns, concerns and channels of these names."""
    worst = [{"name": name, "psi": 0.5, "distance": 0.3, "drift": True, "window": "30d"} for name in NAMES]
    world.ticked(told={"worst": worst})
    for number, name in enumerate(NAMES):
        world.put("concern", f"fraud/{number}", {"at": AT.isoformat(), "event": name, "why": ""})
        world.store.remember(Put("", f"_alerts/{name}", {"told": {}, "sent": 1, "failures": 0, "lost": 0, "seq": 9}))


@pytest.mark.live
def test_prometheus_own_parser_takes_whatever_a_name_holds(world: World, promtool: None) -> None:
    named(world)
    checked = prometheus.promtool("check", "metrics", given=world.text())
    assert "error while parsing" not in checked.stderr
    assert checked.returncode in (0, 3), checked.stderr  # 3: it has advice, none of which is of a form
    assert prometheus.promtool("check", "metrics", given=world.text().replace('\\"', '"')).returncode == 1


def test_threads_that_ask_at_once_are_answered_of_one_read(world: World) -> None:
    world.ticked()
    reads, asked, gate = [0], [0], threading.Event()

    @contextmanager
    def slow() -> Iterator[ControlStore]:
        reads[0] += 1
        gate.wait(20)
        yield world.store

    def monotonic() -> float:
        asked[0] += 1
        return time.monotonic()

    metrics = LoopMetrics(world.settings, {}, world.clock, slow, monotonic)
    threads = [threading.Thread(target=lambda: list(metrics.collect())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while asked[0] < len(threads):
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join()
    assert reads[0] == 1


def test_every_series_is_told_with_its_type_and_in_the_words_of_prometheus(world: World) -> None:
    text = world.text()
    for name, series in SERIES.items():
        assert f"# TYPE {name} {series.kind}" in text
        assert f"# HELP {name} " in text
        assert (series.kind == "counter") == name.endswith("_total")
        assert re.fullmatch(r"drift(_[a-z]+)+", name)
        assert not re.search(r"_(ms|minutes|hours|days|percent|kb|mb)(_|$)", name)


def test_what_is_only_looked_at_is_not_changed(world: World) -> None:
    world.ticked()
    world.store.close()
    before = {path: path.read_bytes() for path in world.settings.home.rglob("*") if path.is_file()}

    with exporting(world) as metrics:
        told = read(metrics.text(0).decode())
    assert told["drift_up"] == {(): 1}
    assert {path: path.read_bytes() for path in world.settings.home.rglob("*") if path.is_file()} == before


@contextmanager
def exporting(world: World) -> Iterator[LoopMetrics]:
    """As a process of its own has it: by a connection that only reads, closed after each look."""

    @contextmanager
    def reading() -> Iterator[ControlReader]:
        store = read_store(world.settings)
        try:
            yield store
        finally:
            store.close()

    yield LoopMetrics(world.settings, {}, world.clock, reading)


def test_two_that_export_one_home_while_it_ticks_tell_the_same_and_hold_nobody_up(world: World) -> None:
    world.ticked()
    ended, wrong = threading.Event(), list[object]()

    def ask() -> None:
        with exporting(world) as metrics:
            while not ended.is_set():
                told = read(metrics.text(0).decode())
                if (told["drift_up"], told["drift_model_verdict"]) != ({(): 1}, {("fraud",): 2}):
                    wrong.append(told)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        world.ticked()
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert world.told()["drift_ticks_total"] == {("fraud",): 31}


@pytest.mark.live
def test_on_a_full_disk_the_metrics_are_told_with_how_little_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8):
        full = World(tmp_path / "disk" / "home")
        try:
            full.ticked()
            with filled(tmp_path / "disk"), exporting(full) as metrics:
                for _ in range(2):
                    told = read(metrics.text(0).decode())
                    assert (told["drift_up"], told["drift_home_disk_free_bytes"]) == ({(): 1}, {(): 0})
                    assert told["drift_model_verdict"] == {("fraud",): 2}
        finally:
            full.store.close()


def test_size_is_of_files_and_not_of_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"12345")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "nowhere")
    assert size_of(tmp_path) == 5 + len(str(tmp_path / "nowhere"))


def test_the_exporter_is_a_process_that_outlives_its_home_and_ends_when_it_is_told_to(world: World) -> None:
    world.ticked()
    command = [*DRIFT, "exporter", "--port", "0", "--home", str(world.settings.home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[-1]
            assert read(httpx.get(address).text)["drift_model_verdict"] == {("fraud",): 2}
            world.store.close()
            world.settings.home.rename(world.settings.home.with_name("gone"))
            told = read(httpx.get(address).text)
            assert told["drift_up"] == {(): 0}
            assert told["drift_exporter_errors_total"][("control_store",)] == 1
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_what_is_no_home_and_a_port_that_is_taken_are_told(tmp_path: Path, world: World) -> None:
    asked = [["--home", str(tmp_path / "none")], ["--home", str(world.settings.home), "--port"]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked[1].append(str(taken.getsockname()[1]))
        for options, told in zip(asked, ("no model is adopted here", "give another --port"), strict=True):
            with pytest.raises(InputError, match=told):
                drift.main(["exporter", *options], standalone_mode=False)
