"""Approvals: what was filed for a candidate, each verified at every look and audited once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import InputError
from drift_pipeline.loop.context import Context
from drift_pipeline.rollout.approval import Accepted, Approval, Refusal, approval_files, read_approval, verify_approval


def filed(context: Context, digest: str, rollout: str) -> list[Approval | Refusal]:
    """What the filed approvals come to now, for this rollout of the candidate."""
    trust, outcomes = context.trust, list[Approval | Refusal]()
    candidate = context.ledger.find(f"candidate/{digest}")
    keys, trainer = trust.approvers(), str((candidate or {}).get("trainer"))
    _withdraw(context, digest)
    for path in approval_files(trust.gitops, context.spec.name, digest):
        outcome = verify_approval(
            read_approval(path),
            keys=keys,
            model=context.spec.name,
            digest=digest,
            rollout=rollout,
            environment=trust.environment,
            trainer_key_id=trainer,
            longest=trust.longest_approval,
            now=context.clock.now(),
        )
        outcomes.append(outcome)
        _audit(context, digest, rollout, path, outcome)
    return outcomes


def _audit(context: Context, digest: str, rollout: str, path: Path, outcome: Approval | Refusal) -> None:
    """Once a rollout: each that counts, with what its file holds, and each reason why one does not."""
    heard = context.ledger.find(f"approvals/{digest}")
    before = list(heard["told"]) if heard and heard["rollout"] == rollout else []
    refused = isinstance(outcome, Refusal)
    told = outcome.reason.partition(", and it is")[0] if isinstance(outcome, Refusal) else outcome.approver
    held = {} if refused else _held(context, path)
    if told in before and not held:
        return
    who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
    who |= {"person": outcome.person} if isinstance(outcome, Accepted) else {}
    details = {"reason": outcome.reason, "rollout": rollout, **who}
    puts = {f"approvals/{digest}": {"rollout": rollout, "told": [*before, *({told} - {*before})]}, **held}
    event = "approval.refused" if refused else "approval.accepted"
    context.ledger.commit(event, details, {"bundle": digest}, puts=puts)


def _withdraw(context: Context, digest: str) -> None:
    """A deleted file is a withdrawn approval, which the audit tells before it counts no more."""
    place = f"approvals/{context.spec.name}/{digest.removeprefix('sha256:')}."
    for name, body in context.ledger.all("file"):
        path = context.trust.gitops.parent / name.partition("/")[2]
        if place in name and body["digest"] is not None and not path.exists():
            details = {"file": name.partition("/")[2], "sha256": body["digest"]}
            context.ledger.commit("approval.withdrawn", details, {"bundle": digest}, puts={name: {"digest": None}})


def _held(context: Context, path: Path) -> dict[str, Mapping[str, Any]]:
    """State to put where the file holds something else than the audit names."""
    name = f"file/{path.relative_to(context.trust.gitops.parent).as_posix()}"
    try:
        digest = sha256(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    before = context.ledger.find(name)
    return {} if before is not None and before["digest"] == digest else {name: {"digest": digest}}
