"""What comes in against wrong clocks, retries, borrowed ids, broken lakes and links: a row counts once, or is told."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, ManualClock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store
from drift_pipeline.detection.judging.performance import PERFORMANCE
from drift_pipeline.errors import ConflictError, DriftError, IntegrityError, SpecError, UnavailableError
from drift_pipeline.loop.concerns import lasting
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.serving.refused import telling
from drift_pipeline.serving.steady import SteadyClock
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture, Captured
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline.telemetry.refusals import Refused, Waiting, What
from drift_pipeline.telemetry.sources.set_aside import SetAside
from drift_pipeline.telemetry.sources.spool import Segment, SpoolReader, SpoolWriter
from drift_pipeline_tests.faults.breaking import KilledError
from drift_pipeline_tests.telemetry.test_capture import (
    ALL,
    NOW,
    SPECS,
    Site,
    mirror,
    no_mirror,
    outcome,
    prediction,
)

pytestmark = pytest.mark.live  # minutes of faults or of history


class WrongClock:
    """A clock that people, NTP and dead batteries set as they like."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, mirror=mirror)


def on_clock(site: Site, clock: WrongClock) -> WrongClock:
    site.clock = clock  # type: ignore[assignment]
    site.begin()
    return clock


def labels(site: Site, at: datetime = NOW) -> dict[str, float]:
    """What training reads."""
    rows = Lake(site.root / "lake" / "m").labelled(Window(NOW - 30 * DAY, NOW + DAY), at + 30 * DAY, 30 * DAY)
    return dict(rows.select("_id", "_label").iter_rows()) if rows.height else {}


def verdict_pairs(site: Site) -> list[float]:
    status = Status("r", "m", "sha256:c", "sha256:h", Phase.SHADOW, NOW - DAY, NOW - DAY, "x")
    lake, performance = Lake(site.root / "lake" / "m"), PERFORMANCE["binary_classification"]
    found = observe(lake, status, "v2", "v1", NOW + 9 * DAY, performance, SPECS["m"])
    told: list[float] = np.asarray(found.labels).tolist()
    return told


# an outcome counts once


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("later", [timedelta(), MINUTE, 3 * HOUR, 5 * DAY], ids=["at once", "1 min", "3 h", "5 d"])
def test_a_retried_outcome_lands_once_whenever_it_is_retried(site: Site, later: timedelta, restart: bool) -> None:
    site.take(*(prediction(name) for name in "abc"))
    told = [outcome(name, label=name == "a") for name in "abc"]
    site.take(*told)
    site.clock.advance_to(NOW + later)
    site.take(outcome("d", NOW + later))  # moves the watermark on
    if restart:
        site.begin()
    assert site.take(*told).duplicates == 3
    assert sorted(site.ids("outcomes")) == ["a", "b", "c", "d"]
    assert sorted(verdict_pairs(site)) == [0, 0, 1]


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
def test_an_outcome_without_a_time_of_its_own_is_known_by_its_label(site: Site, restart: bool) -> None:
    for minutes, label, news in ((0, 0, 1), (1, 0, 0), (2, 1, 1), (3, 1, 0), (4, 0, 1)):
        at = NOW + minutes * MINUTE
        site.clock.advance_to(at)
        if restart:
            site.begin()
        assert site.take({**outcome("a", at, label), "stamped": True}).outcomes == news


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("apart", [timedelta(), MINUTE, 2 * HOUR, 3 * DAY], ids=["one time", "1 min", "2 h", "3 d"])
def test_a_correction_wins_by_its_own_time_over_late_retries_of_what_it_corrects(
    site: Site, apart: timedelta, restart: bool
) -> None:
    site.take(prediction("a"), prediction("b"))
    first, corrected = outcome("a", NOW, 1), outcome("a", NOW + apart, 0)
    site.take(first)
    for later, event in ((apart, corrected), (apart + 2 * HOUR, first), (apart + 3 * HOUR, corrected)):
        site.clock.advance_to(NOW + later)
        if restart:
            site.begin()
        site.take(event, outcome(f"moves the watermark {later}", NOW + later))
    assert labels(site, site.clock.now()) == {"a": 0}
    assert verdict_pairs(site) == [0]


def test_of_outcomes_that_overtake_each_other_the_one_told_last_counts(site: Site) -> None:
    site.take(prediction("a"))
    site.take(outcome("a", NOW, 0))
    site.clock.advance_to(NOW + 3 * HOUR)
    site.take(outcome("a", NOW - HOUR, 1))  # was told before, and comes after
    assert (labels(site), verdict_pairs(site)) == ({"a": 0}, [0])


def test_a_lake_that_holds_repeats_already_gives_one_label_a_prediction(site: Site) -> None:
    site.take(*(prediction(name) for name in "ab"))
    lake = Lake(site.root / "lake" / "m", "older")
    for batch in range(5):
        at = pl.Series([NOW + batch * MINUTE] * 2, dtype=pl.Datetime("us", "UTC"))
        known = pl.DataFrame(
            {"_id": ["a", "b"], "_observed_at": at, "_label": pl.Series([1, batch % 2], dtype=pl.Int8)}
        )
        lake.append("outcomes", known, batch)
    assert (labels(site), sorted(verdict_pairs(site))) == ({"a": 1, "b": 0}, [0, 1])
    assert site.take(outcome("a", NOW + 30 * MINUTE, 0)).outcomes == 1  # beside rows without the columns of today
    assert labels(site) == {"a": 0, "b": 0}


# ids are of a producer


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize(
    ("mine", "others"),
    [
        ({}, {"route": "external"}),
        ({"producer": "app"}, {"producer": "mallory"}),
        ({"producer": "app"}, {"producer": "app", "route": "external"}),
        ({"route": "external", "producer": "app"}, {"route": "external", "producer": "mallory"}),
    ],
    ids=["told of, as answered", "another's key", "its own events", "two who tell of events"],
)
def test_nobody_takes_an_id_from_another(site: Site, mine: Any, others: Any, restart: bool) -> None:
    squatted = prediction("a", NOW, **others, version="v9")
    assert site.take(squatted).shared_ids == 0
    if restart:
        site.begin()
    captured = site.take(prediction("a", NOW + timedelta(seconds=1), **mine), squatted)
    assert (captured.predictions, captured.duplicates, captured.shared_ids) == (1, 1, 1)
    site.begin()
    assert site.take(prediction("a", NOW + timedelta(seconds=1), **mine), squatted).duplicates == 2
    assert sorted(site.rows()["_version"]) == ["v1", "v9"]


def test_an_outcome_is_of_its_tellers_own_prediction_else_of_all_of_that_id(site: Site) -> None:
    for producer in ("app", "web"):
        site.take(*(prediction(name, producer=producer, version=f"v-{producer}") for name in "xy"))
    site.take(prediction("x", route="external", producer="app", version="v-told"))
    for name, producer, label in (("x", "app", 1), ("x", "web", 0), ("y", "labels", 1)):
        site.take({**outcome(name, label=label), "producer": producer})
    rows = Lake(site.root / "lake" / "m").labelled(ALL, NOW + DAY, DAY)
    found = {(row["_id"], row["_version"]): row["_label"] for row in rows.iter_rows(named=True)}
    assert found == {("x", "v-app"): 1, ("x", "v-told"): 1, ("x", "v-web"): 0, ("y", "v-app"): 1, ("y", "v-web"): 1}


def test_a_verdict_pairs_each_answer_with_its_own_mirror_where_two_use_an_id(site: Site) -> None:
    site.take(*(prediction("x", producer=name, score=score) for name, score in (("app", 0.2), ("web", 0.8))))
    site.take(prediction("x", NOW, route="external", producer="mallory", version="v1", score=0.9))
    site.take({**outcome("x", label=1), "producer": "labels"})
    assert verdict_pairs(site) == [1, 1]


# clocks


def test_one_event_from_the_future_makes_no_good_traffic_late_and_loses_nothing(site: Site) -> None:
    """The clock of this machine was a day ahead for a moment, or for a minute of traffic."""
    clock = on_clock(site, WrongClock(NOW + DAY))
    site.take(
        *(prediction(f"ahead{n}", clock.now() + n * timedelta(seconds=1)) for n in range(3)), outcome("x", clock.now())
    )
    for hour in range(24):
        clock.at = NOW + hour * HOUR
        events = [prediction(f"{hour}-{n}", clock.at + n * MINUTE / 60) for n in range(5)]
        captured = site.take(*events, outcome(f"{hour}-0", clock.at))
        assert (captured.predictions, captured.late, captured.late_outcomes) == (5, 0, 0)
        assert site.take(*events).duplicates == 5
    assert len(site.ids()) == 123
    assert site.capture.refused() == []


@pytest.mark.parametrize("back", [MINUTE * 2, 5 * MINUTE, 50 * MINUTE, 5 * HOUR], ids=str)
def test_answers_that_wait_while_the_clock_is_set_back_still_land(site: Site, back: timedelta) -> None:
    clock = on_clock(site, WrongClock())
    site.send(*(prediction(f"p{n}") for n in range(20)))
    clock.at = NOW - back
    assert site.capture.step() == Captured(segments=1, predictions=20)
    assert site.take(prediction("after", clock.at), prediction("p3")) == Captured(
        segments=1, predictions=1, duplicates=1
    )


@pytest.mark.parametrize("back", [MINUTE * 2, 50 * MINUTE], ids=str)
def test_what_the_gateway_took_from_producers_lands_though_captures_clock_is_behind(
    site: Site, back: timedelta
) -> None:
    clock = on_clock(site, WrongClock(NOW - back))
    assert site.take(prediction("a", route="external"), outcome("a")) == Captured(segments=1, predictions=1, outcomes=1)
    assert site.take(outcome("a")).duplicates == 1
    clock.at = NOW + MINUTE
    assert site.take(outcome("a"), prediction("a", route="external")).duplicates == 2


@pytest.mark.parametrize(
    ("event", "ahead"),
    [
        (prediction("z", NOW + DAY / 2), "half a day"),
        (prediction("z", NOW + HOUR, route="external"), "an hour"),
        (outcome("z", NOW + HOUR), "an hour"),
    ],
    ids=["an answer", "an event", "an outcome"],
)
def test_what_no_clock_explains_is_laid_aside_with_its_reason(site: Site, event: Any, ahead: str) -> None:
    assert site.take(event, prediction("a")) == Captured(segments=1, predictions=1, dead_letters=1)
    assert "ahead" in site.rows("dead_letters", "dead_letters")["_reason"][0]


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("behind", [90 * MINUTE, DAY, 6 * DAY], ids=str)
def test_an_event_behind_the_others_lands_once_in_its_slice(site: Site, behind: timedelta, restart: bool) -> None:
    held = prediction("held", NOW - behind)
    site.take(prediction("before", NOW - behind), prediction("now"))
    for _ in range(3):
        if restart:
            site.begin()
        site.take(held, prediction("before", NOW - behind))
    assert (sorted(site.ids()), site.ids("late")) == (["before", "held", "now"], [])


def test_much_that_is_late_is_told_and_alerts(site: Site) -> None:
    site.take(prediction("new"))
    site.take(*(prediction(f"late{n}", NOW - WEEK - 2 * HOUR) for n in range(30)))
    assert site.capture.refused() == [Refused("m", 30, 31, What.LATE)]
    settings = Settings(home=site.root, database="")
    open_store(settings, site.clock).close()
    with telling(settings, SPECS, site.clock) as tell:
        tell(site.capture.refused())
        tell(site.capture.refused())
    store = ControlStore(settings.database_url, site.clock)
    told, alerts = lasting(store, "m", NOW), store.pending(topic="alerts")
    store.close()
    assert "counted nowhere" in told["events.late"]
    assert [alert.body["what"] for alert in alerts] == ["events.late"]


@pytest.mark.parametrize(
    ("steps", "stamped"),
    [
        ([0, 5, 3], [0, 5, 5]),
        ([0, -59, 1], [0, 0, 1]),
        ([0, 24 * 60, 1], [0, 24 * 60, 1]),  # then what was stamped was wrong
        ([0, -60, -59], [0, -60, -59]),
    ],
)
def test_the_gateways_stamps_do_not_go_back_with_its_clock(steps: list[int], stamped: list[int]) -> None:
    clock = WrongClock()
    steady, found = SteadyClock(clock), []
    for minutes in steps:
        clock.at = NOW + minutes * MINUTE
        found.append((steady.now() - NOW) / MINUTE)
    assert found == stamped


@pytest.mark.parametrize(
    ("last", "minutes"),
    [
        (prediction("a", NOW + 5 * MINUTE), 5),
        ({**outcome("a", NOW + 5 * MINUTE), "stamped": True}, 5),
        (outcome("a", NOW + 5 * MINUTE), 0),
        (prediction("a", NOW + 5 * MINUTE, route="external"), 0),
        (b'{"event": "predi', 0),
    ],
    ids=["an answer", "an outcome it stamped", "an outcome", "an event", "a torn line"],
)
def test_a_gateway_that_begins_anew_stamps_after_what_its_spool_shows(tmp_path: Path, last: Any, minutes: int) -> None:
    writer = SpoolWriter(tmp_path)
    writer.write([b"{}", last if isinstance(last, bytes) else json.dumps(last).encode()])
    writer.close()
    steady = SteadyClock(WrongClock(), SpoolWriter(tmp_path).last_line)
    assert steady.now() == NOW + minutes * MINUTE


# models stand for themselves


def truncated(table: Table) -> Callable[[Path], None]:
    def cut(lake: Path) -> None:
        last = sorted((lake / table / "_delta_log").glob("*.json"))[-1]
        last.write_bytes(last.read_bytes()[:100])

    return cut


def a_file_in_its_place(lake: Path) -> None:
    shutil.rmtree(lake)
    lake.write_text("not a folder")


BROKEN = {
    "its log is cut": truncated("predictions"),
    "its outcomes' log is cut": truncated("outcomes"),
    "a file is in its place": a_file_in_its_place,
}


@pytest.mark.parametrize("of", ["m", "dead_letters"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_lake_holds_up_nobody_and_what_waited_lands_once_it_is_mended(site: Site, how: str, of: str) -> None:
    if of == "dead_letters" and how != "a file is in its place":
        pytest.skip("that lake has one table alone")
    site.take(prediction("0"), prediction("0", model="n"), outcome("0"), b"poison 0")
    lake, kept = site.root / "lake" / of, site.root / "kept"
    shutil.copytree(lake, kept)
    BROKEN[how](lake)
    site.begin()
    for number in range(1, 6):
        name = str(number)
        site.send(prediction(name), prediction(name, model="n"), outcome(name), b"poison %d" % number)
        with pytest.raises(DriftError):
            site.capture.step()
        if number == 3:
            site.begin()
    others = site.ids(model="n") if of == "m" else site.ids()
    assert others == list("012345")
    assert all(not SpoolReader(folder).closed() for folder in (site.root / "spool").iterdir())
    shutil.rmtree(lake) if lake.is_dir() else lake.unlink()
    shutil.copytree(kept, lake)
    site.begin()
    site.capture.step()
    assert site.left() == 0
    for table, model, what in (
        ("predictions", "m", 6),
        ("outcomes", "m", 6),
        ("shadow", "m", 6),
        ("predictions", "n", 6),
    ):
        assert sorted(site.ids(table, model)) == list("012345")[:what]  # type: ignore[arg-type]
    assert sorted(site.rows("dead_letters", "dead_letters")["_payload"]) == [f"poison {n}" for n in range(6)]
    assert site.capture.step() == Captured()


def test_two_captures_in_turn_know_what_the_other_landed(site: Site) -> None:
    other = Site(site.root, mirror=mirror)
    for number in range(6):
        events = (prediction(f"{n}", model=model) for n in range(number, number + 3) for model in ("m", "n"))
        site.send(*events, *(outcome(f"{n}") for n in range(number, number + 3)))
        (other if number % 2 else site).capture.step()
    for table, model in (("predictions", "m"), ("predictions", "n"), ("outcomes", "m"), ("shadow", "m")):
        assert sorted(site.ids(table, model)) == list("01234567")  # type: ignore[arg-type]


def set_aside(site: Site, number: int, *events: Any) -> None:
    """As a capture leaves it that read the segment when another one did, and could not land it."""
    folder = site.root / "spool" / "gateway"
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]
    path = site.root / "as-it-was.jsonl"
    path.write_bytes(b"")
    for model in ("m", ""):
        ours = [line for line in lines if (b"poison" in line) == (model == "")]
        segment = Segment(number, path.rename(path.with_name(f"{number:020}.jsonl")))
        SetAside(folder).add(model, segment, NOW, ours)
        segment.path.rename(path)


def test_a_part_that_another_capture_landed_meanwhile_does_not_wait_for_ever(site: Site) -> None:
    first = (prediction("a"), outcome("a"), prediction("late", NOW - 9 * DAY), outcome("old", NOW - 9 * DAY), b"poison")
    site.take(prediction("0"))
    site.take(*first)
    for name in "bc":
        site.take(
            prediction(name), outcome(name), prediction(f"late {name}", NOW - 9 * DAY), b"poison %s" % name.encode()
        )
    before = {table: sorted(site.ids(table)) for table in ("predictions", "outcomes", "late")}
    set_aside(site, 2, *first)
    site.begin()
    site.capture.step()
    assert site.left() == 0
    assert {table: sorted(site.ids(table)) for table in ("predictions", "outcomes", "late")} == before
    assert site.rows("dead_letters", "dead_letters").height == 3
    assert site.take(prediction("d")).predictions == 1


def test_a_part_of_which_one_event_is_nowhere_is_kept_with_advice(site: Site) -> None:
    for name in "abc":
        site.take(prediction(name))
    set_aside(site, 2, prediction("b"), prediction("nowhere"))
    with pytest.raises(IntegrityError, match="rename its segments"):
        site.capture.step()
    assert site.left() == 1


@pytest.mark.parametrize("head", [b"", b"\n", b"garbage\n", b"{}\n", b'{"judged_at": 7}\n', b"[" * 9999], ids=str)
def test_a_part_that_is_garbage_holds_up_no_other_model(site: Site, head: bytes) -> None:
    site.take(prediction("0"), prediction("0", model="n"))
    set_aside(site, 1, prediction("1"))
    (part,) = SetAside(site.root / "spool" / "gateway").parts("m")
    part.path.write_bytes(head)
    for name in "12":
        site.send(prediction(name), prediction(name, model="n"), b"poison")
        with pytest.raises(IntegrityError, match="is no part that was set aside"):
            site.capture.step()
    assert (site.ids(), site.ids(model="n")) == (["0"], ["0", "1", "2"])
    assert isinstance(site.capture.refused(), list)
    part.path.unlink()
    site.capture.step()
    assert (site.ids(), site.left()) == (["0", "1", "2"], 0)


class Slow(Lake):
    """Its disk answers after a second, with an error; or at once, as others."""

    seconds, broken, tries = 0.0, False, 0

    def append_next(self, *arguments: Any) -> int:
        if Slow.broken and str(self.root).endswith("/m"):
            Slow.seconds, Slow.tries = Slow.seconds + 1, Slow.tries + 1
            raise UnavailableError("it does not answer")
        return super().append_next(*arguments)


def test_a_lake_that_is_slow_to_fail_holds_others_up_for_a_small_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, lake_class=Slow)
    for name, value in (("seconds", 0.0), ("broken", True), ("tries", 0)):
        monkeypatch.setattr(Slow, name, value)
    capture = Capture(site.root / "spool", site.lake_of, SPECS, site.clock, no_mirror, monotonic=lambda: Slow.seconds)
    for number in range(60):
        site.send(prediction(f"{number}"), prediction(f"{number}", model="n"), source=f"s{number % 3}")
        with pytest.raises(UnavailableError, match="does not answer"):
            capture.step()
        Slow.seconds += 2
    assert (Slow.tries, site.rows(model="n").height) == (6, 60)
    Slow.broken = False
    Slow.seconds += 60
    capture.step()
    assert (site.rows().height, site.left()) == (60, 0)


class Hasty(Lake):
    def __init__(self, root: Path, source: str) -> None:
        super().__init__(root, source, patience_s=0.1)


def test_a_process_that_hangs_while_it_writes_one_lake_holds_up_no_other_model(tmp_path: Path) -> None:
    site = Site(tmp_path, lake_class=Hasty)
    site.take(prediction("0"), prediction("0", model="n"))
    held = os.open(site.root / "lake" / "m" / "predictions.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    for name in "12":
        site.send(prediction(name), prediction(name, model="n"))
        with pytest.raises(ConflictError, match="another process writes it"):
            site.capture.step()
    assert (site.ids(), site.ids(model="n")) == (["0"], ["0", "1", "2"])
    os.close(held)
    site.capture.step()
    assert (site.ids(), site.left()) == (["0", "1", "2"], 0)


def test_an_outcome_retried_after_more_than_a_week_may_lie_there_twice_and_is_one_label(site: Site) -> None:
    site.take(prediction("a"), outcome("a", label=True), prediction("b"), outcome("b", label=False))
    later = NOW + 9 * DAY
    on_clock(site, WrongClock(later))
    site.take(prediction("c", later), outcome("c", later))
    site.begin()
    assert site.take(outcome("a", label=True)).late_outcomes == 1
    assert sorted(site.ids("outcomes")) == ["a", "a", "b", "c"]
    assert labels(site) == {"a": 1, "b": 0}
    assert verdict_pairs(site) == [1, 0]


class Specs(dict[str, ModelSpec]):
    """One model's spec is not what its model was adopted with."""

    wrong = True

    def __getitem__(self, name: str) -> ModelSpec:
        if name == "m" and self.wrong:
            raise SpecError("m: forms.kind is text, but the model was adopted with integer")
        return super().__getitem__(name)


def test_a_model_whose_spec_cannot_be_had_waits_alone(site: Site) -> None:
    specs = Specs(SPECS)
    capture = Capture(site.root / "spool", site.lake_of, specs, site.clock, no_mirror)
    for number in range(3):
        site.send(prediction(f"{number}"), prediction(f"{number}", model="n"), b"poison")
        with pytest.raises(SpecError):
            capture.step()
    assert site.ids(model="n") == ["0", "1", "2"]
    specs.wrong = False
    capture.step()
    assert (site.ids(), site.left()) == (["0", "1", "2"], 0)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", ["add", "done", "segment"])
def test_killed_while_a_part_is_set_aside_or_lands_nothing_is_lost_or_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch, point: str, side: str
) -> None:
    owner, method = {"add": (SetAside, "add"), "done": (SetAside, "done"), "segment": (SpoolReader, "done")}[point]
    real, alive = getattr(owner, method), [1]

    def dies(*given: Any) -> None:
        kills = alive and alive.pop()
        if kills and side == "before":
            raise KilledError
        real(*given)
        if kills:
            raise KilledError

    events = (prediction("a"), prediction("a", model="n"), outcome("a"), prediction("late", NOW - 9 * DAY), b"poison")
    site.take(prediction("0"))
    lake, kept = site.root / "lake" / "m", site.root / "kept"
    shutil.copytree(lake, kept)
    truncated("predictions")(lake)
    site.begin()
    if point != "done":
        monkeypatch.setattr(owner, method, dies)
    site.send(*events)
    with pytest.raises((KilledError, DriftError)):
        site.capture.step()
    if point == "done":
        monkeypatch.setattr(owner, method, dies)
    shutil.rmtree(lake)
    shutil.copytree(kept, lake)
    for _ in range(3):
        site.begin()
        try:
            site.capture.step()
        except KilledError:
            continue
    assert site.left() == 0
    assert (site.ids(), site.ids(model="n"), site.ids("outcomes"), site.ids("late")) == (
        ["0", "a"],
        ["a"],
        ["a"],
        ["late"],
    )
    assert site.rows("dead_letters", "dead_letters").height == 1


def test_what_waits_for_long_is_told_by_model_and_alerts(site: Site) -> None:
    site.take(prediction("0"))
    truncated("predictions")(site.root / "lake" / "m")
    site.begin()
    for number in range(2):
        site.send(prediction(f"{number}"), prediction(f"{number}", model="n"))
        with pytest.raises(IntegrityError, match="restore"):
            site.capture.step()
    assert site.capture.refused() == []
    (folder,) = (site.root / "spool" / "gateway" / "waiting").iterdir()
    os.utime(min(folder.iterdir()), (time.time() - 400, time.time() - 400))
    (waits,) = site.capture.refused()
    assert isinstance(waits, Waiting)
    assert (waits.model, 400 <= waits.seconds < 500) == ("m", True)
    settings = Settings(home=site.root, database="")
    open_store(settings, site.clock).close()
    with telling(settings, SPECS, site.clock) as tell:
        tell([waits])
    store = ControlStore(settings.database_url, site.clock)
    (alert,) = store.pending(topic="alerts")
    store.close()
    assert "waited for 7 minutes" in alert.body["why"]


@pytest.mark.parametrize("table", ["predictions", "outcomes", "late"])
@pytest.mark.parametrize("what", ["the log", "a file is gone", "a file is garbage"])
def test_a_table_that_cannot_be_read_is_told_as_ours_by_whatever_reads_it(site: Site, table: Table, what: str) -> None:
    site.take(prediction("a"), outcome("a"), prediction("new", NOW))
    site.take(prediction("late", NOW - 9 * DAY))
    folder = site.root / "lake" / "m"
    file = next((folder / table).rglob("*.parquet"))
    if what == "the log":
        truncated(table)(folder)
    elif what == "a file is gone":
        file.unlink()
    else:
        file.write_bytes(b"PAR1" + b"\0" * 200 + b"PAR1")
    reads: list[Callable[[Lake], object]] = [
        lambda lake: lake.read(table, ALL),
        lambda lake: lake.find(table, pl.lit(True), ("_id",)),
        lambda lake: lake.find(table, pl.lit(True), ("_id",), ALL),
        lambda lake: lake.landed(table, Cursor()),
    ]
    for number, read in enumerate(reads):
        if what == "a file is gone" and number == 3:
            continue  # erased, for all that the order of landing tells
        with pytest.raises((IntegrityError, UnavailableError), match="restore"):
            read(Lake(folder))


# what lies in a spool that no gateway wrote


@pytest.mark.parametrize("what", ["a link", "a dangling link", "a link to a pipe", "a linked folder"])
def test_a_spool_is_read_through_no_link(site: Site, tmp_path_factory: pytest.TempPathFactory, what: str) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    folder = site.root / "spool" / "gateway"
    if what == "a link to a pipe":
        os.mkfifo(secret)
    elif what != "a dangling link":
        secret.write_text("root:x:0:0\n")
    site.send(prediction("a"))
    if what == "a linked folder":
        secret.unlink()
        secret.mkdir()
        for number in (1, 2):
            (secret / f"{number:020}.jsonl").write_text("root:x:0:0\n")
        (site.root / "spool" / "z").symlink_to(secret)
    else:
        (folder / f"{9:020}.jsonl").symlink_to(secret)
    assert site.capture.step() == Captured(segments=1, predictions=1)
    assert site.rows("dead_letters", "dead_letters").is_empty()
    assert ["link" in str(failure) for failure in site.failures] == [True]
    site.take(prediction("b"))
    assert (site.ids(), SpoolReader(folder).segments()[-1].number > 2) == (["a", "b"], True)


def test_a_pipe_in_a_spool_holds_nobody_up(site: Site) -> None:
    site.send(prediction("a"))
    os.mkfifo(site.root / "spool" / "gateway" / f"{0:020}.jsonl")
    site.capture.step()
    assert site.ids() == ["a"]


def test_ids_are_remembered_within_bounds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_pipeline.telemetry.recent._FORGET_ABOVE", 10)
    clock = site.clock
    assert isinstance(clock, ManualClock)
    for hour in range(12):
        clock.advance_to(NOW + hour * HOUR)
        names = [f"{hour}-{n}" for n in range(20)]
        site.take(*(prediction(name, clock.now()) for name in names), *(outcome(name, clock.now()) for name in names))
    assert site.capture._landing._recent["m"].ids <= 3 * 40
    again = [f"{hour}-0" for hour in range(12)]
    told = [outcome(name, NOW + hour * HOUR) for hour, name in enumerate(again)]
    assert site.take(*told, *(prediction(name, NOW + hour * HOUR) for hour, name in enumerate(again))).duplicates == 24
