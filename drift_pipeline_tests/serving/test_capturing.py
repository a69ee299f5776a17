"""Which names sources have in the lake of a home that several machines share, and what is counted of events."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore, Record
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import DriftError, UnavailableError
from drift_pipeline.loop import concerns
from drift_pipeline.observability import lag
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.serving.capturing import Tally, capturing, drain
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources import Lag
from drift_pipeline.telemetry.sources.spool import SpoolWriter


def test_captures_of_one_home_count_what_became_of_events_together_and_none_is_held_up(tmp_path: Path) -> None:
    clock, settings = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), Settings(home=tmp_path, database="")
    open_store(settings, clock).close()
    together = Barrier(4)

    def capture(number: int) -> None:
        with closing(ControlStore(settings.database_url, clock)) as store:
            tally = Tally(store, clock, every_s=0)
            together.wait(60)
            for step in range(20):
                tally.landed = {"churn": [f"2026-03-01T00:{step:02d}:0{number}+00:00 trace"], f"only{number}": ["x y"]}
                tally.add({"predictions": 3, "late": 0, f"of {number}": 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(capture, range(4)))
    with closing(ControlStore(settings.database_url, clock)) as store:
        found = store.recall(CAPTURE)
    assert found is not None
    assert found.body["events"] == {"predictions": 240, **{f"of {number}": 20 for number in range(4)}}
    assert found.body["at"] == clock.now().isoformat()
    assert found.body["landed"] == {
        "churn": [f"2026-03-01T00:19:0{number}+00:00 trace" for number in (1, 2, 3)],
        **{f"only{number}": ["x y"] for number in range(4)},
    }


def test_what_a_capture_counted_while_the_store_was_away_is_written_once_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    with closing(open_store(Settings(home=tmp_path, database=""), clock)) as store:
        tally = Tally(store, clock, every_s=0)
        with monkeypatch.context() as patch:
            patch.setattr(store, "revise", _away)
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    tally.add({"predictions": 2})
        tally.add({"outcomes": 1})
        found = store.recall(CAPTURE)
    assert found is not None
    assert found.body["events"] == {"predictions": 4, "outcomes": 1}


def _away(*_: object) -> None:
    raise UnavailableError("it does not answer")


def test_what_two_captures_find_at_once_is_told_once_and_is_no_conflict(tmp_path: Path) -> None:
    clock, settings = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), Settings(home=tmp_path, database="")
    with closing(open_store(settings, clock)) as ours, closing(ControlStore(settings.database_url, clock)) as theirs:
        about = ("churn", "ml@example.com", "events.late", "90 of the last 100 events", clock.now())
        read = ours.get

        def slower(kind: str, key: str) -> Record | None:
            found = read(kind, key)
            concerns.tell(theirs, *about, actor="capture")
            return found

        ours.get = slower  # type: ignore[method-assign]
        concerns.tell(ours, *about, actor="capture")
        assert [record.event for record in ours.records()].count("events.late") == 1


class Reading:
    """A source of which only the lags are asked."""

    def __init__(self, *lags: Lag) -> None:
        self.found = lags

    def lags(self) -> tuple[Lag, ...]:
        return self.found


def test_captures_of_a_home_each_tell_how_far_behind_their_partitions_are(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    with closing(open_store(Settings(home=tmp_path, database=""), clock)) as store:
        ours, theirs = Tally(store, clock, every_s=0), Tally(store, clock, every_s=0)
        sent_at = clock.now().timestamp() - 90
        ours.logs = [Reading(Lag("t", 0, 7, sent_at), Lag("t", 1, 0, None))]  # type: ignore[list-item]
        theirs.logs = [Reading(Lag("t", 2, 9, None))]  # type: ignore[list-item]
        for one in (ours, theirs):
            one.add({})
        assert _lags(store, clock) == [("t", "2", 9, None), ("t", "0", 7, sent_at), ("t", "1", 0, None)]
        ours.logs = [Reading(Lag("t", 0, 2, None), Lag("t", 2, 0, None))]  # type: ignore[list-item]  # one moved
        ours.add({})
        theirs.logs = []
        theirs.add({})
        assert _lags(store, clock) == [("t", "0", 2, None), ("t", "1", 0, None), ("t", "2", 0, None)]


def _lags(store: ControlStore, clock: ManualClock) -> list[tuple[str, str, int, float | None]]:
    found = store.recall(CAPTURE)
    assert found is not None
    known = lag.known(found.body, clock.now())
    return [(*place, messages, at.timestamp() if at else None) for place, (messages, at) in known]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a home without a model: what is told there is a dead letter."""
    return Settings(home=tmp_path / "home", database="", store="")


def test_told_to_end_it_lands_what_dead_and_living_writers_left(settings: Settings) -> None:
    clock, spool = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), settings.home / "spool"
    open_store(settings, clock).close()
    dead, living = SpoolWriter(spool / "gateway"), SpoolWriter(spool / "other")
    with capturing(settings, {}, clock) as (capture, stop):
        dead.write([b"no event"])
        dead.close()
        living.write([b"handed over"])
        living.rotate()
        living.write([b"being written"])
        stop.set()
        drain(capture, spool, patience_s=0, every_s=1)
    living.close()
    letters = Lake(settings.dead_letters, source="t").find("dead_letters", pl.lit(True), ["_payload"])
    assert sorted(letters["_payload"].to_list()) == ["handed over", "no event"]


def test_what_does_not_land_is_tried_again_and_told_in_the_end(settings: Settings) -> None:
    clock, spool = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), settings.home / "spool"
    open_store(settings, clock).close()
    writer = SpoolWriter(spool / "gateway")
    writer.write([b"no event"])
    writer.close()
    settings.lake.write_bytes(b"a file where the lake should be")  # type: ignore[union-attr]
    with capturing(settings, {}, clock) as (capture, _):
        with pytest.raises((DriftError, OSError)):
            drain(capture, spool, patience_s=0.05, every_s=0.02)
        settings.lake.unlink()  # type: ignore[union-attr]
        drain(capture, spool, patience_s=60, every_s=0.02)  # it rests after a try that was slow
    assert Lake(settings.dead_letters, source="t").find("dead_letters", pl.lit(True), ["_id"]).height == 1
