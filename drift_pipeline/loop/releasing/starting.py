"""Starting a rollout: only of a candidate whose gates passed, whatever anybody says."""

from collections.abc import Mapping
from typing import Any

from drift_pipeline.errors import IntegrityError
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import Version
from drift_pipeline.rollout.advance import start


def register(rollouts: Rollouts, digest: str) -> Version:
    """Name a candidate as one that may be shipped, if the control store has the record that its gates passed.

    Raises:
        IntegrityError: there is no such record, or the bundle's bytes do not fit.
    """
    at = rollouts.context
    record = at.ledger.find(f"candidate/{digest}")
    if record is None or record["passed"] is not True:
        raise IntegrityError(f"{at.spec.name}: no record says that the gates of {digest} passed; it is not released")
    candidate = Version.load(record, at.registry)
    if at.ledger.find(f"registered/{candidate.name}") is None:
        puts = {f"registered/{candidate.name}": candidate.to_json()}
        at.ledger.commit("model.registered", {"version": candidate.name}, {"bundle": digest}, puts=puts)
    return candidate


def begin(
    rollouts: Rollouts,
    digest: str,
    champion: str,
    *,
    actor: str = "loop",
    also: Mapping[str, Mapping[str, Any]] | None = None,
) -> bool:
    """Begin the rollout of a candidate whose gates passed; False where one is under way already.

    Args:
        champion: the digest to go back to.
        also: state to put with it.

    Raises:
        IntegrityError: the control store has no record that its gates passed, or the bundle's bytes do not fit.
    """
    at, candidate = rollouts.context, register(rollouts, digest)
    if rollouts.active is not None:
        return False
    name = f"rollouts/{candidate.name}"  # a version may be rolled out again, which is another rollout
    count = (at.ledger.find(name) or {"count": 0})["count"] + 1
    rollout_id = f"{at.spec.name}-{candidate.name}" + (f".{count}" if count > 1 else "")
    status, effects = start(rollout_id, at.spec.name, digest, champion, at.clock.now())
    rollouts.move(status, effects, actor, also={**(also or {}), name: {"count": count}})
    return True
