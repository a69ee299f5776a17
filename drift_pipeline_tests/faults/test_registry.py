"""A registry whose objects are missing, changed or slow: nothing else answers in their place, and the loop says why."""

from collections.abc import Callable

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.faults.breaking import SIDES, Side
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.machine import Fault, away, flipped
from drift_pipeline_tests.faults.world import Live, Process

pytestmark = pytest.mark.live  # minutes of faults or of history

DAMAGE: dict[str, tuple[Callable[..., Fault], str, str]] = {
    "all of it missing": (away, "", "no bundle sha256:"),
    "the bundle missing": (away, "{}", "no bundle sha256:"),
    "the model missing": (away, "{}/model.skops", "model.skops is missing"),
    "a bit of the model flipped": (flipped, "{}/model.skops", "is not the file that was registered"),
    "a bit of the manifest flipped": (flipped, "{}/manifest.json", "has other bytes"),
}


def damaged(live: Live, what: str, digest: str) -> tuple[Fault, str]:
    how, where, said = DAMAGE[what]
    hexadecimal = digest.removeprefix("sha256:")
    return how(live.site.settings.registry / where.format(f"{hexadecimal[:2]}/{hexadecimal}")), said


@pytest.mark.parametrize("what", DAMAGE)
def test_a_champion_that_cannot_be_loaded_is_told_and_monitored_again_when_it_is_back(live: Live, what: str) -> None:
    live.minutes(2)
    live.kept.restart()  # one that goes on has it in memory
    fault, said = damaged(live, what, str(live.site.route.champion["digest"]))
    (told,) = live.minute_in(fault)
    assert said in told
    live.minutes(2)
    assert broken(live.site, [live.kept]) == []


@pytest.mark.parametrize("what", DAMAGE)
def test_a_candidate_that_cannot_be_loaded_is_not_promoted(proven: Live, what: str) -> None:
    site = proven.site
    proven.until(Phase.CANARY)
    assert site.route.candidate is not None
    fault, _ = damaged(proven, what, str(site.route.candidate["digest"]))
    proven.kept.restart()
    with fault:
        for _ in range(3):
            site.clock.advance_to(site.clock.now() + 4 * MINUTE)
            site.take()
            proven.kept.tick()
            assert site.phase() in (Phase.CANARY, Phase.ROLLED_BACK)
    site.serve()
    proven.kept.restart()
    proven.minutes(2)
    assert broken(site, [proven.kept]) == []


@pytest.mark.parametrize("side", SIDES)
def test_while_the_registry_takes_minutes_others_go_on(live: Live, side: Side) -> None:
    site, other, passed = live.site, Process(live.site, inline=False), []

    def slow() -> None:
        for _ in range(3):
            site.clock.advance_to(site.clock.now() + MINUTE)
            site.serve()
            site.take()
            other.tick()
        passed.append(side)

    live.minutes(2)
    live.kept.restart()
    live.kept.fuses.set["registry.get", side] = slow
    live.minutes(3)
    assert passed == [side]
    assert broken(site, [live.kept, other]) == []
    other.store.close()
