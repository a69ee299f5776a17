"""Retraining in three steps, each of which may run in a process of its own: pin the rows, fit on them, prove on them.

What one step hands to the next is in the control store (`training`, `candidate`) and the registry, never in memory.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

import polars as pl

from drift_pipeline.clock import Clock, Window
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.groups import group_analysis
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.state import Assignment, Recovery, Retrains, Training, Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, block_rows, split_newest, training_dataset
from drift_pipeline.training.gates import Gates, Outcome, prove
from drift_pipeline.training.search import Trained, train

LEAST_BLOCK = 500
LEAST_PARITY_ROWS = 5000  # decisions need no label; below 2000 equal models differ by 3 pp too often


@dataclass(frozen=True)
class Cause:
    """The drift that a retrain answers: labelled rows since its onset, and what has to be made good, if anything."""

    fresh_rows: int
    recovery: Recovery | None


class Retraining:
    """One model's trainings; what they came to is read from the control store whenever it is asked for."""

    def __init__(
        self,
        spec: ModelSpec,
        ledger: Ledger,
        lake: Lake,
        registry: Registry,
        clock: Clock,
        *,
        trainer_key_id: str,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        self._spec, self._ledger, self._lake, self._registry, self._clock = spec, ledger, lake, registry, clock
        self._trainer, self._seed, self._progress = trainer_key_id, seed, progress
        self._read: tuple[Assignment, Dataset] | None = None
        self._holdout: pl.DataFrame | None = None

    @property
    def done(self) -> Retrains:
        """What the trainings came to so far, of whichever process they were."""
        found = self._ledger.find("retrains")
        return Retrains.from_json(found) if found else Retrains()

    @property
    def holdout(self) -> pl.DataFrame:
        """The fixed, trusted rows with `_label`, in the Delta versions of the day the model was adopted."""
        if self._holdout is None:
            held = self._ledger.get("holdout")
            window = Window(datetime.fromisoformat(held["from"]), datetime.fromisoformat(held["to"]))
            self._holdout = self._lake.labelled(
                window, as_of=datetime.fromisoformat(held["at"]), delay=self._spec.outcome.delay, versions=held["delta"]
            )
        return self._holdout

    def first(self, rows: pl.DataFrame) -> tuple[str, Trained]:
        """Model version 1, trained on rows (n,) in order of time; returns its bundle's digest."""
        trained = self._train(rows, "v1")
        return self._register(trained, "v1"), trained

    def given(self, pipeline: bytes, origin: str) -> str:
        """Model version 1, a pipeline as skops wrote it that was trained elsewhere; returns its bundle's digest."""
        fields = {
            "model": self._spec.name,
            "version": "v1",
            "created_at": self._clock.now().isoformat(),
            "trainer": "given",
            "origin": origin,
            "features": dict(self._spec.features),
        }
        return self._registry.put(fields, {"model.skops": pipeline}).digest

    def pinned(self, decision_id: str | None = None) -> Assignment:
        """What was pinned or trained for a decision, or last. Raises InputError where nothing ever was."""
        found = self._ledger.find(f"training/{decision_id}" if decision_id else "training")
        if found is None:
            raise InputError(f"{self._spec.name}: no dataset is pinned yet; materialise training_dataset first")
        return Assignment.from_json(found)

    def proven(self, decision_id: str | None = None) -> str:
        """The digest of what was trained for a decision, or last. Raises InputError where it is not trained yet."""
        pinned = self.pinned(decision_id)
        if pinned.digest is None:
            raise InputError(f"{self._spec.name}: {pinned.version} is not trained; materialise candidate_model first")
        return pinned.digest

    def pin(self, decision_id: str, champion: Version, cause: Cause | None) -> Assignment | None:
        """Fix the rows that are to train and to prove the next candidate; None where they are too few."""
        if again := self._ledger.find(f"training/{decision_id}"):
            return Assignment.from_json(again)
        now = self._clock.now()
        done = replace(self.done, attempted=now)
        try:
            dataset = training_dataset(self._lake, self._spec, now)
        except InputError as error:
            self._refused(decision_id, str(error), done)
            return None
        frame = dataset.frame
        unseen = frame.filter(pl.col("_time") >= champion.unseen_from).height
        fresh = cause.fresh_rows if cause else None
        size = min(block_rows(fresh, frame.height), unseen)
        if size < LEAST_BLOCK or frame.height - size < self._spec.retrain.min_rows:
            why = f"{frame.height:,} labelled rows, {unseen:,} of them unseen by {champion.name}, are too few"
            self._refused(decision_id, why, done)
            return None
        block = self._block(frame, split_newest(frame, size)[1]["_time"][0], champion)
        if 2 * block.height < size:
            why = f"{champion.name} scored only {block.height:,} of the newest {size:,} rows"
            self._refused(decision_id, why, done)
            return None
        done = done.began(now)
        assignment = Assignment(
            version=f"v{done.versions}",
            decision=decision_id,
            champion=champion.digest,
            known_at=now,
            from_=dataset.window.start,
            versions=dict(dataset.versions),
            block_from=block["_time"][0],
            rows=frame.height,
            block_rows=block.height,
            fresh=max((fresh or 0) - block.height, 0),
            recovery=cause.recovery if cause else None,
        )
        self._read = assignment, dataset
        told = {"decision": decision_id, "version": assignment.version, "rows": frame.height, "block": block.height}
        self._ledger.commit(
            "training.started",
            {**told, **dataset.versions},
            puts={**self._training(assignment), "retrains": done.to_json()},
        )
        return assignment

    def _training(self, assignment: Assignment) -> dict[str, Mapping[str, Any]]:
        """Under its decision, and as the last one."""
        self._ledger.find("training")  # the last one is replaced, whichever it was
        return {f"training/{assignment.decision}": assignment.to_json(), "training": assignment.to_json()}

    def _refused(self, decision_id: str, why: str, done: Retrains) -> None:
        """Nothing comes of the decision, and everybody may know."""
        puts = {"retrains": done.to_json(), **self.ended(decision_id, "refused")}
        self._ledger.commit("training.refused", {"decision": decision_id, "because": why}, puts=puts)

    def ended(self, decision_id: str, outcome: str, digest: str | None = None) -> dict[str, Mapping[str, Any]]:
        """State to put with the last step of what a decision asked for; none for a decision that was not noted."""
        name = f"retrain/{decision_id}"
        wanted = self._ledger.find(name)
        return {name: {**wanted, "status": outcome, "digest": digest, "lease": None}} if wanted else {}

    def _block(self, frame: pl.DataFrame, since: datetime, champion: Version) -> pl.DataFrame:
        """The rows that prove, with `_champion`: those from `since` on that the champion could score."""
        block = frame.filter(pl.col("_time") >= since)
        block = block.with_columns(champion.scores(block, self._spec).alias("_champion"))
        return block.filter(pl.col("_champion").is_finite().fill_null(value=False))

    def _rows(self, assignment: Assignment) -> Dataset:
        """The assignment's rows, read again from the Delta versions it pinned unless they are at hand."""
        if self._read is None or self._read[0].version != assignment.version:
            found = training_dataset(self._lake, self._spec, assignment.known_at, assignment.versions)
            if found.frame.height != assignment.rows:
                raise IntegrityError(
                    f"{self._spec.name}: {found.frame.height:,} rows where {assignment.version} pinned "
                    f"{assignment.rows:,}: the lake or the spec changed; pin a new dataset"
                )
            self._read = assignment, found
        return self._read[1]

    def fit(self, assignment: Assignment) -> Assignment | None:
        """Search and train on the older rows, and put the bundle into the registry; nothing is proven yet.

        None, with its reason in the audit, where nothing can be trained on the rows. What was fitted already is not
        fitted again.
        """
        if assignment.digest is not None:
            return assignment
        dataset, began = self._rows(assignment), (time.perf_counter(), time.process_time())
        older = dataset.frame.filter(pl.col("_time") < assignment.block_from)
        try:
            trained = self._train(older, assignment.version, assignment.fresh)
        except InputError as error:
            self._refused(assignment.decision, str(error), self.done)
            return None
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        cost = {"wall_seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
        facts = {
            "decision": assignment.decision,
            "data": {
                "from": assignment.from_.isoformat(),
                "to": assignment.known_at.isoformat(),
                **assignment.versions,
            },
            "proven_on": {"from": assignment.block_from.isoformat(), "rows": assignment.block_rows},
        }
        digest = self._register(trained, assignment.version, facts)
        retrains = self.done
        if assignment.recovery is not None:
            retrains = replace(retrains, recovery=assignment.recovery)
        done = replace(assignment, digest=digest)
        made = Version(digest, assignment.version, trained.start, assignment.block_from, None)
        record = {
            **facts,
            **made.to_json(),
            "passed": None,
            "trainer": self._trainer,
            "cost": {**cost, "rows": trained.rows, "trials": trained.trials},
        }
        told = {"version": assignment.version, "decision": assignment.decision, "rows": trained.rows}
        puts = {f"candidate/{digest}": record, **self._training(done), "retrains": retrains.to_json()}
        self._ledger.commit("candidate.trained", told, {"bundle": digest}, puts=puts)
        return done

    def _train(self, rows: pl.DataFrame, name: str, fresh: int = 0) -> Trained:
        seed = self._seed + int(name.removeprefix("v"))
        return train(rows, self._spec, seed, fresh, lambda done, of: self._progress(f"{name}: trial {done}/{of}"))

    def _register(self, trained: Trained, name: str, facts: Mapping[str, Any] | None = None) -> str:
        """The bundle's digest; it holds the pipeline and what it came from."""
        fields = {
            "model": self._spec.name,
            "version": name,
            "created_at": self._clock.now().isoformat(),
            "trainer": self._spec.retrain.trainer,
            "params": trained.params,
            "rows": trained.rows,
            "trained_from": trained.start.isoformat(),
            f"validation_{performance_of(self._spec).kpi}": trained.validation,
            "features": dict(self._spec.features),
            "libraries": {library: version(library) for library in ("scikit-learn", "skops", "drift-pipeline")},
            **(facts or {}),
        }
        return self._registry.put(fields, {"model.skops": dump_pipeline(trained.pipeline)}).digest

    def prove(self, assignment: Assignment, champion: Version) -> Training:
        """Hold the candidate to the gates, passed or not, and write down what they said; `register` reads that again.

        What they said once stands: asking again until they pass would prove nothing.

        Raises:
            InputError: nothing was trained for this assignment yet.
            IntegrityError: the bundle's bytes do not fit, or the champion is another one by now.
        """
        if assignment.digest is None:
            raise InputError(f"{self._spec.name}: {assignment.version} is not trained yet; fit it first")
        if assignment.champion != champion.digest:
            raise IntegrityError(
                f"{self._spec.name}: {assignment.version} was trained to follow {assignment.champion}, "
                f"but the champion is {champion.name} ({champion.digest}) by now; pin a new dataset"
            )
        record = self._ledger.get(f"candidate/{assignment.digest}")
        if record["passed"] is not None:
            told = record[performance_of(self._spec).kpi]
            return Training(assignment.version, assignment.digest, record["passed"], told["before"], told["after"])
        candidate = Version.load(record, self._registry)
        pipeline = candidate.pipeline
        if pipeline is None:
            raise IntegrityError(f"{self._spec.name}: {assignment.version} is recorded scores, which cannot be proven")
        frame = self._rows(assignment).frame
        block = self._block(frame, assignment.block_from, champion)
        newest = frame.tail(max(block.height, LEAST_PARITY_ROWS))
        newest = newest.with_columns(champion.scores(newest, self._spec).alias("_champion"))
        fell = assignment.recovery is not None
        gates = prove(pipeline, block, newest, self.holdout, self._spec, performance_fell=fell)
        return self._proven(assignment.decision, candidate, block, gates, record)

    def _proven(
        self, decision_id: str, candidate: Version, block: pl.DataFrame, gates: Gates, record: Mapping[str, Any]
    ) -> Training:
        scored = block.with_columns(candidate.scores(block, self._spec))
        performance = performance_of(self._spec)
        before, after = (performance.of(block["_label"], scored[side]) for side in ("_champion", "_score"))
        retrains = self.done
        rejected = 0 if gates.passed else retrains.rejected_in_a_row + 1
        said = {performance.kpi: {"before": before, "after": after}, **gates.to_json()}
        told = {name: record[name] for name in ("version", "decision", "data", "proven_on")}
        puts = {
            f"candidate/{candidate.digest}": {**record, **said, "groups": group_analysis(scored, self._spec)},
            "retrains": replace(retrains, rejected_in_a_row=rejected).to_json(),
            **self.ended(decision_id, "proven" if gates.passed else "rejected", candidate.digest),
        }
        event = "candidate.proven" if gates.passed else "candidate.rejected"
        poisoned = [
            gate.reason for gate in gates.results if gate.name == "poison_floor" and gate.outcome is Outcome.FAIL
        ]
        alerts = [self._ledger.alert(candidate.name, event, reason) for reason in poisoned]
        self._ledger.commit(event, {**told, **said}, {"bundle": candidate.digest}, puts=puts, messages=alerts)
        return Training(candidate.name, candidate.digest, gates.passed, before, after)
