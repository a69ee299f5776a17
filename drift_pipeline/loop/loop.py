"""The steps of one model's loop, each of which changes state in one transaction with its audit record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.alerts.outbox import deliver
from drift_pipeline.clock import DAY, HOUR, Clock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import Report, Verdict, told_verdict, told_waiting
from drift_pipeline.errors import ConflictError, DriftError, InputError, IntegrityError
from drift_pipeline.loop.arming import Arming
from drift_pipeline.loop.holds import Holds
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.owed import Owed
from drift_pipeline.loop.queue import Queue
from drift_pipeline.loop.releasing import Releasing, Trust
from drift_pipeline.loop.retraining import Retraining
from drift_pipeline.loop.state import RECORDED, Assignment, Memory, Retrains, Training, Version
from drift_pipeline.loop.watch import Watch
from drift_pipeline.policy.decide import Action, Decision, Facts, RetrainFacts, Trigger, decide
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.policy.incident import Change, Incident, step
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.rollout.plan import Status
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import split_newest

MONTH = 30 * DAY
HELD_OUT = 0.2  # of the reference span, the newest: the first baseline and the fixed trusted holdout


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


@dataclass(frozen=True)
class Backends:
    """What the loop works on; which implementation stands behind each is not its business."""

    lake: Lake
    store: ControlStore
    registry: Registry
    policy: PolicyEngine
    alerts: Channel


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
        self.spec = spec
        self._performance = performance_of(spec)
        self._at, self.clock = backends, clock
        self.memory = Memory(Incident(reference=""))
        self._watch: Watch | None = None
        self.ledger = Ledger(spec, backends.store, clock)
        self.holds = Holds(self.ledger, clock)
        self.queue = Queue(self.ledger, clock, self.holds)
        self.releasing = Releasing(spec, self.ledger, backends.lake, backends.registry, clock, trust)
        self.retraining = Retraining(
            spec,
            self.ledger,
            backends.lake,
            backends.registry,
            clock,
            trainer_key_id=trust.trainer_key_id,
            seed=seed,
            progress=progress,
        )
        self._owed = Owed(spec, backends.lake, self.retraining, self.memory)
        self._arming = Arming(
            spec, self.ledger, backends.lake, backends.store, backends.registry, clock, self.memory, step=step
        )

    @property
    def champion(self) -> Version | None:
        """The version that answers; None before a model is adopted."""
        return self._watch.champion if self._watch else None

    def prospects(self) -> list[str]:
        """What can be judged at the pace of the reference, in words."""
        return self._watched().prospects()

    @property
    def incident(self) -> Incident:
        """Open or not, as the last tick left it."""
        return self.memory.incident

    @property
    def rollout(self) -> Status | None:
        """Where the last rollout stands."""
        return self.releasing.status

    @property
    def candidate(self) -> Version | None:
        """The version that is rolled out, while a rollout is under way."""
        return self.releasing.candidate

    # adopt

    def adopt(self, span: Window, recorded: bool, given: tuple[bytes, str] | None = None) -> None:
        """Freeze the first reference on `span` and make its model version 1.

        Recorded scores serve until the first retrain; without them a model is trained on the older 80 % of the span.
        The newest 20 % is the held-out baseline, and from then on the fixed trusted holdout.

        Args:
            recorded: the span's rows have `_recorded` scores, and the model that made them answers on.
            given: a skops pipeline that answers from now on, and where it came from; nothing is trained.

        Raises:
            InputError: too few labelled rows in the span, or their labels are all the same; or adopted already.
        """
        if (model := self.ledger.find("model")) is not None:
            if self.ledger.all("reference"):
                raise InputError(f"{self.spec.name}: is adopted already; a new version comes by drift retrain")
            # a former try died before it had a reference
            self._watch = self._arming.new(Version.load(model, self._at.registry), span)
            return
        now, versions = self.clock.now(), self._at.lake.versions()
        rows = self._at.lake.labelled(span, as_of=now, delay=self.spec.outcome.delay, versions=versions)
        if rows.height < self.spec.retrain.min_rows or rows["_label"].n_unique() < 2:
            raise InputError(
                f"{self.spec.name}: {rows.height:,} labelled rows from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, "
                f"where {self.spec.retrain.min_rows:,} (retrain.min_rows) with {self._performance.needs} are needed: "
                "give a longer --reference"
            )
        older, holdout = split_newest(rows, int(rows.height * HELD_OUT))
        unseen_from = holdout["_time"][0]
        champion, told = self._first(older, span.start, unseen_from, recorded, given)
        held = {"from": unseen_from.isoformat(), "to": span.end.isoformat(), "at": now.isoformat(), "delta": versions}
        puts: dict[str, Mapping[str, Any]] = {
            "holdout": held,
            "retrains": Retrains(versions=1).to_json(),
            "model": {**champion.to_json(), "previous": None},
        }
        digests = {} if recorded else {"bundle": champion.digest}
        self.ledger.commit("model.adopted", told, digests, puts=puts)
        self._watch = self._arming.new(champion, span)

    def _first(
        self,
        older: pl.DataFrame,
        start: datetime,
        unseen_from: datetime,
        recorded: bool,
        given: tuple[bytes, str] | None,
    ) -> tuple[Version, dict[str, Any]]:
        """Version 1, and what the audit says of it."""
        if recorded:
            back = {"version": RECORDED, "rollback": "hand back: only its scores are known"}
            return Version(RECORDED, RECORDED, start, start, None), back
        told = {"version": "v1", "rows": older.height}
        if given is not None:
            champion = Version(self.retraining.given(*given), "v1", start, unseen_from, load_pipeline(given[0]))
            return champion, {**told, "origin": given[1]}
        digest, trained = self.retraining.first(older)
        return Version(digest, "v1", trained.start, unseen_from, trained.pipeline), told

    def resume(self) -> None:
        """Take up where the control store says the loop stood; the next `observe` reads what landed meanwhile.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the registry holds other bytes than the store's digests say.
        """
        self._watch = self._arming.taken_up(self.holds.maintenances())
        self._recall()
        self.take_up_champion()

    def catch_up(self) -> None:
        """Take up what other processes did since this one last ticked: their ticks, a promotion, a rollback."""
        if self._watch is None:
            self.resume()
            return
        if self.ledger.moved_on():
            self._recall()
            if self._arming.newest()["at"] != self._watched().armed_at.isoformat():
                self._watch = self._arming.taken_up(self.holds.maintenances())
        self.take_up_champion()

    def _recall(self) -> None:
        if (memory := self.ledger.recall()) is not None:
            self.memory.take_up(memory)
        else:
            self.memory.incident = Incident.from_json(self.ledger.get("incident"))

    def tick(self, *, inline: bool) -> Ticked:
        """Once through the loop. Safe to repeat, and beside another process: the one that is slower is told.

        Args:
            inline: also what takes long or is due by the calendar, which an orchestrator would do in runs of its own.

        Raises:
            ConflictError: another process ticked or moved this model meanwhile; the next tick takes that up.
        """
        self.catch_up()
        report, at_rest = self.observe(), self.holds.at_rest()
        decided = [] if at_rest else [self.decide(Trigger.DRIFT, report)]
        if inline and not at_rest:
            decided.append(self.decide_schedule(report))
        trained = [self.train(body["decision"]) for body in self.queue.wanted()] if inline else []
        released = self.release_proven() if inline else None
        moved = self.advance()
        return Ticked(
            self.spec.name,
            report.verdict,
            self.incident.key if self.incident.open else "",
            tuple(f"{found[0]} {found[1].action}" for found in decided if found),
            tuple(training.version for training in trained if training),
            released,
            str(moved.phase) if moved else None,
            report.rolled_up.judged,
            report.rolled_up.configured,
        )

    # observe

    def step_rollout(self) -> Ticked:
        """Only the rollout's part of a tick."""
        self.catch_up()
        moved = self.advance()
        return Ticked(self.spec.name, None, moved=str(moved.phase) if moved else None)

    def observe(self) -> Report:
        """Profile what landed since the last tick, judge every KPI, and carry the incident on.

        Raises:
            ConflictError: another process ticked meanwhile, and its tick counts; nothing is changed by this one.
        """
        now, left_out = self.clock.now(), self.holds.maintenances()
        try:
            report = self._watched().observe(now, left_out)
        except ConflictError:
            self._watch = None
            raise
        self.memory.seen = _summary(report, self._watched())
        if any(now in span for span in left_out):
            self.memory.incident = replace(self.incident, breaches=(), warn_since=None)
            self.ledger.remember(self.memory.to_json(now))
        else:
            self._carry_incident(report)
        return report

    def look(self) -> Report:
        """What `observe` would say, without taking it as a tick of the incident."""
        return self._watched().observe(self.clock.now(), self.holds.maintenances(), keep=False)

    def _carry_incident(self, report: Report) -> None:
        before = self.incident
        self.memory.incident, change = step(before, report)
        if change is None:
            self.ledger.remember(self.memory.to_json(report.at))
            return
        undecided_key = f"undecided-{report.at:%Y%m%dT%H%M}"  # its own: the incident before it has paged already
        key = undecided_key if change is Change.UNDECIDED else self.incident.key
        kpis = {name: report.kpis[name].to_json() for name in self.incident.kpis or before.kpis}
        rolled_up = report.rolled_up.to_json()
        details = {"key": key, "kpis": kpis, "features": list(self.incident.features[:10]), "verdict": rolled_up}
        puts: dict[str, Mapping[str, Any]] = {"incident": self.incident.to_json()}
        if change in (Change.OPENED, Change.REOPENED, Change.JOINED):
            puts[f"finding/{key}"] = self._finding(key, report, kpis)
        alerts = []
        if change in (Change.OPENED, Change.UNDECIDED) and not self.holds.snoozed():
            found = [f"{name} {k['verdict']}: {k['reason']}" for name, k in kpis.items()]
            undecided = [told_verdict(rolled_up), *told_waiting(rolled_up["not_judged"])]
            alerts.append(self.ledger.alert(key, change, "; ".join(found or undecided)))
        self.ledger.find("incident")
        self.ledger.commit(change, details, puts=puts, messages=alerts, memory=self.memory.to_json(report.at))

    def _finding(self, key: str, report: Report, kpis: Mapping[str, Any]) -> dict[str, Any]:
        """Why the incident is open, with the distributions that a person wants to see."""
        columns = [{**finding.to_json(), "shape": shape.to_json()} for finding, shape in self._watched().shapes(report)]
        return {"key": key, "at": report.at.isoformat(), "kpis": kpis, "columns": columns}

    # decide

    def decide(
        self,
        trigger: Trigger,
        report: Report,
        *,
        actor: str = "policy",
        reason: str = "",
        also: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[str, Decision] | None:
        """Ask the policy; None where there is nothing to ask, or where the answer is what it was at the last tick.

        Returns the decision's id and the decision. One to retrain is noted as wanted until a run has come of it.

        Args:
            actor: who asked, and why, where it was a person.
            also: state to put with it.
        """
        if trigger is Trigger.DRIFT and not self.incident.open and self._owed.recovery(self._watched(), report) is None:
            return None
        facts = self._facts(trigger, report)
        decision = decide(facts, self._at.policy)
        drifted = facts.incident.key if facts.incident else ""
        subject = drifted if trigger is Trigger.DRIFT else f"{trigger}-{report.at:%Y%m%dT%H%M}"
        said = (str(trigger), subject, str(decision.action))
        trains = decision.action in (Action.RETRAIN, Action.HOTFIX_RETRAIN)
        if not trains and said == self.memory.decided:
            return None
        made = self.ledger.find("decisions")
        count = (made["count"] if made else 0) + 1
        decision_id = f"{self.spec.name}-{count}"
        told = {
            "decision": decision_id,
            "action": str(decision.action),
            "trigger": str(trigger),
            "incident": drifted or None,
            "reasons": list(decision.reasons),
            "facts": facts.to_json(),
            **({"reason": reason} if reason else {}),
        }
        puts: dict[str, Mapping[str, Any]] = {"decisions": {"count": count}, **(also or {})}
        if trains:
            puts |= self.queue.entry(decision_id, decision.action, trigger, drifted or subject, report.at)
        self.memory.decided = said
        self.ledger.commit(
            "decision.made",
            told,
            puts=puts,
            actor=actor,
            policy_digest=decision.policy_digest,
            memory=self.memory.to_json(report.at),
        )
        return decision_id, decision

    def decide_schedule(self, report: Report) -> tuple[str, Decision] | None:
        """Ask for the retrain that the spec's calendar says is due; once for each time it is due, whoever asks."""
        due, armed = self._due(), self._watched().armed_at
        found = self.ledger.find("scheduled")
        if due <= (datetime.fromisoformat(found["due"]) if found else armed):
            return None
        return self.decide(Trigger.SCHEDULE, report, also={"scheduled": {"due": due.isoformat()}})

    def _due(self) -> datetime:
        from croniter import croniter

        due: datetime = croniter(self.spec.retrain.cron, self.clock.now() + timedelta(microseconds=1)).get_prev(
            datetime
        )
        return due

    def _facts(self, trigger: Trigger, report: Report) -> Facts:
        now, performance, done = report.at, self._performance, self.retraining.done
        left = done.attempted + self.spec.retrain.cooldown - now if done.attempted else timedelta()
        kpis = {name: str(kpi.verdict) for name, kpi in report.kpis.items()}
        change = report.kpis[performance.kpi].value
        fall = None if change is None else performance.fall(change)
        recovery = self._owed.recovery(self._watched(), report)
        if recovery is not None and not self.incident.open:
            kpis[performance.kpi], fall = str(Verdict.BREACH), self._owed.short_of(recovery, self._watched(), report)
        return Facts(
            model=self.spec.name,
            now=now,
            trigger=trigger,
            incident=self._owed.facts(recovery, self._watched(), report),
            kpis=kpis,
            drifting_features=report.drifting,
            performance=performance.kpi,
            fall=fall,
            fall_allowed=performance.allowed(self.spec),
            retrain=RetrainFacts(
                running=done.attempted == now or self.queue.under_way(trigger),
                cooldown_left_hours=max(left / HOUR, 0.0),
                this_month=sum(at > now - MONTH for at in done.at),
                max_per_month=self.spec.retrain.max_per_month,
                rejected_in_a_row=done.rejected_in_a_row,
            ),
            rollout_active=self.releasing.active is not None,
            paused=self.holds.paused(),
        )

    # retrain

    def train(self, decision_id: str) -> Training | None:
        """A wanted retrain from claim to gates; None where another process has it, or its rows were too few."""
        if not self.queue.claim(decision_id):
            return None
        try:
            return self.retrain(decision_id, self.look())
        except ConflictError:
            raise
        except DriftError as error:
            self.queue.give_up(decision_id, str(error))
            return None

    def retrain(self, decision_id: str, report: Report) -> Training | None:
        """Train a candidate and prove it against the champion on rows that neither was trained on.

        None, with its reason in the audit, where there are not enough rows to train or to prove on.
        """
        assignment = self.pin(decision_id, report)
        trained = self.retraining.fit(assignment) if assignment else None
        return self.prove(trained) if trained else None

    def pin(self, decision_id: str, report: Report) -> Assignment | None:
        """The first step of a retrain: fix its rows; None, and audited, where they are too few."""
        return self.retraining.pin(decision_id, self._watched().champion, self._owed.cause(self._watched(), report))

    def prove(self, assignment: Assignment) -> Training:
        """The last step of a retrain: hold what was fitted to the gates."""
        return self.retraining.prove(assignment, self._watched().champion)

    def candidate_record(self, digest: str) -> Mapping[str, Any]:
        """What the control store holds of a candidate: its data, cost, gates. Raises InputError for a stranger."""
        return self.ledger.get(f"candidate/{digest}")

    # release and advance

    def release(self, digest: str, actor: str = "loop") -> bool:
        """Begin the rollout of a candidate whose gates passed; False where one is under way already.

        Raises:
            IntegrityError: no record says that its gates passed, the bundle's bytes do not fit, or it was proven
                against another champion than today's.
        """
        of, champion = self.queue.of(digest), self._watched().champion.digest
        if any(self.queue.is_outdated(body, champion) for _, body in of):
            raise IntegrityError(f"{self.spec.name}: {digest} was proven against another champion than today's")
        also = {name: {**body, "status": "released"} for name, body in of}
        return self.releasing.begin(digest, champion, actor=actor, also=also)

    def releasable(self) -> str | None:
        """The digest of the newest proven candidate that may be rolled out now; None where none may."""
        if self.holds.paused() or self.holds.at_rest() or self.releasing.active is not None:
            return None
        return self.queue.newest_proven(self._watched().champion.digest)

    def release_proven(self) -> str | None:
        """Begin the rollout of what is releasable; its digest, None where there is nothing."""
        digest = self.releasable()
        return digest if digest is not None and self.release(digest) else None

    def advance(self) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where nothing moved."""
        if self.releasing.active is None:
            return None
        moved = self.releasing.advance(self._watched().champion, held=self.holds.paused() or self.holds.at_rest())
        if moved is not None:
            self.take_up_champion()
        return moved

    def take_up_champion(self) -> None:
        """Watch the version that answers, where another one does by now: promoted, or rolled back to."""
        model = self.ledger.get("model")
        if model["digest"] == self._watched().champion.digest:
            return
        if self._arming.newest()["digest"] == model["digest"]:  # another process armed it meanwhile
            self.resume()
            return
        champion = Version.load(model, self._at.registry)
        if (watch := self._arming.again(champion)) is not None:
            self._watch = watch
            return
        promoted = self.ledger.find("promoted")
        if promoted is None or promoted["digest"] != champion.digest:  # else it was told, and the arming died
            details = {"version": champion.name, "from": self._watched().champion.name}
            puts = {"promoted": {"digest": champion.digest}}
            self.ledger.commit("model.promoted", details, {"bundle": champion.digest}, puts=puts)
        self._watch = self._arming.new(champion, Window(champion.trained_from, self.clock.now()))

    # what every step ends with

    def deliver(self) -> int:
        """Drive the outbox; returns how many alerts went."""
        return deliver(self._at.store, self._at.alerts)

    def _watched(self) -> Watch:
        if self._watch is None:
            raise InputError(f"{self.spec.name}: no model is watched; adopt it first")
        return self._watch


def _summary(report: Report, watch: Watch) -> dict[str, Any]:
    """What the last tick saw, for people who ask how things stand."""
    kpis = {name: kpi.to_json() for name, kpi in report.kpis.items()}
    shown = ("verdict", "value", "threshold", "bound", "n", "reason", "judged_at")
    return {
        **report.rolled_up.to_json(),
        "labels": watch.labels(report),
        "champion": watch.champion.name,
        "kpis": {name: {key: kpi[key] for key in shown} for name, kpi in kpis.items()},
        "drifting": list(report.drifting[:10]),
    }
