"""The loop: the stages tied together, once. Replay, the Dagster skin and `drift tick` call these and nothing beside.

```
observe -> decide -> retrain -> release -> advance -> (new reference) -> observe
```
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.clock import DAY, HOUR, Clock, Window
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.detection.monitor import evaluate, window_lengths
from drift_pipeline.detection.reference import Reference, freeze
from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.detection.verdict import Report, Verdict
from drift_pipeline.detection.windows import Slices
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.policy.decide import Action, Decision, Facts, IncidentFacts, RetrainFacts, Trigger, decide
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.policy.incident import Change, Incident, step
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.bundle import dump_pipeline, load_pipeline
from drift_pipeline.rollout.advance import Effect, Page, Promote, advance, start
from drift_pipeline.rollout.approval import Refusal, count_valid, read_approvals, verify_approval
from drift_pipeline.rollout.plan import Phase, Plan, Status
from drift_pipeline.rollout.verdict import Observations
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, block_rows, split_newest, training_dataset
from drift_pipeline.training.gates import Gates, Outcome, auroc_gate, latency_gate, parity_gate, poison_floor
from drift_pipeline.training.search import Trained, train
from drift_pipeline.training.trainers import score

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

RECORDED = "recorded"
ALERTS = "alerts"
MONTH = 30 * DAY
LEAST_BLOCK = 500
FRESH_FACTOR = 4  # how many times the fresh rows a version that did not recover is trained again on
LEAST_PARITY_ROWS = 5000  # decisions need no label; below 2000 equal models differ by 3 pp too often
HELD_OUT = 0.2  # of the reference span, the newest: the first baseline and the fixed trusted holdout


@dataclass(frozen=True)
class Version:
    """A version that answers or may come to. Rows from `unseen_from` on were not trained on.

    `pipeline` None: a recorded model, of which only the scores are known.
    """

    digest: str
    name: str
    trained_from: datetime
    unseen_from: datetime
    pipeline: "Pipeline | None"

    def to_json(self) -> dict[str, str]:
        times = {"trained_from": self.trained_from.isoformat(), "unseen_from": self.unseen_from.isoformat()}
        return {"digest": self.digest, "version": self.name, **times}

    def scores(self, frame: pl.DataFrame, spec: ModelSpec) -> pl.Series:
        """Scores `_score` of rows (n,); a recorded model's are those that came with the history, in `_recorded`."""
        if self.pipeline is None:
            return frame["_recorded"].alias("_score")
        return pl.Series("_score", score(self.pipeline, frame, spec.features))


@dataclass(frozen=True)
class Recovery:
    """A drift that no training made good yet: the candidate was rejected, or is still a `drop` below what was lost.

    The rows of the changed world were few when it was trained, so the next training waits until there are four times
    as many. `target` is the AUROC before the drift, `onset` when that began.
    """

    key: str
    target: float
    onset: datetime
    fresh_rows_needed: int


@dataclass(frozen=True)
class Training:
    """What a retrain came to; `before` and `after` are the champion's and the candidate's AUROC on the gate's block."""

    version: str
    digest: str
    accepted: bool
    before: float | None
    after: float | None


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
        self._at, self._trust, self._clock = backends, trust, clock
        self._step, self._seed, self._progress = step, seed, progress
        self.champion: Version | None = None
        self.candidate: Version | None = None
        self.rollout: Status | None = None
        self.incident = Incident(reference="")
        self._reference: Reference | None = None
        self._slices: Slices | None = None
        self._unlabelled = pl.DataFrame()
        self._observed_to = clock.now()
        self._holdout = pl.DataFrame()
        self._trainings: list[datetime] = []
        self._attempted: datetime | None = None
        self._rejected_in_a_row = 0
        self._versions = 0
        self._recovery: Recovery | None = None
        self._fresh_before: tuple[tuple[datetime, datetime] | None, int] = None, 0
        self._decided: tuple[str, str, Action] | None = None
        self._heard: set[str] = set()

    # adopt

    def adopt(self, span: Window, recorded: bool) -> None:
        """Freeze the first reference on `span` and make its model version 1.

        Recorded scores serve until the first retrain; without them a model is trained on the older 80 % of the span.
        The newest 20 % is the held-out baseline, and from then on the fixed trusted holdout.

        Raises:
            InputError: too few labelled rows in the span, or one class only.
        """
        rows = self._labelled(span)
        if rows.height < self.spec.retrain.min_rows or rows["_label"].n_unique() < 2:
            raise InputError(
                f"{self.spec.name}: {rows.height:,} labelled rows from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, "
                f"where {self.spec.retrain.min_rows:,} (retrain.min_rows) of both classes are needed: "
                "give a longer --reference"
            )
        older, newest = split_newest(rows, int(rows.height * HELD_OUT))
        self._holdout, unseen_from = newest, newest["_time"][0]
        self._versions = 1
        if recorded:
            champion = Version(RECORDED, RECORDED, span.start, span.start, None)
            self._commit("model.adopted", {"version": RECORDED, "rollback": "hand back: only its scores are known"})
        else:
            trained = self._train(older, "v1")
            champion = Version(self._register(trained, "v1"), "v1", trained.start, unseen_from, trained.pipeline)
            self._commit("model.adopted", {"version": "v1", "rows": older.height}, {"bundle": champion.digest})
        self._arm(champion, rows if recorded else newest, span)

    def _arm(self, champion: Version, unseen: pl.DataFrame, span: Window) -> None:
        """Watch this champion from now on, against a reference frozen on the world it knows."""
        scored = unseen.with_columns(champion.scores(unseen, self.spec))
        frame = self._at.lake.read("predictions", span)
        self._reference = freeze(frame, scored, self.spec, window_lengths(self.spec, self._step))
        now = self._clock.now()
        self._slices, self._observed_to = Slices(self._reference.binning, now), now
        self._unlabelled = pl.DataFrame()
        self.champion = champion
        before, self.incident = self.incident, Incident(reference=self._reference.binning.digest)
        details = {
            "version": champion.name,
            "rows": frame.height,
            "from": span.start.isoformat(),
            "to": span.end.isoformat(),
            "auroc": self._reference.auroc.value if self._reference.auroc else None,
            "binning": self._reference.binning.digest,
            "closes": before.key if before.open else None,
        }
        self._commit(
            "reference.frozen", details, puts={"model": champion.to_json(), "incident": self.incident.to_json()}
        )

    # observe

    def observe(self) -> Report:
        """Profile what landed since the last tick, judge every KPI, and carry the incident on."""
        now, champion = self._clock.now(), self._champion()
        if self._slices is None or self._reference is None:
            raise InputError(f"{self.spec.name}: no reference is frozen; adopt the model first")
        window = Window(self._observed_to, now)
        landed = self._at.lake.read("predictions", window)
        if not landed.is_empty():
            served = landed.filter(pl.col("_version") == champion.name)
            self._slices.add(served)
            self._unlabelled = pl.concat([self._unlabelled, served.select("_id", "_time", "_score")])
        self._count_labels(self._at.lake.read("outcomes", window), self._slices)
        self._observed_to = now
        self._slices.consolidate(now)
        self._slices.forget(now - window_lengths(self.spec, self._step)[-1] - 7 * DAY - self.spec.outcome.delay)
        report = evaluate(self._reference, self._slices, self.spec, now, self._step)
        self._carry_incident(report)
        return report

    def _count_labels(self, outcomes: pl.DataFrame, slices: Slices) -> None:
        if outcomes.is_empty() or self._unlabelled.is_empty():
            return
        known = outcomes.select("_id", "_label").unique("_id", keep="first", maintain_order=True)
        slices.add_labels(self._unlabelled.join(known, on="_id", how="inner", maintain_order="left"))
        waiting = self._unlabelled.join(known, on="_id", how="anti", maintain_order="left")
        self._unlabelled = waiting.filter(pl.col("_time") >= self._clock.now() - 2 * self.spec.outcome.delay - 7 * DAY)

    def _carry_incident(self, report: Report) -> None:
        before = self.incident
        self.incident, change = step(before, report)
        if change is None:
            return
        undecided_key = f"undecided-{report.at:%Y%m%dT%H%M}"  # its own: the incident before it has paged already
        key = undecided_key if change is Change.UNDECIDED else self.incident.key
        kpis = {name: report.kpis[name].to_json() for name in self.incident.kpis or before.kpis}
        details = {"key": key, "kpis": kpis, "features": list(self.incident.features[:10])}
        alerts = []
        if change in (Change.OPENED, Change.UNDECIDED):
            found = [f"{name} {k['verdict']}: {k['reason']}" for name, k in kpis.items()]
            undecided = [f"{n}: {k.reason}" for n, k in report.kpis.items() if k.verdict is Verdict.INCONCLUSIVE]
            alerts.append(self._alert(key, change, "; ".join(found or undecided)))
        self._commit(change, details, puts={"incident": self.incident.to_json()}, messages=alerts)

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
        record = self._at.store.commit(
            Entry(
                actor="policy",
                event="decision.made",
                subject=self.spec.name,
                details={
                    "action": str(decision.action),
                    "trigger": str(trigger),
                    "incident": facts.incident.key if facts.incident else None,
                    "reasons": list(decision.reasons),
                    "facts": facts.to_json(),
                },
                policy_digest=decision.policy_digest,
            )
        )
        return f"{self.spec.name}-{record.seq}", decision

    def _facts(self, trigger: Trigger, report: Report) -> Facts:
        now, auroc = report.at, report.kpis["auroc"]
        left = self._attempted + self.spec.retrain.cooldown - now if self._attempted else timedelta()
        kpis = {name: str(kpi.verdict) for name, kpi in report.kpis.items()}
        drop = -auroc.value if auroc.value is not None else None
        recovery = self._unrecovered(report)
        if recovery is not None and not self.incident.open:
            kpis["auroc"], drop = str(Verdict.BREACH), recovery.target - self._auroc_now(report)
        return Facts(
            model=self.spec.name,
            now=now,
            trigger=trigger,
            incident=self._incident_facts(now, recovery),
            kpis=kpis,
            drifting_features=report.drifting,
            auroc_drop=drop,
            auroc_drop_allowed=self.spec.kpis.auroc.drop if self.spec.kpis.auroc else None,
            retrain=RetrainFacts(
                running=self._attempted == now,
                cooldown_left_hours=max(left / HOUR, 0.0),
                this_month=sum(at > now - MONTH for at in self._trainings),
                max_per_month=self.spec.retrain.max_per_month,
                rejected_in_a_row=self._rejected_in_a_row,
            ),
            rollout_active=self.rollout is not None and self.rollout.active,
            paused=False,
        )

    def _incident_facts(self, now: datetime, recovery: Recovery | None) -> IncidentFacts | None:
        """The open incident; without one, the drift that is not made good yet."""
        if self.incident.open:
            key, opened, onset = self.incident.key, self.incident.opened_at or now, self.incident.onset or now
            tried = self._recovery is not None and self._recovery.key == key
            needed = self._recovery.fresh_rows_needed if tried and self._recovery else self.spec.retrain.min_rows
        elif recovery is not None:
            key, opened, onset, needed = recovery.key, recovery.onset, recovery.onset, recovery.fresh_rows_needed
        else:
            return None
        return IncidentFacts(key, opened, (now - onset) / HOUR, self._fresh_rows(onset), needed)

    def _auroc_now(self, report: Report) -> float:
        """The last estimate of the champion's AUROC: its newest window's, else its baseline."""
        baseline = self._reference.auroc.value if self._reference and self._reference.auroc else 0.5
        return baseline + (report.kpis["auroc"].value or 0.0)

    def _unrecovered(self, report: Report) -> Recovery | None:
        """The recovery that is still owed: none once the AUROC is back within the allowed drop of the target."""
        recovery, kpi = self._recovery, self.spec.kpis.auroc
        if recovery is None or kpi is None or recovery.target - self._auroc_now(report) < kpi.drop:
            return None
        return recovery

    def _fresh_rows(self, onset: datetime) -> int:
        """Labelled rows since the onset: counted on the slices, and read once for what came before they were armed."""
        if self._slices is None:
            return 0
        armed = self._slices.armed_at
        if onset < armed and self._fresh_before[0] != (onset, armed):
            self._fresh_before = (onset, armed), self._labelled(Window(onset, armed)).height
        return (self._fresh_before[1] if onset < armed else 0) + self._slices.labelled_since(max(onset, armed))

    def _labelled(self, window: Window) -> pl.DataFrame:
        return self._at.lake.labelled(window, as_of=self._clock.now(), delay=self.spec.outcome.delay)

    # retrain

    def retrain(self, decision_id: str, report: Report) -> Training | None:
        """Train a candidate, prove it against the champion on rows that neither was trained on, and register it.

        None, with its reason in the audit, where there are not enough rows to train or to prove on.
        """
        champion, name = self._champion(), f"v{self._versions + 1}"
        self._attempted = self._clock.now()
        try:
            dataset = training_dataset(self._at.lake, self.spec, self._clock.now())
        except InputError as error:
            self._refused(decision_id, str(error))
            return None
        unseen = dataset.frame.filter(pl.col("_time") >= champion.unseen_from).height
        recovery = None if self.incident.open else self._unrecovered(report)
        onset = self.incident.onset if self.incident.open else recovery.onset if recovery else None
        fresh = self._fresh_rows(onset) if onset else None
        size = min(block_rows(fresh, dataset.frame.height), unseen)
        if size < LEAST_BLOCK or dataset.frame.height - size < self.spec.retrain.min_rows:
            why = f"{dataset.frame.height:,} labelled rows, {unseen:,} of them unseen by {champion.name}, are too few"
            self._refused(decision_id, why)
            return None
        older, block = split_newest(dataset.frame, size)
        block = block.filter(champion.scores(block, self.spec).is_finite().fill_null(value=False))
        if 2 * block.height < size:
            self._refused(decision_id, f"{champion.name} scored only {block.height:,} of the newest {size:,} rows")
            return None
        self._trainings.append(self._clock.now())
        self._versions += 1
        try:
            trained = self._train(older, name, max((fresh or 0) - block.height, 0))
        except InputError as error:
            self._refused(decision_id, str(error))
            return None
        fell = recovery is not None or (onset is not None and report.kpis["auroc"].verdict is Verdict.BREACH)
        if onset is not None and fell and self._reference and self._reference.auroc:
            target = recovery.target if recovery else self._reference.auroc.value
            key = recovery.key if recovery else self.incident.key
            self._recovery = Recovery(key, target, onset, FRESH_FACTOR * (fresh or 0))
        gates = self._gates(trained.pipeline, champion, dataset, block, cause_is_performance=fell)
        return self._record(name, trained, gates, dataset, block, decision_id)

    def _refused(self, decision_id: str, why: str) -> None:
        self._commit("training.refused", {"decision": decision_id, "because": why})

    def _train(self, rows: pl.DataFrame, name: str, fresh: int = 0) -> Trained:
        seed = self._seed + self._versions
        return train(rows, self.spec, seed, fresh, lambda done, of: self._progress(f"{name}: trial {done}/{of}"))

    def _gates(
        self,
        pipeline: "Pipeline",
        champion: Version,
        dataset: Dataset,
        block: pl.DataFrame,
        *,
        cause_is_performance: bool,
    ) -> Gates:
        spec, labels = self.spec, block["_label"].to_numpy()
        candidate, before = score(pipeline, block, spec.features), champion.scores(block, spec).to_numpy()
        results = [auroc_gate(labels, candidate, before, cause_is_performance=cause_is_performance)]
        if spec.kpis.demographic_parity is not None and spec.protected:
            newest = dataset.frame.tail(max(block.height, LEAST_PARITY_ROWS))
            sides = score(pipeline, newest, spec.features), champion.scores(newest, spec).to_numpy()
            decided = [side >= spec.prediction.threshold for side in sides]
            allowed = spec.kpis.demographic_parity.drop
            results += [
                parity_gate(decided[0], decided[1], newest[column], allowed_drop=allowed, column=column)
                for column in spec.protected
            ]
        limit_ms = spec.kpis.latency_p95_ms.threshold if spec.kpis.latency_p95_ms else 150.0
        results.append(latency_gate(pipeline, block, spec.features, limit_ms=limit_ms))
        results.append(poison_floor(self._holdout["_label"].to_numpy(), score(pipeline, self._holdout, spec.features)))
        return Gates(tuple(results))

    def _record(
        self, name: str, trained: Trained, gates: Gates, dataset: Dataset, block: pl.DataFrame, decision_id: str
    ) -> Training:
        """Register the candidate, passed or not, and write down what the gates said; release() reads that again."""
        champion, labels = self._champion(), block["_label"].to_numpy()
        before = auroc_of(labels, champion.scores(block, self.spec).to_numpy())
        after = auroc_of(labels, score(trained.pipeline, block, self.spec.features))
        facts = {
            "decision": decision_id,
            "data": {
                "from": dataset.window.start.isoformat(),
                "to": dataset.window.end.isoformat(),
                **dataset.versions,
            },
            "proven_on": {"from": block["_time"][0].isoformat(), "rows": block.height},
        }
        digest = self._register(trained, name, facts)
        self._rejected_in_a_row = 0 if gates.passed else self._rejected_in_a_row + 1
        said = {"version": name, **facts, "auroc": {"before": before, "after": after}, **gates.to_json()}
        proven = Version(digest, name, trained.start, block["_time"][0], None)
        puts = {f"candidate/{digest}": {**said, **proven.to_json()}}
        event = "candidate.proven" if gates.passed else "candidate.rejected"
        poisoned = [
            gate.reason for gate in gates.results if gate.name == "poison_floor" and gate.outcome is Outcome.FAIL
        ]
        alerts = [self._alert(name, event, reason) for reason in poisoned]
        self._commit(event, said, {"bundle": digest}, puts=puts, messages=alerts)
        return Training(name, digest, gates.passed, before, after)

    def _register(self, trained: Trained, name: str, facts: Mapping[str, Any] | None = None) -> str:
        """The bundle's digest; it holds the pipeline and what it came from."""
        fields = {
            "model": self.spec.name,
            "version": name,
            "created_at": self._clock.now().isoformat(),
            "trainer": self.spec.retrain.trainer,
            "params": trained.params,
            "rows": trained.rows,
            "trained_from": trained.start.isoformat(),
            "validation_auroc": trained.validation_auroc,
            "features": dict(self.spec.features),
            "libraries": {library: version(library) for library in ("scikit-learn", "skops", "drift-pipeline")},
            **(facts or {}),
        }
        return self._at.registry.put(fields, {"model.skops": dump_pipeline(trained.pipeline)}).digest

    # release and advance

    def release(self, digest: str) -> bool:
        """Begin the rollout of a candidate whose gates passed; False where one is under way already.

        Raises:
            IntegrityError: the control store has no record that its gates passed, or the bundle's bytes do not fit.
        """
        record = self._at.store.get("candidate", f"{self.spec.name}/{digest}")
        if record is None or record.body["passed"] is not True:
            raise IntegrityError(
                f"{self.spec.name}: no record says that the gates of {digest} passed; it is not released"
            )
        if self.rollout is not None and self.rollout.active:
            return False
        body = record.body
        times = [datetime.fromisoformat(body[name]) for name in ("trained_from", "unseen_from")]
        pipeline = load_pipeline(self._at.registry.get(digest).files["model.skops"])
        self.candidate = Version(digest, body["version"], times[0], times[1], pipeline)
        rollout_id = f"{self.spec.name}-{body['version']}"
        status, effects = start(rollout_id, self.spec.name, digest, self._champion().digest, self._clock.now())
        self._move(status, effects)
        return True

    def advance(self) -> Status | None:
        """Take the rollout one step, if the facts and the approvals allow it; None where none is under way."""
        status, now = self.rollout, self._clock.now()
        if status is None or not status.active or self.candidate is None:
            return None
        approvals = count_valid(self._approvals(status.candidate))
        moved, effects = advance(self.plan, status, self._observations(status), approvals, now)
        if moved == status:
            return None
        self._move(moved, effects)
        if any(isinstance(effect, Promote) for effect in effects):
            self._promote(self.candidate)
        if not moved.active:
            self.candidate = None
        return moved

    def _move(self, status: Status, effects: Sequence[Effect]) -> None:
        self.rollout = status
        alerts = [
            self._alert(status.rollout_id, f"rollout.{status.phase}", e.reason) for e in effects if isinstance(e, Page)
        ]
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
        self._commit(f"rollout.{status.phase}", told, digests, puts=puts, messages=alerts)

    def _promote(self, candidate: Version) -> None:
        """The candidate is the champion now; what it has not been trained on becomes its baseline."""
        now = self._clock.now()
        details = {"version": candidate.name, "from": self._champion().name}
        self._commit("model.promoted", details, {"bundle": candidate.digest})
        unseen = self._labelled(Window(candidate.unseen_from, now))
        self._arm(candidate, unseen, Window(candidate.trained_from, now))

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
                now=self._clock.now(),
            )
            outcomes.append(outcome)
            told = f"{digest} {outcome.reason if isinstance(outcome, Refusal) else outcome.approver}"
            if told not in self._heard:
                self._heard.add(told)
                event = "approval.refused" if isinstance(outcome, Refusal) else "approval.accepted"
                who = {} if isinstance(outcome, Refusal) else {"approver": outcome.approver, "label": outcome.label}
                self._commit(event, {"reason": outcome.reason, **who}, {"bundle": digest})
        return outcomes

    def _observations(self, status: Status) -> Observations:
        """Facts of the phase: rows that the candidate scored, mirrored or answered, beside the champion's."""
        window = Window(status.evidence_since, max(status.evidence_since, self._clock.now()))
        served, mirrored = self._at.lake.read("predictions", window), self._at.lake.read("shadow", window)
        if served.is_empty() or mirrored.is_empty() or self.candidate is None:
            return Observations(0, 0, 0)
        both = pl.concat([served.select("_id", "_version", "_score"), mirrored.select("_id", "_version", "_score")])
        by_candidate = both.filter(pl.col("_version") == self.candidate.name)
        by_champion = both.filter(pl.col("_version") == self._champion().name)
        answered = served.filter(pl.col("_version") == self.candidate.name)
        rows = answered if status.phase is Phase.CANARY else by_candidate
        known = self._at.lake.read("outcomes", window)
        if known.is_empty():
            known = pl.DataFrame(schema={"_id": pl.String, "_label": pl.Int8})
        known = known.select("_id", "_label")
        pairs = by_candidate.join(by_champion, on="_id", suffix="_champion").join(known, on="_id").sort("_id")
        return Observations(
            candidate_rows=rows.height,
            candidate_errors=rows.height - int(rows["_score"].is_finite().sum()),
            champion_rows=by_champion.height,
            labels=pairs["_label"].to_numpy(),
            candidate_scores=pairs["_score"].to_numpy(),
            champion_scores=pairs["_score_champion"].to_numpy(),
        )

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

    def _alert(self, key: str, what: str, why: str) -> Message:
        """One page an incident and one a rolled-back rollout: the id says what it is about."""
        body = {"model": self.spec.name, "what": str(what), "why": why, "at": self._clock.now().isoformat()}
        return Message(f"{self.spec.name}:{key}:{what}", ALERTS, {**body, "owner": self.spec.owner})

    def _commit(
        self,
        event: str,
        details: Mapping[str, Any],
        digests: Mapping[str, str] | None = None,
        *,
        puts: Mapping[str, Mapping[str, Any]] | None = None,
        messages: Sequence[Message] = (),
    ) -> None:
        """State, audit record and messages in one transaction; `puts` are named `kind` or `kind/rest of the key`."""
        changed = []
        for name, body in (puts or {}).items():
            kind, _, rest = name.partition("/")
            key = f"{self.spec.name}/{rest}" if rest else self.spec.name
            before = self._at.store.get(kind, key)
            changed.append(Put(kind, key, body, before.generation if before else 0))
        entry = Entry(actor="loop", event=str(event), subject=self.spec.name, digests=digests or {}, details=details)
        self._at.store.commit(entry, changed, messages)

    def _champion(self) -> Version:
        if self.champion is None:
            raise InputError(f"{self.spec.name}: there is no champion; adopt the model first")
        return self.champion


def auroc_of(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """AUROC of rows (n,); None where one class is missing."""
    positive = np.asarray(labels).astype(bool)
    if positive.all() or not positive.any():
        return None
    return paired_auroc_difference(positive, scores, scores).candidate
