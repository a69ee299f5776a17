"""Rollouts: where the last one stands, read anew at each step: what was read is what the step is based on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from drift_pipeline.loop.context import Context
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.policy.release import ROLLBACK_RULE, Permission
from drift_pipeline.rollout.advance import Effect, Page
from drift_pipeline.rollout.approval import Accepted, Approval, Refusal
from drift_pipeline.rollout.plan import Phase, Status


class Rollouts:
    """One model's."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._loaded: Version | None = None

    @property
    def status(self) -> Status | None:
        """Where the last rollout stands."""
        found = self.context.ledger.find("rollout")
        return Status.from_json(found) if found else None

    @property
    def active(self) -> Status | None:
        """The rollout that is under way."""
        status = self.status
        return status if status is not None and status.active else None

    @property
    def candidate(self) -> Version | None:
        """The version that is rolled out, while a rollout is under way."""
        status = self.active
        if status is None:
            self._loaded = None
        elif self._loaded is None or self._loaded.digest != status.candidate:
            self._loaded = self.load(status.candidate)
        return self._loaded

    def load(self, digest: str) -> Version:
        """A candidate from the registry. Raises IntegrityError where the bytes there do not fit the digest."""
        return Version.load(self.context.ledger.get(f"candidate/{digest}"), self.context.registry)

    def move(
        self,
        status: Status,
        effects: Sequence[Effect],
        actor: str,
        champion: Mapping[str, Any] | None = None,
        approvals: Iterable[Approval | Refusal] = (),
        also: Mapping[str, Mapping[str, Any]] | None = None,
        permission: Permission | None = None,
    ) -> None:
        """The rollout's new status and, where it changes who answers, the champion: never one without the other.

        Args:
            approvals: what the step rests on, where it makes the candidate the champion.
            also: state to put with it.
            permission: what the policy said of a step forward.
        """
        ledger, event = self.context.ledger, f"rollout.{status.phase}"
        pages = [effect for effect in effects if isinstance(effect, Page)]
        alerts = [ledger.alert(status.rollout_id, event, page.reason) for page in pages]
        told: dict[str, Any] = {
            **status.to_json(),
            "effects": [f"{type(e).__name__} {' '.join(map(str, asdict(e).values()))}" for e in effects],
        }
        if permission is not None:
            told["policy"] = {**permission.by, "reasons": list(permission.reasons)}
        if status.phase is Phase.ROLLED_BACK:
            told["policy"] = {"rule": ROLLBACK_RULE}
        digests = {"candidate": status.candidate, "champion": status.champion}
        digests = {name: digest for name, digest in digests.items() if digest != RECORDED}
        puts: dict[str, Mapping[str, Any]] = {"rollout": status.to_json(), **(also or {})}
        if champion is not None:
            ledger.get("model")
            puts["model"] = champion
            given = sorted((one.approver, one.person) for one in approvals if isinstance(one, Accepted))
            told["approved_by"] = [{"key_id": key_id, "person": person} for key_id, person in given]
        rules = permission.policy_digest if permission else None
        ledger.commit(event, told, digests, puts=puts, messages=alerts, actor=actor, policy_digest=rules)
