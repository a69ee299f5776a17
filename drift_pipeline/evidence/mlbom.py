"""ML-BOM of a version: CycloneDX 1.6 with a model card, as JSON of our own.

cyclonedx-python-lib reads and validates it, and would drop the model card if it wrote it. Ecma International,
ECMA-424, 1st edition, 2024.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from drift_pipeline.control.canonical import sha256
from drift_pipeline.evidence.card import CardFacts, ModelCard, State
from drift_pipeline.evidence.groups import FIGURES, ends_of
from drift_pipeline.registry.graph import listed_steps

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_MISSING = "drift:missing"


def ml_bom(facts: CardFacts, card: ModelCard) -> dict[str, Any]:
    """The document; what people have yet to say is named in properties `drift:missing`, not made up."""
    libraries = [_library(name, version) for name, version in sorted(facts.manifest.get("libraries", {}).items())]
    model, steps = _model(facts, card), list(_steps(facts))
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'{facts.digest} {card.at}')}",
        "version": 1,
        "metadata": {
            "timestamp": facts.at.astimezone(UTC).isoformat(),
            "component": {"type": "application", "name": card.model, "version": card.version, "bom-ref": "system"},
        },
        "components": [model, *steps, *libraries],
        "dependencies": [
            {"ref": "system", "dependsOn": [model["bom-ref"]]},
            {"ref": model["bom-ref"], "dependsOn": [one["bom-ref"] for one in (*steps, *libraries)]},
            *_edges(facts),
        ],
    }


def _steps(facts: CardFacts) -> Iterator[dict[str, Any]]:
    """A component a step of a graph, of the version that it was trained for."""
    for step in listed_steps(facts.manifest):
        trainer, params = str(step.facts["trainer"]), step.facts.get("params") or {}
        architecture = ", ".join([trainer, *(f"{name}={value}" for name, value in sorted(params.items()))])
        inputs = [{"format": f"{name}: {kind}"} for name, kind in step.inputs.items()]
        yield {
            "type": "machine-learning-model",
            "bom-ref": _reference(facts, step.name),
            "name": f"{facts.spec.name}.{step.name}",
            "version": str(step.facts["version"]),
            "hashes": [{"alg": "SHA-256", "content": _hex(step.facts["sha256"])}],
            "modelCard": {
                "modelParameters": {
                    "architectureFamily": trainer,
                    "modelArchitecture": architecture,
                    "inputs": inputs,
                    "outputs": [{"format": "a number"}],
                }
            },
        }


def _edges(facts: CardFacts) -> Iterator[dict[str, Any]]:
    steps = listed_steps(facts.manifest)
    names = {step.name for step in steps}
    for step in steps:
        taken = [_reference(facts, name) for name in step.inputs if name in names]
        yield {"ref": _reference(facts, step.name), "dependsOn": taken}


def _reference(facts: CardFacts, step: str) -> str:
    return f"{facts.digest}#step/{step}"


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _model(facts: CardFacts, card: ModelCard) -> dict[str, Any]:
    bom = facts.environment_bom
    references: list[dict[str, Any]] = [{"type": "model-card", "url": "card.html"}]
    if bom is not None:
        hashes = [{"alg": "SHA-256", "content": _hex(sha256(bom))}]
        references.append({"type": "bom", "url": "sbom.cdx.json", "comment": "of its environment", "hashes": hashes})
    hashes = [{"alg": "SHA-256", "content": _hex(file["sha256"])} for file in facts.manifest.get("files", {}).values()]
    return {
        "type": "machine-learning-model",
        "bom-ref": facts.digest,
        "name": card.model,
        "version": card.version,
        **({"hashes": hashes} if len(hashes) == 1 else {}),
        "externalReferences": references,
        "modelCard": {
            "modelParameters": _parameters(facts),
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(card))},
            "considerations": _considerations(card),
            "properties": [
                {"name": "drift:bundle", "value": facts.digest},
                {"name": "drift:status", "value": card.status},
                *({"name": _MISSING, "value": field.id} for field in card.missing),
            ],
        },
    }


def _parameters(facts: CardFacts) -> dict[str, Any]:
    features, trainer = facts.manifest.get("features", {}), str(facts.manifest.get("trainer", "unknown"))
    params = facts.manifest.get("params", {})
    output = "a number" if facts.spec.task == "regression" else "a probability of the positive label"
    return {
        "approach": {"type": "supervised"},
        "task": facts.spec.task,
        "architectureFamily": trainer,
        "modelArchitecture": ", ".join([trainer, *(f"{name}={value}" for name, value in sorted(params.items()))]),
        "datasets": [_dataset(facts)],
        "inputs": [{"format": f"{name}: {kind}"} for name, kind in features.items()],
        "outputs": [{"format": output}],
    }


def _dataset(facts: CardFacts) -> dict[str, Any]:
    made_of = (facts.record or facts.adopted or {}).get("composition") or {}
    told = {name: made_of[name] for name in ("rows", "from", "to") if made_of.get(name) is not None}
    data = dict((facts.record or {}).get("data", {}))
    source = {f"source_{name}": value for name, value in data.pop("source", {}).items()}
    known = {**told, **source, **{f"delta_{name}": value for name, value in data.items()}}
    return {
        "type": "dataset",
        "bom-ref": f"{facts.digest}#training",
        "name": f"training data of {facts.spec.name}",
        "contents": {"properties": [{"name": f"drift:{name}", "value": str(value)} for name, value in known.items()]},
        "sensitiveData": [f"protected: {name}" for name in facts.spec.protected],
        "description": "see datasheet.html beside this file",
    }


def _metrics(card: ModelCard) -> Iterator[dict[str, Any]]:
    kpi = card.performance.kpi
    if (overall := card.fields[f"quantitative.{kpi}"].value) is not None:
        yield {"type": kpi, "value": f"{overall:.6g}"}
    for group in card.fields["quantitative.groups"].value or []:
        levels = zip(group["columns"], group["levels"], strict=True)
        part = ", ".join(f"{column}={'(not known)' if level is None else level}" for column, level in levels)
        for name in FIGURES if kpi == "auroc" else (kpi,):
            if group.get(name) is not None:
                yield {"type": name, "value": f"{group[name]:.6g}", "slice": part, **_interval(group, name)}


def _interval(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    low, high = group[f"{ends_of(name)}_low"], group[f"{ends_of(name)}_high"]
    return {} if low is None else {"confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}}


def _considerations(card: ModelCard) -> dict[str, Any]:
    """What people declared, and what does not follow from the card."""
    said = {
        id: str(field.value)
        for id, field in card.fields.items()
        if field.state is State.DECLARED and id.startswith(("use.", "ethical.", "caveats."))
    }
    found: dict[str, Any] = {
        "users": [said[id] for id in ("use.intended_users",) if id in said],
        "useCases": [said[id] for id in ("use.intended_use",) if id in said],
        "technicalLimitations": [said[id] for id in ("caveats.caveats", "use.out_of_scope_use") if id in said],
        "ethicalConsiderations": [{"name": said[id]} for id in ("ethical.ethical_considerations",) if id in said],
    }
    found["technicalLimitations"] += card.fields["limits.not_proven"].value or []
    return {name: value for name, value in found.items() if value}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
