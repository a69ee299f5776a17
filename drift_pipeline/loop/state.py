"""What the loop remembers between two ticks: plain facts, each written to the control store and read from it again."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY
from drift_pipeline.errors import InputError
from drift_pipeline.policy.incident import Incident
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.observe import RECORDED
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.dataset import Pin
from drift_pipeline.training.graph import Model, load_model
from drift_pipeline.training.trainers import score

__all__ = ["RECORDED", "Assignment", "Cause", "Memory", "Recovery", "Retrains", "Training", "Version"]

MONTH = 30 * DAY  # that budgets are counted over


@dataclass(frozen=True)
class Version:
    """A version that answers or may come to. Rows from `unseen_from` on were not trained on.

    `made` makes its pipeline, or its graph, when it is first asked for, which takes long; None of recorded scores.
    """

    digest: str
    name: str
    trained_from: datetime
    unseen_from: datetime
    made: "Callable[[], Model] | None"

    @cached_property
    def pipeline(self) -> "Model | None":
        """None of a recorded model, of which only the scores are known. Raises IntegrityError as `load`."""
        return None if self.made is None else self.made()

    @property
    def recorded(self) -> bool:
        return self.digest == RECORDED

    def to_json(self) -> dict[str, str]:
        times = {"trained_from": self.trained_from.isoformat(), "unseen_from": self.unseen_from.isoformat()}
        return {"digest": self.digest, "version": self.name, **times}

    @classmethod
    def load(cls, document: Mapping[str, Any], registry: Registry) -> "Version":
        """Of what `to_json` wrote. Raises IntegrityError where the registry's bytes do not fit the digest."""
        digest = str(document["digest"])
        times = [datetime.fromisoformat(document[name]) for name in ("trained_from", "unseen_from")]
        if digest == RECORDED:
            return cls(digest, document["version"], times[0], times[1], None)
        registry.get(digest)

        def made() -> "Model":
            return load_model(registry.get(digest))

        return cls(digest, document["version"], times[0], times[1], made)

    def scores(self, frame: pl.DataFrame, spec: ModelSpec) -> pl.Series:
        """Scores `_score` of rows (n,); a recorded model's are those that came with the history, in `_recorded`, or
        that it told of while it was served elsewhere. Raises InputError where the rows have neither."""
        if self.pipeline is None:
            told = [name for name in ("_recorded", "_score") if name in frame.columns]
            if not told:
                raise InputError(
                    f"{spec.name}: {self.name} is known by its scores alone, and the rows have none: name their column "
                    "in the spec's prediction, or leave retrain.source to the lake"
                )
            return frame.select(pl.coalesce(told).alias("_score"))["_score"]
        return pl.Series("_score", score(self.pipeline, frame, spec.features))


@dataclass(frozen=True)
class Recovery:
    """A drift that no training made good yet: the candidate was rejected, or is still too far below what was lost.

    The rows of the changed world were few when it was trained, so the next training waits until there are four times
    as many. `target` is the performance before the drift, `onset` when that began.
    """

    key: str
    target: float
    onset: datetime
    fresh_rows_needed: int

    def again(self, fresh_rows_needed: int) -> "Recovery":
        """Still pending after another training, which the next one waits for so many rows after."""
        return replace(self, fresh_rows_needed=fresh_rows_needed)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "onset": self.onset.isoformat()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Recovery":
        return cls(**{**document, "onset": datetime.fromisoformat(document["onset"])})


@dataclass(frozen=True)
class Cause:
    """The drift that a retrain answers: labelled rows since its onset, and what has to be made good, if anything."""

    fresh_rows: int
    recovery: Recovery | None


@dataclass
class Memory:
    """What the next tick, of whichever process, goes on from; not audited, but written together with what is.

    `decided` has trigger, subject and action of the last decision; `seen` is what the last tick found, for people.
    """

    incident: Incident
    decided: tuple[str, ...] | None = None
    seen: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, at: datetime) -> dict[str, Any]:
        decided = list(self.decided) if self.decided else None
        return {"at": at.isoformat(), "incident": self.incident.to_json(), "decided": decided, "seen": dict(self.seen)}

    def take_up(self, document: Mapping[str, Any]) -> None:
        """Of what `to_json` wrote."""
        self.incident = Incident.from_json(document["incident"])
        self.decided = tuple(document["decided"]) if document["decided"] else None
        self.seen = dict(document["seen"])


@dataclass(frozen=True)
class Retrains:
    """What retraining has done so far: `versions` counts the names given out, `at` when each training began.

    `gpu_hours`: when each training of the last month ended that GPUs worked on, and for how many hours of them.
    """

    versions: int = 0
    at: tuple[datetime, ...] = ()
    attempted: datetime | None = None
    rejected_in_a_row: int = 0
    recovery: Recovery | None = None
    gpu_hours: tuple[tuple[datetime, float], ...] = ()

    def gpu_hours_since(self, start: datetime) -> float:
        return sum(hours for at, hours in self.gpu_hours if at > start)

    def spent(self, now: datetime, gpu_hours: float) -> "Retrains":
        kept = [(at, hours) for at, hours in self.gpu_hours if at > now - MONTH]
        return replace(self, gpu_hours=(*kept, (now, gpu_hours)))

    def began(self, now: datetime) -> "Retrains":
        return replace(self, versions=self.versions + 1, at=(*self.at, now), attempted=now)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "at": [at.isoformat() for at in self.at],
            "gpu_hours": [[at.isoformat(), hours] for at, hours in self.gpu_hours],
            "attempted": self.attempted.isoformat() if self.attempted else None,
            "recovery": self.recovery.to_json() if self.recovery else None,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Retrains":
        return cls(
            versions=document["versions"],
            at=tuple(map(datetime.fromisoformat, document["at"])),
            attempted=datetime.fromisoformat(document["attempted"]) if document["attempted"] else None,
            rejected_in_a_row=document["rejected_in_a_row"],
            recovery=Recovery.from_json(document["recovery"]) if document["recovery"] else None,
            gpu_hours=tuple((datetime.fromisoformat(at), hours) for at, hours in document.get("gpu_hours", ())),
        )


@dataclass(frozen=True)
class Assignment:
    """What is to be trained, on which rows, and proven on which: enough to read the very same rows again.

    The rows are those of `from_` to `known_at` in the Delta `versions`; those from `block_from` on prove, the
    older ones train. `fresh`: how many of the training rows are of a world that changed. `recovery`: the drift this
    training is to make good, None where no performance fell. `digest` is the candidate's bundle, once it is trained.
    `trainer_source` is the digest of the model's own trainers, None of packaged ones. `steps`: of a graph, those that
    are trained, the champion's others being taken; none named = all. `source`: where the rows came from, and what
    beside the versions reads them again. `searched`: what a search in processes of its own found, as `Found`; `spent`:
    seconds that it took, of all its processes. `gpu_hours`: what the steps so far counted.
    """

    version: str
    decision: str
    champion: str
    known_at: datetime
    from_: datetime
    versions: Mapping[str, int]
    block_from: datetime
    rows: int
    block_rows: int
    fresh: int
    recovery: Recovery | None
    digest: str | None = None
    trainer_source: str | None = None
    steps: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=lambda: {"kind": "lake", "inputs": []})
    searched: Mapping[str, Any] | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    gpu_hours: float = 0.0

    @property
    def pin(self) -> Pin:
        facts = {name: value for name, value in self.source.items() if name not in ("kind", "inputs")}
        return Pin(self.source["kind"], self.versions, facts, tuple(self.source["inputs"]))

    def to_json(self) -> dict[str, Any]:
        times = {name: getattr(self, name).isoformat() for name in ("known_at", "from_", "block_from")}
        recovery = self.recovery.to_json() if self.recovery else None
        steps = {"versions": dict(self.versions), "steps": list(self.steps)}
        document = {**asdict(self), **times, **steps, "recovery": recovery}
        return {
            name: value for name, value in document.items() if value or name not in ("searched", "spent", "gpu_hours")
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Assignment":
        times = {name: datetime.fromisoformat(document[name]) for name in ("known_at", "from_", "block_from")}
        recovery = Recovery.from_json(document["recovery"]) if document["recovery"] else None
        return cls(**{**document, **times, "recovery": recovery, "steps": tuple(document.get("steps", ()))})


@dataclass(frozen=True)
class Training:
    """What a retrain came to; `before` and `after` are the champion's and the candidate's performance on the gate's
    block."""

    version: str
    digest: str
    accepted: bool
    before: float | None
    after: float | None
