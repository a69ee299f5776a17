"""A graph goes the way of every model: adopted, served, found drifted, one step of it retrained, shadow, approval,
canary, champion, and back; its documents say which step came from which version."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.errors import InputError, IntegrityError, SpecError
from drift_pipeline.loop import operating
from drift_pipeline.loop.erasure import _trained_on
from drift_pipeline.loop.state import Assignment
from drift_pipeline.policy.decide import Trigger
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.scoring import make_scorer
from drift_pipeline_tests.test_loop import World, phase, twin
from drift_pipeline_tests.training.worlds import GRAPH, graph_spec

STEPS = {name: {**step, "trainer": "logistic_regression"} for name, step in GRAPH.items()}
SPEC = graph_spec(STEPS, trials=1, min_rows=300, steps=["ranking"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, SPEC, recorded=False)
    yield made
    made.store.close()


def change(world: World) -> None:
    """From now on people of an age click, whatever they are shown, in half of the rows."""
    heads = pl.Series(np.random.default_rng(7).random(world.rows.height) < 0.5)
    later = (pl.col("_time") >= world.clock.now()) & heads
    label = pl.when(later).then((pl.col("age") > 0).cast(pl.Int8)).otherwise(pl.col("_label"))
    world.rows = world.rows.with_columns(label.alias("_label"))


def steps_of(world: World, digest: str) -> dict[str, tuple[str, str]]:
    """Version and digest of each step of a bundle."""
    manifest = world.loop.rollouts.context.registry.get(digest).manifest
    return {step["name"]: (step["version"], step["sha256"]) for step in manifest["graph"]}


def test_a_graph_is_adopted_served_and_after_drift_one_step_of_it_is_retrained_shipped_and_taken_back(
    world: World,
) -> None:
    loop, first = world.loop, world.loop.champion
    assert first is not None
    assert [version for version, _ in steps_of(world, first.digest).values()] == ["v1", "v1"]
    change(world)
    days = 0
    while not loop.incident.open:
        world.day()
        days += 1
        assert days < 8
    world.day()
    decision, _ = operating.retrain(loop, "ada", "the world changed", steps=["ranking"])
    training = loop.train(decision)
    assert training is not None
    assert training.accepted, world.records()[-1].details
    before, after = steps_of(world, first.digest), steps_of(world, training.digest)
    assert after["retrieval"] == before["retrieval"]
    assert after["ranking"][0] == "v2"
    assert after["ranking"][1] != before["ranking"][1]
    assert loop.release(training.digest)
    phases = []
    for _ in range(3):
        world.day()
        loop.advance()
        phases.append(phase(world))
        world.approve(training.digest)
    assert phases == [Phase.AWAITING_APPROVAL, Phase.CANARY, Phase.FULL]
    assert loop.champion is not None
    assert loop.champion.digest == training.digest
    operating.roll_back(loop, "ada", "complaints")
    now = twin(world).champion
    assert now is not None
    assert now.digest == first.digest
    rows = world.rows.head(200)
    scorer = make_scorer(now.pipeline, SPEC.features)
    assert scorer.taken_apart
    assert np.array_equal(scorer.score(rows.select(*SPEC.features).rows()), now.scores(rows, SPEC).to_numpy())


def test_a_bad_step_is_rolled_back_in_the_canary_as_the_whole_graph(world: World) -> None:
    training = retrained(world)
    world.approve(training)
    world.loop.release(training)
    while phase(world) is not Phase.CANARY:
        world.day()
        world.loop.advance()
    world.day("turned")
    world.loop.advance()
    assert phase(world) is Phase.ROLLED_BACK
    assert world.loop.champion is not None
    assert world.loop.champion.name == "v1"


def retrained(world: World, *steps: str) -> str:
    """The digest of a candidate."""
    change(world)
    for _ in range(4):
        world.day()
    decision, _ = operating.retrain(world.loop, "ada", "it is time", steps=steps)
    training = world.loop.train(decision)
    assert training is not None
    return training.digest


def test_what_the_spec_names_is_retrained_and_who_is_erased_was_trained_on_by_who_keeps_the_step(world: World) -> None:
    """Where nobody named another step; the kept one is as old as the version that it came from."""
    digest = retrained(world)
    assert [version for version, _ in steps_of(world, digest).values()] == ["v1", "v2"]
    oldest = datetime.fromisoformat(world.loop.trainings.candidate(digest)["oldest_from"])
    assert oldest == world.rows["_time"][0]
    assert {"v1", "v2"} <= {*_trained_on(world.loop.ledger, [oldest])}


@pytest.mark.parametrize(
    ("steps", "versions"), [(("retrieval",), ["v2", "v1"]), (("retrieval", "ranking"), ["v2", "v2"])]
)
def test_a_step_that_is_named_is_retrained_in_place_of_the_spec_s(
    world: World, steps: tuple[str, ...], versions: list[str]
) -> None:
    assert [version for version, _ in steps_of(world, retrained(world, *steps)).values()] == versions
    pinned = world.loop.trainings.pinned()
    assert Assignment.from_json(json.loads(json.dumps(pinned.to_json()))) == pinned
    assert pinned.steps == steps
    (asked,) = [record.details for record in world.records() if record.event == "decision.made"]
    assert asked["steps"] == list(steps)


def test_a_step_that_there_is_not_is_told_and_nothing_is_decided(world: World) -> None:
    with pytest.raises(InputError, match="fraud: 'rank' is no step of the graph; there are: ranking, retrieval"):
        operating.retrain(world.loop, "ada", "it is time", steps=["rank"])
    assert "decision.made" not in world.events()


def test_a_champion_that_is_no_graph_has_no_step_to_take_and_all_are_trained(tmp_path: Path) -> None:
    """A spec that was given a graph after its model was adopted: what a person names is held to, the spec's is not."""
    made = World(tmp_path)
    made.day()
    made.loop.spec = made.spec = SPEC
    object.__setattr__(made.loop.rollouts.context, "spec", SPEC)
    report = made.day()
    said = "ranking cannot be trained alone: the champion has no step retrieval as the spec declares it"
    with pytest.raises(SpecError, match=said):
        operating.retrain(made.loop, "ada", "it is time", steps=["ranking"])
    decided = made.loop.decide(Trigger.OPERATOR, report)
    assert decided is not None
    training = made.loop.train(decided[0])
    assert training is not None
    assert [version for version, _ in steps_of(made, training.digest).values()] == ["v2", "v2"]
    made.store.close()


def test_one_byte_of_a_step_that_was_kept_stops_the_rollout(world: World) -> None:
    digest = retrained(world)
    world.loop.release(digest)
    world.day()
    (path,) = world.registry.rglob(f"{digest.removeprefix('sha256:')}/retrieval.skops")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=r"retrieval.skops is not the file that was registered"):
        world.loop.release(digest)
    world.loop.advance()
    assert phase(world) is Phase.ROLLED_BACK
