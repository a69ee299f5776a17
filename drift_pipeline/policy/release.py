"""may_release(): ask the policy whether a rollout may take its next step; silence and nonsense hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import RELEASE, PolicyEngine

ROLLBACK_RULE = "embedded: a rollback is always allowed, no server is asked"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Step:
    """The policy's whole input about a rollout: `step` is the phase that it would go to."""

    model: str
    now: datetime
    step: str
    environment: str
    risk_profile: str | None
    gates_passed: bool
    approvals: int
    approvals_wanted: int

    def to_json(self) -> dict[str, object]:
        """The input document; `weekday` is UTC's, in English."""
        return {**asdict(self), "now": self.now.isoformat(), "weekday": _DAYS[self.now.weekday()]}


@dataclass(frozen=True)
class Permission:
    """Whether it may, and why; `policy_digest` names the rules that said so, None where no rule did."""

    allowed: bool
    reasons: tuple[str, ...]
    policy_digest: str | None
    by: Mapping[str, str] = field(default_factory=dict)


def may_release(step: Step, engine: PolicyEngine) -> Permission:
    """Ask the engine; one that is dead, undefined or answers anything odd allows nothing and says so."""
    try:
        answer = engine.evaluate(step.to_json(), RELEASE)
        allowed, reasons = answer.value.get("allow"), answer.value.get("reasons")
        if not isinstance(allowed, bool) or not isinstance(reasons, list) or not reasons:
            raise UnavailableError(f"it answered allow {allowed!r} with the reasons {reasons!r}")
    except UnavailableError as error:
        return Permission(False, (f"policy unavailable: {error}",), None)
    return Permission(allowed, tuple(map(str, reasons)), answer.digest, answer.by)
