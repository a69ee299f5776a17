"""Trainings: what the control store has of them, and the rows that they pinned."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.control.store import Message
from drift_pipeline.errors import ConflictError, InputError, IntegrityError
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.state import MONTH, Assignment, Retrains, Version
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.dataset import Dataset

TOLD_SHARE = 0.8  # of the GPU budget


class Trainings:
    """One model's; what they came to is read from the control store whenever it is asked for."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.holder: str | None = None  # who works on a retrain here, while somebody does
        self._read: tuple[Assignment, Dataset] | None = None
        self._holdout: pl.DataFrame | None = None

    @property
    def done(self) -> Retrains:
        """What the trainings came to so far, of whichever process they were."""
        found = self.context.ledger.find("retrains")
        return Retrains.from_json(found) if found else Retrains()

    @property
    def holdout(self) -> pl.DataFrame:
        """The fixed, trusted rows with `_label`, in the Delta versions of the day the model was adopted."""
        if self._holdout is None:
            at, held = self.context, self.context.ledger.get("holdout")
            window = Window(datetime.fromisoformat(held["from"]), datetime.fromisoformat(held["to"]))
            known_at, delay = datetime.fromisoformat(held["at"]), at.spec.outcome.delay
            self._holdout = at.lake.labelled(window, as_of=known_at, delay=delay, versions=held["delta"])
        return self._holdout

    def pinned(self, decision_id: str | None = None) -> Assignment:
        """What was pinned or trained for a decision, or last. Raises InputError where nothing ever was."""
        found = self.context.ledger.find(f"training/{decision_id}" if decision_id else "training")
        if found is None:
            name = self.context.spec.name
            raise InputError(f"{name}: nothing is pinned yet; materialise training_dataset, or drift train pin, first")
        return Assignment.from_json(found)

    def trained(self, decision_id: str | None = None) -> str:
        """The digest of what was trained for a decision, or last. Raises InputError where it is not trained yet."""
        pinned = self.pinned(decision_id)
        if pinned.digest is None:
            name = self.context.spec.name
            raise InputError(
                f"{name}: {pinned.version} is not trained; materialise candidate_model, or drift train fit, first"
            )
        return pinned.digest

    def candidate(self, digest: str) -> Mapping[str, Any]:
        """What the control store holds of a candidate: its data, cost, gates. Raises InputError for a stranger."""
        return self.context.ledger.get(f"candidate/{digest}")

    def policy_digest(self, decision_id: str) -> str | None:
        """Which rules decided it; None of a decision that was not noted."""
        return (self.context.ledger.find(f"retrain/{decision_id}") or {}).get("policy_digest")

    def rows(self, assignment: Assignment) -> Dataset:
        """The assignment's rows, read again from the source by their pin unless they are at hand."""
        if self._read is None or self._read[0].version != assignment.version:
            spec = self.context.spec
            if assignment.pin.kind != spec.retrain.source.kind:
                raise IntegrityError(
                    f"{spec.name}: {assignment.version} was pinned in the source {assignment.pin.kind}, and "
                    f"retrain.source is {spec.retrain.source.kind} by now; pin a new dataset"
                )
            found = self.context.source.rows(assignment.known_at, assignment.pin)
            if found.frame.height != assignment.rows:
                raise IntegrityError(
                    f"{spec.name}: {found.frame.height:,} rows where {assignment.version} pinned "
                    f"{assignment.rows:,}: the {assignment.pin.kind} or the spec changed; pin a new dataset"
                )
            self.keep(assignment, found)
            return found
        return self._read[1]

    def keep(self, assignment: Assignment, dataset: Dataset) -> None:
        """The rows just pinned stay at hand for the next step."""
        self._read = assignment, dataset

    def spend(self, retrains: Retrains, gpu_hours: float) -> tuple[Retrains, list[Message]]:
        """With these hours of GPUs, and the alert where four fifths of what a month may cost are used by now."""
        if not gpu_hours:
            return retrains, []
        at, most = self.context, self.context.spec.retrain.max_gpu_hours
        now = at.clock.now()
        before, done = retrains.gpu_hours_since(now - MONTH), retrains.spent(now, gpu_hours)
        used = done.gpu_hours_since(now - MONTH)
        if not most or not before < TOLD_SHARE * most <= used:
            return done, []
        why = f"{used:.1f} of {most:g} GPU hours of 30 days are used; past them the policy lets only people retrain"
        return done, [at.ledger.alert(f"gpus-{now:%Y%m%d}", "training.budget", why)]

    def entries(self, assignment: Assignment) -> dict[str, Mapping[str, Any]]:
        """State to put of an assignment: under its decision, and as the last one. Raises ConflictError as `ended`."""
        self.context.ledger.find("training")  # the last one is replaced, whichever it was
        name = f"training/{assignment.decision}"
        held = {"by": self.holder, "at": self.context.clock.now().isoformat()}
        step = self._entry(assignment.decision, held=held) if self.holder else {}
        return {name: assignment.to_json(), "training": assignment.to_json(), **step}

    def ended(self, decision_id: str, outcome: str, digest: str | None = None) -> dict[str, Mapping[str, Any]]:
        """State to put with the last step of what a decision asked for; none for a decision that was not noted.

        Raises:
            ConflictError: who works on it, if anybody does, holds it no more.
        """
        now = self.context.clock.now().isoformat()
        return self._entry(decision_id, status=outcome, digest=digest, held=None, ended_at=now)

    def _entry(self, decision_id: str, **changes: Any) -> dict[str, Mapping[str, Any]]:
        name = f"retrain/{decision_id}"
        entry = self.context.ledger.find(name)
        if entry is None:
            return {}
        if self.holder is not None and (entry.get("held") or {}).get("by") != self.holder:
            raise ConflictError(f"{self.context.spec.name}: {decision_id} was taken over, or ended, meanwhile")
        return {name: {**entry, **changes}}

    def refuse(self, decision_id: str, why: str, done: Retrains) -> None:
        """Nothing comes of the decision, and everybody may know."""
        self.context.progress(f"{decision_id}: nothing is trained: {why}")
        puts = {"retrains": done.to_json(), **self.ended(decision_id, "refused")}
        self.context.ledger.commit("training.refused", {"decision": decision_id, "because": why}, puts=puts)


def proving_block(frame: pl.DataFrame, since: datetime, champion: Version, spec: ModelSpec) -> pl.DataFrame:
    """The rows that prove, with `_champion`: those from `since` on that the champion could score."""
    block = frame.filter(pl.col("_time") >= since)
    block = block.with_columns(champion.scores(block, spec).alias("_champion"))
    return block.filter(pl.col("_champion").is_finite().fill_null(value=False))
