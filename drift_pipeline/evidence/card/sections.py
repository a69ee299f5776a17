"""The sections of a card, made from the facts of one version."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.evidence.card.document import Field, ModelCard, Section, Source, State
from drift_pipeline.evidence.card.facts import MACHINE, CardFacts, Known, require_one_version, steps_of
from drift_pipeline.evidence.card.limits import limits
from drift_pipeline.evidence.curves import CURVES
from drift_pipeline.rollout.approval import Approval, Refusal, filled
from drift_pipeline.rollout.waiver import Waiver

_OF_A_STEP = ("name", "version", "inputs", "threshold", "trainer", "params", "libraries", "sha256")
FIRST = "the first version: it was adopted, not proven against a champion"


def make_card(facts: CardFacts) -> ModelCard:
    """The same facts give the same card.

    Raises:
        IntegrityError: the manifest has another digest, or it, the record or the reference is of another version.
        InputError: `at` has no time zone.
    """
    require_one_version(facts)
    version = str(facts.manifest.get("version", "unnamed"))
    known = Known(facts, version)
    sections = tuple(Section(id, title, tuple(fields)) for id, title, fields in _sections(known))
    at = facts.at.astimezone(UTC).isoformat()
    return ModelCard(
        "Model card",
        facts.spec.name,
        version,
        facts.digest,
        facts.spec.owner,
        facts.environment,
        at,
        (*sections, limits(known, sections)),
    )


def _sections(known: Known) -> Iterator[tuple[str, str, Sequence[Field]]]:
    yield "details", "Model details", _details(known)
    uses = ("intended_use", "intended_users", "out_of_scope_use")
    yield "use", "Intended use", [known.said(f"use.{name}", "card", name) for name in uses]
    yield "factors", "Factors", _factors(known)
    yield "metrics", "Metrics", _metrics(known)
    yield "evaluation", "Evaluation data", _evaluation(known)
    yield "training", "Training data", _training(known)
    yield "quantitative", "Quantitative analyses", _quantitative(known)
    yield "curves", "How well it tells them apart" if known.measure == "auroc" else "How far it is off", _curves(known)
    ethical = "ethical_considerations"
    yield "ethical", "Ethical considerations", [known.said(f"ethical.{ethical}", "card", ethical)]
    yield "caveats", "Caveats and recommendations", [known.said("caveats.caveats", "card", "caveats")]
    yield "comparison", "Against the champion", _comparison(known)
    yield "gates", "Gates", _gates(known)
    yield "approvals", "Approvals", _approvals(known)
    yield "rollout", "Rollout", _rollout(known)
    yield "history", "Drift history", _history(known)
    yield "lineage", "Lineage", _lineage(known)


def _details(known: Known) -> list[Field]:
    return [
        known.declared("details.owner", "owner"),
        known.declared("details.task", "task"),
        known.auto("details.created_at", "manifest#created_at"),
        known.auto("details.trainer", "manifest#trainer"),
        known.auto("details.params", "manifest#params"),
        known.auto("details.features", "manifest#features"),
        *steps_of(known, "details.steps", (*_OF_A_STEP, f"validation_{known.measure}")),
        known.auto("details.libraries", "manifest#libraries"),
    ]


def _factors(known: Known) -> list[Field]:
    names, source = list(known.spec.protected), known.source("spec", "protected")
    pairs = [[first, second] for at, first in enumerate(names) for second in names[at + 1 :]]
    trained_on = [name for name in names if name in known.facts.manifest.get("features", known.spec.features)]
    return [
        known.protected(known.declared("factors.protected", "protected")),
        known.protected(known.counted("factors.intersections", pairs, source)),
        known.protected(known.counted("factors.protected_and_trained_on", trained_on, source)),
    ]


def _metrics(known: Known) -> list[Field]:
    return [
        known.threshold(known.declared("metrics.decision_threshold", "prediction.threshold")),
        known.declared("metrics.watched_in_production", "kpis"),
    ]


def _evaluation(known: Known) -> list[Field]:
    first = None if known.has("candidate") else FIRST
    unmonitored = "no reference is frozen on it: it has not been champion" if known.has("candidate") else None
    return [
        known.auto("evaluation.proven_on", "candidate#proven_on", "manifest#proven_on", unless=first),
        known.auto("evaluation.unseen_from", "candidate#unseen_from", "reference#unseen_from"),
        *(
            known.auto(f"evaluation.reference_{name}", f"reference#{name}", unless=unmonitored)
            for name in ("from", "to", "rows", "labels", known.measure, f"{known.measure}_error")
        ),
    ]


def _training(known: Known) -> list[Field]:
    return [
        known.auto("training.rows", "manifest#rows"),
        known.auto("training.trained_from", "manifest#trained_from", "candidate#trained_from"),
        known.auto("training.trained_until", "candidate#unseen_from", "reference#unseen_from"),
        known.auto(f"training.validation_{known.measure}", f"manifest#validation_{known.measure}"),
        known.declared("training.longest_window", "retrain.window"),
        known.declared("training.left_out", "retrain.exclude"),
        known.auto("training.cost", "candidate#cost", "adopted#cost", unless=_elsewhere(known)),
    ]


def _quantitative(known: Known) -> list[Field]:
    first, name = None if known.has("candidate") else FIRST, known.measure
    return [
        known.auto(f"quantitative.{name}", f"candidate#{name}.after", f"reference#{name}", unless=first),
        known.protected(known.auto("quantitative.groups", "candidate#groups", "adopted#groups")),
    ]


def _curves(known: Known) -> list[Field]:
    names = CURVES[known.spec.task]
    return [known.auto(f"curves.{name}", f"candidate#curves.{name}", f"adopted#curves.{name}") for name in names]


def _elsewhere(known: Known) -> str | None:
    """Why nobody here knows what its training cost."""
    return "it was trained elsewhere" if known.facts.manifest.get("trainer") == "given" else None


def _comparison(known: Known) -> list[Field]:
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


def _gates(known: Known) -> list[Field]:
    first = None if known.has("candidate") else FIRST
    told = [known.auto(f"gates.{name}", f"candidate#{name}", unless=first) for name in ("passed", "results")]
    waived = [{"gate": getattr(outcome, "gate", None), **_approval(outcome)} for outcome in known.facts.waivers]
    folder = f"gitops:waivers/{known.spec.name}/{known.facts.digest.removeprefix('sha256:')}"
    unasked = "every gate that there is was asked" if known.has("candidate") else FIRST
    told.append(known.auto("gates.not_asked", "candidate#not_asked", unless=unasked))
    return [*told, known.counted("gates.waivers", waived, Source("waivers", folder, sha256(canonical(waived))))]


def _approvals(known: Known) -> list[Field]:
    facts = known.facts
    folder = f"gitops:approvals/{known.spec.name}/{facts.digest.removeprefix('sha256:')}"
    filed = [_approval(outcome) for outcome in facts.approvals]
    source = Source("approvals", folder, sha256(canonical(filed)))
    return [
        known.counted("approvals.wanted", facts.approvals_wanted, known.source("spec", "rollout.approvals")),
        known.counted("approvals.valid", filled(facts.approvals, facts.spec.rollout.wanted), source),
        known.counted("approvals.filed", filed, source),
    ]


def _rollout(known: Known) -> list[Field]:
    facts, steps = known.facts, [dict(step) for step in known.facts.rollout]
    source = Source("audit", f"control:audit/{known.spec.name}", sha256(canonical(steps)))
    outcome = known.counted("rollout.outcome", _outcome(steps), source)
    if not known.has("candidate"):
        outcome = Field(outcome.id, None, State.NOT_APPLICABLE, FIRST, source, MACHINE)
    return [outcome, known.counted("rollout.phases", steps, source)] if facts.rollout else [outcome]


def _history(known: Known) -> list[Field]:
    """Incidents, with their KPIs' verdicts, while it was champion."""
    source, history = known.source("audit"), known.facts.history
    if not history.reigns:
        never = Field("history.reigns", None, State.NOT_APPLICABLE, "it has not been champion", source, MACHINE)
        return [never]
    reigns = known.counted("history.reigns", [dict(reign) for reign in history.reigns], source)
    return [reigns, known.counted("history.incidents", [dict(one) for one in history.incidents], source)]


def _outcome(steps: Sequence[Mapping[str, Any]]) -> str:
    """In words: where the last rollout stands or how it ended."""
    if not steps:
        return "no rollout has begun"
    last = steps[-1]
    where, since = str(last["phase"]).replace("_", " "), datetime.fromisoformat(last["since"]).astimezone(UTC)
    ended = {"full": "became champion", "rolled_back": "rolled back"}.get(last["phase"], f"in {where} since")
    return f"{last['rollout']}: {ended} {since:%Y-%m-%d %H:%M} UTC; {last['reason']}"


def _approval(outcome: Approval | Waiver | Refusal) -> dict[str, Any]:
    """What an invalid one says of its signer and its times is not repeated: it is not proven."""
    if isinstance(outcome, Refusal):
        unknown = dict.fromkeys(("label", "role", "key_id", "at", "expires"))
        return {"valid": False, "reason": outcome.reason, **unknown}
    at, expires = (moment.astimezone(UTC).isoformat() for moment in (outcome.at, outcome.expires))
    said = {"valid": True, "reason": outcome.reason, "label": outcome.label, "role": outcome.role}
    return {**said, "key_id": outcome.approver, "at": at, "expires": expires}


def _lineage(known: Known) -> list[Field]:
    facts, first = known.facts, None if known.has("candidate") else FIRST
    unmonitored = "no reference is frozen on it: it has not been champion" if known.has("candidate") else None
    return [
        known.counted("lineage.bundle_digest", facts.digest, known.source("manifest")),
        known.auto("lineage.files", "manifest#files"),
        known.auto("lineage.data", "candidate#data", "manifest#data", "reference#delta"),
        known.auto("lineage.policy_digest", "candidate#policy_digest", unless=first),
        known.auto("lineage.trainer_key", "candidate#trainer", "adopted#trainer"),
        known.auto("lineage.reference_binning", "reference#binning", unless=unmonitored),
    ]
