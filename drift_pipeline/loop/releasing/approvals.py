"""Approvals and waivers: what was filed for a candidate, each verified at every look and audited once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import InputError
from drift_pipeline.loop.context import Context
from drift_pipeline.rollout import signed
from drift_pipeline.rollout.approval import Approval, Refusal, approval_files, filled, verify_approval
from drift_pipeline.rollout.signed import Asked, Statement
from drift_pipeline.rollout.waiver import (
    blocking,
    told_unwaived,
    unwaived,
    verify_waiver,
    waived_digests,
    waiver_files,
)


def filed(context: Context, digest: str, rollout: str) -> list[Approval | Refusal]:
    """What the filed approvals come to now, for this rollout of the candidate."""
    asked, outcomes = _asked(context, digest), list[Approval | Refusal]()
    _withdraw(context, "approval", digest)
    for path in approval_files(context.trust.gitops, context.spec.name, digest):
        outcome = verify_approval(signed.read(path), asked, rollout)
        outcomes.append(outcome)
        told = outcome.reason.partition(", and it is")[0] if isinstance(outcome, Refusal) else outcome.approver
        _audit(context, "approval", digest, path, outcome, told, {"rollout": rollout})
    return outcomes


def approved(context: Context, digest: str, rollout: str) -> int:
    """How many of the people whom the spec wants have approved this rollout, as of now."""
    return filled(filed(context, digest, rollout), context.spec.rollout.wanted)


def kept_back(context: Context, digest: str) -> str:
    """Which gates of a candidate did not pass and are not waived now; "" where none is.

    Whose gates all passed needs no look at what is filed.
    """
    record = context.ledger.find(f"candidate/{digest}") or {}
    if record.get("passed") is True:
        return ""
    blocked = blocking(record.get("results", ())) if record.get("passed") is False else []
    if not blocked:
        return "no gate was asked"
    _withdraw(context, "waiver", digest)
    asked, outcomes = _asked(context, digest), []
    for path in waiver_files(context.trust.gitops, context.spec.name, digest):
        outcome = verify_waiver(signed.read(path), asked, blocked)
        outcomes.append(outcome)
        scope = {} if isinstance(outcome, Refusal) else {"gate": outcome.gate}
        told = outcome.reason.partition(", and it is")[0] if isinstance(outcome, Refusal) else "accepted"
        _audit(context, "waiver", digest, path, outcome, f"{signed.shown(path.name)}: {told}", scope)
    wanted = context.spec.rollout.wanted
    return told_unwaived(unwaived(blocked, outcomes, wanted), wanted)


def with_waivers(context: Context) -> set[str]:
    """The candidates for which any waiver is filed, valid or not."""
    return waived_digests(context.trust.gitops, context.spec.name)


def _asked(context: Context, digest: str) -> Asked:
    trust, candidate = context.trust, context.ledger.find(f"candidate/{digest}") or {}
    trainer, now = str(candidate.get("trainer")), context.clock.now()
    name, longest = context.spec.name, trust.longest_approval
    return Asked(trust.approvers(), name, digest, trust.environment, trainer, longest, now)


def _audit(
    context: Context,
    kind: str,
    digest: str,
    path: Path,
    outcome: Statement | Refusal,
    told: str,
    scope: Mapping[str, str],
) -> None:
    """Once a rollout: each that counts, with what its file holds, and each reason why one does not."""
    heard = context.ledger.find(f"{kind}s/{digest}")
    rollout = scope.get("rollout")
    before = list(heard["told"]) if heard and heard["rollout"] == rollout else []
    refused = isinstance(outcome, Refusal)
    held = {} if refused else _held(context, path)
    if told in before and not held:
        return
    who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
    who |= {} if isinstance(outcome, Refusal) else {"person": getattr(outcome, "person", None), "role": outcome.role}
    file = signed.shown(path.relative_to(context.trust.gitops.parent).as_posix())
    details = {"reason": outcome.reason, **scope, **who, "file": file}
    puts = {f"{kind}s/{digest}": {"rollout": rollout, "told": [*before, *({told} - {*before})]}, **held}
    event = f"{kind}.refused" if refused else f"{kind}.accepted"
    context.ledger.commit(event, details, {"bundle": digest}, puts=puts)


def _withdraw(context: Context, kind: str, digest: str) -> None:
    """A deleted file is withdrawn, which the audit tells before it counts no more."""
    place = f"{kind}s/{context.spec.name}/{digest.removeprefix('sha256:')}."
    for name, body in context.ledger.all("file"):
        path = context.trust.gitops.parent / name.partition("/")[2]
        if place in name and body["digest"] is not None and not path.exists():
            details = {"file": name.partition("/")[2], "sha256": body["digest"]}
            context.ledger.commit(f"{kind}.withdrawn", details, {"bundle": digest}, puts={name: {"digest": None}})


def _held(context: Context, path: Path) -> dict[str, Mapping[str, Any]]:
    """State to put where the file holds something else than the audit names."""
    name = f"file/{path.relative_to(context.trust.gitops.parent).as_posix()}"
    try:
        digest = sha256(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    before = context.ledger.find(name)
    return {} if before is not None and before["digest"] == digest else {name: {"digest": digest}}
