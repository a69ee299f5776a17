"""The conductor of one model's loop: which stage comes when, and which champion is monitored meanwhile."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex

from drift_pipeline.alerts.outbox import deliver
from drift_pipeline.clock import Clock, Window
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.errors import ConflictError
from drift_pipeline.loop.candidates import Candidates
from drift_pipeline.loop.context import Backends, Context, Trust
from drift_pipeline.loop.deciding import Deciding
from drift_pipeline.loop.first_version import Given
from drift_pipeline.loop.following import Following
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.observing import Observing
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.queue import Queue
from drift_pipeline.loop.recovery import Recoveries
from drift_pipeline.loop.releasing.advancing import advance
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.retraining.fitting import fit
from drift_pipeline.loop.retraining.pinning import pin
from drift_pipeline.loop.retraining.proving import prove
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.retraining.working import working
from drift_pipeline.loop.session import Session
from drift_pipeline.loop.state import Assignment, Training, Version
from drift_pipeline.loop.steering import Steering
from drift_pipeline.policy.decide import Decision, Trigger
from drift_pipeline.policy.incident import Incident
from drift_pipeline.rollout.plan import Status
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.runners.inline import InlineRunner


@dataclass(frozen=True)
class Ticked:
    """What a tick of one model came to."""

    model: str
    verdict: Verdict | None
    incident: str = ""
    decisions: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    released: str | None = None
    moved: str | None = None
    judged: int = 0
    configured: int = 0


class Loop:
    """One model's loop. Every change of state goes through the control store, with its audit record and its alert."""

    def __init__(
        self,
        spec: ModelSpec,
        backends: Backends,
        trust: Trust,
        clock: Clock,
        *,
        step: timedelta,
        seed: int,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            step: time between two ticks.
            progress: is told in words what takes long.
        """
        self.spec, self.clock, self._backends = spec, clock, backends
        self.holder = f"process {os.getpid()} {token_hex(4)}"
        self.ledger = Ledger(spec, backends.store, clock, trust.environment)
        at = Context.of(spec, self.ledger, backends, clock, trust, step=step, seed=seed, progress=progress)
        self.pauses, self.queue, self.trainings, self.rollouts = Pauses(at), Queue(at), Trainings(at), Rollouts(at)
        self.candidates = Candidates(at, self.rollouts)
        inline = InlineRunner(lambda request: self.train(request.decision) is not None)
        self.following = Following(at, self.queue, self.trainings, backends.store, backends.runner, inline)
        self.steering = Steering(at, self.rollouts, backends.store, backends.controller)
        self.session = Session(at)
        self.recoveries = Recoveries(at, self.trainings, self.session.memory)
        self.observing = Observing(at, self.session.memory)
        self.deciding = Deciding(at, backends.policy, self.session.memory, self.recoveries)

    @property
    def monitor(self) -> ChampionMonitor:
        """The champion's, as this process last took it up. Raises InputError before a model is adopted."""
        return self.session.monitor

    @property
    def champion(self) -> Version | None:
        """The version that answers; None before a model is adopted."""
        return self.monitor.champion if self.session.adopted else None

    @property
    def incident(self) -> Incident:
        """Open or not, as the last tick left it."""
        return self.session.memory.incident

    def adopt(self, span: Window, recorded: bool, given: Given | None = None) -> None:
        """Begin: version 1 and the first reference; arguments and errors as of `first_version.adopt`."""
        self.session.adopt(span, recorded, given)

    def resume(self) -> None:
        """Take up where the control store says the loop stood, with the errors of `Session.resume`."""
        self.session.resume()

    def catch_up(self) -> None:
        """Take up what other processes did since this one last ticked."""
        self.session.catch_up()

    # the tick

    def tick(self, *, inline: bool) -> Ticked:
        """Once through the loop. Safe to repeat, and beside another process: the one that is slower is told.

        Args:
            inline: also what takes long or is due by the calendar, which an orchestrator would do in runs of its own.

        Raises:
            ConflictError: another process ticked or moved this model meanwhile; the next tick takes that up.
        """
        self.catch_up()
        report, resting = self.observe(), self.pauses.in_maintenance()
        self.queue.take_back()
        decided = [] if resting else [self.decide(Trigger.DRIFT, report)]
        if inline and not resting:
            decided.append(self.decide_schedule(report))
        ended = self.following.carry_out(inline=inline)
        released = self.release_proven() if inline else None
        moved = self.advance()
        said = tuple(f"{found[0]} {found[1].action}" for found in decided if found)
        versions = tuple(one.version for one in ended if one.version)
        opened, phase = self.incident.key if self.incident.open else "", str(moved.phase) if moved else None
        counts = report.rolled_up.judged, report.rolled_up.configured
        return Ticked(self.spec.name, report.verdict, opened, said, versions, released, phase, *counts)

    def step_rollout(self) -> Ticked:
        """Only the rollout's part of a tick."""
        self.catch_up()
        moved = self.advance()
        return Ticked(self.spec.name, None, moved=str(moved.phase) if moved else None)

    # its stages

    def observe(self) -> Report:
        """Profile what landed since the last tick, judge every KPI, and carry the incident on.

        Raises:
            ConflictError: another process ticked meanwhile, and its tick counts; nothing is changed by this one.
        """
        try:
            return self.observing.observe(self.monitor)
        except ConflictError:
            self.session.drop()
            raise

    def look(self) -> Report:
        """What `observe` would say, without taking it as a tick of the incident."""
        return self.observing.look(self.monitor)

    def decide(
        self,
        trigger: Trigger,
        report: Report,
        *,
        actor: str = "policy",
        reason: str = "",
        steps: Sequence[str] = (),
    ) -> tuple[str, Decision] | None:
        """Ask the policy; None where there is nothing to ask, or where the answer is what it was at the last tick.

        Returns the decision's id and the decision. One to retrain is noted as wanted until a run has come of it.

        Args:
            actor: who asked, and why, where it was a person.
            steps: of the graph that are to be trained, where they were named; else the spec's `retrain.steps`.
        """
        return self.deciding.decide(trigger, report, self.monitor, actor=actor, reason=reason, steps=steps)

    def decide_schedule(self, report: Report) -> tuple[str, Decision] | None:
        """Ask for the retrain that the spec's calendar says is due; once for each time it is due, whoever asks."""
        return self.deciding.decide_schedule(report, self.monitor)

    def train(self, decision_id: str) -> Training | None:
        """A wanted retrain from claim to gates; None where another has it, its rows are too few, or it failed, as told.

        Raises:
            ConflictError: another process changed what it is based on, or took it over.
            UnavailableError: something does not answer; the next tick tries again.
        """
        if not self.queue.claim(decision_id, self.holder):
            return None
        with self.queue.attempt(decision_id, self.holder), working(self.trainings, decision_id, self.holder):
            return self.retrain(decision_id, self.look())
        return None

    def retrain(self, decision_id: str, report: Report) -> Training | None:
        """Train a candidate and prove it against the champion on rows that neither was trained on.

        None, with its reason in the audit, where there are not enough rows to train or to prove on.
        """
        assignment = self.pin(decision_id, report)
        trained = self.fit(assignment) if assignment else None
        return self.prove(trained) if trained else None

    def pin(self, decision_id: str, report: Report) -> Assignment | None:
        """The first step of a retrain: fix its rows; None, and audited, where they are too few."""
        cause = self.recoveries.cause(self.monitor, report)
        return pin(self.trainings, decision_id, self.monitor.champion, cause)

    def fit(self, assignment: Assignment) -> Assignment | None:
        """The second step: a candidate is in the registry; None, and audited, where nothing can be trained."""
        return fit(self.trainings, assignment)

    def prove(self, assignment: Assignment) -> Training:
        """The last step of a retrain: hold what was fitted to the gates."""
        return prove(self.trainings, assignment, self.monitor.champion)

    def release(self, digest: str, actor: str = "loop") -> bool:
        """Begin the rollout of a candidate whose gates passed or are waived; False where one is under way already.
        Errors as of `Candidates.release`."""
        return self.candidates.release(digest, self.monitor.champion.digest, actor)

    def releasable(self) -> str | None:
        """The digest of the candidate whose rollout may begin now; None where none may."""
        return self.candidates.releasable(self.monitor.champion.digest)

    def release_proven(self) -> str | None:
        """Begin the rollout of what is releasable; its digest, None where there is nothing."""
        digest = self.releasable()
        return digest if digest is not None and self.release(digest) else None

    def advance(self) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where nothing moved. What another
        controller stopped is rolled back before that."""
        moved = self.steering.steer()
        if moved is None and self.rollouts.active is not None:
            paused = self.pauses.paused() or self.pauses.in_maintenance()
            moved = advance(self.rollouts, self.monitor.champion, paused=paused)
            if moved is not None:
                moved = self.steering.steer() or moved
        if moved is not None:
            self.session.follow_champion()
        return moved

    def deliver(self) -> int:
        """Drive the outbox; returns how many alerts went."""
        return deliver(self._backends.store, self._backends.alerts)
