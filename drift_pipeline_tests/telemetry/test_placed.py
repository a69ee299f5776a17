"""Batches of a log that come again with other neighbours: whoever dies where, each event is in the lake once."""

import json
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event as Stop
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.clock import DAY, MINUTE
from drift_pipeline.errors import UnavailableError
from drift_pipeline.telemetry.capture import Capture, Captured
from drift_pipeline.telemetry.delta import OvertakenError
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources import Batch, Lag
from drift_pipeline.telemetry.sources.positions import Positions
from drift_pipeline.telemetry.sources.set_aside import SetAside
from drift_pipeline_tests.faults.breaking import KilledError
from drift_pipeline_tests.telemetry.test_capture import NOW, SPECS, TABLES, Site, mirror, outcome, prediction

SOURCE = "log.t.0"
EVENTS: list[Any] = [
    prediction("0"),
    prediction("1", model="n"),
    outcome("0"),
    b"poison",
    prediction("late", NOW - 9 * DAY),
    prediction("2"),
    prediction("0"),
    outcome("2"),
    outcome("0"),
    prediction("late too", NOW - 9 * DAY),
    prediction("3", model="n"),
    b"{}",
    prediction("4", NOW - MINUTE),
    outcome("4"),
]


class Log:
    """Lines in memory, read on from where the lake stands, in batches of at most so many."""

    is_behind, is_at_end = False, True

    def __init__(self, lines: list[bytes], positions: Positions, at_once: int, source: str = SOURCE) -> None:
        self._lines, self._positions, self._at_once, self._source = lines, positions, at_once, source
        self.refused: dict[int, str] = {}

    def batches(self, stop: Stop) -> Generator[Batch, None, None]:
        while (after := self._positions.of(self._source)) + 1 < len(self._lines) and not stop.is_set():
            values = self._lines[after + 1 :][: self._at_once]
            places = [after + 1 + n for n in range(len(values))]
            yield Batch.of(self._source, after, places[-1], values, places, NOW.timestamp(), {})

    def done(self, batch: Batch, refused: Mapping[int, str]) -> None:
        self.refused |= refused
        self._positions.advance(batch.source, batch.number, batch.after)

    def waiting_since(self) -> float | None:
        return None

    def lags(self) -> Sequence[Lag]:
        return ()


class Mortal(Lake):
    """Its process dies at the write that is counted down to, before or after it."""

    countdown: ClassVar[list[int]] = []
    after: ClassVar[bool] = False

    def append_next(self, *arguments: Any) -> int:
        struck = bool(self.countdown) and self.countdown[0] == 0
        if self.countdown:
            self.countdown[0] -= 1
        if struck and not self.after:
            raise KilledError
        version = super().append_next(*arguments)
        if struck:
            raise KilledError
        return version


class World(Site):
    """A site with a log beside its spool, and a capture that may be begun anew."""

    machine, source = "", SOURCE

    def __init__(self, root: Path, lake_class: type[Lake] = Lake) -> None:
        self.lines: list[bytes] = []
        self.at_once = 5
        super().__init__(root, lake_class, mirror)

    def begin(self) -> None:
        self.lakes = {}
        self.log = Log(self.lines, Positions(self.lake_of), self.at_once, self.source)
        spool = self.root / "spool"
        self.capture = Capture(
            spool,
            self.lake_of,
            SPECS,
            self.clock,
            self.mirror,
            failed=self.failures.append,
            logs=[self.log],
            machine=self.machine,
        )

    def tell(self, *events: dict[str, Any] | bytes) -> None:
        self.lines += [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]

    def found(self) -> dict[str, list[str]]:
        """The ids in each table, and the payloads of the dead letters."""
        ids = {f"{model}/{table}": sorted(self.ids(table, model)) for model in ("m", "n") for table in TABLES[:-1]}
        letters = self.rows("dead_letters", "dead_letters")
        return ids | {"letters": sorted(letters["_payload"]) if letters.height else []}


EXPECTED = {
    "m/predictions": ["0", "2", "4"],
    "m/outcomes": ["0", "2", "4"],
    "m/late": ["late", "late too"],
    "m/shadow": ["0", "2", "4"],
    "n/predictions": ["1", "3"],
    "n/outcomes": [],
    "n/late": [],
    "n/shadow": ["1", "3"],
    "letters": ["poison", "{}"],
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_log_lands_as_the_spool_does(world: World, tmp_path: Path) -> None:
    world.tell(*EVENTS)
    told = world.capture.step()
    assert told == Captured(3, predictions=5, outcomes=3, late=2, duplicates=2, dead_letters=2)
    assert world.found() == EXPECTED
    assert set(world.log.refused) == {3, 11}
    spooled = Site(tmp_path / "spooled", mirror=mirror)
    for start in range(0, len(EVENTS), 5):
        spooled.take(*EVENTS[start : start + 5])
    for table in TABLES[:-1]:
        assert world.rows(table).equals(spooled.rows(table))
    assert world.capture.step() == Captured()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(12))
def test_killed_at_any_write_and_come_again_with_other_neighbours_each_event_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int, after: bool
) -> None:
    world = World(tmp_path, Mortal)
    monkeypatch.setattr(Mortal, "countdown", [write])
    monkeypatch.setattr(Mortal, "after", after)
    world.tell(*EVENTS[:7])
    with suppress(KilledError):
        world.capture.step()
        world.tell(*EVENTS[7:10])
        world.capture.step()
    assert Mortal.countdown[0] < 0
    monkeypatch.setattr(Mortal, "countdown", [])
    world.lines[:] = []
    world.tell(*EVENTS)
    for at_once in (4, 9, 100):
        world.at_once = at_once
        world.begin()
        world.capture.step()
    assert world.found() == EXPECTED


@pytest.mark.live  # a minute
@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(1, 14)), max_size=4))
def test_any_number_of_deaths_leaves_each_event_once(deaths: list[tuple[int, bool, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), Mortal)
        world.tell(*EVENTS)
        try:
            for write, after, at_once in deaths:
                Mortal.countdown, Mortal.after, world.at_once = [write], after, at_once
                world.begin()
                try:
                    world.capture.step()
                except KilledError:
                    continue
        finally:
            Mortal.countdown = []
        world.begin()
        world.capture.step()
        assert world.found() == EXPECTED


def test_who_lost_the_log_unawares_writes_nothing_any_more(world: World, tmp_path: Path) -> None:
    """Another capture lands all of it while this one holds a batch in its hands."""
    other = World(tmp_path)
    other.at_once, other.lines = 100, world.lines
    other.begin()
    world.tell(*EVENTS)
    batches = world.log.batches(Stop())
    held = next(batches)
    other.capture.step()
    assert other.found() == EXPECTED
    world.log.batches = lambda _: (one for one in [held])  # type: ignore[method-assign,assignment]
    with pytest.raises(OvertakenError):
        world.capture.step()
    assert other.found() == EXPECTED


def test_two_captures_of_two_logs_know_the_ids_that_the_other_landed(world: World, tmp_path: Path) -> None:
    """A producer that tries again may be given another partition."""
    other = World(tmp_path)
    for number in range(4):
        for one, name in ((world, SOURCE), (other, "log.t.1")):
            one.tell(prediction(f"{number}"), outcome(f"{number}"))
            events = one.lines[-2:]
            at = len(one.lines)
            batch = Batch.of(name, at - 3, at - 1, events, [at - 2, at - 1], NOW.timestamp(), {})
            one.log.batches = lambda _, batch=batch: (one for one in [batch])  # type: ignore[method-assign,misc]
            told = one.capture.step()
            assert told.duplicates == (0 if one is world else 2)
    assert (world.ids(), world.ids("outcomes")) == (list("0123"), list("0123"))


def test_a_model_whose_lake_is_broken_waits_apart_and_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise UnavailableError("no space left")

    lake = world.lake_of("n", SOURCE)
    monkeypatch.setattr(lake, "append_next", broken)
    pretty = json.dumps(prediction("5", model="n"), indent=2).encode()
    world.tell(*EVENTS, pretty)
    with pytest.raises(UnavailableError):
        world.capture.step()
    assert world.found() == EXPECTED | {"n/predictions": [], "n/shadow": []}
    assert SetAside(world.root / "spool" / f"{SOURCE}.waiting").models() == ["n"]
    monkeypatch.undo()
    world.capture.step()
    assert world.found() == EXPECTED | {"n/predictions": ["1", "3", "5"], "n/shadow": ["1", "3", "5"]}
    world.tell(prediction("6", model="n"))
    assert world.capture.step() == Captured(1, predictions=1)


def test_what_lies_on_a_machine_is_named_by_it_whatever_its_folder_is_called_and_a_log_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = "kafka.drift.6b1f.0"
    world.machine = "@east"
    world.begin()

    def full(*_: object) -> int:
        raise UnavailableError("no space left")

    monkeypatch.setattr(world.lake_of("n", SOURCE), "append_next", full)
    world.tell(prediction("0"), prediction("1", model="n"))
    world.send(prediction("2"), source=partition)
    with pytest.raises(UnavailableError):
        world.capture.step()
    monkeypatch.undo()
    world.capture.step()

    def has(model: str, source: str) -> bool:
        return Lake(world.root / "lake" / model, source).last_batch("predictions") >= 0

    assert (sorted(world.ids()), world.ids(model="n")) == (["0", "2"], ["1"])
    assert (has("m", SOURCE), has("m", f"{partition}@east"), has("m", partition)) == (True, True, False)
    assert (has("n", f"{SOURCE}.waiting@east"), has("n", f"{SOURCE}.waiting")) == (True, False)
