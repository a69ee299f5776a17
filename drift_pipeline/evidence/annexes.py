"""The dossier that a model's risk profile asks for, after Annexes IV and VIII and Article 50 of the AI Act.

Which profile holds is a person's declaration, never inferred. Lists of points are for orientation; nothing here is
legal advice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC

from drift_pipeline.evidence.card import CardFacts, Document, Field, Known, ModelCard, Section, Source, State
from drift_pipeline.evidence.card.facts import MACHINE
from drift_pipeline.spec import Profile
from drift_pipeline.spec.questions import LAW, QUESTIONS
from drift_pipeline.training.envelope import NAME as ENVELOPE
from drift_pipeline.training.envelope import REVIEW, feature_schema

TITLES: dict[Profile, str] = {
    "limited_risk": "Voluntary dossier after Annex VIII, with the checklist of Article 50",
    "art6_3_exempt": "Registration after Annex VIII, section B (Article 6(3))",
    "high_risk": "Registration after Annex VIII, section A, and technical documentation after Annex IV",
    "public_deployer": "Registration after Annex VIII, section C, of a deployer that is a public authority",
}
NO_DUTY = "No registration duty is asserted: a system of limited risk has those of Article 50."
NO_ADVICE = f"After {LAW}. The lists of points are for orientation; this is no legal advice."


def make_annex(facts: CardFacts, card: ModelCard) -> Document:
    """The same facts give the same dossier."""
    version, profile = str(facts.manifest.get("version", "unnamed")), facts.spec.declarations.risk.in_force
    known = Known(facts, version)
    head = (*([NO_DUTY] if profile == "limited_risk" else []), NO_ADVICE)
    at = facts.at.astimezone(UTC).isoformat()
    told = (facts.spec.name, version, facts.digest, facts.spec.owner, facts.environment, at)
    sections = tuple(Section(id, title, tuple(fields)) for id, title, fields in _sections(known, card, profile))
    return Document(TITLES[profile], *told, sections, head)


def _sections(known: Known, card: ModelCard, profile: Profile) -> Iterator[tuple[str, str, Sequence[Field]]]:
    yield "classification", "Classification, as people declared it", _classification(known)
    match profile:
        case "limited_risk":
            yield "viii", "After Annex VIII (voluntary)", [*_viii_a(known)]
        case "art6_3_exempt":
            yield "viii_b", "Annex VIII, section B", [*_viii_b(known)]
        case "high_risk":
            yield "viii_a", "Annex VIII, section A", [*_viii_a(known)]
            yield "iv", "Annex IV", [*_iv(known, card)]
        case "public_deployer":
            yield "viii_c", "Annex VIII, section C", [*_viii_c(known)]
    asked = [_said(known, "article_50", name, f"article_50.{name}") for name in QUESTIONS["article_50"]]
    yield "article_50", "Checklist of Article 50", asked
    yield "changes", "Changes that were foreseen (Article 43(4))", _changes(known)


def _classification(known: Known) -> list[Field]:
    """Nothing of it has a default that a person would not have had to write."""
    risk, source = known.spec.declarations.risk, known.source("declarations", "risk")
    of_annex_iii = risk.in_force == "art6_3_exempt" or risk.annex_iii is not None
    fields = [
        _declared(known, "classification.profile", risk.profile, source),
        _declared(known, "classification.annex_iii", risk.annex_iii, source),
        _declared(known, "classification.profiling", risk.profiling, source),
        known.said("classification.rationale", "risk", "rationale", LAW),
    ]
    if risk.in_force == "limited_risk" and not of_annex_iii:
        none = "none is declared; of a case of Annex III it would be another profile"
        fields[1] = Field("classification.annex_iii", None, State.NOT_APPLICABLE, none, source, MACHINE, None, LAW)
    return fields


def _declared(known: Known, id: str, value: str | bool | None, source: Source) -> Field:
    said, owner = known.spec.declarations, known.spec.owner
    by, at = said.asserted_by or owner, said.at.isoformat() if said.at else None
    if value is None:
        name = id.replace("classification", "risk")
        why = f"a human classification: not declared; write {name} into declarations.yaml; to be supplied by {by}"
        return Field(id, None, State.MISSING, why, source, None, None, LAW)
    return Field(id, value, State.DECLARED, None, source, by, at, LAW)


def _said(known: Known, part: str, name: str, id: str) -> Field:
    return known.said(id, part, name, LAW)


def _auto(field: Field, id: str) -> Field:
    """A fact of the loop, for a point of the law."""
    return replace(field, id=id, law_version=LAW)


def _reference(known: Known) -> Field:
    value = {"model": known.spec.name, "version": known.version, "bundle": known.facts.digest}
    return _auto(known.counted("", value, known.source("manifest")), "viii.4_reference")


def _who(known: Known) -> Iterator[Field]:
    yield _said(known, "annexes", "provider", "viii.1_provider")
    yield _said(known, "annexes", "submitter", "viii.2_submitter")
    yield _said(known, "annexes", "authorised_representative", "viii.3_authorised_representative")
    yield _said(known, "annexes", "trade_name", "viii.4_trade_name")
    yield _reference(known)
    yield _said(known, "card", "intended_use", "viii.5_intended_purpose")


def _viii_a(known: Known) -> Iterator[Field]:
    yield from _who(known)
    yield _said(known, "annexes", "components", "viii.5_components")
    yield _auto(known.declared("", "features"), "viii.6_inputs")
    yield _auto(known.auto("", "manifest#trainer"), "viii.6_trainer")
    yield _said(known, "annexes", "operating_logic", "viii.6_operating_logic")
    yield _said(known, "annexes", "status", "viii.7_status")
    yield _proposed_status(known)
    yield _said(known, "annexes", "certificate", "viii.8_certificate")
    yield _said(known, "annexes", "certificate_scan", "viii.9_certificate_scan")
    yield _said(known, "annexes", "member_states", "viii.10_member_states")
    yield _said(known, "annexes", "declaration_of_conformity", "viii.11_declaration_of_conformity")
    yield _said(known, "annexes", "instructions_for_use", "viii.12_instructions_for_use")
    yield _said(known, "annexes", "url", "viii.13_url")


def _viii_b(known: Known) -> Iterator[Field]:
    """Points 7 and 9 were deleted in 2026; the numbering is kept."""
    yield from _who(known)
    yield _said(known, "annexes", "art6_3_condition", "viii.6_condition")
    yield _said(known, "annexes", "art6_4_assessment", "viii.art6_4_assessment")
    yield _said(known, "annexes", "status", "viii.8_status")
    yield _proposed_status(known)


def _viii_c(known: Known) -> Iterator[Field]:
    yield _said(known, "annexes", "deployer", "viii.1_deployer")
    yield _said(known, "annexes", "submitter", "viii.2_submitter")
    yield _said(known, "annexes", "provider_entry_url", "viii.3_provider_entry_url")
    yield _said(known, "annexes", "fria_summary", "viii.4_fria_summary")
    yield _said(known, "annexes", "dpia_summary", "viii.5_dpia_summary")


def _proposed_status(known: Known) -> Field:
    """What the loop knows of it; a person declares it."""
    reigns = known.facts.history.reigns
    told = "not in service: it has not been champion"
    if reigns:
        told = "in service: it is champion" if reigns[-1]["to"] is None else "no longer in service"
    return _auto(known.counted("", told, known.source("audit")), "viii.status_as_recorded")


def _iv(known: Known, card: ModelCard) -> Iterator[Field]:
    """Of what the loop recorded the card has the whole; here is where."""

    def at(id: str, *sections: str) -> Field:
        told = {"card": [f"card.html#{section}" for section in sections]}
        return _auto(known.counted("", told, Source("card", f"evidence:{card.model}/{card.version}/card.json")), id)

    yield _said(known, "card", "intended_use", "iv.1_intended_purpose")
    yield at("iv.1_description", "details", "lineage")
    yield _said(known, "annexes", "instructions_for_use", "iv.1_instructions_for_use")
    yield _said(known, "annexes", "development_process", "iv.2_development_process")
    yield _auto(known.counted("", "datasheet.html", known.source("manifest")), "iv.2d_data")
    yield _said(known, "annexes", "human_oversight", "iv.2e_human_oversight")
    yield at("iv.2f_changes_foreseen", "gates")
    yield at("iv.2g_validation", "evaluation", "quantitative", "curves", "comparison", "gates", "approvals")
    yield at("iv.3_monitoring", "metrics", "history")
    yield _said(known, "card", "out_of_scope_use", "iv.3_limits_of_use")
    yield _said(known, "annexes", "metrics_rationale", "iv.4_metrics_rationale")
    yield _said(known, "annexes", "risk_management", "iv.5_risk_management")
    yield at("iv.6_lifecycle_changes", "rollout", "history", "lineage")
    yield _said(known, "annexes", "standards", "iv.7_standards")
    yield _said(known, "annexes", "declaration_of_conformity", "iv.8_declaration_of_conformity")
    yield _said(known, "annexes", "post_market_plan", "iv.9_post_market_plan")


def _changes(known: Known) -> list[Field]:
    envelope, source = known.spec.declarations.change_envelope, known.source("declarations", "change_envelope")
    schema = _auto(
        known.counted("", feature_schema(known.facts.manifest.get("features", {})), known.source("manifest")),
        "changes.feature_schema",
    )
    return [_envelope(known, source), schema, _state(known, envelope is not None)]


def _envelope(known: Known, source: Source) -> Field:
    said, id = known.spec.declarations, "changes.envelope"
    by, at = said.asserted_by or known.spec.owner, said.at.isoformat() if said.at else None
    if said.change_envelope is not None:
        return Field(id, said.change_envelope.model_dump(mode="json"), State.DECLARED, None, source, by, at, LAW)
    if said.risk.in_force != "high_risk":
        why = f"the profile is {said.risk.in_force}, and none is declared"
        return Field(id, None, State.NOT_APPLICABLE, why, source, MACHINE, None, LAW)
    why = "changes that were foreseen: not declared; write change_envelope into declarations.yaml"
    why = f"{why}; to be supplied by {by}"
    return Field(id, None, State.MISSING, why, source, None, None, LAW)


def _state(known: Known, declared: bool) -> Field:
    """What the gate said when the version was proven."""
    results = (known.facts.record or {}).get("results", [])
    found = next((gate for gate in results if gate["name"] == ENVELOPE), None)
    if found is None:
        why = "it was proven before an envelope was declared" if declared else "no envelope was asked about"
        source = known.source("candidate", "results")
        return Field("changes.state", None, State.NOT_APPLICABLE, why, source, MACHINE, None, LAW)
    told = found["reason"] if found["outcome"] == "pass" else f"{REVIEW}: {found['reason'].removeprefix(REVIEW + ': ')}"
    return _auto(known.counted("", told, known.source("candidate", "results")), "changes.state")
