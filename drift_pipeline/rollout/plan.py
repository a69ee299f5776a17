"""The plan of a rollout, and where one stands."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from drift_pipeline.clock import format_duration
from drift_pipeline.errors import IntegrityError, SpecError
from drift_pipeline.spec import ModelSpec


class Phase(StrEnum):
    """In order; from each of the first three the way may also lead to ROLLED_BACK."""

    SHADOW = "shadow"
    AWAITING_APPROVAL = "awaiting_approval"
    CANARY = "canary"
    FULL = "full"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Plan:
    """`shadow` and `canary` are the shortest time in the phase, `deadline` is the longest in any; weight in percent.

    Raises:
        SpecError: the deadline comes before a phase can end, so that no version would ever ship.
    """

    shadow: timedelta
    canary: timedelta
    deadline: timedelta
    canary_weight: int
    approvals: int
    min_samples: int

    def __post_init__(self) -> None:
        for name, least in (("shadow", self.shadow), ("canary", self.canary)):
            if self.deadline <= least:
                raise SpecError(
                    f"rollout.deadline {format_duration(self.deadline)} is not longer than rollout.{name} "
                    f"{format_duration(least)}: every version would be rolled back; give it more time"
                )

    @classmethod
    def of(cls, spec: ModelSpec) -> "Plan":
        declared = spec.rollout
        return cls(
            shadow=declared.shadow,
            canary=declared.canary,
            deadline=declared.deadline,
            canary_weight=declared.canary_weight,
            approvals=sum(declared.wanted.values()),
            min_samples=declared.min_samples,
        )


@dataclass(frozen=True)
class Status:
    """Where one rollout stands. `champion` is the digest to go back to, `since` when the phase was entered.

    `reason` says why the phase was entered; a rollout that holds keeps its status unchanged.

    Raises:
        ValueError: a time without a zone.
    """

    rollout_id: str
    model: str
    candidate: str
    champion: str
    phase: Phase
    since: datetime
    started: datetime
    reason: str

    def __post_init__(self) -> None:
        if self.since.utcoffset() is None or self.started.utcoffset() is None:
            raise ValueError(f"a rollout wants aware times, not {self.since} and {self.started}")

    @property
    def active(self) -> bool:
        return self.phase not in (Phase.FULL, Phase.ROLLED_BACK)

    @property
    def evidence_since(self) -> datetime:
        """From when on `Observations` are counted: a canary is judged by itself, mirrored traffic as a whole."""
        return self.since if self.phase is Phase.CANARY else self.started

    def to_json(self) -> dict[str, str]:
        return {
            **asdict(self),
            "phase": str(self.phase),
            "since": self.since.isoformat(),
            "started": self.started.isoformat(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Status":
        """Raises IntegrityError when it is not what `to_json` wrote."""
        names = cls.__dataclass_fields__.keys()
        if document.keys() != names or not all(isinstance(value, str) for value in document.values()):
            raise IntegrityError(f"a rollout's status is texts for {', '.join(names)}, not {dict(document)}")
        texts = {name: str(value) for name, value in document.items()}
        try:
            phase = Phase(texts.pop("phase"))
            since, started = (datetime.fromisoformat(texts.pop(name)) for name in ("since", "started"))
            return cls(phase=phase, since=since, started=started, **texts)
        except ValueError as error:
            raise IntegrityError(f"no rollout status: {error}") from error


def rollout_id(model: str, version: str, number: int) -> str:
    """The name of a version's rollout, numbered from 1: each is another one, with approvals of its own."""
    return f"{model}-{version}" + (f".{number}" if number > 1 else "")


def version_of(model: str, rollout: str) -> str:
    """The version that a rollout is of, by its name.

    >>> version_of("fraud", rollout_id("fraud", "v2", 3))
    'v2'
    """
    return rollout.removeprefix(f"{model}-").partition(".")[0]
