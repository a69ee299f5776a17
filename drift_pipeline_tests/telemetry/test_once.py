"""Two captures that are told the same events by two ways at one moment: each is in the lake once."""

import multiprocessing
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from drift_pipeline.bucket import Bucket, Place
from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.telemetry import delta, upkeep
from drift_pipeline.telemetry.capture import Captured
from drift_pipeline.telemetry.delta import Delta
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline_tests.faults.breaking import KilledError
from drift_pipeline_tests.telemetry.test_capture import ALL, NOW, outcome, prediction
from drift_pipeline_tests.telemetry.test_placed import World

Way = Literal["spool", "log"]
WAYS: list[tuple[Way, Way]] = [("spool", "log"), ("log", "spool"), ("spool", "spool"), ("log", "log")]
EVENTS: list[dict[str, Any]] = [
    prediction("0"),
    outcome("0"),
    prediction("1", producer="shop"),
    {**outcome("1", NOW - MINUTE), "producer": "shop", "stamped": True},
    prediction("2", route="external"),
    prediction("old", NOW - 3 * DAY),
    prediction("3"),
    outcome("3", NOW - HOUR, 0),
]
FIRST, SECOND = [prediction("first's"), outcome("first's")], [prediction("second's"), outcome("second's")]
IDS = ["0", "1", "2", "3", "first's", "old", "second's"]
TOLD = ["0", "1", "3", "first's", "second's"]


class Between(Lake):
    """Something happens once between the look at a table and the commit, or after the commit."""

    before: dict[Table, Callable[[], object]]
    after: dict[Table, Callable[[], object]]

    def append_next(self, table: Table, *arguments: Any) -> int:
        self.before.pop(table, lambda: None)()
        version = super().append_next(table, *arguments)
        self.after.pop(table, lambda: None)()
        return version


class Machine(World):
    """Of a name, with a spool and a log of its own, on a lake that others land in, too."""

    def __init__(self, folder: Path, lake: Place, name: str, way: Way, flush_rows: int = 1) -> None:
        self.machine, self.source, self._way = f"@{name}", f"log.t.{name}", way
        self._lake, self._flush_rows = lake, flush_rows
        self.before: dict[Table, Callable[[], object]] = {}
        self.after: dict[Table, Callable[[], object]] = {}
        super().__init__(folder / name)

    def lake_of(self, model: str, source: str) -> Lake:
        if (model, source) not in self.lakes:
            made = Between(self._lake / (model or "dead_letters"), source, self._flush_rows)
            made.before, made.after = self.before, self.after
            self.lakes[model, source] = made
        return self.lakes[model, source]

    def rows(self, table: Table = "predictions", model: str = "m") -> pl.DataFrame:
        return Lake(self._lake / model).read(table, ALL)

    def is_told(self, *events: dict[str, Any]) -> None:
        (self.tell if self._way == "log" else self.send)(*events)

    def last(self, table: Table) -> int:
        source = self.source if self._way == "log" else f"gateway{self.machine}"
        return Lake(self._lake / "m", source).last_batch(table)


@pytest.fixture(params=WAYS, ids=lambda ways: f"{ways[0]} then {ways[1]}")
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Machine, Machine]:
    """Which know the lake, and have landed something."""
    first, second = (
        Machine(tmp_path, tmp_path / "lake", name, way) for name, way in zip("ab", request.param, strict=True)
    )
    for one in (first, second):
        one.at_once = 100
        one.begin()
        one.is_told(prediction(f"begin {one.machine}", NOW - HOUR))
        one.capture.step()
    return first, second


def ids(machine: Machine, table: Table = "predictions") -> list[str]:
    return sorted(name for name in machine.ids(table) if not name.startswith("begin"))


@pytest.mark.parametrize("table", ["outcomes", "shadow", "predictions"])
def test_what_another_lands_between_the_look_and_the_commit_lands_once(
    both: tuple[Machine, Machine], table: Table
) -> None:
    first, second = both
    first.is_told(*EVENTS, *FIRST)
    second.is_told(*EVENTS, *SECOND)
    beside: list[Captured] = []
    first.before[table] = lambda: beside.append(second.capture.step())
    found = first.capture.step()
    assert (ids(first), ids(first, "outcomes")) == (IDS, TOLD)
    assert beside[0].predictions + found.predictions == len(IDS)
    assert beside[0].outcomes + found.outcomes == len(TOLD)
    assert beside[0].duplicates + found.duplicates == len(EVENTS)
    assert set(ids(first, "shadow")) == set(IDS)
    for one in both:  # what was seen there is known from then on
        one.is_told(*EVENTS, *FIRST, *SECOND)
        assert one.capture.step() == Captured(1, duplicates=len(EVENTS) + 4)


def test_a_batch_of_which_nothing_is_left_is_known_by_its_number(both: tuple[Machine, Machine]) -> None:
    first, second = both
    before = first.last("predictions")
    for one in both:
        one.is_told(prediction("0"))
    first.before["predictions"] = second.capture.step
    assert first.capture.step() == Captured(1, predictions=0, duplicates=1)
    assert first.last("predictions") > before
    assert ids(first) == ["0"]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("table", ["outcomes", "shadow", "predictions"])
def test_who_dies_between_tables_while_another_lands_the_same_lands_each_once(
    both: tuple[Machine, Machine], table: Table, side: str
) -> None:
    first, second = both
    first.is_told(*EVENTS, *FIRST)
    second.is_told(*EVENTS, *SECOND)

    def dies() -> None:
        second.capture.step()
        raise KilledError

    getattr(first, side)[table] = dies
    with suppress(KilledError):
        first.capture.step()
    assert not getattr(first, side)
    first.begin()
    first.capture.step()
    assert (ids(first), ids(first, "outcomes")) == (IDS, TOLD)


def test_whose_an_id_is_decides_as_if_the_other_had_come_first(both: tuple[Machine, Machine]) -> None:
    first, second = both
    first.is_told(prediction("x", producer="shop"), prediction("y", producer="shop"), prediction("z"))
    second.is_told(prediction("x"), prediction("y", producer="till"), prediction("z", producer="till"))
    first.before["predictions"] = second.capture.step
    found = first.capture.step()
    assert (found.predictions, found.duplicates, found.shared_ids) == (2, 1, 2)
    owners = first.rows().filter(pl.col("_id").is_in(list("xyz"))).select("_id", "_producer").sort(pl.all()).rows()
    assert owners == [("x", ""), ("y", "shop"), ("y", "till"), ("z", ""), ("z", "till")]
    first.is_told(prediction("x", producer="third"), prediction("y", producer="third"))
    found = first.capture.step()
    assert (found.predictions, found.duplicates, found.shared_ids) == (1, 1, 1)


def test_of_two_labels_of_one_time_the_one_that_lands_later_counts(both: tuple[Machine, Machine]) -> None:
    first, second = both
    first.is_told(prediction("0"), outcome("0", NOW - HOUR, 0))
    second.is_told(outcome("0", NOW - HOUR, 1))
    first.before["outcomes"] = second.capture.step
    first.capture.step()
    rows = Lake(first._lake / "m").labelled(Window(NOW - DAY, NOW + DAY), NOW + DAY, DAY)
    assert rows.filter(_id="0")["_label"].to_list() == [0]


def test_who_knows_of_no_turns_may_come_between_a_look_and_its_commit_again_and_again(
    both: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a bucket, where machines take none."""
    first, second = both
    monkeypatch.setattr(delta, "turn", lambda *_: nullcontext())
    rival, look, left = iter(range(4)), Delta.look, list[bool]()

    def overtaken(self: Delta, at: Any, absent: Any) -> Any:
        found = look(self, at, absent)
        if left and str(self.path).endswith("predictions") and (number := next(rival, None)) is not None:
            left.clear()
            second.is_told(prediction(f"{number}"), prediction(f"rival {number}"))
            second.capture.step()
            left.append(True)
        return found

    monkeypatch.setattr(Delta, "look", overtaken)
    first.is_told(*(prediction(f"{number}") for number in range(6)))
    first.before["predictions"] = lambda: left.append(True)
    found = first.capture.step()
    assert (found.predictions, found.duplicates) == (2, 4)
    assert ids(first) == [*"012345", *(f"rival {number}" for number in range(4))]


def test_a_lake_that_lets_small_batches_wait_is_no_other(tmp_path: Path) -> None:
    first, second = (Machine(tmp_path, tmp_path / "lake", name, "spool", flush_rows=1000) for name in "ab")
    for one in (first, second):
        one.is_told(*EVENTS)
    first.before["outcomes"] = second.capture.step
    first.capture.step()
    assert (ids(first), ids(first, "outcomes")) == (["0", "1", "2", "3", "old"], ["0", "1", "3"])


def test_a_capture_alone_reads_no_row_that_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, looked = Machine(tmp_path, tmp_path / "lake", "a", "spool"), list[Any]()
    machine.take(prediction("begin"), outcome("begin"))
    machine.tell(prediction("begin log"), outcome("begin log"))
    machine.capture.step()
    monkeypatch.setattr(upkeep, "scan", lambda *arguments: looked.append(arguments))
    for number in range(5):
        machine.take(prediction(f"{number}"), outcome(f"{number}"))
        machine.tell(prediction(f"log {number}"), outcome(f"log {number}"))
        machine.capture.step()
    assert looked == []
    assert len(ids(machine)) == len(ids(machine, "outcomes")) == 10


AT_ONCE = 10


def land_all(folder: Path, lake: Place, name: str, way: Way, batches: int, barrier: Any) -> None:
    machine = Machine(folder, lake, name, way)
    numbers = [range(start * AT_ONCE, (start + 1) * AT_ONCE) for start in range(batches)]
    barrier.wait(60)
    for some in numbers:
        machine.is_told(*(event for n in some for event in (prediction(f"{n:03}"), outcome(f"{n:03}"))))
        machine.at_once = 7
        machine.capture.step()


@pytest.mark.live
@pytest.mark.parametrize(("where", "batches"), [("folder", 10), ("bucket", 4)])
def test_two_processes_that_land_the_same_by_two_ways_land_each_once(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, batches: int
) -> None:
    context = multiprocessing.get_context("spawn")
    places: list[Place] = [tmp_path / "lake"] * 2
    if where == "bucket":  # each machine has locks of its own
        place: Bucket = request.getfixturevalue("s3_place") / "lake"
        places = [Bucket(place.url, place.beside.with_name(name)) for name in "ab"]
    barrier, ways = context.Barrier(2), WAYS[0]
    landing = [
        context.Process(target=land_all, args=(tmp_path, lake, name, way, batches, barrier))
        for lake, name, way in zip(places, "ab", ways, strict=True)
    ]
    for one in landing:
        one.start()
    for one in landing:
        one.join(300)
    assert [one.exitcode for one in landing] == [0, 0]
    expected = [f"{n:03}" for n in range(batches * AT_ONCE)]
    for table in ("predictions", "outcomes"):
        rows = Lake(places[0] / "m").read(table, ALL)
        assert sorted(rows["_id"]) == expected
