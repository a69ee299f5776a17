"""Which names sources have in the lake of a home that several machines share, and what is counted of events."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE, ManualClock
from drift_pipeline.control.store import ControlStore, Record
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import ConflictError
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.serving.capturing import Tally, is_shared
from drift_pipeline.settings import Settings


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
