"""Approvals: what was filed for a candidate, each verified at every look and audited once."""

from drift_pipeline.loop.context import Context
from drift_pipeline.rollout.approval import Approval, Refusal, read_approvals, verify_approval


def filed(context: Context, digest: str) -> list[Approval | Refusal]:
    """What the filed approvals come to now."""
    trust, now, outcomes = context.trust, context.clock.now(), list[Approval | Refusal]()
    heard = context.ledger.find(f"approvals/{digest}")
    told_before: list[str] = list(heard["told"]) if heard else []
    for envelope in read_approvals(trust.gitops, context.spec.name, digest):
        outcome = verify_approval(
            envelope,
            keys=trust.approvers,
            model=context.spec.name,
            digest=digest,
            environment=trust.environment,
            trainer_key_id=trust.trainer_key_id,
            now=now,
        )
        outcomes.append(outcome)
        told = outcome.reason.partition(", and it is")[0] if isinstance(outcome, Refusal) else outcome.approver
        if told not in told_before:
            told_before.append(told)
            _audit(context, digest, outcome, told_before)
    return outcomes


def _audit(context: Context, digest: str, outcome: Approval | Refusal, told: list[str]) -> None:
    refused = isinstance(outcome, Refusal)
    event = "approval.refused" if refused else "approval.accepted"
    who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
    puts = {f"approvals/{digest}": {"told": told}}
    context.ledger.commit(event, {"reason": outcome.reason, **who}, {"bundle": digest}, puts=puts)
