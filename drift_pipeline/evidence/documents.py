"""The documents of one model version, from what the control store, the registry and the GitOps folder hold of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.control.store import ControlStore
from drift_pipeline.evidence.approve import read_keys
from drift_pipeline.evidence.card import CardFacts, ModelCard, make_card, write_card
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.approval import read_approvals, verify_approval
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Documents:
    """What was written: the card, its folder, and each file's sha256."""

    card: ModelCard
    folder: Path
    files: Mapping[str, str]


def write_documents(
    settings: Settings,
    store: ControlStore,
    registry: Registry,
    spec: ModelSpec,
    digest: str,
    at: datetime,
    environment: str | None = None,
) -> Documents:
    """Write the model card of a version below `settings.evidence`; written again it tells what is known by then.

    Args:
        digest: the version's bundle.
        at: when approvals are judged.
        environment: the one approvals have to be for; None = the settings'.

    Raises:
        InputError: no such bundle.
        IntegrityError: bytes that do not fit their digest.
    """
    bundle, wanted = registry.get(digest), environment or settings.environment
    version = str(bundle.manifest["version"])
    record = _body(store, "candidate", f"{spec.name}/{digest}")
    filed = read_approvals(settings.gitops, spec.name, digest) if record else []
    keys, trainer = read_keys(settings.keys), str((record or {}).get("trainer"))
    approvals = [
        verify_approval(
            envelope,
            keys=keys,
            model=spec.name,
            digest=digest,
            environment=wanted,
            trainer_key_id=trainer,
            now=at,
        )
        for envelope in filed
    ]
    facts = CardFacts(
        spec=spec,
        manifest=bundle.manifest,
        digest=digest,
        record=record,
        reference=_body(store, "reference", f"{spec.name}/{version}"),
        approvals=tuple(approvals),
        approvals_wanted=spec.rollout.approvals,
        environment=wanted,
        at=at,
        policy_digest=_policy_of(store, record),
    )
    card, folder = make_card(facts), settings.evidence / spec.name / version
    return Documents(card, folder, write_card(card, folder))


def _body(store: ControlStore, kind: str, key: str) -> Mapping[str, Any] | None:
    record = store.get(kind, key)
    return record.body if record else None


def _policy_of(store: ControlStore, record: Mapping[str, Any] | None) -> str | None:
    """The rules that decided this training: its decision's id ends in the number of the audit record."""
    seq = str(record["decision"]).rpartition("-")[2] if record else ""
    decision = next(store.records(after=int(seq) - 1), None) if seq.isdigit() else None
    return decision.policy_digest if decision else None
