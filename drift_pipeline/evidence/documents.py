"""The documents of one model version, from what the control store, the registry and the GitOps folder hold of it.

They are written again whenever what they tell has moved: an approval, a step of the rollout, a reference, the spec.
What a crash kept from being written is written at the next look: a card is older than its facts, or it is not. Whatever
is written is signed by the home's own key (`sealing.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from drift_pipeline.control.store import ControlReader, ControlStore, Record
from drift_pipeline.errors import ConflictError
from drift_pipeline.evidence.approve import rollout_to_approve, rollouts_of
from drift_pipeline.evidence.attestation import ATTESTATION, attest_version
from drift_pipeline.evidence.card import CardFacts, ModelCard, card_files, make_card
from drift_pipeline.evidence.dossier import dossier_files
from drift_pipeline.evidence.history import history_of
from drift_pipeline.evidence.placing import FILE, put_in_place
from drift_pipeline.evidence.sbom import kept_sbom
from drift_pipeline.evidence.sealing import seal
from drift_pipeline.evidence.statements import asked_of, waivers_filed
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.approval import Approval, Refusal, count_valid, read_approvals, verify_approval
from drift_pipeline.rollout.observe import RECORDED
from drift_pipeline.rollout.plan import Phase, rollout_id
from drift_pipeline.rollout.waiver import Waiver
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

_TRIES = 3  # at documents that another process writes at the same time


@dataclass(frozen=True)
class Documents:
    """What was written: the card, its folder, and each file's sha256."""

    card: ModelCard
    folder: Path
    files: Mapping[str, str]


def refresh_documents(
    settings: Settings,
    store: ControlStore,
    registry: Registry,
    spec: ModelSpec,
    at: datetime,
    environment: str | None = None,
) -> list[Documents]:
    """Write again the documents that are older than what they tell: of the champion, of the version that is or was
    rolled out last, and of the one that was proven last. A few reads where there is none.

    Arguments and errors as of `write_documents`.
    """
    put_in_place(settings.home, store)
    behind = [digest for digest, version in _spoken_of(store, spec.name) if _behind(store, spec.name, version, digest)]
    return [write_documents(settings, store, registry, spec, digest, at, environment) for digest in behind]


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

    The audit names what was written, once for each that it is changed to. No model is scored: it is drawn of what is
    stored.

    Args:
        digest: the version's bundle.
        at: when approvals are judged.
        environment: the one approvals have to be for; None = the settings'.

    Raises:
        InputError: no such bundle.
        IntegrityError: bytes that do not fit their digest.
        ConflictError: another process writes them all the time.
    """
    for tries_left in reversed(range(_TRIES)):
        facts = _facts(settings, store, registry, spec, digest, at, environment or settings.environment)
        card = make_card(facts)
        pages = {**card_files(card), **dossier_files(facts, card)}
        try:
            said = attest_version(facts, card, pages, _body(store, "holdout", spec.name))
            files = seal(settings, store, pages, said)
            break
        except ConflictError:  # what lies there now may be either's
            if not tries_left:
                raise
    return Documents(card, settings.evidence / spec.name / card.version, files)


def _facts(
    settings: Settings,
    store: ControlStore,
    registry: Registry,
    spec: ModelSpec,
    digest: str,
    at: datetime,
    environment: str,
) -> CardFacts:
    bundle = registry.get(digest)
    version = str(bundle.manifest["version"])
    record, adopted = (
        store.get("candidate", f"{spec.name}/{digest}"),
        _body(store, "adopted", f"{spec.name}/{digest}"),
    )
    return CardFacts(
        spec=spec,
        manifest=bundle.manifest,
        digest=digest,
        record=record.body if record else None,
        reference=_body(store, "reference", f"{spec.name}/{version}"),
        adopted=adopted,
        rollout=_steps(store, record, digest),
        approvals=_approvals(settings, store, spec.name, version, record, at, environment) if record else (),
        approvals_wanted=sum(spec.rollout.wanted.values()),
        environment=environment,
        at=at,
        waivers=_waivers(settings, store, spec.name, record, at, environment) if record else (),
        history=history_of(store, spec.name, digest),
        environment_bom=kept_sbom(settings, record.body if record else None, adopted),
    )


def _approvals(
    settings: Settings,
    store: ControlReader,
    model: str,
    version: str,
    record: Record,
    at: datetime,
    environment: str,
) -> tuple[Approval | Refusal, ...]:
    """What was filed, judged for the version's rollout that is to come where any counts for that, else for the last."""
    here = settings.model_copy(update={"environment": environment})
    asked = asked_of(here, store, record.body, model, at)
    filed = read_approvals(settings.gitops, model, asked.digest)

    def judged(rollout: str) -> tuple[Approval | Refusal, ...]:
        return tuple(verify_approval(envelope, asked, rollout) for envelope in filed)

    to_come = judged(rollout_to_approve(store, model, version, asked.digest))
    return to_come if count_valid(to_come) else judged(rollout_id(model, version, rollouts_of(store, model, version)))


def _waivers(
    settings: Settings, store: ControlReader, model: str, record: Record, at: datetime, environment: str
) -> tuple[Waiver | Refusal, ...]:
    here = settings.model_copy(update={"environment": environment})
    return tuple(waivers_filed(here, asked_of(here, store, record.body, model, at), record.body))


def _steps(store: ControlReader, record: Record | None, digest: str) -> list[dict[str, Any]]:
    """The steps of a version's rollouts, oldest first: none came before it was proven."""
    found = [] if record is None else store.records(after=record.seq)
    return [
        {
            "rollout": step.details["rollout_id"],
            "phase": step.details["phase"],
            "since": step.details["since"],
            "by": step.actor,
            "reason": step.details["reason"],
        }
        for step in found
        if step.event.startswith("rollout.") and step.details.get("candidate") == digest
    ]


def _spoken_of(store: ControlReader, model: str) -> Iterator[tuple[str, str]]:
    """(digest, version) of those whose facts may have moved, the champion first."""
    champion, rollout, last = (_body(store, kind, model) or {} for kind in ("model", "rollout", "training"))
    if (answers := champion.get("digest", RECORDED)) != RECORDED:
        yield str(answers), str(champion["version"])
    named = {str(rollout.get("candidate")), str(last.get("digest"))}
    if rollout.get("phase") == Phase.FULL:  # who it took the place of has its history to the end
        named.add(str(rollout["champion"]))
    for digest in named - {RECORDED, str(answers)}:
        record = store.get("candidate", f"{model}/{digest}") or store.get("adopted", f"{model}/{digest}")
        if record is not None and record.body.get("passed", True) is not None:
            yield digest, record.body["version"]


def _touches(rollout: Mapping[str, Any], digest: str) -> bool:
    """Whether a step of the rollout is told by the documents of a version: its own, and who ceases to answer by it."""
    return bool(digest == rollout["candidate"] or (digest == rollout["champion"] and rollout["phase"] == Phase.FULL))


def _behind(store: ControlReader, model: str, version: str, digest: str) -> bool:
    """Whether any fact is of a later audit record than the card."""
    card = store.get(FILE, f"{model}/evidence/{model}/{version}/{ATTESTATION}")  # written with the card
    if card is None:
        return True
    rollout, reference = store.get("rollout", model), store.get("reference", f"{model}/{version}")
    candidate = store.get("candidate", f"{model}/{digest}")
    kept_back = candidate is not None and candidate.body.get("passed") is False
    kinds = ("approvals", "waivers") if kept_back else ("approvals",)
    facts = [
        candidate,
        store.get("adopted", f"{model}/{digest}"),
        reference,
        store.get("incident", model) if reference else None,
        *(store.get(kind, f"{model}/{digest}") for kind in kinds),
        store.get("spec", model),
        rollout if rollout is not None and _touches(rollout.body, digest) else None,
        *(
            filed
            for kind in kinds
            for filed in store.find(FILE, f"{model}/gitops/{kind}/{model}/{digest.removeprefix('sha256:')}")
        ),
    ]
    return any(fact.seq > card.seq for fact in facts if fact is not None)


def _body(store: ControlReader, kind: str, key: str) -> Mapping[str, Any] | None:
    record = store.get(kind, key)
    return record.body if record else None
