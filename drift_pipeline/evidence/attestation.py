"""What the home's key signs about evidence, as in-toto statements in DSSE envelopes.

`attestation.dsse.json` lies in the folder of each version. Its subjects are the files of the version's bundle and the
bundle's manifest, as the registry stores them; its predicate says where the version came from, what came of its gates,
and every other file of the folder by sha256 and size. `manifest.dsse.json` lies above all of them, with each version's
attestation as a subject, so that no version can be taken away.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.statement import Statement
from drift_pipeline.registry.bundle import MANIFEST as BUNDLE_MANIFEST
from drift_pipeline.registry.origin import code_of
from drift_pipeline.rollout.approval import Accepted

if TYPE_CHECKING:
    from drift_pipeline.evidence.card import CardFacts, ModelCard

ATTESTATION, MANIFEST = "attestation.dsse.json", "manifest.dsse.json"
VERSION_TYPE = "https://drift-pipeline.dev/attestation/version/v1"
EVIDENCE_TYPE = "https://drift-pipeline.dev/attestation/evidence/v1"
SBOM = "sbom.cdx.json"


def attest_version(
    facts: "CardFacts", card: "ModelCard", documents: Mapping[str, bytes], holdout: Mapping[str, Any] | None
) -> Statement:
    """Of one version, as of `facts.at`. What was not recorded is null.

    Args:
        documents: the other files of its folder.
        holdout: the body of the store's `holdout/<model>`, which tells the data of a version that was adopted.
    """
    listed = {name: {"sha256": _hex(data), "size": len(data)} for name, data in documents.items()}
    predicate = {
        "model": card.model,
        "version": card.version,
        "bundle": facts.digest,
        "environment": facts.environment,
        "at": card.at,
        "expires": _expires(facts),
        "decision": _decision(facts),
        "metrics": _metrics(facts, card),
        "data": _data(facts, holdout),
        "code": {"trained_by": facts.manifest.get("code"), "attested_by": code_of()},
        "gates": (facts.record or {}).get("results"),
        "policy": (facts.record or {}).get("policy_digest"),
        "sbom": listed.get(SBOM, {}).get("sha256"),
        "trainer": (facts.record or facts.adopted or {}).get("trainer"),
        "documents": listed,
    }
    return Statement(VERSION_TYPE, bundle_subjects(facts.digest, facts.manifest), predicate)


def bundle_subjects(digest: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The stored files of a bundle, its manifest included, each with its sha256 in hex."""
    files = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
    return {name: one.removeprefix("sha256:") for name, one in {**files, BUNDLE_MANIFEST: digest}.items()}


def attest_evidence(attestations: Mapping[str, str], at: str, head: AuditRecord | None) -> Statement:
    """Of all versions.

    Args:
        attestations: each one's digest, by model/version.
        at: as of when.
        head: the last record of the audit before that of these documents: it ties them to its checkpoints.
    """
    audit = {"records": head.seq, "head": head.hash} if head else None
    subjects = {f"{one}/{ATTESTATION}": digest.removeprefix("sha256:") for one, digest in attestations.items()}
    return Statement(EVIDENCE_TYPE, subjects, {"at": at, "audit": audit})


def _expires(facts: "CardFacts") -> str | None:
    """Until when as many people approve it as its spec asks; null where fewer do."""
    lasts: dict[str, datetime] = {}
    for one in facts.approvals:
        if isinstance(one, Accepted):
            lasts[one.person] = max(one.expires, lasts.get(one.person, one.expires))
    wanted, ends = facts.approvals_wanted, sorted(lasts.values(), reverse=True)
    return ends[wanted - 1].isoformat() if 0 < wanted <= len(ends) else None


def _decision(facts: "CardFacts") -> dict[str, Any]:
    """Why it was trained, what its gates came to, and where its last rollout stands."""
    outcome = "adopted"
    if facts.record is not None:
        outcome = {True: "proven", False: "rejected"}.get(facts.record["passed"], "trained")
    last = facts.rollout[-1] if facts.rollout else None
    rollout = last and {name: last[name] for name in ("rollout", "phase", "since")}
    return {"id": (facts.record or {}).get("decision"), "outcome": outcome, "rollout": rollout}


def _metrics(facts: "CardFacts", card: "ModelCard") -> dict[str, Any]:
    """Champion and candidate on the rows that proved it, and on the rows that its search was judged by."""
    kpi = card.performance.kpi
    proven = (facts.record or {}).get(kpi) or {}
    figures = {"before": proven.get("before"), "after": proven.get("after")}
    return {"kpi": kpi, **figures, "validation": facts.manifest.get(f"validation_{kpi}")}


def _data(facts: "CardFacts", holdout: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Which rows: the Delta version of each table, the window, and what was left out of it."""
    excluded = facts.spec.model_dump(mode="json")["retrain"]["exclude"]
    if facts.record is not None and (data := facts.record.get("data")):
        versions = {name: version for name, version in data.items() if name not in ("from", "to", "source")}
        window = {"from": data["from"], "to": facts.record.get("unseen_from")}
        chosen = {"labels_known_at": data["to"], "exclude": excluded}
        proven_on, source = facts.record.get("proven_on"), {"source": data["source"]} if "source" in data else {}
        return {**source, "delta": versions, "window": window, "filter": chosen, "proven_on": proven_on}
    if holdout is None or "trained_from" not in facts.manifest:  # it was trained elsewhere
        return None
    window = {"from": facts.manifest["trained_from"], "to": holdout["from"]}
    chosen = {"labels_known_at": holdout["at"], "exclude": []}
    return {"delta": holdout["delta"], "window": window, "filter": chosen, "proven_on": None}


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
