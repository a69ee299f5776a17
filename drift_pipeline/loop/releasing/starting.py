"""Starting a rollout: only of a candidate whose gates passed, or are waived by people who may."""

from collections.abc import Mapping
from typing import Any

from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.loop.releasing.approvals import approved, kept_back
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import Version
from drift_pipeline.rollout.advance import start
from drift_pipeline.rollout.plan import rollout_id


def register(rollouts: Rollouts, digest: str) -> Version:
    """Name a candidate as one that may be shipped, if the control store has the record that its gates passed, or those
    that did not are waived now.

    Raises:
        IntegrityError: there is no such record, or the bundle's bytes do not fit.
    """
    at = rollouts.context
    record = at.ledger.find(f"candidate/{digest}")
    if record is None or (lacking := kept_back(at, digest)):
        why = f" ({lacking})" if record is not None else ""
        raise IntegrityError(
            f"{at.spec.name}: no record says that the gates of {digest} passed{why}; it is not released"
        )
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
        IntegrityError: the control store has no record that its gates passed or were waived, or the bundle's bytes do
            not fit.
        InputError: it was rolled out before, and people did not approve that it is rolled out again.
    """
    at, candidate = rollouts.context, register(rollouts, digest)
    if rollouts.active is not None:
        return False
    name = f"rollouts/{candidate.name}"  # a version may be rolled out again, which is another rollout
    count = (at.ledger.find(name) or {"count": 0})["count"] + 1
    of = rollout_id(at.spec.name, candidate.name, count)
    if count > 1:
        _require_decision(rollouts, digest, of, candidate.name)
    status, effects = start(of, at.spec.name, digest, champion, at.clock.now())
    rollouts.move(status, effects, actor, also={**(also or {}), name: {"count": count}})
    return True


def _require_decision(rollouts: Rollouts, digest: str, of: str, version: str) -> None:
    """What was rolled out before, and is not the champion, was taken back: to try it again is for people to decide."""
    at = rollouts.context
    valid, wanted = approved(at, digest, of), sum(at.spec.rollout.wanted.values())
    if valid < wanted:
        raise InputError(
            f"{at.spec.name}: {version} was rolled out before; {of} begins once it is approved anew ({valid} of "
            f"{wanted}): drift approve {at.spec.name} {version} --key KEY --reason TEXT"
        )
