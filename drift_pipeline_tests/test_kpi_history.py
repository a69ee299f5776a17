"""The KPI history: every tick's verdicts, once each, whichever process ticked and wherever it died."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.errors import ConflictError, UnavailableError
from drift_pipeline.loop.ledger import Ledger, kpis_prefix
from drift_pipeline.loop.monitoring.kpi_history import KpiHistory, read_kpis
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.test_loop import World, twin


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def read(world: World) -> pl.DataFrame:
    now = world.clock.now()
    return read_kpis(world.store, world.lake, world.spec.name, Window(now - 30 * DAY, now + MINUTE))


def waiting(world: World) -> int:
    return len(world.store.recalled(kpis_prefix(world.spec.name)))


def in_lake(world: World) -> int:
    """Ticks whose verdicts lie in the lake."""
    now = world.clock.now()
    rows = world.lake.read("kpis", Window(now - 30 * DAY, now + MINUTE))
    return 0 if rows.is_empty() else rows["_time"].n_unique()


def minutes(world: World, count: int) -> list[datetime]:
    """Ticks a minute apart; when they were."""
    times = []
    for _ in range(count):
        world.clock.advance_to(world.clock.now() + MINUTE)
        world.loop.observe()
        times.append(world.clock.now())
    return times


def test_the_history_holds_what_each_tick_said(world: World) -> None:
    reports = [world.day() for _ in range(3)]
    rows = read(world)
    assert rows["at"].unique(maintain_order=True).to_list() == [report.at for report in reports]
    for report in reports:
        told = {row["name"]: row for row in rows.filter(pl.col("at") == report.at).iter_rows(named=True)}
        assert list(told) == list(report.kpis)
        for name, kpi in report.kpis.items():
            said = {key: told[name][key] for key in ("verdict", "value", "threshold", "bound", "n", "reason", "window")}
            assert said == {key: kpi.to_json()[key] for key in said}
    assert rows["model"].unique().to_list() == [world.spec.name]
    assert world.loop.champion is not None
    assert rows["version"].unique().to_list() == [world.loop.champion.name]
    largest = max(reports[-1].features, key=lambda found: found.psi)
    assert told["psi"]["worst"][0] == largest.name


def test_an_hour_is_one_append_and_what_is_of_this_hour_waits_in_the_store(world: World) -> None:
    before = world.clock.now()
    times = minutes(world, 70)
    whole = [at for at in times if at < before + HOUR]
    assert (in_lake(world), waiting(world)) == (len(whole), len(times) - len(whole))
    assert world.lake.version("kpis") == 0
    assert read(world)["at"].unique(maintain_order=True).to_list() == times


def test_a_tick_that_was_killed_before_it_forgot_is_told_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    times = minutes(world, 5)
    world.clock.advance_to(world.clock.now() + HOUR)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "forget", lambda *_: (_ for _ in ()).throw(UnavailableError("killed here")))
        with pytest.raises(UnavailableError):
            world.loop.observe()
    assert (in_lake(world), waiting(world)) == (5, 5)
    assert read(world)["at"].unique(maintain_order=True).to_list() == times
    world.loop = twin(world)
    times += minutes(world, 2)
    assert (in_lake(world), waiting(world)) == (5, 2)
    assert read(world)["at"].unique(maintain_order=True).to_list() == times


def test_a_lake_that_takes_nothing_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    times = minutes(world, 5)
    world.clock.advance_to(world.clock.now() + HOUR)
    flush = Lake.flush

    def full(lake: Lake, table: str) -> None:
        if table == "kpis":
            raise UnavailableError("the disk is full")
        flush(lake, table)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "flush", full)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="disk is full"):
                world.loop.observe()
    times += minutes(world, 2)
    assert waiting(world) == 2
    fresh = Lake(world.lake.root)
    assert fresh.read("kpis", Window(times[0], times[-1]))["_time"].unique(maintain_order=True).to_list() == times[:5]
    assert read(world)["at"].unique(maintain_order=True).to_list() == times


def test_of_two_processes_that_tick_at_once_one_is_told(world: World) -> None:
    other = twin(world)
    times = minutes(world, 1)
    with pytest.raises(ConflictError):
        other.observe()
    assert read(world)["at"].unique(maintain_order=True).to_list() == times


def test_two_processes_that_move_an_hour_to_the_lake_at_once_move_it_once(world: World) -> None:
    times = minutes(world, 5)
    first, second = (KpiHistory(world.loop.ledger, Lake(world.lake.root)) for _ in range(2))
    first.settle(times[-1] + HOUR)
    second.settle(times[-1] + HOUR)
    assert (in_lake(world), waiting(world)) == (5, 0)
    assert read(world)["at"].unique(maintain_order=True).to_list() == times


def test_no_history_is_an_empty_frame_of_the_same_columns(world: World) -> None:
    empty = read(world)
    world.day()
    assert empty.is_empty()
    assert empty.schema == read(world).schema
