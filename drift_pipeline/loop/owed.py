"""What is owed: the drift that is there or was not made good yet, and how many rows of the changed world there are."""

from datetime import datetime

from drift_pipeline.clock import HOUR, Window
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.loop.retraining import Cause, Retraining
from drift_pipeline.loop.state import Memory, Recovery
from drift_pipeline.loop.watch import Watch
from drift_pipeline.policy.decide import IncidentFacts
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

FRESH_FACTOR = 4  # how many times the fresh rows a version that did not recover is trained again on


class Owed:
    """Of one model: a view of the open incident and of what retraining came to."""

    def __init__(self, spec: ModelSpec, lake: Lake, retraining: Retraining, memory: Memory) -> None:
        self._spec, self._lake, self._retraining, self._memory = spec, lake, retraining, memory
        self._performance = performance_of(spec)
        self._before: tuple[tuple[datetime, datetime] | None, int] = None, 0

    def recovery(self, watch: Watch, report: Report) -> Recovery | None:
        """The recovery that is still owed: none once performance is back within the allowed fall from the target."""
        recovery, allowed = self._retraining.done.recovery, self._performance.allowed(self._spec)
        if recovery is None or allowed is None:
            return None
        short = self.short_of(recovery, watch, report)
        return recovery if short is None or short >= allowed else None

    def short_of(self, recovery: Recovery, watch: Watch, report: Report) -> float | None:
        """The fall from what was lost to what there is now; None where that is not known."""
        now = watch.performance_now(report)
        return None if now is None else -self._performance.gain(recovery.target, now)

    def facts(self, recovery: Recovery | None, watch: Watch, report: Report) -> IncidentFacts | None:
        """Of the open incident; without one, of the drift that is not made good yet."""
        incident, now = self._memory.incident, report.at
        if incident.open:
            key, opened, onset = incident.key, incident.opened_at or now, incident.onset or now
            owed = self._retraining.done.recovery
            needed = owed.fresh_rows_needed if owed and owed.key == key else self._spec.retrain.min_rows
        elif recovery is not None:
            key, opened, onset, needed = recovery.key, recovery.onset, recovery.onset, recovery.fresh_rows_needed
        else:
            return None
        return IncidentFacts(key, opened, (now - onset) / HOUR, self._fresh_rows(onset, watch, now), needed)

    def cause(self, watch: Watch, report: Report) -> Cause | None:
        """What a retrain answers: the drift, and the fall that its training has to make good."""
        incident = self._memory.incident
        owed = None if incident.open else self.recovery(watch, report)
        onset = incident.onset if incident.open else owed.onset if owed else None
        if onset is None:
            return None
        fresh, baseline = self._fresh_rows(onset, watch, report.at), watch.reference.baseline
        if owed is not None:
            return Cause(fresh, owed.again(FRESH_FACTOR * fresh))
        if baseline is None or report.kpis[self._performance.kpi].verdict is not Verdict.BREACH:
            return Cause(fresh, None)
        return Cause(fresh, Recovery(incident.key, baseline.value, onset, FRESH_FACTOR * fresh))

    def _fresh_rows(self, onset: datetime, watch: Watch, now: datetime) -> int:
        """Labelled rows since the onset: counted by the watch, and read once for what came before it was armed."""
        delay = self._spec.outcome.delay
        before, known_at = 0, min(floor(now, HOUR), watch.armed_at + delay)
        if onset < watch.armed_at:
            if self._before[0] != (onset, known_at):
                rows = self._lake.labelled(Window(onset, watch.armed_at), as_of=known_at, delay=delay)
                self._before = (onset, known_at), rows.height
            before = self._before[1]
        return before + watch.labelled_since(onset)
