"""The facts that a card is made from, and what becomes of each: known, declared, missing, or not applicable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.card.document import Field, Source, State
from drift_pipeline.evidence.history import History
from drift_pipeline.registry.graph import GRAPH, listed_steps
from drift_pipeline.rollout.approval import Approval, Refusal
from drift_pipeline.rollout.waiver import Waiver
from drift_pipeline.spec import ModelSpec, Statement
from drift_pipeline.spec.questions import QUESTIONS

MACHINE = "drift-pipeline"
NO_DECISION = "a regression predicts a number and decides nothing"
NO_PROTECTED = "the spec declares no protected column"


@dataclass(frozen=True)
class CardFacts:
    """What is known of one version.

    `record` is the body of the store's `candidate/<model>/<digest>`, None for the first model, of which `adopted` is
    that of `adopted/<model>/<digest>`. `reference` is that of `reference/<model>/<version>`, None for a version that
    has not been champion. `rollout` are the steps of its rollouts, oldest first: {rollout, phase, since, by, reason}.
    `approvals` and `waivers` are what `verify_approval` and `verify_waiver` said at `at`. `history` is what the audit
    tells of it, `environment_bom` the SBOM of the environment that it was trained in, where one was made.
    """

    spec: ModelSpec
    manifest: Mapping[str, Any]
    digest: str
    record: Mapping[str, Any] | None
    reference: Mapping[str, Any] | None
    approvals: tuple[Approval | Refusal, ...]
    approvals_wanted: int
    environment: str
    at: datetime
    adopted: Mapping[str, Any] | None = None
    rollout: Sequence[Mapping[str, Any]] = ()
    waivers: tuple[Waiver | Refusal, ...] = ()
    history: History = field(default_factory=History)
    environment_bom: bytes | None = None


def require_one_version(facts: CardFacts) -> None:
    """Raises InputError for a time without zone, and IntegrityError where the documents are of several versions."""
    if facts.at.utcoffset() is None:
        raise InputError(f"a card is made at an aware time, not {facts.at}")
    if (found := sha256(canonical(dict(facts.manifest)))) != facts.digest:
        raise IntegrityError(f"the manifest has the digest {found}, not {facts.digest}")
    if (model := facts.manifest.get("model", facts.spec.name)) != facts.spec.name:
        raise IntegrityError(f"the manifest is of the model {model}, the spec of {facts.spec.name}")
    for name, body in (("candidate", facts.record), ("reference", facts.reference), ("adopted", facts.adopted)):
        if body is not None and body.get("digest", facts.digest) != facts.digest:
            raise IntegrityError(f"the {name}'s record is of {body['digest']}, the manifest of {facts.digest}")


class Known:
    """The facts of one version, each with its source; makes fields of them."""

    def __init__(self, facts: CardFacts, version: str) -> None:
        self.facts, self.spec, self.version = facts, facts.spec, version
        self.declared_spec, self.measure = self.spec.model_dump(mode="json"), performance_of(self.spec).kpi
        model, digest = self.spec.name, facts.digest
        self._documents: dict[str, tuple[str, Mapping[str, Any] | None]] = {
            "spec": (f"spec:{model}", self.declared_spec),
            "declarations": (f"declarations:{model}", self.declared_spec["declarations"]),
            "manifest": (f"registry:{digest}/manifest.json", facts.manifest),
            "candidate": (f"control:candidate/{model}/{digest}", facts.record),
            "reference": (f"control:reference/{model}/{version}", facts.reference),
            "adopted": (f"control:adopted/{model}/{digest}", facts.adopted),
            "audit": (f"control:audit/{model}", facts.history.to_json()),
        }
        self._digests = {
            kind: None if body is None else sha256(canonical(dict(body))) for kind, (_, body) in self._documents.items()
        }

    def source(self, kind: str, path: str = "") -> Source:
        uri = self._documents[kind][0]
        return Source(kind, f"{uri}#{path}" if path else uri, self._digests[kind])

    def has(self, kind: str) -> bool:
        return self._documents[kind][1] is not None

    def auto(self, id: str, *places: str, unless: str | None = None) -> Field:
        """The value at the first of the places `kind#key.key` that holds one; else not recorded, or, with `unless`,
        why there can be none."""
        for kind, _, path in (place.partition("#") for place in places):
            value = _at(self._documents[kind][1], path)
            if value is not None:
                return Field(id, value, State.AUTO, None, self.source(kind, path), MACHINE)
        kind, _, path = places[0].partition("#")
        if unless:
            return Field(id, None, State.NOT_APPLICABLE, unless, self.source(kind, path), MACHINE)
        looked = " or ".join(f"the {place.replace('#', chr(39) + 's ')}" for place in places)
        return Field(id, None, State.NOT_RECORDED, f"nothing was recorded ({looked})", self.source(kind, path), MACHINE)

    def counted(self, id: str, value: Any, source: Source) -> Field:
        return Field(id, value, State.AUTO, None, source, MACHINE)

    def declared(self, id: str, path: str) -> Field:
        value, source = _at(self.declared_spec, path), self.source("spec", path)
        if value is None or value == "":
            why = f"not declared: write {path} into the spec; to be supplied by {self.spec.owner}"
            return Field(id, None, State.MISSING, why, source, None)
        return Field(id, value, State.DECLARED, None, source, self.spec.owner)

    def said(self, id: str, part: str, name: str, law_version: str | None = None) -> Field:
        """What a person declared, or that a person has yet to."""
        declared = self.spec.declarations
        found: Statement | None = getattr(getattr(declared, part), name)
        source, by = self.source("declarations", f"{part}.{name}"), declared.asserted_by or self.spec.owner
        if found is None or not (found.said or found.not_applicable):
            why = f"{QUESTIONS[part][name]}: not declared; write {part}.{name} into declarations.yaml"
            why = f"{why}; to be supplied by {by}"
            return Field(id, None, State.MISSING, why, source, None, None, law_version)
        at = found.at or declared.at
        told = source, found.by or by, at.isoformat() if at else None, law_version
        if found.not_applicable:
            return Field(id, None, State.NOT_APPLICABLE, found.not_applicable, *told)
        value = list(found.value) if isinstance(found.value, tuple) else found.value
        return Field(id, value, State.DECLARED, None, *told)

    def threshold(self, field: Field) -> Field:
        """The field, unless the task decides nothing."""
        if self.spec.task == "binary_classification":
            return field
        return Field(field.id, None, State.NOT_APPLICABLE, NO_DECISION, self.source("spec", "task"), MACHINE)

    def protected(self, field: Field) -> Field:
        """The field, unless there is no group to tell of."""
        if self.spec.protected:
            return field
        return Field(field.id, None, State.NOT_APPLICABLE, NO_PROTECTED, self.source("spec", "protected"), MACHINE)


def steps_of(known: Known, id: str, keys: Sequence[str]) -> list[Field]:
    """A field of what the manifest says of each step of a graph; none of a model that is one pipeline."""
    told = [{key: step.facts.get(key) for key in keys} for step in listed_steps(known.facts.manifest)]
    return [known.counted(id, told, known.source("manifest", GRAPH))] if told else []


def _at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key) if isinstance(body, Mapping) else None
    return body
