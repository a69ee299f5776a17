"""Give an approval: everything that could make it not count is found out before it is filed."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import PublicKey, Signer, public_path
from drift_pipeline.control.store import ControlReader
from drift_pipeline.control.trust import appoint, dismiss, open_store, require_store, rotate
from drift_pipeline.errors import DriftError, InputError
from drift_pipeline.evidence.statements import (
    advice,
    approvals_wanted,
    asked_of,
    audit_refusal,
    candidate_of,
    file_signed,
    signed_from_now,
    unfit,
    unproven,
    waivers_filed,
)
from drift_pipeline.rollout.approval import (
    Approval,
    Refusal,
    filled,
    read_approvals,
    verify_approval,
)
from drift_pipeline.rollout.plan import Status, rollout_id
from drift_pipeline.rollout.signed import Asked
from drift_pipeline.settings import Settings
from drift_pipeline.spec import APPROVER


@dataclass(frozen=True)
class Given:
    """An approval that is filed. `wanted` is how many are, None where no spec of the model is found, and `valid` how
    many of them there are; `refused` are the others."""

    path: Path
    version: str
    digest: str
    rollout: str
    approver: str
    role: str
    expires: datetime
    valid: int
    wanted: int | None
    refused: tuple[str, ...]


def approve(
    settings: Settings,
    signer: Signer,
    model: str,
    version: str,
    reason: str,
    lasting: timedelta,
    clock: Clock,
    role: str | None = None,
) -> Given | Refusal:
    """File the signer's approval of one version for `settings.environment`; a refusal is audited, and files nothing.

    Who may approve are the keys that were appointed. It is for one rollout: the one under way, or the next. The file
    comes before the audit record: an approval that counts is audited again by the loop which accepts it, and giving it
    again after a crash replaces the file.

    Args:
        version: a name such as v3, or a digest.
        role: in which the key signs; None = the only one it was appointed with.

    Raises:
        InputError: no control store, a key of several roles of which none is named, an unknown model or version, or a
            field that is no approval's.
        UnavailableError: as of `gitops.filing`; nothing is filed.
        IntegrityError: the candidate is not what its audit record says.
    """
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        body = candidate_of(store, model, version)
        asked = asked_of(settings, store, body, model, clock.now())
        wanted = approvals_wanted(settings, model)
        rollout = rollout_to_approve(store, model, body["version"], asked.digest)
        found = _signed_approval(settings, signer, asked, body, rollout, reason, lasting, role, wanted)
        told = {"version": body["version"], "rollout": rollout}
        if isinstance(found, Refusal):
            audit_refusal(store, "approval", signer, asked, told, found)
            return found
        envelope, outcome = found
        path = file_signed(settings, store, clock, signer, asked, Approval, envelope, told)
    filed = read_approvals(settings.gitops, model, asked.digest)
    outcomes = [verify_approval(envelope, asked, rollout) for envelope in filed]
    return Given(
        path=path,
        version=body["version"],
        digest=asked.digest,
        rollout=rollout,
        approver=str(signer.public),
        role=outcome.role,
        expires=outcome.expires,
        valid=filled(outcomes, wanted or {outcome.role: len(outcomes)}),
        wanted=sum(wanted.values()) if wanted else None,
        refused=tuple(other.reason for other in outcomes if isinstance(other, Refusal)),
    )


def _signed_approval(
    settings: Settings,
    signer: Signer,
    asked: Asked,
    body: Mapping[str, Any],
    rollout: str,
    reason: str,
    lasting: timedelta,
    role: str | None,
    wanted: Mapping[str, int] | None,
) -> tuple[dict[str, Any], Approval] | Refusal:
    """The envelope, which holds, and what it says; or why it would not."""
    waived = waivers_filed(settings, asked, body)
    if fault := unproven(body, waived, wanted) or unfit(settings, signer, asked, body, "approve"):
        return Refusal(fault)
    envelope = signed_from_now(Approval, signer, asked, reason, lasting, role, rollout=rollout)
    outcome = verify_approval(envelope, asked, rollout)
    if isinstance(outcome, Refusal):
        return Refusal(outcome.reason + advice(settings, signer, asked))
    return envelope, outcome


def rollout_to_approve(store: ControlReader, model: str, version: str, digest: str) -> str:
    """The version's rollout that is under way, else its next one: each wants approvals of its own."""
    status, begun = store.get("rollout", model), rollouts_of(store, model, version)
    under_way = status is not None and status.body["candidate"] == digest and Status.from_json(status.body).active
    return rollout_id(model, version, begun if under_way and begun else begun + 1)


def rollouts_of(store: ControlReader, model: str, version: str) -> int:
    """How many rollouts of a version have begun."""
    found = store.get("rollouts", f"{model}/{version}")
    return int(found.body["count"]) if found else 0


def make_key(
    path: Path,
    label: str,
    identity: str | None,
    settings: Settings | None,
    actor: str,
    clock: Clock,
    roles: Sequence[str] = (APPROVER,),
) -> tuple[Signer, Path | None]:
    """A new pair of files at `path`; with settings it is appointed in that home, whose approver it is then.

    Args:
        identity: whose it is, where a person has several keys; else the label.
        roles: in which it signs in that home.

    Raises:
        InputError: no label, a path that is taken or cannot be written, or no such home; then nothing is written.
    """
    if not label.strip():
        raise InputError("a key's label says whose it is, and is not empty: such as --label ada")
    if settings is not None:
        require_store(settings)
    signer = Signer.generate(label, (identity or label).strip())
    signer.save(path)
    if settings is None:
        return signer, None
    try:
        return signer, trust_key(signer.public, path.stem, settings, actor, clock, roles)
    except DriftError:  # a home that nobody can write: no key is left that counts nowhere
        for file in (path, public_path(path)):
            file.unlink(missing_ok=True)
        raise


def trust_key(
    key: PublicKey, stem: str, settings: Settings, actor: str, clock: Clock, roles: Sequence[str] = (APPROVER,)
) -> Path:
    """Appoint a key of a person's own making; the file in `keys/`. Raises InputError where there is no such home."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        return appoint(settings, store, key, actor, stem, roles)


def revoke_key(key: PublicKey, settings: Settings, actor: str, clock: Clock) -> None:
    """Let a key's approvals count no more. Raises InputError where it is no approver's key there."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        dismiss(settings, store, key.key_id, actor)


def rotate_home_key(settings: Settings, actor: str, clock: Clock) -> PublicKey:
    """Give a home a new key of its own; errors as of `control.trust.rotate`."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        return rotate(settings, store, actor)
