"""A training for which the memory does not suffice takes nothing else down."""

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.loop.fleet import Failed
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import Live


def test_a_training_that_runs_out_of_memory_is_told_and_the_ticks_go_on_without_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.minutes(30, 5 * MINUTE)
    operating.retrain(live.kept.loop, "ada", "it is time")
    live.kept.inline, tried = True, []

    def starved(*_: object, **__: object) -> object:
        tried.append(True)
        raise MemoryError("Unable to allocate 80.0 GiB")

    monkeypatch.setattr("drift_pipeline.loop.retraining.fitting.train", starved)
    live.kept.tick()
    live.minutes(3)
    assert not isinstance(live.kept.tick(), Failed)
    assert tried == [True]
    assert broken(live.site, [live.kept]) == []
