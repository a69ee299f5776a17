"""Advancing: a rollout goes one step on, if the facts and the approvals allow it."""

from dataclasses import replace

from drift_pipeline.errors import IntegrityError, NothingToDoError, RefusedError
from drift_pipeline.loop.releasing.approvals import approved, filed, kept_back
from drift_pipeline.loop.releasing.rolling_back import roll_back
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import Version
from drift_pipeline.policy.release import Permission, Step, may_release
from drift_pipeline.rollout.advance import Promote
from drift_pipeline.rollout.advance import advance as moved_by
from drift_pipeline.rollout.approval import filled
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase, Plan, Status
from drift_pipeline.rollout.verdict import Observations, judge

_HELD = "held"  # state: what the policy said against the next step of a rollout
_AFTER = {
    Phase.SHADOW: Phase.AWAITING_APPROVAL,
    Phase.AWAITING_APPROVAL: Phase.CANARY,
    Phase.CANARY: Phase.FULL,
}


def advance(rollouts: Rollouts, champion: Version, *, paused: bool = False) -> Status | None:
    """Take the rollout one step; None where nothing moved.

    Args:
        champion: the version that answers.
        paused: only back, not forward.
    """
    return _advance(rollouts, Plan.of(rollouts.context.spec), champion, paused, "loop", "")


def hurry(rollouts: Rollouts, champion: Version, actor: str, reason: str) -> Status:
    """Take the next step forward without waiting for the phase's time: everything else is asked for as ever.

    Raises:
        NothingToDoError: no rollout is under way.
        RefusedError: the facts or the approvals do not allow it yet; says which.
    """
    spec, status = rollouts.context.spec, rollouts.active
    if status is None:
        raise NothingToDoError(f"{spec.name}: no rollout is under way; there is nothing to promote")
    waited = rollouts.context.clock.now() - status.since
    moved = _advance(rollouts, replace(Plan.of(spec), shadow=waited, canary=waited), champion, False, actor, reason)
    if moved is None:
        lacking = why_it_waits(rollouts, champion)
        raise RefusedError(f"{spec.name}: {status.rollout_id} holds in {status.phase}: {lacking}")
    return moved


def why_it_waits(rollouts: Rollouts, champion: Version) -> str:
    """What the rollout under way waits for, in words."""
    status, candidate, plan = rollouts.active, rollouts.candidate, Plan.of(rollouts.context.spec)
    if status is None or candidate is None:
        return "no rollout is under way"
    judged = "; ".join(judge(_seen(rollouts, status, candidate, champion), plan.min_samples).reasons)
    approvals = approved(rollouts.context, status.candidate, status.rollout_id)
    waits = kept_back(rollouts.context, status.candidate)
    lacking = [judged, waits, f"{approvals} of {_people(rollouts)}", _held(rollouts, status)]
    return "; ".join(filter(None, lacking))


def _people(rollouts: Rollouts) -> str:
    """How many approvals are wanted, and of which roles where that is said."""
    declared = rollouts.context.spec.rollout
    told = ", ".join(f"{count} {role}" for role, count in declared.wanted.items())
    of = f" ({told})" if isinstance(declared.approvals, dict) else ""
    return f"{sum(declared.wanted.values())} approvals{of}"


def _advance(rollouts: Rollouts, plan: Plan, champion: Version, paused: bool, actor: str, reason: str) -> Status | None:
    status, candidate = rollouts.active, rollouts.candidate
    if status is None or candidate is None:
        return None
    at, digest = rollouts.context, status.candidate
    given, lacking = filed(at, digest, status.rollout_id), kept_back(at, digest)
    seen = _seen(rollouts, status, candidate, champion)
    approvals = filled(given, at.spec.rollout.wanted)
    moved, effects = moved_by(plan, status, seen, approvals, at.clock.now(), lacking)
    if moved == status or (paused and moved.phase is not Phase.ROLLED_BACK):
        return None
    permission = None
    if moved.phase is not Phase.ROLLED_BACK:
        permission = _permission(rollouts, moved, not lacking, approvals)
        if not permission.allowed:
            _hold(rollouts, moved, permission)
            return None
        try:  # what was loaded when the rollout began may lie there as something else by now
            rollouts.load(status.candidate)
        except IntegrityError as error:
            return roll_back(rollouts, actor, f"not taken to {moved.phase}: {error}", only=status.rollout_id)
    promoted = None
    if any(isinstance(effect, Promote) for effect in effects):
        promoted = {**candidate.to_json(), "previous": champion.to_json()}
    if reason:
        moved = replace(moved, reason=f"{reason}; {moved.reason}")
    rollouts.move(moved, effects, actor, champion=promoted, approvals=given, permission=permission)
    return moved


def _permission(rollouts: Rollouts, moved: Status, gates_passed: bool, approvals: int) -> Permission:
    at, spec = rollouts.context, rollouts.context.spec
    profile, wanted = spec.declarations.risk.in_force, sum(spec.rollout.wanted.values())
    where, now = at.trust.environment, at.clock.now()
    step = Step(spec.name, now, str(moved.phase), where, profile, gates_passed, approvals, wanted)
    return may_release(step, at.policy) if at.policy else Permission(False, ("no policy is at hand",), None)


def _hold(rollouts: Rollouts, moved: Status, permission: Permission) -> None:
    """The audit tells once why a step is not taken: for each reason of the policy, and once that it gave none."""
    ledger, rollout = rollouts.context.ledger, moved.rollout_id
    told = {"rollout": rollout, "step": str(moved.phase), "reasons": list(permission.reasons)}
    before = ledger.find(_HELD) or {}
    silent = permission.policy_digest is None
    same = all(before.get(key) == told[key] for key in ("rollout", "step"))
    if same and (before["silent"] if silent else before["reasons"] == told["reasons"]):
        return
    details = {**told, "by": dict(permission.by)}
    puts = {_HELD: {**told, "silent": silent}}
    ledger.commit("release.held", details, {}, puts=puts, policy_digest=permission.policy_digest)


def _held(rollouts: Rollouts, status: Status) -> str:
    """What the policy last said against the next step, if it did."""
    found = rollouts.context.ledger.find(_HELD)
    of_this = found and found["rollout"] == status.rollout_id and Phase(found["step"]) is _AFTER.get(status.phase)
    return "; ".join(found["reasons"]) if found and of_this else ""


def _seen(rollouts: Rollouts, status: Status, candidate: Version, champion: Version) -> Observations:
    at = rollouts.context
    return observe(at.lake, status, candidate.name, champion.name, at.clock.now(), at.performance, at.spec)
