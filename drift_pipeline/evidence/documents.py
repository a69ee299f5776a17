"""The documents of one model version, from what the control store, the registry and the GitOps folder hold of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.control.store import ControlStore, Entry
from drift_pipeline.control.trust import approvers
from drift_pipeline.evidence.approve import rollouts_of
from drift_pipeline.evidence.card import CardFacts, ModelCard, make_card, write_card
from drift_pipeline.evidence.verification import put_files
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.approval import read_approvals, verify_approval
from drift_pipeline.rollout.plan import rollout_id
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

    The audit names what was written, once for each that it is changed to.

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
    keys, trainer = approvers(settings, store), str((record or {}).get("trainer"))
    rollout = rollout_id(spec.name, version, rollouts_of(store, spec.name, version))
    approvals = [
        verify_approval(
            envelope,
            keys=keys,
            model=spec.name,
            digest=digest,
            rollout=rollout,
            environment=wanted,
            trainer_key_id=trainer,
            longest=settings.longest_approval,
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
    files = write_card(card, folder)
    if puts := put_files(store, settings.home, spec.name, [folder / name for name in files]):
        details = {"version": version, "files": dict(files)}
        store.commit(Entry("evidence", "documents.written", spec.name, details=details), puts)
    return Documents(card, folder, files)


def _body(store: ControlStore, kind: str, key: str) -> Mapping[str, Any] | None:
    record = store.get(kind, key)
    return record.body if record else None


def _policy_of(store: ControlStore, record: Mapping[str, Any] | None) -> str | None:
    """The rules that decided this training."""
    wanted = record["decision"] if record else None
    made = (told for told in store.records() if told.event == "decision.made") if wanted else ()
    decision = next((told for told in made if told.details["decision"] == wanted), None)
    return decision.policy_digest if decision else None
