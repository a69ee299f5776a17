"""One audit record as run events: how a run of it begins, goes on, and completes or fails."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.evidence.lineage.events import (
    COMPLETE,
    FAIL,
    RUNNING,
    START,
    Event,
    Facet,
    Naming,
    Run,
    facet,
    schema,
)
from drift_pipeline.spec import ModelSpec


@dataclass(frozen=True)
class ToldRecord:
    """A record, and how events are told of it.

    runs: those that began and did not end, by key, and which Dagster run holds a decision; changed as events are made.
    decided: of a model and a bundle's digest, the decision that it was trained for; "" where nobody knows.
    """

    record: AuditRecord
    naming: Naming
    spec: ModelSpec | None
    decided: Callable[[str, str], str]
    runs: dict[str, str]

    @property
    def said(self) -> Mapping[str, Any]:
        return self.record.details

    @property
    def model(self) -> str:
        return self.record.subject

    def run(self, stage: str, subject: object) -> Run:
        return Run(self.model, stage, str(subject))

    def decision(self, name: object) -> Run | None:
        return self.run("decide", name) if name else None

    def of_bundle(self, digest: str) -> Run | None:
        """The decision that it was trained for."""
        return self.decision(self.decided(self.model, digest))

    def begin(self, run: Run, **more: Any) -> Event:
        self.runs[run.key] = self.record.at
        return self._event(START, run, **more)

    def end(self, kind: str, run: Run, **more: Any) -> Iterator[Event]:
        """It begins first, where nobody told so."""
        if run.key not in self.runs:
            yield self._event(START, run, parent=more.get("parent"))
        self.runs.pop(run.key, None)
        if kind == FAIL:
            why = str(more.pop("why"))
            more["facets"] = {"errorMessage": facet("errorMessage", message=why, programmingLanguage="PYTHON")}
        yield self._event(kind, run, **more)

    def once(self, run: Run, **more: Any) -> Iterator[Event]:
        return self.end(COMPLETE, run, **more)

    def go_on(self, run: Run, **more: Any) -> Event:
        return self._event(RUNNING, run, **more)

    def _event(self, kind: str, run: Run, **more: Any) -> Event:
        ours = {"drift": self._drift(run), **more.pop("facets", {})}
        owner = self.spec.owner if self.spec else ""
        return self.naming.event(kind, self.record.at, run, owner=owner, facets=ours, **more)

    def _drift(self, run: Run) -> Facet:
        """Which record tells it, with its digests, and the Dagster run that worked on it, where one did."""
        record = self.record
        return facet(
            "drift",
            audit_seq=record.seq,
            audit_hash=record.hash,
            audit_event=record.event,
            digests=dict(record.digests),
            policy_digest=record.policy_digest,
            dagster_run_id=self.runs.get(_held(self.model, run.subject)),
        )

    def hold(self, decision: object, dagster_run: str) -> None:
        """What is made for the decision from now on names the run."""
        self.runs[_held(self.model, str(decision))] = dagster_run

    def let_go(self, decision: object) -> None:
        self.runs.pop(_held(self.model, str(decision)), None)

    def pinned(self) -> dict[str, Any]:
        said, spec = self.said, self.spec
        return self.naming.dataset(
            self.model, "training_dataset", version=said["decision"], facets=schema(spec, "label")
        )


def _held(model: str, decision: str) -> str:
    return f"{model}|held|{decision}"
