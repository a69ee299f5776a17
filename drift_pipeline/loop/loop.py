"""The steps of one model's loop, each of which changes state in one transaction with its audit record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.alerts.outbox import deliver
from drift_pipeline.clock import DAY, HOUR, Clock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.performance import performance_of
from drift_pipeline.detection.verdict import Report, Verdict
from drift_pipeline.detection.windows import floor
from drift_pipeline.errors import ConflictError, DriftError, InputError, IntegrityError
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.releasing import Releasing, Trust
from drift_pipeline.loop.retraining import Cause, Retraining
from drift_pipeline.loop.state import RECORDED, Assignment, Recovery, Retrains, Training, Version
from drift_pipeline.loop.watch import Watch, keep_reference, new_watch, watch_anew, watch_at, watch_of
from drift_pipeline.policy.decide import Action, Decision, Facts, IncidentFacts, RetrainFacts, Trigger, decide
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.policy.incident import Change, Incident, step
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.rollout.plan import Status
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import split_newest

MONTH = 30 * DAY
FRESH_FACTOR = 4  # how many times the fresh rows a version that did not recover is trained again on
HELD_OUT = 0.2  # of the reference span, the newest: the first baseline and the fixed trusted holdout
LEASE = timedelta(hours=6)  # of a retrain; a run that takes longer, or died, may be taken over
NORMAL, HOTFIX = "normal", "hotfix"
WANTED, RUNNING = "wanted", "running"


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
        self._at, self.clock, self._step = backends, clock, step
        self.incident = Incident(reference="")
        self._watch: Watch | None = None
        self.ledger = Ledger(spec, backends.store, clock)
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
        self._fresh_before: tuple[tuple[datetime, datetime] | None, int] = None, 0
        self._decided: tuple[str, ...] | None = None
        self._seen: dict[str, Any] = {}

    @property
    def champion(self) -> Version | None:
        """The version that answers; None before a model is adopted."""
        return self._watch.champion if self._watch else None

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
            self._arm(Version.load(model, self._at.registry), span)  # a former try died before it had a reference
            return
        now, versions = self.clock.now(), self._at.lake.versions()
        rows = self._labelled(span, now, versions)
        if rows.height < self.spec.retrain.min_rows or rows["_label"].n_unique() < 2:
            raise InputError(
                f"{self.spec.name}: {rows.height:,} labelled rows from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, "
                f"where {self.spec.retrain.min_rows:,} (retrain.min_rows) with {self._performance.needs} are needed: "
                "give a longer --reference"
            )
        older, holdout = split_newest(rows, int(rows.height * HELD_OUT))
        unseen_from = holdout["_time"][0]
        held = {"from": unseen_from.isoformat(), "to": span.end.isoformat(), "at": now.isoformat(), "delta": versions}
        puts: dict[str, Mapping[str, Any]] = {"holdout": held, "retrains": Retrains(versions=1).to_json()}
        told: dict[str, Any] = {"version": "v1", "rows": older.height}
        digests: dict[str, str] = {}
        if recorded:
            champion = Version(RECORDED, RECORDED, span.start, span.start, None)
            told = {"version": RECORDED, "rollback": "hand back: only its scores are known"}
        elif given is not None:
            digest = self.retraining.given(*given)
            champion = Version(digest, "v1", span.start, unseen_from, load_pipeline(given[0]))
            told, digests = {**told, "origin": given[1]}, {"bundle": digest}
        else:
            digest, trained = self.retraining.first(older)
            champion = Version(digest, "v1", trained.start, unseen_from, trained.pipeline)
            digests = {"bundle": digest}
        puts["model"] = {**champion.to_json(), "previous": None}
        self.ledger.commit("model.adopted", told, digests, puts=puts)
        self._arm(champion, span)

    def _arm(self, champion: Version, span: Window) -> None:
        """Watch this champion from now on, against a reference frozen on the world it knows."""
        now = self.clock.now()
        watch = new_watch(champion, span, now, lake=self._at.lake, spec=self.spec, step=self._step)
        self._armed("reference.frozen", watch, keep_reference(watch, self._at.registry, self.spec))

    def _arm_again(self, champion: Version, body: Mapping[str, Any]) -> None:
        """Watch a former champion from now on, against the reference that was frozen with it."""
        before = watch_of(body, lake=self._at.lake, registry=self._at.registry, spec=self.spec, step=self._step)
        watch = watch_anew(
            champion,
            before.reference,
            before.span,
            self.clock.now(),
            before.versions,
            lake=self._at.lake,
            spec=self.spec,
            step=self._step,
        )
        self._armed("reference.rearmed", watch, body["bundle"])

    def _armed(self, event: str, watch: Watch, bundle: str) -> None:
        self._watch, champion, span = watch, watch.champion, watch.span
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
        name = f"reference/{champion.name}"
        if self.ledger.find(name) is not None:
            name += f"@{watch.armed_at:%Y%m%dT%H%M%S}"
        self.ledger.find("incident")  # whatever it was, it was of another reference
        puts = {"incident": self.incident.to_json(), name: watch.to_json(bundle)}
        self.ledger.recall()
        self.ledger.commit(event, details, {"reference": bundle}, puts=puts, memory=self._memory(watch.armed_at))

    def resume(self) -> None:
        """Take up where the control store says the loop stood; the next `observe` reads what landed meanwhile.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the registry holds other bytes than the store's digests say.
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
        self._watch.restore(self.clock.now(), self.maintenance())
        self._recall()
        self.take_up_champion()

    def catch_up(self) -> None:
        """Take up what other processes did since this one last ticked: their ticks, a promotion, a rollback."""
        if self._watch is None:
            self.resume()
            return
        if self.ledger.moved_on():
            self._recall()
        self.take_up_champion()

    def _recall(self) -> None:
        memory = self.ledger.recall()
        self.incident = Incident.from_json(memory["incident"] if memory else self.ledger.get("incident"))
        self._decided = tuple(memory["decided"]) if memory and memory["decided"] else None
        self._seen = dict(memory["seen"]) if memory else {}

    def _memory(self, at: datetime) -> dict[str, Any]:
        """What the next tick, of whichever process, goes on from; and what `drift status` shows."""
        decided = list(self._decided) if self._decided else None
        return {"at": at.isoformat(), "incident": self.incident.to_json(), "decided": decided, "seen": self._seen}

    def tick(self, *, inline: bool) -> Ticked:
        """Once through the loop. Safe to repeat, and beside another process: the one that is slower is told.

        Args:
            inline: also what takes long or is due by the calendar, which an orchestrator would do in runs of its own.

        Raises:
            ConflictError: another process ticked or moved this model meanwhile; the next tick takes that up.
        """
        self.catch_up()
        report, at_rest = self.observe(), self.at_rest()
        decided = [] if at_rest else [self.decide(Trigger.DRIFT, report)]
        if inline and not at_rest:
            decided.append(self.decide_schedule(report))
        trained = [self.train(body["decision"]) for body in self.wanted()] if inline else []
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
        now = self.clock.now()
        try:
            report = self._watched().observe(now, self.maintenance())
        except ConflictError:
            self._watch = None
            raise
        self._seen = _summary(report, self._watched())
        if self.at_rest():
            self.incident = replace(self.incident, breaches=(), warn_since=None)
            self.ledger.remember(self._memory(now))
        else:
            self._carry_incident(report)
        return report

    def look(self) -> Report:
        """What `observe` would say, without taking it as a tick of the incident."""
        return self._watched().observe(self.clock.now(), self.maintenance(), keep=False)

    def maintenance(self) -> Window | None:
        """The span that an operator announced, from its beginning on; its rows judge nothing, and nothing is done."""
        found = self.ledger.find("maintenance")
        return Window(*(datetime.fromisoformat(found[end]) for end in ("from", "to"))) if found else None

    def at_rest(self) -> bool:
        """Whether a maintenance is going on."""
        maintained = self.maintenance()
        return maintained is not None and self.clock.now() in maintained

    def _snoozed(self) -> bool:
        found = self.ledger.find("snooze")
        return found is not None and self.clock.now() < datetime.fromisoformat(found["until"])

    def paused(self) -> bool:
        """Whether an operator holds retraining and promotion."""
        found = self.ledger.find("pause")
        return bool(found and found["on"])

    def _carry_incident(self, report: Report) -> None:
        before = self.incident
        self.incident, change = step(before, report)
        if change is None:
            self.ledger.remember(self._memory(report.at))
            return
        undecided_key = f"undecided-{report.at:%Y%m%dT%H%M}"  # its own: the incident before it has paged already
        key = undecided_key if change is Change.UNDECIDED else self.incident.key
        kpis = {name: report.kpis[name].to_json() for name in self.incident.kpis or before.kpis}
        details = {"key": key, "kpis": kpis, "features": list(self.incident.features[:10])}
        puts: dict[str, Mapping[str, Any]] = {"incident": self.incident.to_json()}
        if change in (Change.OPENED, Change.REOPENED, Change.JOINED):
            puts[f"finding/{key}"] = self._finding(key, report, kpis)
        alerts = []
        if change in (Change.OPENED, Change.UNDECIDED) and not self._snoozed():
            found = [f"{name} {k['verdict']}: {k['reason']}" for name, k in kpis.items()]
            undecided = [f"{n}: {k.reason}" for n, k in report.kpis.items() if k.verdict is Verdict.INCONCLUSIVE]
            alerts.append(self.ledger.alert(key, change, "; ".join(found or undecided)))
        self.ledger.find("incident")
        self.ledger.commit(change, details, puts=puts, messages=alerts, memory=self._memory(report.at))

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
        if trigger is Trigger.DRIFT and not self.incident.open and not self._unrecovered(report):
            return None
        facts = self._facts(trigger, report)
        decision = decide(facts, self._at.policy)
        drifted = facts.incident.key if facts.incident else ""
        subject = drifted if trigger is Trigger.DRIFT else f"{trigger}-{report.at:%Y%m%dT%H%M}"
        said = (str(trigger), subject, str(decision.action))
        trains = decision.action in (Action.RETRAIN, Action.HOTFIX_RETRAIN)
        if not trains and said == self._decided:
            return None
        made = self.ledger.find("decisions")
        count = (made["count"] if made else 0) + 1
        decision_id = f"{self.spec.name}-{count}"
        told = {
            "decision": decision_id,
            "action": str(decision.action),
            "trigger": str(trigger),
            "incident": facts.incident.key if facts.incident else None,
            "reasons": list(decision.reasons),
            "facts": facts.to_json(),
            **({"reason": reason} if reason else {}),
        }
        puts: dict[str, Mapping[str, Any]] = {"decisions": {"count": count}, **(also or {})}
        if trains:
            puts[f"retrain/{decision_id}"] = {
                "decision": decision_id,
                "lane": HOTFIX if decision.action is Action.HOTFIX_RETRAIN else NORMAL,
                "incident": told["incident"] or subject,
                "trigger": str(trigger),
                "status": WANTED,
                "at": report.at.isoformat(),
                "digest": None,
                "lease": None,
            }
        self._decided = said
        self.ledger.commit(
            "decision.made",
            told,
            puts=puts,
            actor=actor,
            policy_digest=decision.policy_digest,
            memory=self._memory(report.at),
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
                running=done.attempted == now or self._training_runs(trigger, now),
                cooldown_left_hours=max(left / HOUR, 0.0),
                this_month=sum(at > now - MONTH for at in done.at),
                max_per_month=self.spec.retrain.max_per_month,
                rejected_in_a_row=done.rejected_in_a_row,
            ),
            rollout_active=self.releasing.active is not None,
            paused=self.paused(),
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
        before, known_at = 0, min(floor(self.clock.now(), HOUR), watch.armed_at + self.spec.outcome.delay)
        if onset < watch.armed_at:
            if self._fresh_before[0] != (onset, known_at):
                rows = self._labelled(Window(onset, watch.armed_at), known_at)
                self._fresh_before = (onset, known_at), rows.height
            before = self._fresh_before[1]
        return before + watch.labelled_since(onset)

    def _labelled(self, window: Window, as_of: datetime, versions: Mapping[str, int] | None = None) -> pl.DataFrame:
        return self._at.lake.labelled(window, as_of=as_of, delay=self.spec.outcome.delay, versions=versions)

    # retrain

    def wanted(self) -> list[Mapping[str, Any]]:
        """Decisions to retrain that no run has come of yet, or whose run has let its lease run out; oldest first."""
        now, paused = self.clock.now(), self.paused()
        if self.at_rest():
            return []
        found = [body for _, body in self.ledger.all("retrain") if body["status"] == WANTED or _abandoned(body, now)]
        return [body for body in found if not paused or body["trigger"] in (Trigger.OPERATOR, Trigger.HOTFIX)]

    def _training_runs(self, trigger: Trigger, now: datetime) -> bool:
        """Whether one is wanted or under way in the lane of the trigger: a hotfix does not wait for a long retrain."""
        lane = HOTFIX if trigger is Trigger.HOTFIX else None
        return any(
            (body["status"] == WANTED or (body["status"] == RUNNING and not _abandoned(body, now)))
            and lane in (None, body["lane"])
            for _, body in self.ledger.all("retrain")
        )

    def claim(self, decision_id: str) -> bool:
        """Take a wanted retrain for this process, for as long as the lease; False where it is taken or done.

        Raises:
            ConflictError: somebody else was faster.
        """
        name, now = f"retrain/{decision_id}", self.clock.now()
        body = self.ledger.get(name)
        if body["status"] != WANTED and not _abandoned(body, now):
            return False
        taken = {**body, "status": RUNNING, "lease": (now + LEASE).isoformat()}
        self.ledger.commit("training.claimed", {"decision": decision_id, "lane": body["lane"]}, puts={name: taken})
        return True

    def train(self, decision_id: str) -> Training | None:
        """A wanted retrain from claim to gates; None where another process has it, or its rows were too few."""
        if not self.claim(decision_id):
            return None
        try:
            return self.retrain(decision_id, self.look())
        except ConflictError:
            raise
        except DriftError as error:
            self.give_up(decision_id, str(error))
            return None

    def give_up(self, decision_id: str, why: str) -> None:
        """A run failed: what it was for is not wanted any more, and everybody may know why."""
        name = f"retrain/{decision_id}"
        body = self.ledger.get(name)
        if body["status"] in (WANTED, RUNNING):
            done = replace(self.retraining.done, attempted=self.clock.now())  # else it would be decided again at once
            put = {name: {**body, "status": "failed", "lease": None}, "retrains": done.to_json()}
            alert = self.ledger.alert(decision_id, "training.failed", why)
            self.ledger.commit("training.failed", {"decision": decision_id, "because": why}, puts=put, messages=[alert])

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
        return self.ledger.get(f"candidate/{digest}")

    # release and advance

    def release(self, digest: str, actor: str = "loop") -> bool:
        """Begin the rollout of a candidate whose gates passed; False where one is under way already.

        Raises:
            IntegrityError: no record says that its gates passed, the bundle's bytes do not fit, or it was proven
                against another champion than today's.
        """
        of = [(name, body) for name, body in self.ledger.all("retrain") if body["digest"] == digest]
        if any(self._is_outdated(body) for _, body in of):
            raise IntegrityError(f"{self.spec.name}: {digest} was proven against another champion than today's")
        also = {name: {**body, "status": "released"} for name, body in of}
        return self.releasing.begin(digest, self._watched().champion.digest, actor=actor, also=also)

    def releasable(self) -> str | None:
        """The digest of the newest proven candidate that may be rolled out now; None where none may.

        One that was proven against another champion than today's is outdated, and audited as such.
        """
        if self.paused() or self.at_rest() or self.releasing.active is not None:
            return None
        for name, body in reversed(self.ledger.all("retrain")):
            if body["status"] != "proven":
                continue
            if not self._is_outdated(body):
                return str(body["digest"])
            told = {"decision": body["decision"], "because": "it was proven against another champion than today's"}
            put = {name: {**body, "status": "outdated"}}
            self.ledger.commit("candidate.outdated", told, {"bundle": str(body["digest"])}, puts=put)
        return None

    def _is_outdated(self, body: Mapping[str, Any]) -> bool:
        return self.retraining.pinned(body["decision"]).champion != self._watched().champion.digest

    def release_proven(self) -> str | None:
        """Begin the rollout of what is releasable; its digest, None where there is nothing."""
        digest = self.releasable()
        return digest if digest is not None and self.release(digest) else None

    def advance(self) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where nothing moved."""
        moved = self.releasing.advance(self._watched().champion, held=self.paused() or self.at_rest())
        if moved is not None:
            self.take_up_champion()
        return moved

    def take_up_champion(self) -> None:
        """Watch the version that answers, where another one does by now: promoted, or rolled back to."""
        model = self.ledger.get("model")
        if model["digest"] == self._watched().champion.digest:
            return
        champion = Version.load(model, self._at.registry)
        before = self._newest_reference(champion)
        if before is not None:
            self._arm_again(champion, before)
            return
        promoted = self.ledger.find("promoted")
        if promoted is None or promoted["digest"] != champion.digest:  # else it was told, and the arming died
            details = {"version": champion.name, "from": self._watched().champion.name}
            puts = {"promoted": {"digest": champion.digest}}
            self.ledger.commit("model.promoted", details, {"bundle": champion.digest}, puts=puts)
        self._arm(champion, Window(champion.trained_from, self.clock.now()))

    def _newest_reference(self, champion: Version) -> Mapping[str, Any] | None:
        bodies = [body for _, body in self.ledger.all("reference") if body["digest"] == champion.digest]
        return max(bodies, key=lambda body: datetime.fromisoformat(body["at"]), default=None)

    # what every step ends with

    def deliver(self) -> int:
        """Drive the outbox; returns how many alerts went."""
        return deliver(self._at.store, self._at.alerts)

    def _watched(self) -> Watch:
        if self._watch is None:
            raise InputError(f"{self.spec.name}: no model is watched; adopt it first")
        return self._watch


def _abandoned(body: Mapping[str, Any], now: datetime) -> bool:
    """A run that neither ended nor renewed its lease."""
    return body["status"] == RUNNING and now >= datetime.fromisoformat(body["lease"])


def _summary(report: Report, watch: Watch) -> dict[str, Any]:
    """What the last tick saw, for people who ask how things stand."""
    kpis = {name: kpi.to_json() for name, kpi in report.kpis.items()}
    shown = ("verdict", "value", "threshold", "bound", "n", "reason")
    return {
        "verdict": str(report.verdict),
        "champion": watch.champion.name,
        "kpis": {name: {key: kpi[key] for key in shown} for name, kpi in kpis.items()},
        "drifting": list(report.drifting[:10]),
    }
