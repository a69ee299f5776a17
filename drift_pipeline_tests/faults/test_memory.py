"""A training for which the memory does not suffice takes nothing else down."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.loop.fleet import Failed
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.real import UNARMED, Real, broke, real_home
from drift_pipeline_tests.faults.world import Live

STARVED = """
import re, resource
import numpy as np
from drift_pipeline.cli import main
from drift_pipeline.loop.retraining import fitting

real = fitting.train

def train(*given, **named):
    used = 1024 * int(re.search(r"VmSize:\\s*(\\d+)", open("/proc/self/status").read())[1])
    resource.setrlimit(resource.RLIMIT_AS, (used + LEFT, resource.RLIM_INFINITY))
    try:
        return np.ones(WANTED // 8).sum() and real(*given, **named)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

fitting.train = train
main()
"""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    yield from real_home(tmp_path, speed=1)


def starved(real: Real, left: int, wanted: int) -> tuple[int, str]:
    """The code of a tick that retrains, and whose process gets no more memory than is left to it, and its stderr."""
    real.until_now(step=5)
    real.landed()
    operating.retrain(real.site.by_hand(), "ada", "it is time")
    process = real.started(STARVED.replace("LEFT", str(left)).replace("WANTED", str(wanted)), "tick")
    told = process.communicate(timeout=60)[1]
    return process.returncode, told


def goes_on(real: Real) -> None:
    real.until_now()
    real.landed()
    assert real.ended(UNARMED, "tick") == 0
    real.holds()


@pytest.mark.live
def test_a_training_that_wants_more_memory_than_there_is_fails_with_its_reason_and_a_page(real: Real) -> None:
    code, told = starved(real, left=1 << 26, wanted=1 << 30)
    assert (code, broke(told)) == (0, False), told
    (failed,) = [record for record in real.site.records() if record.event == "training.failed"]
    assert "Unable to allocate 1.00 GiB" in failed.details["because"]
    assert "training.failed" in (real.site.settings.home / "alerts.jsonl").read_text()
    goes_on(real)


@pytest.mark.live
def test_a_process_that_dies_for_lack_of_memory_in_a_training_takes_nothing_else_with_it(real: Real) -> None:
    """Libraries in other languages do not raise where there is no memory, but end the process, or leave an interpreter
    whose objects are of other types than they were."""
    code, told = starved(real, left=0, wanted=8)
    events = [record.event for record in real.site.records()]
    assert code <= 0 or broke(told), told  # by a signal, by a broken interpreter, or it was told
    assert code != 0 or "training.failed" in events, told
    assert "candidate.proven" not in events
    goes_on(real)


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
