"""A retrain whose process dies, hangs or sleeps: noticed within minutes, told, taken over once, in the end given up."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import HOUR, MINUTE, ManualClock
from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline.loop.queue import MOST_TRIES
from drift_pipeline.loop.retraining import working as at_work
from drift_pipeline.loop.retraining.working import LEASE, beat_of, working
from drift_pipeline.policy.decide import Trigger
from drift_pipeline_tests.test_live import wanted
from drift_pipeline_tests.test_loop import World, twin


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize("trigger", [Trigger.SCHEDULE, Trigger.HOTFIX], ids=["normal lane", "hotfix lane"])
def test_a_retrain_whose_process_died_is_wanted_again_within_minutes_and_paged(world: World, trigger: Trigger) -> None:
    world.day()
    decision = wanted(world, trigger)
    assert twin(world).queue.claim(decision, "first")
    world.clock.advance_to(world.clock.now() + LEASE - timedelta(seconds=1))
    world.loop.queue.take_back()
    assert not world.loop.queue.claim(decision, "second")
    world.clock.advance_to(world.clock.now() + timedelta(seconds=1))
    world.loop.queue.take_back()
    twin(world).queue.take_back()
    assert [body["decision"] for body in world.loop.queue.wanted()] == [decision]
    assert world.loop.queue.claim(decision, "second")
    world.loop.deliver()
    (page,) = world.pager.sent
    assert page.body["what"] == "training.lapsed"
    assert page.body["why"].startswith("nothing was heard of its process since 20")
    assert LEASE <= 10 * MINUTE


def test_a_retrain_that_tells_is_never_taken_back_however_long_one_fit_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat is written by a thread, while the fit that nobody hears of goes on."""
    monkeypatch.setattr(at_work, "_LOOK_S", 0.01)
    world.day()
    decision = wanted(world)
    assert world.loop.queue.claim(decision, "first")
    with working(world.loop.trainings, decision, "first"):
        for _ in range(8):  # of which each is longer than a beat, and all are longer than a lease
            world.clock.advance_to(world.clock.now() + LEASE / 4)
            heard_of(world, decision)
            twin(world).queue.take_back()
    assert not twin(world).queue.claim(decision, "second")
    world.clock.advance_to(world.clock.now() + LEASE)
    world.loop.queue.take_back()
    assert twin(world).queue.claim(decision, "second")


def heard_of(world: World, decision: str) -> None:
    until = time.monotonic() + 10
    while world.loop.ledger.last_beat(beat_of(decision, "first")) != world.clock.now():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("by", "lapsed"),
    [(-2 * HOUR, True), (-LEASE / 2, False), (LEASE / 2, False), (2 * HOUR, True)],
    ids=["set back by hours", "set back a little", "ahead a little", "slept or set ahead"],
)
def test_a_dead_process_is_noticed_by_whatever_clock(world: World, by: timedelta, lapsed: bool) -> None:
    world.day()
    decision = wanted(world)
    assert world.loop.queue.claim(decision, "first")
    other = twin(world, ManualClock(world.clock.now() + by))
    other.queue.take_back()
    assert (other.queue.wanted() != []) is lapsed


@pytest.mark.parametrize("step", ["pin", "fit", "prove"])
def test_what_was_taken_over_meanwhile_is_stored_by_the_one_that_took_it(world: World, step: str) -> None:
    """The first process slept, or its fit was slow, and its clock went on; then it wakes and would store its step."""
    world.day()
    world.day()
    decision, report = wanted(world), world.loop.look()
    first, second = twin(world), twin(world)
    assert first.queue.claim(decision, "first")
    done = []
    with working(first.trainings, decision, "first"):
        pinned = first.pin(decision, report) if step != "pin" else None
        fitted = first.fit(pinned) if pinned and step == "prove" else None
        world.clock.advance_to(world.clock.now() + LEASE)
        second.queue.take_back()
        assert second.queue.claim(decision, "second")
        with pytest.raises(ConflictError, match="was taken over, or ended, meanwhile"):
            done.append(first.prove(fitted) if fitted else first.fit(pinned) if pinned else first.pin(decision, report))
    with working(second.trainings, decision, "second"):
        training = second.retrain(decision, report)
    assert training is not None
    events = [record.event for record in world.store.records()]
    assert [events.count(one) for one in ("training.started", "candidate.trained", "candidate.proven")] == [1, 1, 1]


def test_a_retrain_whose_processes_die_each_time_is_given_up_and_paged(world: World) -> None:
    world.day()
    decision = wanted(world)
    for number in range(MOST_TRIES):
        assert world.loop.queue.claim(decision, f"process {number}")
        world.clock.advance_to(world.clock.now() + LEASE)
        world.loop.queue.take_back()
    assert world.loop.queue.wanted() == []
    world.loop.deliver()
    told = [(page.body["what"], page.body["why"].rpartition("; ")[2]) for page in world.pager.sent]
    assert told == [("training.lapsed", "it is taken over")] * 2 + [("training.failed", "3 processes came to nothing")]


def test_a_run_that_is_tried_again_goes_on_unless_it_was_given_up(world: World) -> None:
    world.day()
    decision = wanted(world)
    assert world.loop.queue.claim(decision, "first", again=True)
    assert world.loop.queue.claim(decision, "first")
    assert not twin(world).queue.claim(decision, "its retry")
    assert twin(world).queue.claim(decision, "its retry", again=True)
    world.loop.queue.give_up(decision, "cancelled")
    assert not world.loop.queue.claim(decision, "its retry", again=True)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no such kernel"), InputError("too few")], ids=repr)
def test_a_training_that_raises_fails_with_its_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fit(*_: object) -> None:
        raise error

    world.day()
    decision = wanted(world)
    monkeypatch.setattr("drift_pipeline.loop.loop.fit", fit)
    assert world.loop.train(decision) is None
    world.loop.deliver()
    (page,) = world.pager.sent
    assert page.body["what"] == "training.failed"
    assert str(error) in page.body["why"]


@pytest.mark.parametrize("error", [UnavailableError("the registry does not answer"), KeyboardInterrupt()], ids=repr)
def test_a_training_that_could_not_reach_something_or_was_interrupted_is_wanted_again(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fit(*_: object) -> None:
        raise error

    world.day()
    decision = wanted(world)
    monkeypatch.setattr("drift_pipeline.loop.loop.fit", fit)
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(type(error)):
            world.loop.train(decision)
        assert [body["decision"] for body in world.loop.queue.wanted()] == [decision]
    with pytest.raises(type(error)):
        world.loop.train(decision)
    assert world.loop.queue.wanted() == []
