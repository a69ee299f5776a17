"""The documents of a version beside its card: datasheet, annex dossier, ML-BOM, and the SBOM where one is kept."""

import json
from collections.abc import Mapping

from drift_pipeline.evidence.annexes import make_annex
from drift_pipeline.evidence.card import CardFacts, Document, ModelCard
from drift_pipeline.evidence.datasheet import make_datasheet
from drift_pipeline.evidence.mlbom import ml_bom
from drift_pipeline.evidence.pages import render

SBOM = "sbom.cdx.json"


def dossier_files(facts: CardFacts, card: ModelCard) -> dict[str, bytes]:
    """Each file's name and bytes; the same facts give the same bytes."""
    documents: Mapping[str, Document] = {"datasheet": make_datasheet(facts), "annex": make_annex(facts, card)}
    files = {name: page for stem, document in documents.items() for name, page in _written(stem, document).items()}
    files["ml-bom.cdx.json"] = _json(ml_bom(facts, card))
    if facts.environment_bom is not None:
        files[SBOM] = facts.environment_bom
    return files


def _written(stem: str, document: Document) -> dict[str, bytes]:
    return {
        f"{stem}.json": _json(document.to_json()),
        f"{stem}.md": render("document.md.j2", document=document).encode(),
        f"{stem}.html": render("document.html.j2", document=document).encode(),
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
