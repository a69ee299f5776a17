"""The demo: one synthetic history in three acts, replayed by the real loop, and whether each act ended as it should."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.evidence.timeline import Story
from drift_pipeline.replays.options import Options
from drift_pipeline.replays.replay import Replay
from drift_pipeline.replays.summary import summarise
from drift_pipeline.settings import FILES_ALONE, Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.synthetic import Drift, synthetic_history

DAYS, ROWS_PER_DAY, REFERENCE = 126, 1000, 42
HISTORY = "history.parquet"
CHANGE, CAMPAIGN, CAMPAIGN_OVER = 56, 105, 119  # days; the campaign ends while what learnt it is in its canary


@dataclass
class Act:
    """A stretch of the history, what came of it, and who says whether that is as it should be."""

    title: str
    start: datetime
    judge: Callable[[Sequence[AuditRecord]], str]
    records: list[AuditRecord] = field(default_factory=list)

    @property
    def fault(self) -> str:
        """What went wrong, empty where nothing did."""
        return self.judge(self.records)


def start_of(now: datetime) -> datetime:
    """The Monday from which the demo's weeks are over by now: its days are recent, and always the same weekdays."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - midnight.weekday() * DAY - DAYS * DAY


def run_demo(
    spec: ModelSpec, home: Path, start: datetime, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Act]]:
    """Play the three acts into `home`, an empty folder; returns the replay's summary and the acts.

    Args:
        spec: the demo's model.
        start: a Monday, midnight UTC.
        seed: of the traffic and of the search.
        say: is told each line as it happens.
    """
    drifts = (
        Drift("covariate", day=CHANGE, size=0.6),
        Drift("concept", day=CHANGE, size=0.9),
        Drift("campaign", day=CAMPAIGN),
        Drift("campaign", day=CAMPAIGN_OVER, size=-1),
    )
    frame = synthetic_history(DAYS, ROWS_PER_DAY, seed, drifts=drifts, score=False, start=start)
    frame.write_parquet(home / HISTORY)
    history, options = read_history(home / HISTORY, spec), Options(REFERENCE * DAY, DAY, "drift", seed)
    stage = _Stage(acts_of(start), say)
    with Replay(history, spec, Settings(home=home, **FILES_ALONE), options, tell=stage.hear) as running:
        summary = summarise(running.run())
    stage.end()
    return summary, stage.acts


def acts_of(start: datetime) -> list[Act]:
    """The three acts; the reference span before the first is the model's training."""
    return [
        Act("Healthy traffic. Nothing should happen.", start + REFERENCE * DAY, _healthy),
        Act("Sessions grow, and people click for other reasons than before.", start + CHANGE * DAY, _made_good),
        Act("A campaign of two weeks. What learns it must not outlive it.", start + CAMPAIGN * DAY, _rolled_back),
    ]


class _Stage:
    """Says what happens, under the act in which it does."""

    def __init__(self, acts: list[Act], say: Callable[[str], None]) -> None:
        self.acts, self._say, self._at = acts, say, -1
        self._story = Story()

    def hear(self, record: AuditRecord) -> None:
        at = datetime.fromisoformat(record.at)
        while self._at + 1 < len(self.acts) and at >= self.acts[self._at + 1].start:
            self._next()
        self.acts[max(self._at, 0)].records.append(record)
        if (line := self._story.tell(record)) is not None:
            self._say(f"  {line.at:%Y-%m-%d}  {line.words}")

    def end(self) -> None:
        while self._at + 1 < len(self.acts):
            self._next()
        self._close()

    def _next(self) -> None:
        self._close()
        self._at += 1
        self._say(f"Act {self._at + 1}, {self.acts[self._at].start:%Y-%m-%d}. {self.acts[self._at].title}")

    def _close(self) -> None:
        if self._at >= 0:
            fault = self.acts[self._at].fault
            self._say(f"  => {'NOT as it should be: ' + fault if fault else 'as it should be'}\n")


def _healthy(records: Sequence[AuditRecord]) -> str:
    alarms = [record.event for record in records if record.event.startswith(("incident.", "monitoring.", "training."))]
    return f"{', '.join(alarms)} on traffic in which nothing changed" if alarms else ""


def _made_good(records: Sequence[AuditRecord]) -> str:
    """The way of a change: each step after the one before it."""
    wanted = ("incident.opened", "decision.made", "candidate.proven", "rollout.shadow", "approval.accepted")
    return _missing((*wanted, "rollout.canary", "rollout.full", "model.promoted", "reference.frozen"), records)


def _rolled_back(records: Sequence[AuditRecord]) -> str:
    if any(record.event == "model.promoted" for record in records):
        return "what learnt a campaign that is over became champion"
    return _missing(("incident.opened", "candidate.proven", "rollout.canary", "rollout.rolled_back"), records)


def _missing(wanted: Sequence[str], records: Sequence[AuditRecord]) -> str:
    """The first event that did not come after those before it."""
    events = iter(record.event for record in records)
    lacking = next((event for event in wanted if event not in events), None)
    return f"no {lacking} came" if lacking else ""
