"""A document of one version: sections of fields, each with its state, its source and who said so."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from drift_pipeline.detection.judging.performance import Performance, measured_by


class State(StrEnum):
    """AUTO: recorded by the loop. DECLARED: a person's words, not checked. MISSING: what a person has yet to say.

    NOT_RECORDED: what the loop did not write down when it could, as of a version that was made elsewhere.
    """

    AUTO = "auto"
    DECLARED = "declared"
    MISSING = "MISSING"
    NOT_RECORDED = "NOT_RECORDED"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True)
class Source:
    """Where the value can be read again; `sha256` is that of the whole document, in canonical JSON, at that time."""

    kind: str
    uri: str
    sha256: str | None = None


@dataclass(frozen=True)
class Field:
    """`value` is JSON, null unless it is known. `reason` says why it is not, and who can supply it.

    `at`: when it was asserted, where a person said so. `law_version`: the law whose list asks for it.
    """

    id: str
    value: Any
    state: State
    reason: str | None
    source: Source
    asserted_by: str | None
    at: str | None = None
    law_version: str | None = None


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Document:
    """`at` is when it was made: approvals are judged as of then. `head`: what stands above all sections."""

    title: str
    model: str
    version: str
    digest: str
    owner: str
    environment: str
    at: str
    sections: tuple[Section, ...]
    head: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, Field]:
        return {field.id: field for section in self.sections for field in section.fields}

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
        """`DRAFT n/m`: n of the m fields that apply are filled; without DRAFT when people have no more to say."""
        applicable = sum(field.state is not State.NOT_APPLICABLE for field in self.fields.values())
        filled = sum(field.state in (State.AUTO, State.DECLARED) for field in self.fields.values())
        count = f"{filled}/{applicable}"
        return f"DRAFT {count}" if self.missing else count

    def to_json(self) -> dict[str, Any]:
        told = asdict(self)
        sections, missing = told.pop("sections"), [field.id for field in self.missing]
        return {**told, "status": self.status, "missing": missing, "sections": sections}


class ModelCard(Document):
    @property
    def performance(self) -> Performance:
        """What its figures are measured by."""
        return measured_by({id.removeprefix("quantitative."): field for id, field in self.fields.items()})
