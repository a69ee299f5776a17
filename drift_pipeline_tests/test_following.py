"""A retrain that runs elsewhere is submitted once, waited for however long, and ends as its run or its gates say."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg
import pytest

from drift_pipeline.components.elsewhere import Elsewhere as Untold
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop import Loop
from drift_pipeline.loop.following import Followed
from drift_pipeline.loop.retraining.working import LEASE, holder_of
from drift_pipeline.loop.state import Retrains
from drift_pipeline.loop.stepping import Step, take
from drift_pipeline.training.runners import Request, Run, State
from drift_pipeline_tests.test_live import wanted
from drift_pipeline_tests.test_loop import World, twin


@dataclass
class Elsewhere:
    """A runner whose runs are what the test says; it begins none."""

    kind: str = "argo"
    runs: dict[str, Run] = field(default_factory=dict)
    down: bool = False
    refuses: str = ""
    mute: bool = False

    def submit(self, request: Request) -> Run:
        if self.refuses:
            raise InputError(self.refuses)
        return self.runs.setdefault(request.name, replace(self.status(request), state=State.PENDING))

    def status(self, request: Request) -> Run:
        if self.down:
            raise UnavailableError("Kubernetes does not answer")
        return self.runs.get(request.name, Run(request.name, State.ABSENT, f"https://argo/{request.name}"))

    def cancel(self, request: Request) -> Run:
        self.runs[request.name] = replace(self.status(request), state=State.CANCELLED)
        return self.runs[request.name]

    def logs(self, request: Request, lines: int = 50) -> str:  # noqa: ARG002
        if self.mute:
            raise UnavailableError("its node is gone")
        return "step fit: trained"

    def becomes(self, state: State, reason: str = "", gpu_hours: float | None = None) -> None:
        (name,) = self.runs
        self.runs[name] = replace(self.runs[name], state=state, reason=reason, gpu_hours=gpu_hours)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def follow(world: World, runner: Elsewhere) -> list[Followed]:
    """As another tick would."""
    return twin(world).following.follow(runner)


def of_runner(world: World, runner: Elsewhere) -> Loop:
    loop = twin(world)
    loop.following.runner = lambda: runner
    return loop


def status(world: World, decision: str) -> str:
    return str(twin(world).ledger.get(f"retrain/{decision}")["status"])


def events(world: World) -> list[str]:
    return [record.event for record in world.store.records() if record.event.startswith(("training", "candidate"))]


@pytest.mark.live
def test_a_run_is_submitted_once_waited_for_beyond_any_lease_and_told_once_when_it_ended(world: World) -> None:
    world.day()
    world.day()
    runner, decision = Elsewhere(), wanted(world)
    assert follow(world, runner) == follow(world, runner) == []
    assert list(runner.runs) == [Request(world.spec.name, decision).name]
    for _ in range(4):  # it waits for a node, and nobody else hears of it
        world.clock.advance_to(world.clock.now() + LEASE * 0.9)
        assert follow(world, runner) == []
        twin(world).queue.take_back()
        assert twin(world).queue.holder(decision) == holder_of(decision)
    runner.becomes(State.RUNNING)
    for step in Step:
        assert take(twin(world), step, decision).going_on
    assert follow(world, runner) == [], "its last pod is still to end"
    runner.becomes(State.SUCCEEDED)
    (ended,) = follow(world, runner)
    assert (ended.decision, ended.outcome, ended.version) == (decision, "proven", "v2")
    assert follow(world, runner) == []
    assert events(world).count("training.claimed") == events(world).count("training.run_ended") == 1
    with dg.DagsterInstance.ephemeral() as dagster:
        (made,) = Untold().untold(of_runner(world, runner), dagster)
    assert made.asset_key.path == [world.spec.name, "candidate_model"]
    said = {name: value.value for name, value in made.metadata.items()}
    assert (said["run"], said["state"], said["outcome"]) == (ended.run.link, "succeeded", "proven")
    assert "step fit: trained" in str(said["logs"])


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_run_that_ended_without_its_decision_gives_that_up_and_pages(world: World, state: State) -> None:
    world.day()
    runner, decision = Elsewhere(), wanted(world)
    follow(world, runner)
    runner.becomes(state, "fit: OOMKilled")
    (ended,) = follow(world, runner)
    assert (ended.outcome, status(world, decision)) == ("failed", "failed")
    world.loop.deliver()
    (page,) = world.pager.sent
    assert (page.body["what"], "OOMKilled" in page.body["why"]) == ("training.failed", True)


def test_what_was_given_up_here_is_cancelled_there(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(), wanted(world)
    follow(world, runner)
    twin(world).queue.give_up(decision, "somebody said so")
    (ended,) = follow(world, runner)
    assert (ended.run.state, ended.outcome) == (State.CANCELLED, "failed")


def test_a_runner_that_is_down_holds_no_tick_and_what_it_forgot_is_submitted_again(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(down=True), wanted(world)
    assert follow(world, runner) == []
    assert (status(world, decision), runner.runs) == ("running", {})
    runner.down = False
    for _ in range(2):
        assert follow(world, runner) == []
        assert [run.state for run in runner.runs.values()] == [State.PENDING]
        runner.runs.clear()  # somebody deletes it


def test_what_the_runner_refuses_is_given_up_and_paged(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(refuses="no such namespace"), wanted(world)
    (ended,) = follow(world, runner)
    assert (ended.run.reason, status(world, decision), follow(world, runner)) == ("no such namespace", "failed", [])


def test_a_run_ends_even_where_its_logs_cannot_be_read(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(mute=True), wanted(world)
    follow(world, runner)
    runner.becomes(State.FAILED, "evicted")
    (ended,) = follow(world, runner)
    assert of_runner(world, runner).following.logs(ended) == "they cannot be read: its node is gone"
    assert status(world, decision) == "failed"


def test_dagster_is_told_of_a_run_once_whoever_dies_after_it_ended(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(), wanted(world)
    follow(world, runner)
    runner.becomes(State.FAILED, "evicted")
    follow(world, runner)  # and kill -9: Dagster was not told
    first = Untold()
    with dg.DagsterInstance.ephemeral() as dagster:
        for process in (first, first, Untold()):  # of which none got through to Dagster
            (made,) = process.untold(of_runner(world, runner), dagster)
        assert (made.metadata["decision"].value, made.metadata["outcome"].value) == (decision, "failed")
        assert (made.metadata["reason"].value, "step fit" in str(made.metadata["logs"].value)) == ("evicted", True)
        dagster.report_runless_asset_event(made)
        for process in (first, first, Untold()):
            assert list(process.untold(of_runner(world, runner), dagster)) == []


def test_who_dies_before_it_submits_leaves_a_run_that_the_next_tick_submits(world: World) -> None:
    world.day()
    runner, decision = Elsewhere(), wanted(world)
    twin(world).following._take(runner, twin(world).queue.wanted()[0])  # and kill -9
    assert (runner.runs, status(world, decision)) == ({}, "running")
    follow(world, runner)
    assert [run.state for run in runner.runs.values()] == [State.PENDING]
    assert events(world).count("training.claimed") == 1


def test_a_runners_file_that_cannot_be_used_is_told_and_the_tick_goes_on(world: World) -> None:
    world.day()
    decision = wanted(world)

    def unusable() -> None:
        raise InputError("runner.yaml:2: imgae: unknown key; did you mean 'image'?")

    loop = twin(world)
    loop.following.runner = unusable
    for _ in range(2):
        assert loop.tick(inline=True).trained == ()
    assert (loop.following.outside, status(world, decision)) == (True, "wanted")
    assert [record.event for record in world.store.records()].count("training.runner") == 1


def test_hours_that_no_step_counted_are_counted_once_at_the_end(world: World) -> None:
    world.day()
    runner = Elsewhere()
    wanted(world)
    follow(world, runner)
    runner.becomes(State.FAILED, "preempted", gpu_hours=1.5)
    follow(world, runner)
    follow(world, runner)
    assert [hours for _, hours in twin(world).trainings.done.gpu_hours] == [1.5]


def test_four_fifths_of_the_budget_are_told_when_they_are_passed_and_not_before_or_again(world: World) -> None:
    of = world.spec.model_copy(update={"retrain": world.spec.retrain.model_copy(update={"max_gpu_hours": 10.0})})
    world.loop.trainings.context = replace(world.loop.trainings.context, spec=of)
    done, told = Retrains(), []
    for hours in (7.9, 0.0, 0.2, 3.0):
        done, alerts = world.loop.trainings.spend(done, hours)
        told.append([alert.body["why"][:22] for alert in alerts])
    assert told == [[], [], ["8.1 of 10 GPU hours of"], []]
