"""Which names sources have in the lake of a home that several machines share, and what is counted of events."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import MINUTE, ManualClock
from drift_pipeline.control.store import ControlStore, Record
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import ConflictError, DriftError
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.serving.capturing import Tally, capturing, drain, is_shared
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter


@pytest.mark.parametrize(
    ("source", "shared"),
    [
        ("gateway", False),
        ("otlp", False),
        ("kafka.drift.6b1f.0", True),
        ("kafka.drift.6b1f.0.read", True),
        ("kafka.drift.waiting.6b1f.11", True),
        ("kafka.drift.6b1f.0.waiting", False),
        ("kafka.drift.6b1f.0.waiting.fraud", False),
    ],
)
def test_a_partition_is_of_all_machines_and_what_was_set_aside_of_one(source: str, shared: bool) -> None:
    assert is_shared(source) == shared


def test_what_became_of_events_is_counted_over_captures_and_lost_to_none_that_was_slower(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    with closing(open_store(Settings(home=tmp_path, database=""), clock)) as store:
        ours, theirs = Tally(store, clock, every_s=0), Tally(store, clock, every_s=0)
        ours.add({"predictions": 3, "late": 0})
        clock.advance_to(clock.now() + MINUTE)
        theirs.add({"predictions": 2, "late": 1})
        read = store.recall

        def slower(key: str) -> Record | None:
            found = read(key)
            theirs_again.add({"dead_letters": 1})
            return found

        theirs_again = Tally(ControlStore(Settings(home=tmp_path, database="").database_url, clock), clock, every_s=0)
        store.recall = slower  # type: ignore[method-assign]
        with pytest.raises(ConflictError):
            ours.add({"outcomes": 5})
        store.recall = read  # type: ignore[method-assign]
        ours.write()
        found = store.recall(CAPTURE)
        theirs_again._store.close()
    assert found is not None
    assert found.body["events"] == {"predictions": 5, "late": 1, "dead_letters": 1, "outcomes": 5}
    assert found.body["at"] == clock.now().isoformat()


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
