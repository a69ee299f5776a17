"""Rolling back: it asks no policy and waits for nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drift_pipeline.errors import NothingToDoError
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import Version
from drift_pipeline.rollout.advance import Page
from drift_pipeline.rollout.plan import Phase, Status

NOTHING_PREVIOUS = "there is no earlier version to go back to; hand the traffic back to what served it before"


def roll_back(
    rollouts: Rollouts, actor: str, reason: str, *, only: str | None = None, champion: bool = False
) -> Status | None:
    """Back to the champion while a rollout is under way; else from a champion just promoted to the one before it.

    Args:
        only: the rollout that is meant; None comes back, and nothing is changed, where it is not the last one any
            more, or is rolled back already.
        champion: go back from the champion also where the last rollout was rolled back, and so is not how it came.

    Raises:
        NothingToDoError: there is nothing to go back to, or what was meant may be done already.
        IntegrityError: the version to go back to is not what was registered; nothing is changed.
    """
    status = rollouts.status
    over = status is not None and status.phase is Phase.ROLLED_BACK
    if only is not None and (status is None or status.rollout_id != only or over):
        return None
    if status is not None and status.active:
        told = f"{status.phase}: {reason}"
        back = replace(status, phase=Phase.ROLLED_BACK, since=rollouts.context.clock.now(), reason=told)
        rollouts.move(back, (Page(told),), actor)
        return back
    model = rollouts.context.ledger.get("model")
    if status is not None and over and not champion:
        further = "to go back from that one too, say so (--champion)" if model.get("previous") else NOTHING_PREVIOUS
        raise NothingToDoError(
            f"{rollouts.context.spec.name}: {status.rollout_id} is rolled back already, and "
            f"{model['version']} answers ({status.reason}); {further}"
        )
    return _to_previous(rollouts, actor, reason, model, status.rollout_id if status and not over else None)


def _to_previous(
    rollouts: Rollouts, actor: str, reason: str, model: Mapping[str, Any], rollout_id: str | None
) -> Status:
    """From the champion to the version before it; `rollout_id` is how that one came, if it is known."""
    at, previous = rollouts.context, model.get("previous")
    if previous is None:
        raise NothingToDoError(f"{at.spec.name}: {NOTHING_PREVIOUS}")
    target, now = Version.load(previous, at.registry), at.clock.now()
    told = f"after full: {reason}"
    back = Status(
        rollout_id or f"{at.spec.name}-{model['version']}",
        at.spec.name,
        model["digest"],
        target.digest,
        Phase.ROLLED_BACK,
        now,
        now,
        told,
    )
    rollouts.move(back, (Page(told),), actor, champion={**target.to_json(), "previous": None})
    return back
