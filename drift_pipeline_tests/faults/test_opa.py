"""An OPA server that is down, silent, stale or unsigned stops retrains and promotions of a loop, and no rollback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import RefusedError
from drift_pipeline.loop import operating
from drift_pipeline.policy.decide import Action, Trigger
from drift_pipeline.policy.engines import DECISION, RELEASE
from drift_pipeline.policy.engines.opa import OpaEngine
from drift_pipeline.policy.release import ROLLBACK_RULE
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.policy.test_opa import DRIFT, GOOD, NOW, other, saying
from drift_pipeline_tests.test_loop import World, phase

PATHS = tuple(f"data/drift/{rule}" for rule in (DECISION, RELEASE))
NOTHING = {name: value for name, value in GOOD[PATHS[0]].items() if name != "result"}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "down": ({}, "cannot be reached"),
    "undefined": ({**GOOD, **dict.fromkeys(PATHS, NOTHING)}, "undefined for these facts"),
    "stale": (other(*DRIFT, "last_successful_request", value="2026-03-01T12:00:00Z"), "is stale"),
    "unsigned": (other("config", "result", "bundles", "drift", "signing"), "does not verify who signed"),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@contextmanager
def asked(answers: dict[str, Any]) -> Iterator[OpaEngine]:
    """The engine of a server that answers so; of none where it has no answers."""
    if not answers:
        yield OpaEngine("http://127.0.0.1:9", ManualClock(NOW))
        return
    with saying(answers) as url:
        yield OpaEngine(url, ManualClock(NOW))


@pytest.mark.parametrize("fault", FAULTS)
def test_it_denies_a_retrain_and_a_promotion_and_a_rollback_is_still_allowed(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, why = FAULTS[fault]
    training = world.proven()
    assert world.loop.release(training.digest)
    world.approve(training.digest)
    with asked(answers) as engine:
        monkeypatch.setattr(world.policy, "evaluate", engine.evaluate)
        decided = world.loop.decide(Trigger.SCHEDULE, world.day())
        assert decided is not None
        decision = decided[1]
        assert (decision.action, decision.unavailable) == (Action.IGNORE, True)
        assert why in decision.reasons[0]
        assert world.loop.queue.wanted() == []
        assert world.loop.advance() is None
        with pytest.raises(RefusedError, match=why):
            operating.promote(world.loop, "ada", "at last")
        assert phase(world) is Phase.SHADOW
        held = [record.details["reasons"] for record in world.records() if record.event == "release.held"]
        assert [why in reasons[0] for reasons in held] == [True]
        operating.roll_back(world.loop, "ada", "complaints")
    assert phase(world) is Phase.ROLLED_BACK
    back = world.records()[-1]
    assert (back.event, back.details["policy"]) == ("rollout.rolled_back", {"rule": ROLLBACK_RULE})
    assert verify(world.store.records()).ok
