"""Recovery: the drift that is there or was not made good yet, and how many rows of the changed world there are."""

from datetime import datetime

from drift_pipeline.clock import HOUR, Window
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import Cause, Memory, Recovery
from drift_pipeline.policy.decide import IncidentFacts

FRESH_FACTOR = 4  # how many times the fresh rows a version that did not recover is trained again on


class Recoveries:
    """Of one model: a view of the open incident and of what retraining came to."""

    def __init__(self, context: Context, trainings: Trainings, memory: Memory) -> None:
        self._at, self._trainings, self._memory = context, trainings, memory
        self._before: tuple[tuple[datetime, datetime] | None, int] = None, 0

    def pending(self, monitor: ChampionMonitor, report: Report) -> Recovery | None:
        """What is still to be made good: nothing once performance is back within the allowed fall from the target."""
        recovery, allowed = self._trainings.done.recovery, self._at.performance.allowed(self._at.spec)
        if recovery is None or allowed is None:
            return None
        short = self.short_of(recovery, monitor, report)
        return recovery if short is None or short >= allowed else None

    def short_of(self, recovery: Recovery, monitor: ChampionMonitor, report: Report) -> float | None:
        """The fall from what was lost to what there is now; None where that is not known."""
        now = monitor.performance_now(report)
        return None if now is None else -self._at.performance.gain(recovery.target, now)

    def facts(self, recovery: Recovery | None, monitor: ChampionMonitor, report: Report) -> IncidentFacts | None:
        """Of the open incident; without one, of the drift that is not made good yet."""
        incident, now = self._memory.incident, report.at
        if incident.open:
            key, opened, onset = incident.key, incident.opened_at or now, incident.onset or now
            tried = self._trainings.done.recovery
            needed = tried.fresh_rows_needed if tried and tried.key == key else self._at.spec.retrain.min_rows
        elif recovery is not None:
            key, opened, onset, needed = recovery.key, recovery.onset, recovery.onset, recovery.fresh_rows_needed
        else:
            return None
        return IncidentFacts(key, opened, (now - onset) / HOUR, self.fresh_rows(onset, monitor, now), needed)

    def cause(self, monitor: ChampionMonitor, report: Report) -> Cause | None:
        """What a retrain answers: the drift, and the fall that its training has to make good."""
        incident = self._memory.incident
        pending = None if incident.open else self.pending(monitor, report)
        onset = incident.onset if incident.open else pending.onset if pending else None
        if onset is None:
            return None
        fresh, held_out = self.fresh_rows(onset, monitor, report.at), monitor.reference.baseline
        if pending is not None:
            return Cause(fresh, pending.again(FRESH_FACTOR * fresh))
        if held_out is None or report.kpis[self._at.performance.kpi].verdict is not Verdict.BREACH:
            return Cause(fresh, None)
        return Cause(fresh, Recovery(incident.key, held_out.value, onset, FRESH_FACTOR * fresh))

    def fresh_rows(self, onset: datetime, monitor: ChampionMonitor, now: datetime) -> int:
        """Labelled rows since the onset: counted by the monitor, and read once for what came before its baseline."""
        delay = self._at.spec.outcome.delay
        before, known_at = 0, min(floor(now, HOUR), monitor.baseline_at + delay)
        if onset < monitor.baseline_at:
            if self._before[0] != (onset, known_at):
                rows = self._at.lake.labelled(Window(onset, monitor.baseline_at), as_of=known_at, delay=delay)
                self._before = (onset, known_at), rows.height
            before = self._before[1]
        return before + monitor.labelled_since(onset)
