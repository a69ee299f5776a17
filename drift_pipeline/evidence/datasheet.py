"""Datasheet of the data that a version was trained on.

Gebru et al., "Datasheets for datasets", CACM 64(12), 2021: motivation, composition, collection, preprocessing and
labelling, uses, distribution, maintenance.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from drift_pipeline.evidence.card import CardFacts, Document, Field, Known, Section, steps_of

_SECTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "motivation": ("Motivation", ("purpose", "creators", "funding")),
    "composition": ("Composition", ("instances", "errors_and_noise", "confidential_data", "people")),
    "collection": ("Collection process", ("collection_mechanism", "collectors", "consent", "ethical_review")),
    "preprocessing": ("Preprocessing, cleaning and labelling", ("labelling", "raw_data")),
    "uses": ("Uses", ("other_uses", "unsuitable_uses")),
    "distribution": ("Distribution", ("distribution", "licence")),
    "maintenance": ("Maintenance", ("maintainer", "updates")),
}
ELSEWHERE = "it was trained elsewhere"


def make_datasheet(facts: CardFacts) -> Document:
    """The same facts give the same datasheet."""
    version = str(facts.manifest.get("version", "unnamed"))
    known = Known(facts, version)
    auto = {"composition": _composition, "collection": _collection, "preprocessing": _preprocessing}
    auto |= {"uses": _uses, "maintenance": _maintenance}
    sections = tuple(
        Section(
            id,
            title,
            (
                *(known.said(f"{id}.{name}", "datasheet", name) for name in asked),
                *(auto[id](known) if id in auto else ()),
            ),
        )
        for id, (title, asked) in _SECTIONS.items()
    )
    at = facts.at.astimezone(UTC).isoformat()
    told = (facts.spec.name, version, facts.digest, facts.spec.owner, facts.environment, at)
    return Document("Datasheet of the training data", *told, sections)


def _composition(known: Known) -> list[Field]:
    unless = ELSEWHERE if known.facts.manifest.get("trainer") == "given" else None
    names = ("rows", "from", "to", "positives", "missing", "groups")
    counted = [
        known.auto(f"composition.{name}", f"candidate#composition.{name}", f"adopted#composition.{name}", unless=unless)
        for name in names
        if name != "positives" or known.spec.task == "binary_classification"
    ]
    steps = steps_of(known, "composition.steps", ("name", "version", "rows", "trained_from", "trained_until"))
    columns, label = known.declared("composition.columns", "features"), known.declared("composition.label", "outcome")
    return [*counted, *steps, columns, label]


def _collection(known: Known) -> list[Field]:
    data = known.auto("collection.delta_versions", "candidate#data", "manifest#data", "reference#delta")
    source = known.source("candidate" if known.has("candidate") else "adopted", "composition.routes")
    bias = known.counted("collection.selection_bias", list(_selection_bias(known.facts)), source)
    return [data, known.declared("collection.longest_window", "retrain.window"), bias]


def _selection_bias(facts: CardFacts) -> Iterator[str]:
    """Sentences, each because of a fact."""
    made_of = (facts.record or facts.adopted or {}).get("composition") or {}
    routes, canary = made_of.get("routes"), facts.spec.rollout
    if routes is None:
        yield "By which routes the rows came was not recorded."
    else:
        for route, rows in routes.items():
            yield f"{rows:,} of {made_of['rows']:,} rows came by the route {route or 'that is not known'}."
    if routes and routes.get("canary"):
        yield (
            f"Canary rows are those of the {canary.canary_weight} % of entities that the split drew, while a canary "
            "ran: a version decided them that may have been rolled back, and their labels answer to its decisions."
        )
    if routes and any(route not in ("history", "") for route in routes):
        yield (
            "Labels of served rows were seen after a version's decision: where a decision changes what can be seen, "
            "what would have happened otherwise is not in the data."
        )
    yield "A shadow decides nothing: it scores copies of the traffic, and no row or label is there because of it."
    yield "Rows whose label had not come when the data was pinned are not in it: outcomes that take long are fewer."


def _preprocessing(known: Known) -> list[Field]:
    return [
        known.declared("preprocessing.exclusions", "retrain.exclude"),
        known.declared("preprocessing.texts_for_missing", "missing"),
        known.declared("preprocessing.labels_not_known_yet", "outcome.unknown"),
        known.auto("preprocessing.proving_block", "candidate#proven_on", "manifest#proven_on", unless=_first(known)),
        known.auto("preprocessing.held_out_from", "candidate#unseen_from", "reference#unseen_from"),
    ]


def _uses(known: Known) -> list[Field]:
    used = {"model": known.spec.name, "version": known.version, "bundle": known.facts.digest}
    return [known.counted("uses.used_for", used, known.source("manifest"))]


def _maintenance(known: Known) -> list[Field]:
    since: Sequence[Mapping[str, Any]] = known.facts.history.erasures
    erased = known.counted("maintenance.erasures_since", [dict(one) for one in since], known.source("audit"))
    return [known.declared("maintenance.kept_for", "retention.telemetry"), erased]


def _first(known: Known) -> str | None:
    return None if known.has("candidate") else "the first version was not proven against a champion"
