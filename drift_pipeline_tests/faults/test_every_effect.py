"""A process that dies at its n-th effect, for every n of a retrain and of a rollout with its rollback, is made up for.

Effects are all that the loop does outside of its memory: a commit of the control store, what it remembers, rows of the
lake, bundles, alerts; before and after each. What comes next is a new process on the same home.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.loop.loop import Loop
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.faults.breaking import KilledError
from drift_pipeline_tests.faults.conftest import lived
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import Live, Site

pytestmark = pytest.mark.slow  # a life each

STEP = 5 * MINUTE
LONGEST = 16  # steps


def by_hand(live: Live, act: Callable[[Loop], object]) -> None:
    """What an operator asks of the process; it may die of that as well."""
    try:
        act(live.kept.loop)
    except KilledError:
        live.kept.restart()


def retrained(live: Live) -> bool:
    """One step towards a proven candidate; whether it was the last."""
    events = [record.event for record in live.site.records()]
    if live.site.clock.now() >= live.site.began + 6 * STEP and "decision.made" not in events:
        by_hand(live, lambda loop: operating.retrain(loop, "ada", "it is time"))
    live.kept.inline = True
    live.minutes(STEP // MINUTE, STEP)
    return bool({"candidate.proven", "candidate.rejected"} & {record.event for record in live.site.records()})


def rolled_out_and_back(live: Live) -> bool:
    """One step of a rollout to full, or the rollback after it; whether it was the last."""
    if live.site.phase() is Phase.FULL:
        by_hand(live, lambda loop: operating.roll_back(loop, "ada", "enough was seen"))
    live.approve()
    live.minutes(STEP // MINUTE, STEP)
    return live.site.phase() is Phase.ROLLED_BACK


def _life(folder: Path, like: Site, step: Callable[[Live], bool], after: int | None) -> tuple[Live, list[str]]:
    """What a life came to where the process dies at that effect: what does not hold at its end."""
    life = lived(folder, like, inline=True)
    live = next(life)
    live.kept.fuses.after = after
    for _ in range(LONGEST):
        if step(live):
            break
    else:
        return live, ["it did not come to its end", *(record.event for record in live.site.records()[-5:])]
    live.minutes(2 * STEP // MINUTE, STEP)
    found = broken(live.site, [live.kept])
    next(life, None)
    return live, found


@pytest.mark.parametrize(("of", "step"), [("just_adopted", retrained), ("just_proven", rolled_out_and_back)])
def test_whatever_effect_a_process_dies_at_the_next_one_comes_to_the_same_end(
    of: str, step: Callable[[Live], bool], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    like: Site = request.getfixturevalue(of)
    whole, found = _life(tmp_path / "whole", like, step, None)
    assert found == []
    effects = whole.kept.fuses.passed
    assert effects > 50
    failed = {}
    for after in range(1, effects + 1):
        live, found = _life(tmp_path / str(after), like, step, after)
        if found or not live.kept.fuses.hit:
            failed[after] = (live.kept.fuses.hit, found)
    assert failed == {}
