"""A retrain whose steps are processes of their own comes to what one process comes to, whatever is repeated."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.loop import Loop
from drift_pipeline.loop.retraining.working import holder_of
from drift_pipeline.loop.stepping import Step, take
from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.machine import children
from drift_pipeline_tests.parts.machine import wanted as machine_wanted
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.test_cli_live import MODEL, adopted, adopted_once, place
from drift_pipeline_tests.test_live import wanted
from drift_pipeline_tests.test_loop import World, twin

__all__ = ["adopted", "adopted_once", "place"]
MADE = ("training.started", "training.searched", "candidate.trained", "candidate.proven", "model.registered")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def events(world: World) -> list[int]:
    seen = [record.event for record in world.store.records()]
    return [seen.count(one) for one in MADE]


def candidate(loop: Loop, decision: str) -> dict[str, object]:
    record = dict(loop.trainings.candidate(loop.trainings.trained(decision)))
    return {name: record[name] for name in ("version", "passed", "searched", "results", "proven_on")}


@pytest.mark.live
def test_each_step_in_a_process_of_its_own_makes_what_one_process_makes_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one, many = World(tmp_path / "one"), World(tmp_path / "many")
    try:
        for world in (one, many):
            world.day()
            world.day()
        whole, apart = wanted(one), wanted(many)
        assert one.loop.train(whole) is not None
        for step in (Step.PIN, Step.PIN, Step.SEARCH, Step.SEARCH, Step.FIT, Step.FIT, Step.PROVE, Step.PROVE):
            assert take(twin(many), step, apart).going_on
        assert take(twin(many), Step.REGISTER, apart).going_on
        for step in Step:
            assert take(twin(many), step, apart).going_on, "what has ended well may be asked again"
        assert events(many) == [1, 1, 1, 1, 1]
        assert candidate(twin(many), apart) == {
            **candidate(twin(one), whole),
            "results": candidate(twin(many), apart)["results"],  # its latency is this machine's
        }
        assert many.loop.queue.wanted() == []
    finally:
        one.store.close()
        many.store.close()


def test_a_step_before_its_time_or_of_nobodys_decision_is_bad_input_and_changes_nothing(world: World) -> None:
    world.day()
    decision = wanted(world)
    for step in (Step.SEARCH, Step.FIT, Step.PROVE, Step.REGISTER):
        with pytest.raises(InputError, match="drift train pin, first"):
            take(twin(world), step, decision)
    with pytest.raises(InputError, match="has no retrain 'nobody-7'; drift decisions"):
        take(twin(world), Step.PIN, "nobody-7")
    assert [body["decision"] for body in world.loop.queue.wanted()] == [decision]


def test_a_decision_that_another_process_holds_is_left_to_it(world: World) -> None:
    world.day()
    decision = wanted(world)
    assert twin(world).queue.claim(decision, "process 7")
    taken = take(twin(world), Step.PIN, decision)
    assert (taken.going_on, taken.told) == (False, f"{decision} is held by process 7")
    assert twin(world).queue.holder(decision) != holder_of(decision)


def test_the_command_ends_with_2_for_what_nobody_decided_and_for_a_model_that_there_is_not(adopted: Path) -> None:
    nobody = drift("train", "pin", MODEL, "--decision", "x-1")
    assert (nobody.code, f"drift decisions {MODEL} lists" in nobody.err) == (2, True), nobody
    assert drift("train", "fit", "fraud", "--decision", "x-1").code == 2


@pytest.mark.live
def test_a_containers_first_process_ends_when_its_node_is_drained() -> None:
    """Such a process ignores a signal that it has no handler for."""
    try:
        machine_wanted()
    except MissingError as error:
        pytest.skip(str(error))
    waits = "with ending():\n    print(flush=True)\n    time.sleep(300)"
    script = f"import time\nfrom drift_pipeline.cli.train import ending\n{waits}"
    first = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", script]
    with subprocess.Popen(first, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (pid,) = children(process.pid)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
