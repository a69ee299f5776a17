"""Releasing: from a candidate whose gates passed to a champion, or back; each step in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.advance import Effect, Page, Promote, advance, start
from drift_pipeline.rollout.approval import Refusal, count_valid, read_approvals, verify_approval
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase, Plan, Status
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

NOTHING_PREVIOUS = "there is no earlier version to go back to; hand the traffic back to what served it before"


@dataclass(frozen=True)
class Trust:
    """Whose approvals count: the GitOps folder they are filed in, the environment, and the keys."""

    gitops: Path
    environment: str
    approvers: Mapping[str, PublicKey]
    trainer_key_id: str


class Releasing:
    """One model's rollouts. The control store is read anew at each step: what was read is what the step is based on.

    A step that somebody else was faster at raises ConflictError and changes nothing: rollback and promotion at once
    leave exactly one of them done, and the other is told.
    """

    def __init__(
        self, spec: ModelSpec, ledger: Ledger, lake: Lake, registry: Registry, clock: Clock, trust: Trust
    ) -> None:
        self._spec, self._ledger, self._lake, self._registry = spec, ledger, lake, registry
        self._clock, self._trust = clock, trust
        self._loaded: Version | None = None

    @property
    def status(self) -> Status | None:
        """Where the last rollout stands."""
        found = self._ledger.find("rollout")
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
            self._loaded = Version.load(self._ledger.get(f"candidate/{status.candidate}"), self._registry)
        return self._loaded

    def register(self, digest: str) -> Version:
        """Name a candidate as one that may be shipped, if the control store has the record that its gates passed.

        Raises:
            IntegrityError: there is no such record, or the bundle's bytes do not fit.
        """
        record = self._ledger.find(f"candidate/{digest}")
        if record is None or record["passed"] is not True:
            raise IntegrityError(
                f"{self._spec.name}: no record says that the gates of {digest} passed; it is not released"
            )
        candidate = Version.load(record, self._registry)
        if self._ledger.find(f"registered/{candidate.name}") is None:
            puts = {f"registered/{candidate.name}": candidate.to_json()}
            self._ledger.commit("model.registered", {"version": candidate.name}, {"bundle": digest}, puts=puts)
        return candidate

    def begin(
        self,
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
        candidate = self.register(digest)
        if self.active is not None:
            return False
        name = f"rollouts/{candidate.name}"  # a version may be rolled out again, which is another rollout
        count = (self._ledger.find(name) or {"count": 0})["count"] + 1
        rollout_id = f"{self._spec.name}-{candidate.name}" + (f".{count}" if count > 1 else "")
        status, effects = start(rollout_id, self._spec.name, digest, champion, self._clock.now())
        self._move(status, effects, actor, also={**(also or {}), name: {"count": count}})
        return True

    def advance(self, champion: Version, *, held: bool = False) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where nothing moved.

        Args:
            champion: the version that answers.
            held: only back, not forward: somebody paused the model.
        """
        return self._advance(Plan.of(self._spec), champion, held, "loop", "")

    def hurry(self, champion: Version, actor: str, reason: str) -> Status:
        """Take the next step forward without waiting for the phase's time: everything else is asked for as ever.

        Raises:
            InputError: no rollout is under way, or the facts or the approvals do not allow it yet; says which.
        """
        status = self.active
        if status is None:
            raise InputError(f"{self._spec.name}: no rollout is under way; there is nothing to promote")
        soon = replace(
            Plan.of(self._spec), shadow=self._clock.now() - status.since, canary=self._clock.now() - status.since
        )
        moved = self._advance(soon, champion, False, actor, reason)
        if moved is None:
            lacking = self.why_it_holds(champion)
            raise InputError(f"{self._spec.name}: {status.rollout_id} holds in {status.phase}: {lacking}")
        return moved

    def why_it_holds(self, champion: Version) -> str:
        """What the rollout under way waits for, in words."""
        from drift_pipeline.rollout.verdict import judge

        status, candidate, plan = self.active, self.candidate, Plan.of(self._spec)
        if status is None or candidate is None:
            return "no rollout is under way"
        seen = self._seen(status, candidate, champion)
        judged = "; ".join(judge(seen, plan.min_samples).reasons)
        approvals = count_valid(self._approvals(status.candidate))
        return f"{judged}; {approvals} of {plan.approvals} approvals"

    def roll_back(self, actor: str, reason: str, *, only: str | None = None, champion: bool = False) -> Status | None:
        """Back to the champion while a rollout is under way; else from a champion just promoted to the one before it.

        It asks no policy and waits for nothing.

        Args:
            only: the rollout that is meant; None comes back, and nothing is changed, where it is not the last one any
                more, or is rolled back already.
            champion: go back from the champion also where the last rollout was rolled back, and so is not how it came.

        Raises:
            InputError: there is nothing to go back to, or what was meant may be done already.
            IntegrityError: the version to go back to is not what was registered; nothing is changed.
        """
        status, now = self.status, self._clock.now()
        over = status is not None and status.phase is Phase.ROLLED_BACK
        if only is not None and (status is None or status.rollout_id != only or over):
            return None
        if status is not None and status.active:
            told = f"{status.phase}: {reason}"
            back = replace(status, phase=Phase.ROLLED_BACK, since=now, reason=told)
            self._move(back, (Page(told),), actor)
            return back
        model = self._ledger.get("model")
        previous = model.get("previous")
        if previous is None:
            raise InputError(f"{self._spec.name}: {NOTHING_PREVIOUS}")
        if over and not champion:
            raise InputError(
                f"{self._spec.name}: {status.rollout_id if status else ''} is rolled back already, and "
                f"{model['version']} answers; to go back from that one too, say so (--champion)"
            )
        target = Version.load(previous, self._registry)
        told = f"after full: {reason}"
        back = Status(
            status.rollout_id if status and not over else f"{self._spec.name}-{model['version']}",
            self._spec.name,
            model["digest"],
            target.digest,
            Phase.ROLLED_BACK,
            now,
            now,
            told,
        )
        self._move(back, (Page(told),), actor, champion={**target.to_json(), "previous": None})
        return back

    def _advance(self, plan: Plan, champion: Version, held: bool, actor: str, reason: str) -> Status | None:
        status, candidate = self.active, self.candidate
        if status is None or candidate is None:
            return None
        approvals = count_valid(self._approvals(status.candidate))
        seen = self._seen(status, candidate, champion)
        moved, effects = advance(plan, status, seen, approvals, self._clock.now())
        if moved == status or (held and moved.phase is not Phase.ROLLED_BACK):
            return None
        promoted = None
        if any(isinstance(effect, Promote) for effect in effects):
            try:  # what was loaded when the rollout began may lie there as something else by now
                Version.load(self._ledger.get(f"candidate/{status.candidate}"), self._registry)
            except IntegrityError as error:
                return self.roll_back(actor, f"not promoted: {error}", only=status.rollout_id)
            promoted = {**candidate.to_json(), "previous": champion.to_json()}
        if reason:
            moved = replace(moved, reason=f"{reason}; {moved.reason}")
        self._move(moved, effects, actor, champion=promoted)
        return moved

    def _seen(self, status: Status, candidate: Version, champion: Version) -> Any:
        now, performance = self._clock.now(), performance_of(self._spec)
        return observe(self._lake, status, candidate.name, champion.name, now, performance, self._spec)

    def _move(
        self,
        status: Status,
        effects: Sequence[Effect],
        actor: str,
        champion: Mapping[str, Any] | None = None,
        also: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """The rollout's new status and, where it changes who answers, the champion: never one without the other."""
        what, pages = f"rollout.{status.phase}", [effect for effect in effects if isinstance(effect, Page)]
        alerts = [self._ledger.alert(status.rollout_id, what, page.reason) for page in pages]
        told = {
            **status.to_json(),
            "effects": [f"{type(e).__name__} {' '.join(map(str, asdict(e).values()))}" for e in effects],
        }
        digests = {"candidate": status.candidate, "champion": status.champion}
        digests = {name: digest for name, digest in digests.items() if digest != RECORDED}
        puts: dict[str, Mapping[str, Any]] = {"rollout": status.to_json(), **(also or {})}
        if champion is not None:
            self._ledger.get("model")
            puts["model"] = champion
        self._ledger.commit(what, told, digests, puts=puts, messages=alerts, actor=actor)

    def _approvals(self, digest: str) -> list[Any]:
        """What the filed approvals come to; each is audited once."""
        trust, outcomes, now = self._trust, [], self._clock.now()
        heard = self._ledger.find(f"approvals/{digest}")
        told_before: list[str] = list(heard["told"]) if heard else []
        for envelope in read_approvals(trust.gitops, self._spec.name, digest):
            outcome = verify_approval(
                envelope,
                keys=trust.approvers,
                model=self._spec.name,
                digest=digest,
                environment=trust.environment,
                trainer_key_id=trust.trainer_key_id,
                now=now,
            )
            outcomes.append(outcome)
            refused = isinstance(outcome, Refusal)
            told = outcome.reason.partition(", and it is")[0] if isinstance(outcome, Refusal) else outcome.approver
            if told not in told_before:
                told_before.append(told)
                event = "approval.refused" if refused else "approval.accepted"
                who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
                puts = {f"approvals/{digest}": {"told": told_before}}
                self._ledger.commit(event, {"reason": outcome.reason, **who}, {"bundle": digest}, puts=puts)
        return outcomes
