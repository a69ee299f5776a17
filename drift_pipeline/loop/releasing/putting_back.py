"""Putting back who answers, where that was changed beside the audit: as the audit's own records tell it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.errors import IntegrityError
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.rollout.plan import Phase, Status

PUT_BACK = "model.put_back"
_ROWS = ("model", "rollout")
_OF_A_VERSION = ("digest", "version", "trained_from", "unseen_from")


@dataclass(frozen=True)
class _Told:
    """What the records come to: digests of who answers and of who did before, and the last rollout."""

    champion: str | None = None
    previous: str | None = None
    rollout: Status | None = None


def put_back(rollouts: Rollouts, actor: str, reason: str) -> str | None:
    """Write the rows of who answers and of the last rollout anew, where one is gone or not what the audit wrote.

    Returns the digest of who answers then; None where nothing was amiss, or the model was never adopted.

    Raises:
        IntegrityError: the audit does not hold either, or tells of a version that is gone; nothing is changed.
    """
    ledger = rollouts.context.ledger
    amiss = [name for name in _ROWS if ledger.is_amiss(name)]
    told = _told(ledger.history()) if amiss else _Told()
    if told.champion is None or (amiss == ["rollout"] and told.rollout is None):
        return None
    known = _documents(rollouts)
    previous = known.get(told.previous) if told.previous else None
    champion = {**_whole(rollouts, known, told.champion), "previous": previous}
    puts: dict[str, Mapping[str, Any]] = {"model": champion}
    if told.rollout is not None:
        puts["rollout"] = told.rollout.to_json()
    digests = {} if told.champion == RECORDED else {"bundle": told.champion}
    details = {"version": champion["version"], "amiss": amiss, "reason": reason}
    alert = ledger.alert(f"put-back-{champion['version']}", PUT_BACK, f"{' and '.join(amiss)} changed beside the audit")
    ledger.commit(PUT_BACK, details, digests, puts=puts, messages=[alert], actor=actor)
    return told.champion


def _told(records: Iterable[AuditRecord]) -> _Told:
    told = _Told()
    for record in records:
        if record.event == "model.adopted":
            told = _Told(record.digests.get("bundle", RECORDED))
        elif record.event.startswith("rollout."):
            told = _after(told, Status.from_json({field.name: record.details[field.name] for field in fields(Status)}))
    return told


def _after(told: _Told, status: Status) -> _Told:
    if status.phase is Phase.FULL:
        return _Told(status.candidate, told.champion, status)
    if status.phase is Phase.ROLLED_BACK and told.champion == status.candidate:  # from a champion, to who it followed
        return _Told(status.champion, None, status)
    return _Told(told.champion, told.previous, status)


def _documents(rollouts: Rollouts) -> dict[str, Mapping[str, Any]]:
    """By digest, what rows that are as the audit wrote them say of versions."""
    ledger = rollouts.context.ledger
    bodies = [body for kind in ("candidate", "reference") for body in ledger.whole(kind)]
    return {str(body["digest"]): {name: body[name] for name in _OF_A_VERSION} for body in bodies}


def _whole(rollouts: Rollouts, known: Mapping[str, Mapping[str, Any]], digest: str) -> dict[str, str]:
    """The version, which the registry still has as it was registered."""
    at = rollouts.context
    if digest not in known:
        raise IntegrityError(
            f"{at.spec.name}: the audit names {digest} as the one that answers, and no intact record tells of it; "
            "nothing was changed: restore the control store from a copy that verifies"
        )
    return Version.load(known[digest], at.registry).to_json()
