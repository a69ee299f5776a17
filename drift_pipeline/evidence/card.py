"""Model card of one version, from facts: each field says what is known, who said so, or who has yet to say it.

Mitchell et al., "Model cards for model reporting", FAT* 2019, plus gates, the champion, approvals and digests. One
record becomes `card.json`, `card.md` and `card.html`. Nothing is measured here but the counts of what was handed in.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.detection.judging.performance import Performance, measured_by, performance_of
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.groups import group_analysis
from drift_pipeline.evidence.pages import render
from drift_pipeline.files import write_whole
from drift_pipeline.rollout.approval import Approval, Refusal, count_valid
from drift_pipeline.spec import ModelSpec

__all__ = ["CardFacts", "Field", "ModelCard", "Section", "Source", "State", "group_analysis", "make_card", "write_card"]

MACHINE = "drift-pipeline"
FIRST = "the first version: it was adopted, not proven against a champion"
NO_DECISION = "a regression predicts a number and decides nothing"
NO_PROTECTED = "the spec declares no protected column"


class State(StrEnum):
    """AUTO: recorded by the loop. DECLARED: a person's words, not checked."""

    AUTO = "auto"
    DECLARED = "declared"
    MISSING = "MISSING"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True)
class Source:
    """Where the value can be read again; `sha256` is that of the whole document, in canonical JSON, at that time."""

    kind: str
    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class Field:
    """`value` is JSON, null unless it is known. `reason` says why it is not, and who can supply it."""

    id: str
    value: Any
    state: State
    reason: str | None
    source: Source
    asserted_by: str | None


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class ModelCard:
    """`at` is when it was made: approvals are judged as of then."""

    model: str
    version: str
    digest: str
    owner: str
    environment: str
    at: str
    sections: tuple[Section, ...]

    @property
    def fields(self) -> dict[str, Field]:
        return {field.id: field for section in self.sections for field in section.fields}

    @property
    def performance(self) -> Performance:
        """What its figures are measured by."""
        return measured_by({id.removeprefix("quantitative."): field for id, field in self.fields.items()})

    @property
    def documents(self) -> dict[str, Source]:
        """Each document that a value was read from, by its kind."""
        found = {field.source.kind: field.source for field in self.fields.values()}
        return {kind: Source(kind, source.uri.partition("#")[0], source.sha256) for kind, source in found.items()}

    @property
    def missing(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields.values() if field.state is State.MISSING)

    @property
    def status(self) -> str:
        """`DRAFT n/m`: n of the m fields that apply are filled; without DRAFT when all are."""
        applicable = sum(field.state is not State.NOT_APPLICABLE for field in self.fields.values())
        count = f"{applicable - len(self.missing)}/{applicable}"
        return f"DRAFT {count}" if self.missing else count

    def to_json(self) -> dict[str, Any]:
        head = {name: value for name, value in asdict(self).items() if name != "sections"}
        missing = [field.id for field in self.missing]
        return {**head, "status": self.status, "missing": missing, "sections": asdict(self)["sections"]}


@dataclass(frozen=True)
class CardFacts:
    """What is known of one version.

    `record` is the body of the store's `candidate/<model>/<digest>`, None for the first model. `reference` is that of
    `reference/<model>/<version>`, None for a version that has not been champion. `approvals` are what
    `verify_approval` said at `at`. `policy_digest` names the rules that decided its training, unless the record does.
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
    policy_digest: str | None = None


def make_card(facts: CardFacts) -> ModelCard:
    """The same facts give the same card.

    Raises:
        IntegrityError: the manifest has another digest, or it, the record or the reference is of another version.
        InputError: `at` has no time zone.
    """
    _require_one_version(facts)
    version = str(facts.manifest.get("version", "unnamed"))
    known = _Known(facts, version)
    sections = tuple(Section(id, title, tuple(fields)) for id, title, fields in _sections(known))
    at = facts.at.astimezone(UTC).isoformat()
    return ModelCard(
        facts.spec.name,
        version,
        facts.digest,
        facts.spec.owner,
        facts.environment,
        at,
        (*sections, _limits(known, sections)),
    )


def _require_one_version(facts: CardFacts) -> None:
    if facts.at.utcoffset() is None:
        raise InputError(f"a card is made at an aware time, not {facts.at}")
    if (found := sha256(canonical(dict(facts.manifest)))) != facts.digest:
        raise IntegrityError(f"the manifest has the digest {found}, not {facts.digest}")
    if (model := facts.manifest.get("model", facts.spec.name)) != facts.spec.name:
        raise IntegrityError(f"the manifest is of the model {model}, the spec of {facts.spec.name}")
    for name, body in (("candidate", facts.record), ("reference", facts.reference)):
        if body is not None and body.get("digest", facts.digest) != facts.digest:
            raise IntegrityError(f"the {name}'s record is of {body['digest']}, the manifest of {facts.digest}")


class _Known:
    """The facts, each with its source; makes fields of them."""

    def __init__(self, facts: CardFacts, version: str) -> None:
        self.facts, self.spec, self.version = facts, facts.spec, version
        self.declared_spec, self.measure = self.spec.model_dump(mode="json"), performance_of(self.spec).kpi
        model, digest = self.spec.name, facts.digest
        self._documents: dict[str, tuple[str, Mapping[str, Any] | None]] = {
            "spec": (f"spec:{model}", self.declared_spec),
            "manifest": (f"registry:{digest}/manifest.json", facts.manifest),
            "candidate": (f"control:candidate/{model}/{digest}", facts.record),
            "reference": (f"control:reference/{model}/{version}", facts.reference),
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
        """The value at the first of the places `kind#key.key` that holds one; else missing, or, with `unless`, why
        there can be none."""
        for kind, _, path in (place.partition("#") for place in places):
            value = _at(self._documents[kind][1], path)
            if value is not None:
                return Field(id, value, State.AUTO, None, self.source(kind, path), MACHINE)
        kind, _, path = places[0].partition("#")
        if unless:
            return Field(id, None, State.NOT_APPLICABLE, unless, self.source(kind, path), MACHINE)
        looked = " or ".join(f"the {place.replace('#', chr(39) + 's ')}" for place in places)
        return self.lacking(id, f"nothing was recorded ({looked})", self.source(kind, path))

    def counted(self, id: str, value: Any, source: Source) -> Field:
        return Field(id, value, State.AUTO, None, source, MACHINE)

    def declared(self, id: str, path: str) -> Field:
        value, source = _at(self.declared_spec, path), self.source("spec", path)
        if value is None or value == "":
            return self.lacking(id, f"not declared: write {path} into the spec", source)
        return Field(id, value, State.DECLARED, None, source, self.spec.owner)

    def lacking(self, id: str, why: str, source: Source) -> Field:
        return Field(id, None, State.MISSING, f"{why}; to be supplied by {self.spec.owner}", source, None)

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


def _at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def _sections(known: _Known) -> Iterator[tuple[str, str, Sequence[Field]]]:
    yield "details", "Model details", _details(known)
    uses = ("intended_use", "intended_users", "out_of_scope_use")
    yield "use", "Intended use", [known.declared(f"use.{name}", f"card.{name}") for name in uses]
    yield "factors", "Factors", _factors(known)
    yield "metrics", "Metrics", _metrics(known)
    yield "evaluation", "Evaluation data", _evaluation(known)
    yield "training", "Training data", _training(known)
    yield "quantitative", "Quantitative analyses", _quantitative(known)
    ethical = "ethical_considerations"
    yield "ethical", "Ethical considerations", [known.declared(f"ethical.{ethical}", f"card.{ethical}")]
    yield "caveats", "Caveats and recommendations", [known.declared("caveats.caveats", "card.caveats")]
    yield "comparison", "Against the champion", _comparison(known)
    yield "gates", "Gates", _gates(known)
    yield "approvals", "Approvals", _approvals(known)
    yield "lineage", "Lineage", _lineage(known)


def _details(known: _Known) -> list[Field]:
    return [
        known.declared("details.owner", "owner"),
        known.declared("details.task", "task"),
        known.auto("details.created_at", "manifest#created_at"),
        known.auto("details.trainer", "manifest#trainer"),
        known.auto("details.params", "manifest#params"),
        known.auto("details.features", "manifest#features"),
        known.auto("details.libraries", "manifest#libraries"),
    ]


def _factors(known: _Known) -> list[Field]:
    names, source = list(known.spec.protected), known.source("spec", "protected")
    pairs = [[first, second] for at, first in enumerate(names) for second in names[at + 1 :]]
    trained_on = [name for name in names if name in known.facts.manifest.get("features", known.spec.features)]
    return [
        known.protected(known.declared("factors.protected", "protected")),
        known.protected(known.counted("factors.intersections", pairs, source)),
        known.protected(known.counted("factors.protected_and_trained_on", trained_on, source)),
    ]


def _metrics(known: _Known) -> list[Field]:
    return [
        known.threshold(known.declared("metrics.decision_threshold", "prediction.threshold")),
        known.declared("metrics.watched_in_production", "kpis"),
    ]


def _evaluation(known: _Known) -> list[Field]:
    first = None if known.has("candidate") else FIRST
    unarmed = "no reference is frozen on it: it has not been champion" if known.has("candidate") else None
    return [
        known.auto("evaluation.proven_on", "candidate#proven_on", "manifest#proven_on", unless=first),
        known.auto("evaluation.unseen_from", "candidate#unseen_from", "reference#unseen_from"),
        *(
            known.auto(f"evaluation.reference_{name}", f"reference#{name}", unless=unarmed)
            for name in ("from", "to", "rows", "labels", known.measure, f"{known.measure}_error")
        ),
    ]


def _training(known: _Known) -> list[Field]:
    return [
        known.auto("training.rows", "manifest#rows"),
        known.auto("training.trained_from", "manifest#trained_from", "candidate#trained_from"),
        known.auto("training.trained_until", "candidate#unseen_from", "reference#unseen_from"),
        known.auto(f"training.validation_{known.measure}", f"manifest#validation_{known.measure}"),
        known.declared("training.longest_window", "retrain.window"),
        known.declared("training.left_out", "retrain.exclude"),
        known.auto("training.cost", "candidate#cost", "manifest#cost"),
    ]


def _quantitative(known: _Known) -> list[Field]:
    first, name = None if known.has("candidate") else FIRST, known.measure
    return [
        known.auto(f"quantitative.{name}", f"candidate#{name}.after", f"reference#{name}", unless=first),
        known.protected(known.auto("quantitative.groups", "candidate#groups", "reference#groups")),
    ]


def _comparison(known: _Known) -> list[Field]:
    first, name = None if known.has("candidate") else FIRST, known.measure
    fields = [
        known.auto(f"comparison.champion_{name}", f"candidate#{name}.before", unless=first),
        known.auto(f"comparison.candidate_{name}", f"candidate#{name}.after", unless=first),
        known.auto("comparison.decision", "candidate#decision", unless=first),
    ]
    before, after = (field.value for field in fields[:2])
    if before is None or after is None:
        return fields
    gained = performance_of(known.spec).gain(before, after)
    gain = known.counted("comparison.gain", gained, known.source("candidate", name))
    return [*fields[:2], gain, fields[2]]


def _gates(known: _Known) -> list[Field]:
    first = None if known.has("candidate") else FIRST
    return [known.auto(f"gates.{name}", f"candidate#{name}", unless=first) for name in ("passed", "results")]


def _approvals(known: _Known) -> list[Field]:
    facts = known.facts
    folder = f"gitops:approvals/{known.spec.name}/{facts.digest.removeprefix('sha256:')}"
    filed = [_approval(outcome) for outcome in facts.approvals]
    source = Source("approvals", folder, sha256(canonical(filed)))
    return [
        known.counted("approvals.wanted", facts.approvals_wanted, known.source("spec", "rollout.approvals")),
        known.counted("approvals.valid", count_valid(facts.approvals), source),
        known.counted("approvals.filed", filed, source),
    ]


def _approval(outcome: Approval | Refusal) -> dict[str, Any]:
    """What an invalid one says of its signer and its times is not repeated: it is not proven."""
    if isinstance(outcome, Refusal):
        unknown = dict.fromkeys(("label", "key_id", "at", "expires"))
        return {"valid": False, "reason": outcome.reason, **unknown}
    at, expires = (moment.astimezone(UTC).isoformat() for moment in (outcome.at, outcome.expires))
    said = {"valid": True, "reason": outcome.reason, "label": outcome.label, "key_id": outcome.approver}
    return {**said, "at": at, "expires": expires}


def _lineage(known: _Known) -> list[Field]:
    facts, first = known.facts, None if known.has("candidate") else FIRST
    policy = known.auto("lineage.policy_digest", "candidate#policy_digest", unless=first)
    if policy.value is None and facts.policy_digest is not None:
        policy = known.counted(policy.id, facts.policy_digest, Source("audit", f"control:audit/{known.spec.name}"))
    unarmed = "no reference is frozen on it: it has not been champion" if known.has("candidate") else None
    return [
        known.counted("lineage.bundle_digest", facts.digest, known.source("manifest")),
        known.auto("lineage.files", "manifest#files"),
        known.auto("lineage.data", "candidate#data", "manifest#data", "reference#delta"),
        policy,
        known.auto("lineage.trainer_key", "candidate#trainer", "manifest#trainer_key"),
        known.auto("lineage.reference_binning", "reference#binning", unless=unarmed),
    ]


def _limits(known: _Known, sections: Sequence[Section]) -> Section:
    """What does not follow from the card; each sentence stands there because of a fact above."""
    fields = {field.id: field for section in sections for field in section.fields}
    source = Source("card", "card:sections")
    limits = known.counted("limits.not_proven", list(_not_proven(known.facts, fields)), source)
    return Section("limits", "What this card does not prove", (limits,))


def _not_proven(facts: CardFacts, fields: Mapping[str, Field]) -> Iterator[str]:
    if any(field.state is State.DECLARED for field in fields.values()):
        yield f"Declared fields are the words of {facts.spec.owner}; nothing here checked them against what happens."
    block = fields["evaluation.proven_on"].value
    if block is not None:
        yield (
            f"The candidate's figures are of one block of {_rows(block)} rows "
            f"from {block.get('from', 'an unknown time')} on: they say nothing of a later world."
        )
        yield "They trust the recorded outcomes: wrong or missing labels make them wrong, and nobody would see it here."
    groups = fields["quantitative.groups"].value
    if groups:
        yield from _not_proven_of_groups(groups, performance_of(facts.spec))
    elif groups is not None or fields["quantitative.groups"].state is not State.AUTO:
        yield "It holds no figure of any group: how the model treats people of different groups is not known from it."
    if fields["gates.passed"].value is None:
        yield "No gate was asked about this version."
    elif not fields["gates.passed"].value:
        yield "A gate did not pass: this version was kept as a record and must not be released."
    yield (
        f"Approvals are as of {facts.at.astimezone(UTC).isoformat()} and for {facts.environment}: "
        "what was withdrawn or expired since is not on this card."
    )
    yield "It is no approval and no legal assessment. Its digests tell that bytes are the same, not that they are good."


def _rows(block: Mapping[str, Any]) -> str:
    return f"{block['rows']:,}" if "rows" in block else "an unknown number of"


def _not_proven_of_groups(groups: Sequence[Mapping[str, Any]], measure: Performance) -> Iterator[str]:
    low = f"{measure.kpi}_low"
    silent = sum(group.get(low) is None for group in groups)
    shown = sum(group.get(name) is not None for group in groups for name in (low, "selection_low"))
    yield (
        f"The {shown} intervals of groups hold 95 % each, not together: about {shown * 0.05:.1f} miss by chance. "
        "They take rows as independent; people or days that come more than once make them too narrow."
    )
    if silent:
        without = f"For {silent} of {len(groups)} groups the {measure.name} has no interval"
        yield f"{without}: no difference shown is no equality."
    yield "A difference between groups is told, not its cause; groups that were not recorded are not looked at."


# what is written


def write_card(card: ModelCard, folder: Path) -> dict[str, str]:
    """Write `card.json`, `card.md` and `card.html`, each whole or not at all; returns each name's sha256.

    The same card gives the same bytes.

    Raises:
        InputError: the folder cannot be written.
    """
    texts = {
        "card.json": json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n",
        "card.md": render("card.md.j2", card),
        "card.html": render("card.html.j2", card),
    }
    pages = {name: text.encode() for name, text in texts.items()}
    for name, page in pages.items():
        write_whole(folder / name, page)
    return {name: sha256(page) for name, page in pages.items()}
