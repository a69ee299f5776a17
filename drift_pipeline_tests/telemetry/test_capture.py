"""What producers handed over stands in the lake once: nothing lost, nothing twice, whatever dies when."""

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Stop
from threading import Thread
from typing import Any

import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, ManualClock, SystemClock, Window
from drift_pipeline.errors import IntegrityError, UnavailableError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture, Captured
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.refusals import Concern, Refused
from drift_pipeline.telemetry.sources.set_aside import SetAside
from drift_pipeline.telemetry.sources.spool import SpoolReader, SpoolWriter
from drift_pipeline_tests.detection.worlds import spec_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = Window(NOW - 100 * DAY, NOW + 1000 * DAY)
SPECS = {
    "m": spec_of("x", categorical=("kind",)),
    "n": spec_of("x", name="n"),
    "price": ModelSpec.model_validate(
        {"name": "price", "owner": "o", "task": "regression", "features": {"x": "numeric"}, "outcome": {"column": "y"}}
    ),
}
TABLES: tuple[Table, ...] = ("predictions", "outcomes", "late", "shadow", "dead_letters")


def prediction(name: str, at: datetime = NOW, model: str = "m", **changes: object) -> dict[str, Any]:
    features = {"x": 1.5, "kind": "a"} if model == "m" else {"x": 1.5}
    fixed = {"event": "prediction", "model": model, "version": "v1", "route": "stable", "features": features}
    return {**fixed, "id": name, "time": at.isoformat(), "score": 0.5, **changes}


def outcome(name: str, at: datetime = NOW, label: float = 1, model: str = "m") -> dict[str, Any]:
    return {"event": "outcome", "model": model, "id": name, "time": at.isoformat(), "label": label}


def no_mirror(model: str, frame: pl.DataFrame) -> None:
    return None


def mirror(model: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("_id", "_time", pl.col("_score") / 2, pl.lit("v2").alias("_version"))


class Site:
    """A spool and lakes on disk, their producers, and a capture that can be begun anew as after a crash."""

    def __init__(self, root: Path, lake_class: type[Lake] = Lake, mirror: Callable[..., Any] = no_mirror) -> None:
        self.root, self.lake_class, self.mirror = root, lake_class, mirror
        self.clock = ManualClock(NOW)
        self.writers: dict[str, SpoolWriter] = {}
        self.failures: list[Exception] = []
        self.begin()

    def begin(self) -> None:
        self.lakes: dict[tuple[str, str], Lake] = {}
        self.capture = Capture(
            self.root / "spool", self.lake_of, SPECS, self.clock, self.mirror, failed=self.failures.append
        )

    def lake_of(self, model: str, source: str) -> Lake:
        if (model, source) not in self.lakes:
            self.lakes[model, source] = self.lake_class(self.root / "lake" / (model or "dead_letters"), source)
        return self.lakes[model, source]

    def send(self, *events: dict[str, Any] | bytes, source: str = "gateway") -> None:
        """One closed segment."""
        if source not in self.writers:
            self.writers[source] = SpoolWriter(self.root / "spool" / source)
        self.writers[source].write([e if isinstance(e, bytes) else json.dumps(e).encode() for e in events])
        self.writers[source].rotate()

    def take(self, *events: dict[str, Any] | bytes) -> Captured:
        self.send(*events)
        return self.capture.step()

    def rows(self, table: Table = "predictions", model: str = "m") -> pl.DataFrame:
        """What is on disk."""
        return Lake(self.root / "lake" / model).read(table, ALL)

    def ids(self, table: Table = "predictions", model: str = "m") -> list[str]:
        rows = self.rows(table, model)
        return rows["_id"].to_list() if rows.height else []

    def left(self) -> int:
        """Segments, and parts of them that were set aside."""
        return sum(
            len(SpoolReader(folder).closed())
            + sum(len(SetAside(folder).parts(model)) for model in SetAside(folder).models())
            for folder in (self.root / "spool").iterdir()
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_events_land_in_the_tables_of_their_models_and_their_segments_go(site: Site) -> None:
    captured = site.take(
        prediction("a"), prediction("b", NOW - MINUTE), outcome("a"), prediction("c", model="price", score=9.5), b"{}"
    )
    assert captured == Captured(segments=1, predictions=3, outcomes=1, dead_letters=1)
    assert (site.ids(), site.ids("outcomes"), site.ids(model="price")) == (["b", "a"], ["a"], ["c"])
    assert site.rows().select("x", "kind", "_route", "_score").row(0) == (1.5, "a", "stable", 0.5)
    assert site.left() == 0
    assert site.capture.step() == Captured()


def test_much_that_is_laid_aside_is_told_as_long_as_it_is_and_no_second_try_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, lake_class=Broken)
    site.send(*[prediction("a", version=1)] * 15, outcome("b"))
    monkeypatch.setattr(Broken, "countdown", 2)  # the dead letters land, the outcome does not
    with pytest.raises(UnavailableError):
        site.capture.step()
    assert site.capture.step() == Captured(outcomes=1)  # which waited apart
    assert site.capture.refused() == []  # 15, not 30
    site.take(*[prediction("a", version=1)] * 5)
    assert site.capture.refused() == [Refused("m", 20, 21)]
    site.clock.advance_to(NOW + HOUR)
    assert site.capture.refused() == []


def test_who_cannot_be_told_does_not_stop_capture(site: Site) -> None:
    stop, told = Stop(), []

    def tell(refused: Sequence[Concern]) -> None:
        told.append(list(refused))
        if len(told) == 3:
            stop.set()
        raise UnavailableError("the control store is locked")

    site.send(*[b"{}"] * 20)
    site.capture.run(stop, 0.001, tell)
    assert told == [[Refused("", 20, 20)]] * 3
    assert [str(failure) for failure in site.failures] == ["the control store is locked"] * 3


def test_a_spool_that_is_not_there_yet_has_nothing(site: Site) -> None:
    assert site.capture.step() == Captured()


def test_a_dead_letter_tells_where_it_came_from_and_stops_nothing(site: Site) -> None:
    late_clock = prediction("z", NOW + HOUR, route="external")
    site.take(prediction("a"), b"\xff\x00poison", late_clock, prediction("b"))
    assert site.ids() == ["a", "b"]
    letters = site.rows("dead_letters", "dead_letters")
    assert letters.columns == ["_id", "_time", "_source", "_model", "_reason", "_payload", "_names"]
    told = {row[3]: row[2:6] for row in letters.iter_rows()}
    assert told[""][0] == "gateway"
    assert told[""][2:] == ("not UTF-8: invalid start byte at byte 0", "\ufffd\0poison")
    assert "ahead" in told["m"][2]
    assert letters["_time"].to_list() == [NOW, NOW]
    assert sorted(letters["_names"].to_list()) == [[], ["z"]]
    assert letters["_id"].n_unique() == 2


def test_a_torn_line_of_a_dead_producer_is_a_dead_letter(site: Site) -> None:
    folder = site.root / "spool" / "gateway"
    folder.mkdir(parents=True)
    (folder / f"{1:020}.jsonl").write_bytes(json.dumps(prediction("a")).encode() + b'\n{"event": "predi')
    assert site.take(prediction("b")) == Captured(segments=2, predictions=2, dead_letters=1)


def test_an_id_lands_once_within_a_segment_across_segments_sources_and_restarts(site: Site) -> None:
    assert site.take(prediction("a"), prediction("a"), prediction("b")).duplicates == 1
    assert site.take(prediction("b"), prediction("c")).duplicates == 1
    site.begin()
    assert site.take(prediction("a"), prediction("c"), prediction("d")).duplicates == 2
    site.send(prediction("d"), prediction("e"), source="kafka")
    assert site.capture.step().duplicates == 1
    assert site.ids() == ["a", "b", "c", "d", "e"]
    site.take(prediction("a", model="price"))
    assert site.ids(model="price") == ["a"]


def test_ids_are_forgotten_when_their_events_would_be_late(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_pipeline.telemetry.recent._FORGET_ABOVE", 10)
    for hour in range(9):
        at = NOW - (9 - hour) * HOUR
        site.take(*(prediction(f"{hour}-{n}", at + n * MINUTE) for n in range(20)))
    assert site.capture._landing._recent["m"].ids <= 40
    assert site.take(prediction("8-0", NOW - HOUR), prediction("0-0", NOW - 9 * HOUR)) == Captured(
        segments=1, duplicates=2
    )


@pytest.mark.parametrize("restart", [False, True])
def test_an_event_a_week_behind_the_newest_is_late_and_kept_apart(site: Site, restart: bool) -> None:
    site.take(prediction("new"))
    if restart:
        site.begin()
    longest = WEEK + HOUR
    captured = site.take(
        prediction("just", NOW - longest), prediction("late", NOW - longest - timedelta(microseconds=1))
    )
    assert captured == Captured(segments=1, predictions=1, late=1)
    assert (site.ids(), site.ids("late")) == (["just", "new"], ["late"])
    assert site.rows("late").schema == site.rows().schema


@pytest.mark.parametrize("restart", [False, True])
def test_a_backlog_in_order_is_not_late(site: Site, restart: bool) -> None:
    site.take(prediction("before", NOW - 40 * DAY))
    if restart:
        site.begin()
    captured = site.take(*(prediction(f"p{day}", NOW - (30 - day) * DAY) for day in range(30)))
    assert captured == Captured(segments=1, predictions=30)


def test_one_models_events_make_no_other_models_late(site: Site) -> None:
    captured = site.take(prediction("a"), prediction("b", NOW - DAY, model="price"))
    assert captured.late == 0


def test_an_outcome_is_observed_when_it_says_or_when_it_was_captured_if_that_is_long_past(site: Site) -> None:
    site.take(outcome("a", NOW - DAY), outcome("b", NOW - 2 * HOUR))
    site.begin()
    captured = site.take(outcome("c", NOW - 2 * DAY), outcome("d", NOW - 3 * HOUR))
    assert captured == Captured(segments=1, outcomes=2, late_outcomes=1)
    observed = dict(site.rows("outcomes").select("_id", "_observed_at").iter_rows())
    assert observed == {"a": NOW - DAY, "b": NOW - 2 * HOUR, "c": NOW, "d": NOW - 3 * HOUR}


def test_a_repeated_outcome_is_dropped_and_a_corrected_one_kept(site: Site) -> None:
    site.send(outcome("a"), outcome("a"), outcome("a", label=0))
    site.send(outcome("a"), outcome("b"))
    assert site.capture.step() == Captured(segments=2, outcomes=3, duplicates=2)
    assert sorted(site.rows("outcomes").select("_id", "_label").iter_rows()) == [("a", 0), ("a", 1), ("b", 1)]


def test_what_the_mirror_says_of_landed_predictions_is_shadow(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def mirror_m(model: str, frame: pl.DataFrame) -> pl.DataFrame | None:
        seen.append([model, *frame["_id"]])
        return mirror(model, frame) if model == "m" else None

    site = Site(tmp_path, mirror=mirror_m)
    site.take(prediction("a"), prediction("a"), prediction("old", NOW - 9 * DAY), prediction("b", model="price"))
    site.take(prediction("a"), outcome("a"))
    assert seen == [["m", "a"], ["price", "b"]]
    assert site.rows("shadow").rows() == [("a", NOW, 0.25, "v2", "")]
    assert site.ids("shadow", "price") == []


def test_a_mirror_that_fails_costs_only_the_shadow(tmp_path: Path) -> None:
    def broken(model: str, frame: pl.DataFrame) -> pl.DataFrame:
        raise ZeroDivisionError("a candidate")

    site = Site(tmp_path, mirror=broken)
    assert site.take(prediction("a"), prediction("b")) == Captured(segments=1, predictions=2, unmirrored=2)
    assert (site.ids(), [str(error) for error in site.failures]) == (["a", "b"], ["a candidate"])


def test_a_spool_whose_numbers_begin_anew_is_refused_not_lost(site: Site) -> None:
    for name in "abc":
        site.take(prediction(name))
    for file in (site.root / "spool" / "gateway").iterdir():
        file.unlink()
    site.writers.clear()
    site.begin()
    site.send(prediction("d"))
    with pytest.raises(IntegrityError, match="holds segment 3 of this source already, so segment 1 cannot land"):
        site.capture.step()
    assert site.left() == 1


class Broken(Lake):
    """Fails at its n-th write of any lake, before or after what it does."""

    countdown = -1
    after = False

    def append_next(self, *arguments: Any) -> int:
        Broken.countdown -= 1
        broken = Broken.countdown == 0
        if broken and not Broken.after:
            raise UnavailableError("the disk does not answer")
        version = super().append_next(*arguments)
        if broken:
            raise UnavailableError("the disk does not answer, but has written")
        return version


def story(site: Site) -> None:
    """Two sources, three models, and every table, with lines whose fate hangs on those before them."""
    events: list[dict[str, Any] | bytes] = [
        prediction("a", NOW - 5 * HOUR),
        prediction("b", NOW - 2 * HOUR),
        prediction("late", NOW - 9 * DAY),
        prediction("b", NOW - 2 * HOUR),
        outcome("a", NOW - 2 * HOUR),
        outcome("b", NOW - 4 * HOUR),
        b"poison",
        prediction("in order", NOW - 5 * HOUR, model="price"),
        prediction("a", NOW - 3 * HOUR, model="price"),
    ]
    site.send(*events)
    site.send(prediction("c"), prediction("b", NOW - 2 * HOUR), outcome("a", NOW - HOUR, 0), b"more")
    of_n = [("c", NOW), ("d", NOW - MINUTE), ("late", NOW - 9 * DAY)]
    site.send(*(prediction(name, at, model="n") for name, at in of_n), source="kafka")


def landed(site: Site) -> dict[tuple[Table, str], list[tuple[Any, ...]]]:
    models = (*SPECS, "dead_letters")
    frames = {(table, model): site.rows(table, model) for table in TABLES for model in models}
    return {key: sorted(frame.rows(), key=repr) for key, frame in frames.items() if frame.height}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Table, str], list[tuple[Any, ...]]]:
    site = Site(tmp_path_factory.mktemp("undisturbed"), mirror=mirror)
    story(site)
    assert site.capture.step() == Captured(3, 7, 3, 2, 1, 2, 2)
    return landed(site)


WRITES = 14


@pytest.mark.parametrize("crash", [False, True], ids=["before it wrote, tried again", "after it wrote, begun anew"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_a_failure_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, undisturbed: dict[Any, Any], at: int, crash: bool
) -> None:
    site = Site(tmp_path, Broken, mirror)
    Broken.countdown, Broken.after = at, crash
    story(site)
    with pytest.raises(UnavailableError):
        site.capture.step()
    assert site.left() > 0
    if crash:
        site.begin()
    site.capture.step()
    assert site.left() == 0
    assert {key[0] for key in undisturbed} == set(TABLES)
    assert landed(site) == undisturbed


def test_the_story_has_as_many_writes_as_are_failed(tmp_path: Path) -> None:
    site = Site(tmp_path, Broken, mirror)
    Broken.countdown = 0
    story(site)
    site.capture.step()
    assert Broken.countdown == -WRITES


def test_a_source_that_fails_does_not_keep_the_others_waiting(site: Site) -> None:
    site.send(prediction("a"), source="a")
    site.send(prediction("b"), source="b")
    segment = SpoolReader(site.root / "spool" / "a").closed()[0].path
    segment.unlink()
    segment.mkdir()
    with pytest.raises(UnavailableError, match="cannot be read"):
        site.capture.step()
    assert site.ids() == ["b"]


def test_run_steps_until_it_is_stopped_and_survives_what_fails(site: Site) -> None:
    site.send(prediction("a"))
    broken = site.root / "spool" / "broken"
    broken.mkdir()
    for number in (1, 2):
        (broken / f"{number:020}.jsonl").mkdir()
    stop = Stop()
    thread = Thread(target=site.capture.run, args=(stop, 0.01))
    thread.start()
    deadline = time.monotonic() + 30
    while len(site.failures) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    site.send(prediction("b"))
    while len(site.ids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    thread.join()
    assert site.ids() == ["a", "b"]
    assert {type(error) for error in site.failures} == {UnavailableError}


def test_who_is_told_to_end_does_so_with_the_segment_under_way(site: Site) -> None:
    for number in range(5):
        site.send(prediction(f"{number}"))
    stop = Stop()

    def told(model: str, frame: pl.DataFrame) -> None:
        stop.set()

    Capture(site.root / "spool", site.lake_of, SPECS, site.clock, told).step(stop)
    assert site.ids() == ["0"]
    site.capture.step()
    assert site.ids() == list("01234")


def capture_for_ever(root: Path, ready: Any) -> None:
    site = Site(root, mirror=mirror)
    capture = Capture(root / "spool", site.lake_of, SPECS, SystemClock(), mirror)
    ready.set()
    tests = os.getppid()
    while os.getppid() == tests:  # which may be interrupted
        capture.step()


@pytest.mark.live
def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    chance, context = random.Random(4), multiprocessing.get_context("spawn")
    site = Site(tmp_path, mirror=mirror)
    sent, number = [], 0
    for _ in range(4):
        for _ in range(10):
            events: list[dict[str, Any] | bytes] = []
            for _ in range(10):
                sent.append(f"p{number:04}")
                events += [prediction(sent[-1], NOW + number * timedelta(seconds=1) - HOUR), outcome(sent[-1])]
                number += 1
            site.send(*events, events[0], b"poison %d" % number)
        ready = context.Event()
        process = context.Process(target=capture_for_ever, args=(tmp_path, ready))
        process.start()
        ready.wait()
        time.sleep(chance.uniform(0.05, 0.7))
        process.kill()
        process.join()
    assert site.ids() != []
    site.begin()
    site.capture.step()
    assert (site.left(), site.ids("late")) == (0, [])
    assert site.ids() == sent
    assert sorted(site.ids("outcomes")) == sent
    assert site.ids("shadow") == sent
    assert site.rows("dead_letters", "dead_letters")["_payload"].n_unique() == 40
    assert site.rows("dead_letters", "dead_letters").height == 40
