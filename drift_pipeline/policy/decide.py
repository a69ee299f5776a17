"""decide(): ask the policy what to do, and never take silence or nonsense for a yes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import PolicyEngine


class Trigger(StrEnum):
    """Who asks."""

    DRIFT = "drift"
    SCHEDULE = "schedule"
    OPERATOR = "operator"
    HOTFIX = "hotfix"


class Action(StrEnum):
    """What the policy may answer; a hotfix retrain goes past the cooldown and into the fast lane."""

    RETRAIN = "retrain"
    HOTFIX_RETRAIN = "hotfix_retrain"
    SUGGEST = "suggest"
    IGNORE = "ignore"


@dataclass(frozen=True)
class IncidentFacts:
    """The open incident; `fresh_rows` counts labelled rows since its onset, a retrain wants `fresh_rows_needed`."""

    key: str
    opened_at: datetime
    age_hours: float
    fresh_rows: int
    fresh_rows_needed: int


@dataclass(frozen=True)
class RetrainFacts:
    """What retraining has done lately; `cooldown_left_hours` is 0 once the cooldown is over.

    `max_gpu_hours` is what the month may cost, None where nobody says. `candidate` is the version that was trained, may
    be rolled out and is not yet, None where none waits.
    """

    running: bool
    cooldown_left_hours: float
    this_month: int
    max_per_month: int
    rejected_in_a_row: int
    gpu_hours_this_month: float = 0.0
    max_gpu_hours: float | None = None
    candidate: str | None = None


@dataclass(frozen=True)
class Facts:
    """The policy's whole input.

    `kpis` has a verdict for each of psi, range_z, auroc, latency_p95_ms and demographic_parity; a KPI that
    is switched off is NOT_CONFIGURED, never left out. `performance` names the KPI that the task is judged by (auroc,
    mae). `fall` is how far it fell, as a share: AUROC's baseline minus now (0.05 = 5 pp), or MAE's rise over the
    baseline (0.1 = 10 %); positive = got worse, None when it is not known.

    Raises:
        ValueError: a NaN or infinite number (what is not known is None), or a time without a zone.
    """

    model: str
    now: datetime
    trigger: Trigger
    incident: IncidentFacts | None
    kpis: Mapping[str, str]
    drifting_features: tuple[str, ...]
    performance: str
    fall: float | None
    fall_allowed: float | None
    retrain: RetrainFacts
    rollout_active: bool
    paused: bool

    def __post_init__(self) -> None:
        times = [self.now] + ([self.incident.opened_at] if self.incident else [])
        if any(time.utcoffset() is None for time in times):
            raise ValueError(f"facts want aware times, not {', '.join(map(str, times))}")
        json.dumps(self.to_json(), allow_nan=False)

    def to_json(self) -> dict[str, object]:
        """The input document, of plain JSON types."""
        document: dict[str, object] = {
            **asdict(self),
            "now": self.now.isoformat(),
            "trigger": str(self.trigger),
            "kpis": {str(kpi): str(verdict) for kpi, verdict in self.kpis.items()},
            "drifting_features": list(self.drifting_features),
        }
        if self.incident:
            document["incident"] = {**asdict(self.incident), "opened_at": self.incident.opened_at.isoformat()}
        return document


class Capacity(StrEnum):
    """What a retrain runs on: what is cheap and may be taken away, or what may not."""

    SPOT = "spot"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True)
class Decision:
    """What to do and why; `policy_digest` names the very rules that said so, None where that is not known.

    `by` tells the audit who answered. `unavailable`: nobody did, and it is no for that reason alone.
    """

    action: Action
    reasons: tuple[str, ...]
    policy_digest: str | None
    capacity: Capacity | None = None
    by: Mapping[str, str] = field(default_factory=dict)
    unavailable: bool = False


def decide(facts: Facts, engine: PolicyEngine) -> Decision:
    """Ask the engine; an engine that is dead, undefined or answers anything odd decides IGNORE and says so."""
    try:
        answer = engine.evaluate(facts.to_json())
        action, reasons, capacity = _read(answer.value)
    except UnavailableError as error:
        return Decision(Action.IGNORE, (f"policy unavailable: {error}",), engine.digest, unavailable=True)
    return Decision(action, reasons, answer.digest, capacity, answer.by)


def _read(answer: Mapping[str, object]) -> tuple[Action, tuple[str, ...], Capacity | None]:
    action, reasons, capacity = answer.get("action"), answer.get("reasons"), answer.get("capacity")
    if action not in list(Action):
        raise UnavailableError(f"it answered the action {action!r}; there are: {', '.join(Action)}")
    if not isinstance(reasons, list) or not reasons or not all(isinstance(r, str) and r for r in reasons):
        raise UnavailableError(f"it answered {action!r} with the reasons {reasons!r}, which are none")
    if capacity is not None and capacity not in list(Capacity):
        raise UnavailableError(f"it answered the capacity {capacity!r}; there are: {', '.join(Capacity)}")
    if odd := sorted(answer.keys() - {"action", "reasons", "capacity"}):
        raise UnavailableError(f"it answered keys that nobody reads: {', '.join(odd)}")
    return Action(str(action)), tuple(reasons), Capacity(str(capacity)) if capacity else None
