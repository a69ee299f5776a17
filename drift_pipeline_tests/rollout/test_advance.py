"""advance(): forward only on proof, back at once on failure, and an end is an end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.clock import HOUR
from drift_pipeline.errors import IntegrityError, SpecError
from drift_pipeline.rollout.advance import (
    AskApproval,
    Effect,
    Mirror,
    Page,
    Promote,
    RollBack,
    SetWeight,
    advance,
    start,
)
from drift_pipeline.rollout.plan import Phase, Plan, Status
from drift_pipeline.rollout.verdict import Observations
from drift_pipeline.spec import ModelSpec

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PLAN = Plan(shadow=HOUR, canary=2 * HOUR, deadline=10 * HOUR, canary_weight=10, approvals=2, min_samples=20)
BEGUN, BEGUN_WITH = start("r1", "fraud", candidate="sha256:new", champion="sha256:old", now=NOW)

Facts = Literal["pass", "fail", "few", "none", "unreachable"]
FACTS: dict[Facts, Observations | None] = {
    "pass": Observations(100, 0, 900),
    "fail": Observations(100, 50, 900),
    "few": Observations(19, 0, 900),
    "none": Observations(0, 0, 0),
    "unreachable": None,
}
BACK = "back"
S, A, C, F, R = Phase


def at(phase: Phase) -> Status:
    return replace(BEGUN, phase=phase)


TABLE: list[tuple[Phase, Facts, int, float, Phase, tuple[Effect, ...] | str]] = [
    # phase, facts, approvals, hours in it -> phase, effects
    (S, "pass", 0, 0.9, S, ()),
    (S, "pass", 0, 1, A, (AskApproval("sha256:new"),)),
    (S, "pass", 2, 1, A, (AskApproval("sha256:new"),)),
    (S, "pass", 0, 99, A, (AskApproval("sha256:new"),)),
    (S, "few", 2, 9.9, S, ()),
    (S, "few", 2, 10, R, BACK),
    (S, "unreachable", 2, 9.9, S, ()),
    (S, "unreachable", 2, 10, R, BACK),
    (S, "fail", 2, 0, R, BACK),
    (S, "pass", 2, -1, S, ()),
    (S, "unreachable", 2, -99, S, ()),
    (S, "fail", 2, -1, R, BACK),
    (A, "pass", 1, 9.9, A, ()),
    (A, "pass", 2, 0, C, (SetWeight(10),)),
    (A, "pass", 3, 5, C, (SetWeight(10),)),
    (A, "pass", 2, 99, C, (SetWeight(10),)),
    (A, "pass", 1, 10, R, BACK),
    (A, "few", 2, 5, A, ()),
    (A, "unreachable", 2, 5, A, ()),
    (A, "unreachable", 2, 10, R, BACK),
    (A, "fail", 2, 1, R, BACK),
    (A, "pass", 2, -1, A, ()),
    (C, "pass", 2, 1.9, C, ()),
    (C, "pass", 2, 2, F, (Promote("sha256:new"), SetWeight(100), Mirror(on=False))),
    (C, "pass", 1, 2, R, BACK),
    (C, "pass", 1, 0, R, BACK),
    (C, "pass", 0, -1, C, ()),
    (C, "few", 2, 9.9, C, ()),
    (C, "none", 2, 9.9, C, ()),
    (C, "none", 2, 10, R, BACK),
    (C, "unreachable", 2, 9.9, C, ()),
    (C, "unreachable", 2, 10, R, BACK),
    (C, "fail", 2, 0.1, R, BACK),
    (C, "fail", 2, 99, R, BACK),
    (C, "fail", 2, -1, R, BACK),
    (F, "fail", 0, 99, F, ()),
    (F, "pass", 2, 99, F, ()),
    (R, "pass", 2, 99, R, ()),
    (R, "fail", 0, 99, R, ()),
]


@pytest.mark.parametrize(("phase", "facts", "approvals", "hours", "then", "effects"), TABLE)
def test_the_table_of_steps(
    phase: Phase, facts: Facts, approvals: int, hours: float, then: Phase, effects: tuple[Effect, ...] | str
) -> None:
    status, now = at(phase), NOW + hours * HOUR
    after, driven = advance(PLAN, status, FACTS[facts], approvals, now)
    assert after.phase is then
    if effects == BACK:
        assert driven == (SetWeight(0), Mirror(on=False), RollBack("sha256:old"), Page(after.reason))
    else:
        assert driven == effects
    if then is phase:
        assert after is status
    else:
        assert after == replace(status, phase=then, since=max(now, NOW), reason=after.reason)


@pytest.mark.parametrize(
    ("phase", "facts", "approvals", "hours", "reason"),
    [
        (S, "few", 0, 10, "shadow: 19 of 20 rows at the deadline of 10h"),
        (A, "pass", 1, 10, "awaiting_approval: 1 of 2 approvals at the deadline of 10h"),
        (C, "pass", 1, 1, "canary: approval no longer valid: 1 of 2"),
        (C, "unreachable", 2, 10, "canary: the metrics are unreachable at the deadline of 10h"),
        (C, "fail", 2, 1, "canary: 50 of 100 rows without a usable score: at least 31.3%, 1% allowed"),
        (S, "pass", 2, 1, "100 rows, 0 without a score, beside 900 of the champion; not compared by labels: "),
    ],
)
def test_the_reason_says_what_decided(phase: Phase, facts: Facts, approvals: int, hours: float, reason: str) -> None:
    after, _ = advance(PLAN, at(phase), FACTS[facts], approvals, NOW + hours * HOUR)
    assert after.reason.startswith(reason)


def test_a_rollout_begins_in_the_shadow_and_reaches_full_in_three_steps() -> None:
    assert (BEGUN.phase, BEGUN_WITH) == (S, (Mirror(on=True),))
    status, now, phases = BEGUN, NOW, []
    while status.active:
        now += HOUR
        status, _ = advance(PLAN, status, FACTS["pass"], 2, now)
        phases.append(status.phase)
    assert phases == [A, C, C, F]


moments = st.tuples(st.sampled_from(list(FACTS)), st.integers(0, 3), st.floats(-3, 12))


@given(st.lists(moments, max_size=12))
def test_no_history_breaks_the_invariants(history: list[tuple[Facts, int, float]]) -> None:
    """FULL comes from CANARY, users see the candidate only with approvals, the unknown never leads on."""
    status, now = BEGUN, NOW
    for facts, approvals, hours in history:
        now += hours * HOUR
        before = status
        status, effects = advance(PLAN, before, FACTS[facts], approvals, now)
        assert (status is before) == (not effects)
        assert status.since >= before.since
        if not before.active:
            assert status is before
        if status.phase is F and before.phase is not F:
            assert before.phase is C
            assert now - before.since >= PLAN.canary
        if any(isinstance(effect, Promote) or effect == SetWeight(10) for effect in effects):
            assert approvals >= PLAN.approvals
        if facts != "pass":
            assert status.phase in (before.phase, R)


@given(st.sampled_from(list(Phase)), moments)
def test_the_same_facts_give_the_same_step_after_a_restart(phase: Phase, moment: tuple[Facts, int, float]) -> None:
    facts, approvals, hours = moment
    restarted = Status.from_json(at(phase).to_json())
    assert restarted == at(phase)
    now = NOW + hours * HOUR
    assert advance(PLAN, restarted, FACTS[facts], approvals, now) == advance(
        PLAN, at(phase), FACTS[facts], approvals, now
    )


@given(st.sampled_from([S, A, C]), st.integers(0, 3), st.floats(-20, 20), st.integers(20, 200))
def test_a_worse_champion_comparison_rolls_back_from_every_phase(
    phase: Phase, approvals: int, hours: float, n: int
) -> None:
    labels = np.repeat([0, 1], 100)
    reversed_scores = Observations(n, 0, n, labels=labels, candidate_scores=-labels, champion_scores=labels)
    after, _ = advance(PLAN, at(phase), reversed_scores, approvals, NOW + hours * HOUR)
    assert after.phase is R


def test_a_canary_is_judged_by_its_own_traffic_and_a_shadow_by_all_of_it() -> None:
    later = NOW + HOUR
    assert [replace(at(phase), since=later).evidence_since for phase in (S, A, C)] == [NOW, NOW, later]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"phase": "nowhere"},
        {"since": "yesterday"},
        {"since": "2026-03-02T12:00:00"},
        {"more": "x"},
        {"model": None},
    ],
)
def test_a_broken_status_is_refused(broken: dict[str, object]) -> None:
    document = {**BEGUN.to_json(), **broken} if broken else {}
    with pytest.raises(IntegrityError, match="rollout"):
        Status.from_json(document)


def test_the_plan_is_the_spec_s() -> None:
    spec = ModelSpec.model_validate(
        {
            "name": "fraud",
            "owner": "team",
            "task": "binary_classification",
            "features": {"amount": "numeric"},
            "outcome": {"column": "fraud"},
            "rollout": {"shadow": "1h", "canary": "2h", "deadline": "10h", "approvals": 2, "min_samples": 20},
        }
    )
    assert Plan.of(spec) == PLAN


@pytest.mark.parametrize("phase", ["shadow", "canary"])
@pytest.mark.parametrize("longer", [timedelta(), timedelta(seconds=1)])
def test_a_deadline_that_no_version_can_meet_is_refused(phase: str, longer: timedelta) -> None:
    with pytest.raises(SpecError, match=rf"rollout\.deadline 10h is not longer than rollout\.{phase} 10h"):
        Plan(**{**vars(PLAN), phase: PLAN.deadline + longer})


@pytest.mark.parametrize(
    ("phase", "facts", "hours", "then"),
    [
        (S, "pass", 5, S),
        (S, "pass", 10, R),
        (A, "pass", 5, A),
        (A, "pass", 10, R),
        (A, "fail", 5, R),
        (C, "pass", 0, R),
        (C, "unreachable", 5, R),
        (C, "pass", -1, C),
        (F, "pass", 5, F),
    ],
)
def test_a_gate_that_is_waived_no_more_holds_it_before_the_canary_and_ends_the_canary(
    phase: Phase, facts: Facts, hours: float, then: Phase
) -> None:
    why = "gate poison_floor did not pass and has 0 of 1 waivers"
    moved, _ = advance(PLAN, at(phase), FACTS[facts], 2, NOW + hours * HOUR, why)
    assert moved.phase is then
    assert (why in moved.reason) == (then is R and facts != "fail")
