"""Replay: land a history as time passes, serve it with whichever model is champion, and let the loop run.

Nothing looks ahead: rows land when the virtual clock passes them, labels after the spec's delay.
"""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from drift_pipeline.clock import MINUTE, ManualClock, Window
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.verdict import Report
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import Version
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.policy.decide import Action, Trigger
from drift_pipeline.replays.home import ReplayHome
from drift_pipeline.replays.options import Options, reference_span, ticks_of, too_long_a_step
from drift_pipeline.replays.seen import Seen, history_digest, retrain_of
from drift_pipeline.replays.summary import Facts
from drift_pipeline.replays.traffic import Traffic
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History

TICKS = "kpis.parquet"


class Replay:
    """One replay below `settings.home`, which must exist and be empty. Use as a context manager."""

    def __init__(
        self,
        history: History,
        spec: ModelSpec,
        settings: Settings,
        options: Options,
        progress: Callable[[int, int, str], None] = lambda *_: None,
        tell: Callable[[AuditRecord], None] | None = None,
    ) -> None:
        """
        Args:
            progress: is called with (ticks done, ticks in all, what is being done).
            tell: is called with each audit record, soon after it was written.

        Raises:
            InputError: the history ends before the reference span does, or a step is not above 0.
        """
        told = _other_source(spec)
        spec, frame = spec.with_forms(history.forms).trained_from_lake(), history.frame
        self._spec, self._settings, self._options = spec, settings, options
        self._frame, self._notes = frame.rename({"_score": "_recorded"}, strict=False), (*history.notes, *told)
        self._span = reference_span(self._frame, spec, options)
        self._ticks = ticks_of(self._span.end, self._frame["_time"][-1], options.step)
        self._clock, self._started = ManualClock(self._span.end), time.monotonic()
        self._progress_to, self._words = progress, ""
        self._tell_record, self._told = tell, 0
        self._on_interrupt: Any = None
        self._seen = Seen()
        self._first: Version | None = None
        self._home = ReplayHome(spec, settings, options, self._clock)
        self._loop = self._home.loop(self._tell)
        self._traffic = Traffic(self._frame, spec, self._home.lake, self._loop)

    def __enter__(self) -> "Replay":
        return self

    def __exit__(self, *_: object) -> None:
        self._home.close()
        if self._on_interrupt is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def run(self) -> Facts:
        """The whole history, or as much of it as came before an interrupt; then the facts of the summary.

        Raises:
            InputError: the reference span cannot make a first model.
        """
        try:
            try:
                self._play()
            except KeyboardInterrupt:
                self._hear_no_more_interrupts()
        except KeyboardInterrupt:  # the same Ctrl-C once more: in a call of Polars it is raised by it and by Python
            self._hear_no_more_interrupts()
        self._home.lake.close()
        return self._facts()

    def _hear_no_more_interrupts(self) -> None:
        """A second interrupt would end what writes the summary of as much as was played."""
        self._seen.partial = True
        while self._on_interrupt is None and threading.current_thread() is threading.main_thread():
            with suppress(KeyboardInterrupt):
                self._on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _play(self) -> None:
        self._traffic.land(self._span.end)
        self._loop.adopt(self._span, self._spec.prediction.column is not None)
        self._home.declare()
        self._first = self._loop.champion
        if self._first is not None:
            self._seen.served.append((self._first.name, self._span.end))
            self._home.document(self._first.digest)
        for number, now in enumerate(self._ticks, start=1):
            self._tick(now)
            self._progress_to(number, len(self._ticks), self._words)
            self._words = ""
        if self._loop.champion is not None:
            self._home.document(self._loop.champion.digest)  # with its incidents until the end

    def _tell(self, words: str) -> None:
        self._words = words
        self._progress_to(self._seen.evaluations, len(self._ticks), words)

    def _tick(self, now: datetime) -> None:
        before = self._clock.now()
        self._traffic.land(now)
        self._clock.advance_to(now)
        report = self._loop.observe()
        self._seen.report(report, self._loop.incident)
        if self._options.triggers != "schedule":
            self._act(Trigger.DRIFT, report)
        if self._options.triggers != "drift" and self._spec.zone.last_due(self._spec.retrain.cron, now) > before:
            self._act(Trigger.SCHEDULE, report)
        self._roll(self._loop.advance())
        self._seen.alerts += self._loop.deliver()
        self._tell_records()

    def _tell_records(self) -> None:
        if self._tell_record is None:
            return
        for record in self._home.store.records(after=self._told):
            self._tell_record(record)
            self._told = record.seq

    def _act(self, trigger: Trigger, report: Report) -> None:
        decided = self._loop.decide(trigger, report)
        if decided is None:
            return
        decision_id, action = decided[0], decided[1].action
        self._seen.decisions[str(action)] += 1
        if action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
            return
        training = self._loop.retrain(decision_id, report)
        if training is None:
            return
        self._home.document(training.digest)
        store, now = self._home.store, self._clock.now()
        made = retrain_of(store, self._spec.name, now, str(trigger), (decision_id, action), training)
        self._seen.retrains.append(made)
        if training.accepted:
            self._loop.release(training.digest)

    def _roll(self, status: Status | None) -> None:
        if status is None:
            return
        if status.phase is Phase.FULL and self._loop.champion is not None:
            self._seen.promoted(self._loop.champion.name, self._clock.now())
        self._seen.rollbacks += status.phase is Phase.ROLLED_BACK
        if status.phase is Phase.AWAITING_APPROVAL:
            self._home.approve(
                status.candidate, status.rollout_id, 3 * self._spec.rollout.deadline + self._options.step
            )
        self._home.document(status.candidate)
        if status.phase is Phase.FULL:
            self._home.document(status.champion)

    def _facts(self) -> Facts:
        seen, store = self._seen, self._home.store
        played = slice(int(self._frame["_time"].search_sorted(self._span.end, side="left")), self._traffic.landed)
        rows = self._frame[played]
        frozen: npt.NDArray[np.float64] = np.full(rows.height, np.nan)
        if self._first is not None and rows.height:
            frozen = self._first.scores(rows, self._spec).fill_null(np.nan).to_numpy()
        if seen.evaluations:
            self._home.sign_checkpoint()
        self._home.tell_lineage()
        told = read_kpis(store, self._home.lake, self._spec.name, Window(self._span.end, self._clock.now() + MINUTE))
        told.write_parquet(self._settings.home / TICKS)
        head = store.head()
        verified = verify_home(self._settings)
        return Facts(
            spec=self._spec,
            span=Window(self._frame["_time"][0], self._clock.now()),
            rows=self._frame.height,
            history=history_digest(self._frame),
            options={**self._options.to_json(), "policy": self._home.policy_digest},
            served=tuple(seen.served),
            notes=(*self._notes, *too_long_a_step(self._spec, self._options)),
            evaluations=seen.evaluations,
            conclusive=seen.conclusive,
            times=rows["_time"],
            labels=rows["_label"],
            frozen=frozen,
            loop=self._traffic.scores[played],
            incidents=len(seen.incidents),
            decisions=dict(sorted(seen.decisions.items())),
            retrains=tuple(seen.retrains),
            refused=tuple(str(one.details["because"]) for one in store.records() if one.event == "training.refused"),
            promotions=seen.promotions,
            rollbacks=seen.rollbacks,
            alerts=seen.alerts,
            audit_head=head.hash if head else None,
            verification=verified,
            wall_seconds=time.monotonic() - self._started,
            partial=seen.partial,
            last=seen.last,
        )


def _other_source(spec: ModelSpec) -> tuple[str, ...]:
    """A note where a retrain gets its rows from elsewhere: nothing outside is asked of days that are over."""
    kind = spec.retrain.source.kind
    return () if kind == "lake" else (f"retrain.source is {kind}: a replay trains on its own history instead",)
