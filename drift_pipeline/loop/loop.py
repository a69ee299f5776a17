"""The steps of one model's loop, each of which changes state in one transaction with its audit record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.clock import DAY, HOUR, Clock, Window
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.performance import performance_of
from drift_pipeline.detection.verdict import Report, Verdict
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.loop.ledger import ALERTS, Ledger
from drift_pipeline.loop.retraining import Cause, Retraining
from drift_pipeline.loop.state import RECORDED, Assignment, Recovery, Retrains, Training, Version
from drift_pipeline.loop.watch import Watch, watch_at
from drift_pipeline.policy.decide import Action, Decision, Facts, IncidentFacts, RetrainFacts, Trigger, decide
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.policy.incident import Change, Incident, step
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.advance import Effect, Page, Promote, advance, start
from drift_pipeline.rollout.approval import Refusal, count_valid, read_approvals, verify_approval
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Plan, Status
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import split_newest

MONTH = 30 * DAY
FRESH_FACTOR = 4  # how many times the fresh rows a version that did not recover is trained again on
HELD_OUT = 0.2  # of the reference span, the newest: the first baseline and the fixed trusted holdout


@dataclass(frozen=True)
class Backends:
    """What the loop works on; which implementation stands behind each is not its business."""

    lake: Lake
    store: ControlStore
    registry: Registry
    policy: PolicyEngine
    alerts: Channel


@dataclass(frozen=True)
class Trust:
    """Whose approvals count: the GitOps folder they are filed in, the environment, and the keys."""

    gitops: Path
    environment: str
    approvers: Mapping[str, PublicKey]
    trainer_key_id: str


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
        self.spec, self.plan = spec, Plan.of(spec)
        self._performance = performance_of(spec)
        self._at, self._trust, self.clock = backends, trust, clock
        self._step = step
        self.candidate: Version | None = None
        self.rollout: Status | None = None
        self.incident = Incident(reference="")
        self._watch: Watch | None = None
        self._ledger = Ledger(spec, backends.store, clock)
        self.retraining = Retraining(
            spec,
            self._ledger,
            backends.lake,
            backends.registry,
            clock,
            trainer_key_id=trust.trainer_key_id,
            seed=seed,
            progress=progress,
        )
        self._fresh_before: tuple[tuple[datetime, datetime] | None, int] = None, 0
        self._decided: tuple[str, str, Action] | None = None
        self._heard: set[str] = set()

    @property
    def champion(self) -> Version | None:
        """The version that answers; None before a model is adopted."""
        return self._watch.champion if self._watch else None

    # adopt

    def adopt(self, span: Window, recorded: bool) -> None:
        """Freeze the first reference on `span` and make its model version 1.

        Recorded scores serve until the first retrain; without them a model is trained on the older 80 % of the span.
        The newest 20 % is the held-out baseline, and from then on the fixed trusted holdout.

        Raises:
            InputError: too few labelled rows in the span, or their labels are all the same.
        """
        now, versions = self.clock.now(), self._at.lake.versions()
        rows = self._labelled(span, now, versions)
        if rows.height < self.spec.retrain.min_rows or rows["_label"].n_unique() < 2:
            raise InputError(
                f"{self.spec.name}: {rows.height:,} labelled rows from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, "
                f"where {self.spec.retrain.min_rows:,} (retrain.min_rows) with {self._performance.needs} are needed: "
                "give a longer --reference"
            )
        older, self.retraining.holdout = split_newest(rows, int(rows.height * HELD_OUT))
        unseen_from = self.retraining.holdout["_time"][0]
        self.retraining.done = Retrains(versions=1)
        held = {"from": unseen_from.isoformat(), "to": span.end.isoformat(), "at": now.isoformat(), "delta": versions}
        puts: dict[str, Mapping[str, Any]] = {"holdout": held, "retrains": self.retraining.done.to_json()}
        if recorded:
            champion = Version(RECORDED, RECORDED, span.start, span.start, None)
            told = {"version": RECORDED, "rollback": "hand back: only its scores are known"}
            self._ledger.commit("model.adopted", told, puts=puts)
        else:
            digest, trained = self.retraining.first(older)
            champion = Version(digest, "v1", trained.start, unseen_from, trained.pipeline)
            self._ledger.commit("model.adopted", {"version": "v1", "rows": older.height}, {"bundle": digest}, puts=puts)
        self._arm(champion, span)

    def _arm(self, champion: Version, span: Window) -> None:
        """Watch this champion from now on, against a reference frozen on the world it knows."""
        now, versions = self.clock.now(), self._at.lake.versions()
        watch = Watch(champion, span, now, versions, lake=self._at.lake, spec=self.spec, step=self._step)
        self._watch = watch
        before, self.incident = self.incident, Incident(reference=watch.reference.binning.digest)
        details = {
            "version": champion.name,
            "rows": watch.reference.rows,
            "from": span.start.isoformat(),
            "to": span.end.isoformat(),
            self._performance.kpi: watch.reference.baseline.value if watch.reference.baseline else None,
            "binning": watch.reference.binning.digest,
            "closes": before.key if before.open else None,
        }
        puts = {
            "model": champion.to_json(),
            "incident": self.incident.to_json(),
            f"reference/{champion.name}": watch.to_json(),
        }
        self._ledger.commit("reference.frozen", details, puts=puts)

    def resume(self) -> None:
        """Take up where the control store says the loop stood; the next `observe` reads what landed meanwhile.

        Ticks that counted towards an incident, and had not opened one, count from anew.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the lake or the registry holds other bytes than the store's digests say.
        """
        at = self._at
        self._watch = watch_at(
            datetime.max.replace(tzinfo=UTC),
            lake=at.lake,
            store=at.store,
            registry=at.registry,
            spec=self.spec,
            step=self._step,
        )
        self._watch.restore(self.clock.now())
        self.retraining.resume()
        self.incident = Incident.from_json(self._ledger.get("incident"))
        rollout = self._ledger.find("rollout")
        self.rollout = Status.from_json(rollout) if rollout else None
        if self.rollout is not None and self.rollout.active:
            self.candidate = Version.load(self._ledger.get(f"candidate/{self.rollout.candidate}"), at.registry)

    # observe

    def observe(self) -> Report:
        """Profile what landed since the last tick, judge every KPI, and carry the incident on."""
        report = self._watched().observe(self.clock.now())
        self._carry_incident(report)
        return report

    def look(self) -> Report:
        """What `observe` would say, without taking it as a tick of the incident."""
        return self._watched().observe(self.clock.now())

    def _carry_incident(self, report: Report) -> None:
        before = self.incident
        self.incident, change = step(before, report)
        if change is None:
            return
        undecided_key = f"undecided-{report.at:%Y%m%dT%H%M}"  # its own: the incident before it has paged already
        key = undecided_key if change is Change.UNDECIDED else self.incident.key
        kpis = {name: report.kpis[name].to_json() for name in self.incident.kpis or before.kpis}
        details = {"key": key, "kpis": kpis, "features": list(self.incident.features[:10])}
        puts: dict[str, Mapping[str, Any]] = {"incident": self.incident.to_json()}
        if change in (Change.OPENED, Change.REOPENED, Change.JOINED):
            puts[f"finding/{key}"] = self._finding(key, report, kpis)
        alerts = []
        if change in (Change.OPENED, Change.UNDECIDED):
            found = [f"{name} {k['verdict']}: {k['reason']}" for name, k in kpis.items()]
            undecided = [f"{n}: {k.reason}" for n, k in report.kpis.items() if k.verdict is Verdict.INCONCLUSIVE]
            alerts.append(self._ledger.alert(key, change, "; ".join(found or undecided)))
        self._ledger.commit(change, details, puts=puts, messages=alerts)

    def _finding(self, key: str, report: Report, kpis: Mapping[str, Any]) -> dict[str, Any]:
        """Why the incident is open, with the distributions that a person wants to see."""
        columns = [{**finding.to_json(), "shape": shape.to_json()} for finding, shape in self._watched().shapes(report)]
        return {"key": key, "at": report.at.isoformat(), "kpis": kpis, "columns": columns}

    # decide

    def decide(self, trigger: Trigger, report: Report) -> tuple[str, Decision] | None:
        """Ask the policy; None where there is nothing to ask, or where the answer is what it was at the last tick.

        Returns the decision's id, under which the audit has it, and the decision.
        """
        if trigger is Trigger.DRIFT and not self.incident.open and not self._unrecovered(report):
            return None
        facts = self._facts(trigger, report)
        decision = decide(facts, self._at.policy)
        drifted = facts.incident.key if facts.incident else ""
        subject = drifted if trigger is Trigger.DRIFT else f"{trigger}-{report.at:%Y%m%dT%H%M}"
        said = (trigger, subject, decision.action)
        if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN) and said == self._decided:
            return None
        self._decided = said
        told = {
            "action": str(decision.action),
            "trigger": str(trigger),
            "incident": facts.incident.key if facts.incident else None,
            "reasons": list(decision.reasons),
            "facts": facts.to_json(),
        }
        record = self._ledger.commit("decision.made", told, actor="policy", policy_digest=decision.policy_digest)
        return f"{self.spec.name}-{record.seq}", decision

    def _facts(self, trigger: Trigger, report: Report) -> Facts:
        now, performance, done = report.at, self._performance, self.retraining.done
        left = done.attempted + self.spec.retrain.cooldown - now if done.attempted else timedelta()
        kpis = {name: str(kpi.verdict) for name, kpi in report.kpis.items()}
        change = report.kpis[performance.kpi].value
        fall = None if change is None else performance.fall(change)
        recovery = self._unrecovered(report)
        if recovery is not None and not self.incident.open:
            kpis[performance.kpi], fall = str(Verdict.BREACH), self._short_of(recovery, report)
        return Facts(
            model=self.spec.name,
            now=now,
            trigger=trigger,
            incident=self._incident_facts(now, recovery),
            kpis=kpis,
            drifting_features=report.drifting,
            performance=performance.kpi,
            fall=fall,
            fall_allowed=performance.allowed(self.spec),
            retrain=RetrainFacts(
                running=done.attempted == now,
                cooldown_left_hours=max(left / HOUR, 0.0),
                this_month=sum(at > now - MONTH for at in done.at),
                max_per_month=self.spec.retrain.max_per_month,
                rejected_in_a_row=done.rejected_in_a_row,
            ),
            rollout_active=self.rollout is not None and self.rollout.active,
            paused=False,
        )

    def _incident_facts(self, now: datetime, recovery: Recovery | None) -> IncidentFacts | None:
        """The open incident; without one, the drift that is not made good yet."""
        if self.incident.open:
            key, opened, onset = self.incident.key, self.incident.opened_at or now, self.incident.onset or now
            owed = self.retraining.done.recovery
            needed = owed.fresh_rows_needed if owed and owed.key == key else self.spec.retrain.min_rows
        elif recovery is not None:
            key, opened, onset, needed = recovery.key, recovery.onset, recovery.onset, recovery.fresh_rows_needed
        else:
            return None
        return IncidentFacts(key, opened, (now - onset) / HOUR, self._fresh_rows(onset), needed)

    def _unrecovered(self, report: Report) -> Recovery | None:
        """The recovery that is still owed: none once performance is back within the allowed fall from the target."""
        recovery, allowed = self.retraining.done.recovery, self._performance.allowed(self.spec)
        if recovery is None or allowed is None:
            return None
        short = self._short_of(recovery, report)
        return recovery if short is None or short >= allowed else None

    def _short_of(self, recovery: Recovery, report: Report) -> float | None:
        """The fall from what was lost to what there is now; None where that is not known."""
        now = self._watched().performance_now(report)
        return None if now is None else -self._performance.gain(recovery.target, now)

    def _fresh_rows(self, onset: datetime) -> int:
        """Labelled rows since the onset: counted by the watch, and read once for what came before it was armed."""
        watch = self._watched()
        before, known_at = 0, min(self.clock.now(), watch.armed_at + self.spec.outcome.delay)
        if onset < watch.armed_at:
            if self._fresh_before[0] != (onset, known_at):
                rows = self._labelled(Window(onset, watch.armed_at), known_at)
                self._fresh_before = (onset, known_at), rows.height
            before = self._fresh_before[1]
        return before + watch.labelled_since(onset)

    def _labelled(self, window: Window, as_of: datetime, versions: Mapping[str, int] | None = None) -> pl.DataFrame:
        return self._at.lake.labelled(window, as_of=as_of, delay=self.spec.outcome.delay, versions=versions)

    # retrain

    def retrain(self, decision_id: str, report: Report) -> Training | None:
        """Train a candidate and prove it against the champion on rows that neither was trained on.

        None, with its reason in the audit, where there are not enough rows to train or to prove on.
        """
        assignment = self.pin(decision_id, report)
        trained = self.retraining.fit(assignment) if assignment else None
        return self.prove(trained) if trained else None

    def pin(self, decision_id: str, report: Report) -> Assignment | None:
        """The first step of a retrain: fix its rows; None, and audited, where they are too few."""
        return self.retraining.pin(decision_id, self._watched().champion, self._cause(report))

    def prove(self, assignment: Assignment) -> Training:
        """The last step of a retrain: hold what was fitted to the gates."""
        return self.retraining.prove(assignment, self._watched().champion)

    def _cause(self, report: Report) -> Cause | None:
        """The drift that is there, or not made good yet, and the fall that its training has to make good."""
        owed = None if self.incident.open else self._unrecovered(report)
        onset = self.incident.onset if self.incident.open else owed.onset if owed else None
        if onset is None:
            return None
        fresh, baseline = self._fresh_rows(onset), self._watched().reference.baseline
        needed = FRESH_FACTOR * fresh
        if owed is not None:
            return Cause(fresh, replace(owed, fresh_rows_needed=needed))
        if baseline is None or report.kpis[self._performance.kpi].verdict is not Verdict.BREACH:
            return Cause(fresh, None)
        return Cause(fresh, Recovery(self.incident.key, baseline.value, onset, needed))

    def candidate_record(self, digest: str) -> Mapping[str, Any]:
        """What the control store holds of a candidate: its data, cost, gates. Raises InputError for a stranger."""
        return self._ledger.get(f"candidate/{digest}")

    # release and advance

    def register(self, digest: str) -> Version:
        """Name a candidate as one that may be shipped, if the control store has the record that its gates passed.

        Raises:
            IntegrityError: there is no such record, or the bundle's bytes do not fit.
        """
        record = self._ledger.find(f"candidate/{digest}")
        if record is None or record["passed"] is not True:
            raise IntegrityError(
                f"{self.spec.name}: no record says that the gates of {digest} passed; it is not released"
            )
        candidate = Version.load(record, self._at.registry)
        if self._ledger.find(f"registered/{candidate.name}") is None:
            puts = {f"registered/{candidate.name}": candidate.to_json()}
            self._ledger.commit("model.registered", {"version": candidate.name}, {"bundle": digest}, puts=puts)
        return candidate

    def release(self, digest: str) -> bool:
        """Begin the rollout of a candidate whose gates passed; False where one is under way already.

        Raises:
            IntegrityError: the control store has no record that its gates passed, or the bundle's bytes do not fit.
        """
        candidate = self.register(digest)
        if self.rollout is not None and self.rollout.active:
            return False
        self.candidate = candidate
        rollout_id, champion = f"{self.spec.name}-{candidate.name}", self._watched().champion
        status, effects = start(rollout_id, self.spec.name, digest, champion.digest, self.clock.now())
        self._move(status, effects)
        return True

    def advance(self) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where none is under way."""
        status, candidate, now = self.rollout, self.candidate, self.clock.now()
        if status is None or not status.active or candidate is None:
            return None
        approvals = count_valid(self._approvals(status.candidate))
        champion = self._watched().champion.name
        seen = observe(self._at.lake, status, candidate.name, champion, now, self._performance)
        moved, effects = advance(self.plan, status, seen, approvals, now)
        if moved == status:
            return None
        self._move(moved, effects)
        if any(isinstance(effect, Promote) for effect in effects):
            self._promote(candidate)
        if not moved.active:
            self.candidate = None
        return moved

    def _move(self, status: Status, effects: Sequence[Effect]) -> None:
        self.rollout = status
        what, pages = f"rollout.{status.phase}", [effect for effect in effects if isinstance(effect, Page)]
        alerts = [self._ledger.alert(status.rollout_id, what, page.reason) for page in pages]
        told = {
            **status.to_json(),
            "effects": [f"{type(e).__name__} {' '.join(map(str, asdict(e).values()))}" for e in effects],
        }
        digests = {"candidate": status.candidate} | (
            {} if status.champion == RECORDED else {"champion": status.champion}
        )
        puts = {"rollout": status.to_json()}
        if self.candidate is not None and any(isinstance(effect, Promote) for effect in effects):
            puts["model"] = self.candidate.to_json()
        self._ledger.commit(what, told, digests, puts=puts, messages=alerts)

    def _promote(self, candidate: Version) -> None:
        """The candidate is the champion now; what it has not been trained on becomes its baseline."""
        details = {"version": candidate.name, "from": self._watched().champion.name}
        self._ledger.commit("model.promoted", details, {"bundle": candidate.digest})
        self._arm(candidate, Window(candidate.trained_from, self.clock.now()))

    def _approvals(self, digest: str) -> list[Any]:
        """What the filed approvals come to; a refusal is audited once."""
        trust, outcomes = self._trust, []
        for envelope in read_approvals(trust.gitops, self.spec.name, digest):
            outcome = verify_approval(
                envelope,
                keys=trust.approvers,
                model=self.spec.name,
                digest=digest,
                environment=trust.environment,
                trainer_key_id=trust.trainer_key_id,
                now=self.clock.now(),
            )
            outcomes.append(outcome)
            told = f"{digest} {outcome.reason if isinstance(outcome, Refusal) else outcome.approver}"
            if told not in self._heard:
                self._heard.add(told)
                event = "approval.refused" if isinstance(outcome, Refusal) else "approval.accepted"
                who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
                self._ledger.commit(event, {"reason": outcome.reason, **who}, {"bundle": digest})
        return outcomes

    # what every step ends with

    def deliver(self) -> int:
        """Drive the outbox: an alert that the channel does not take stays and is tried again; returns how many went."""
        sent = 0
        for message in self._at.store.pending(topic=ALERTS):
            try:
                self._at.alerts.send(message)
            except UnavailableError as error:
                self._at.store.failed(message.id, str(error))
                break
            self._at.store.delivered(message.id)
            sent += 1
        return sent

    def _watched(self) -> Watch:
        if self._watch is None:
            raise InputError(f"{self.spec.name}: no model is watched; adopt it first")
        return self._watch
