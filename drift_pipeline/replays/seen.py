"""What a replay has seen so far, from which its summary is made."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.loop import Training
from drift_pipeline.policy.decide import Action
from drift_pipeline.policy.incident import Incident
from drift_pipeline.replays.summary import Retrain


@dataclass
class Seen:
    """Counts, and what happened when; `served` are the champions with the time at which each began."""

    evaluations: int = 0
    conclusive: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    retrains: list[Retrain] = field(default_factory=list)
    promotions: int = 0
    rollbacks: int = 0
    incidents: set[str] = field(default_factory=set)
    served: list[tuple[str, datetime]] = field(default_factory=list)
    alerts: int = 0
    partial: bool = False
    last: dict[str, Any] | None = None

    def report(self, report: Report, incident: Incident) -> None:
        """A tick's."""
        self.evaluations += 1
        self.last = report.rolled_up.to_json()
        self.conclusive += report.verdict not in (Verdict.INCONCLUSIVE, Verdict.NOT_CONFIGURED)
        if incident.open:
            self.incidents.add(incident.key)

    def promoted(self, champion: str, now: datetime) -> None:
        self.promotions += 1
        self.served.append((champion, now))


def retrain_of(
    store: ControlStore, model: str, at: datetime, trigger: str, decided: tuple[str, Action], training: Training
) -> Retrain:
    """A training as the summary tells it; its cost is in the candidate's record."""
    record = store.get("candidate", f"{model}/{training.digest}")
    cost = record.body["cost"] if record else {}
    cause = "hotfix" if decided[1] is Action.HOTFIX_RETRAIN else trigger
    said = (training.version, training.accepted, training.before, training.after)
    return Retrain(at, cause, decided[0], *said, dict(cost))


def history_digest(frame: pl.DataFrame) -> str:
    """Names a history by its rows' ids, times and labels: two replays of one history can be compared."""
    sha = hashlib.sha256()
    for column in (frame["_time"].to_physical(), frame["_label"].fill_null(-1)):
        sha.update(column.to_numpy().tobytes())
    sha.update("\0".join(frame["_id"]).encode())
    return f"sha256:{sha.hexdigest()}"
