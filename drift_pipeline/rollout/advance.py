"""advance(): the next step of a rollout, as a pure function of its plan, its status and the facts.

```
SHADOW -> AWAITING_APPROVAL -> CANARY -> FULL
   └──────────────┴───────────────┴────> ROLLED_BACK
```
Forward wants a PASS. What is not known holds the phase until its deadline, and then rolls back.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drift_pipeline.clock import format_duration
from drift_pipeline.rollout.plan import Phase, Plan, Status
from drift_pipeline.rollout.verdict import Judgement, Observations, Verdict, judge


@dataclass(frozen=True)
class SetWeight:
    """Send this percentage of the traffic to the candidate."""

    percent: int


@dataclass(frozen=True)
class Mirror:
    """Let the candidate score a copy of the champion's traffic, unseen by users, or stop it."""

    on: bool


@dataclass(frozen=True)
class Promote:
    """Make this digest the champion."""

    digest: str


@dataclass(frozen=True)
class RollBack:
    """Leave, or put back, this digest as the champion."""

    digest: str


@dataclass(frozen=True)
class Page:
    """Somebody has to know."""

    reason: str


@dataclass(frozen=True)
class AskApproval:
    """Ask people to approve this digest."""

    digest: str


Effect = SetWeight | Mirror | Promote | RollBack | Page | AskApproval

_UNREACHABLE = Judgement(Verdict.INCONCLUSIVE, ("the metrics are unreachable",))


def start(
    rollout_id: str, model: str, candidate: str, champion: str, now: datetime
) -> tuple[Status, tuple[Effect, ...]]:
    """A rollout begins in the shadow."""
    status = Status(rollout_id, model, candidate, champion, Phase.SHADOW, since=now, started=now, reason="submitted")
    return status, (Mirror(on=True),)


def advance(
    plan: Plan, status: Status, observations: Observations | None, approvals: int, now: datetime, kept_back: str = ""
) -> tuple[Status, tuple[Effect, ...]]:
    """One transition at most; a rollout that holds, or has ended, comes back unchanged and without effects.

    A failure rolls back at once, whatever the clock says. Nothing else happens before `since`: a clock that went back
    neither ends a phase nor voids an approval. A passing candidate moves on even if nobody looked until after the
    deadline. Effects are idempotent and stand in the order in which they are to be driven.

    Args:
        plan: what the spec asks.
        status: where the rollout stands.
        observations: the facts since `status.evidence_since`; None when they cannot be had.
        approvals: distinct approvers whose approval of the candidate is valid at `now`.
        now: aware.
        kept_back: which gates did not pass and are not waived at `now`; "" where none is. As without an approval,
            the canary ends at once, and what is before it waits.
    """
    if not status.active:
        return status, ()
    judged = judge(observations, plan.min_samples) if observations is not None else _UNREACHABLE
    elapsed = now - status.since
    if lost := _lost(plan, status.phase, judged, approvals, elapsed, kept_back):
        return _roll_back(status, lost, now)
    if judged.verdict is Verdict.PASS and not kept_back and _may_leave(plan, status.phase, approvals, elapsed):
        return _forward(plan, status, "; ".join(judged.reasons), now)
    return status, ()


def _lost(
    plan: Plan, phase: Phase, judged: Judgement, approvals: int, elapsed: timedelta, kept_back: str
) -> str | None:
    """Why it cannot go on, if it cannot."""
    if judged.verdict is Verdict.FAIL:
        return "; ".join(judged.reasons)
    if phase is Phase.CANARY and elapsed >= timedelta() and (kept_back or approvals < plan.approvals):
        return kept_back or f"approval no longer valid: {approvals} of {plan.approvals}"
    if elapsed < plan.deadline:
        return None
    deadline = f"at the deadline of {format_duration(plan.deadline)}"
    if judged.verdict is Verdict.INCONCLUSIVE:
        return f"{'; '.join(judged.reasons)} {deadline}"
    if kept_back:
        return f"{kept_back} {deadline}"
    return (
        None if _may_leave(plan, phase, approvals, elapsed) else f"{approvals} of {plan.approvals} approvals {deadline}"
    )


def _may_leave(plan: Plan, phase: Phase, approvals: int, elapsed: timedelta) -> bool:
    """Whether time and people allow a passing candidate its next phase."""
    if phase is Phase.SHADOW:
        return elapsed >= plan.shadow
    least = plan.canary if phase is Phase.CANARY else timedelta()
    return approvals >= plan.approvals and elapsed >= least


def _forward(plan: Plan, status: Status, reason: str, now: datetime) -> tuple[Status, tuple[Effect, ...]]:
    """Mirroring lasts through the canary: rows that both models scored are what late labels are compared on."""
    steps: dict[Phase, tuple[Phase, tuple[Effect, ...]]] = {
        Phase.SHADOW: (Phase.AWAITING_APPROVAL, (AskApproval(status.candidate),)),
        Phase.AWAITING_APPROVAL: (Phase.CANARY, (SetWeight(plan.canary_weight),)),
        Phase.CANARY: (Phase.FULL, (Promote(status.candidate), SetWeight(100), Mirror(on=False))),
    }
    phase, effects = steps[status.phase]
    return replace(status, phase=phase, since=now, reason=reason), effects


def _roll_back(status: Status, reason: str, now: datetime) -> tuple[Status, tuple[Effect, ...]]:
    """The same effects from every phase: undoing what was never done changes nothing."""
    told = f"{status.phase}: {reason}"
    back = replace(status, phase=Phase.ROLLED_BACK, since=max(now, status.since), reason=told)
    return back, (SetWeight(0), Mirror(on=False), RollBack(status.champion), Page(told))
