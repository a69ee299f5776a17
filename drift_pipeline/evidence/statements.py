"""What giving an approval and a waiver have in common: the candidate, the checks, and the record of a refusal."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import ControlReader, ControlStore, Entry
from drift_pipeline.control.trust import approvers
from drift_pipeline.errors import InputError, IntegrityError, SpecError
from drift_pipeline.evidence.gitops.publishing import filing
from drift_pipeline.evidence.verification import put_files
from drift_pipeline.registry.backends import kept_registry
from drift_pipeline.rollout.signed import REPLAY, REPLAY_ONLY, Asked, Refusal, Statement, read, sign, write
from drift_pipeline.rollout.waiver import (
    AcceptedWaiver,
    blocking,
    told_unwaived,
    unwaived,
    verify_waiver,
    waiver_files,
)
from drift_pipeline.settings import Settings
from drift_pipeline.spec import APPROVER, read_spec

PACKAGED_MODELS = Path(__file__).parent.parent / "defs"


def asked_of(settings: Settings, store: ControlReader, body: Mapping[str, Any], model: str, now: datetime) -> Asked:
    """What a statement about a candidate has to be for in this home, now."""
    return Asked(
        keys=approvers(settings, store),
        model=model,
        digest=str(body["digest"]),
        environment=settings.environment,
        trainer_key_id=str(body.get("trainer")),
        longest=settings.longest_approval,
        now=now,
    )


def audit_refusal(
    store: ControlStore, kind: str, signer: Signer, asked: Asked, more: Mapping[str, Any], refused: Refusal
) -> None:
    """Who wanted to sign, and why it would not have counted."""
    told = {**more, "reason": refused.reason, "approver": signer.key_id, "label": signer.public.label}
    details = {**told, "environment": asked.environment}
    known = asked.keys.get(signer.key_id)  # a stranger's label is what they like
    who = (known.label if known else None) or f"key {signer.key_id[:16]}"
    store.commit(Entry(who, f"{kind}.refused", asked.model, {"bundle": asked.digest}, details))


def role_of(signer: Signer, asked: Asked, role: str | None) -> str:
    """In which role the key signs: the one that is named, else its only one.

    Raises:
        InputError: it has several, and none is named.
    """
    known = asked.keys.get(signer.key_id)
    if role is not None or known is None:
        return role or APPROVER
    if len(known.roles) > 1:
        raise InputError(f"--role: {signer.public} was appointed as {', '.join(known.roles)}; say as which it signs")
    return known.roles[0]


def approvals_wanted(settings: Settings, model: str) -> dict[str, int] | None:
    """How many people of each role the model's spec asks for, of those in `settings.models`; None where no spec of that
    name can be read."""
    for path in sorted((settings.models or PACKAGED_MODELS).glob("*/defs.yaml")):
        try:
            spec = read_spec(path)
        except SpecError:  # another model's mistake; `dg check` tells it
            continue
        if spec.name == model:
            return spec.rollout.wanted
    return None


def candidate_of(store: ControlReader, model: str, version: str) -> Mapping[str, Any]:
    """The record of a candidate, by its name or digest.

    Raises:
        InputError: there is none, or there are several of the name.
        IntegrityError: it is not what its audit record says.
    """
    known = [record for record in store.find("candidate") if record.key.partition("/")[0] == model]
    if not known:
        models = sorted({record.key.partition("/")[0] for record in store.find("candidate")})
        raise InputError(
            f"there is no candidate of a model {model!r}; there are some of: {', '.join(models) or 'none'}"
        )
    found = [record for record in known if version in (record.body["version"], record.body["digest"])]
    if not found:
        names = sorted((str(record.body["version"]) for record in known), key=lambda name: (len(name), name))
        raise InputError(f"{model} has no candidate {version!r}; there are: {', '.join(names)}")
    if len(found) > 1:
        digests = ", ".join(str(record.body["digest"]) for record in found)
        raise InputError(f"{model} has {len(found)} candidates {version}; name one by its digest: {digests}")
    return store.attest(found[0]).body


def waivers_filed(settings: Settings, asked: Asked, body: Mapping[str, Any]) -> list[AcceptedWaiver | Refusal]:
    """What the waivers that are filed for a candidate come to; none where its gates passed."""
    blocked = blocking(body.get("results", ()))
    paths = waiver_files(settings.gitops, asked.model, asked.digest) if body.get("passed") is False else []
    return [verify_waiver(read(path), asked, blocked) for path in paths]


def unproven(
    body: Mapping[str, Any], waived: Sequence[AcceptedWaiver | Refusal], wanted: Mapping[str, int] | None
) -> str:
    """Why a version's gates keep it from being approved; empty where they passed, or are waived."""
    if body.get("passed") is None:
        return "its gates were not asked yet; wait until it is proven"
    if body["passed"] is True:
        return ""
    failed = [gate for gate in body.get("results", []) if gate["outcome"] != "pass"]
    if not failed:
        return "its gates did not pass: none was asked; train another version"
    wanted = wanted or {APPROVER: 1}
    lacking = unwaived(blocking(failed), waived, wanted)
    if not lacking:
        return ""
    names = ", ".join(f"{gate['name']} ({gate['reason']})" for gate in failed)
    so_far = [told_unwaived(lacking, wanted)] if waived else []
    what = "train another version, or waive what may stand aside (drift waive)"
    return "; ".join([f"its gates did not pass: {names}", *so_far, what])


def untrusted(settings: Settings, body: Mapping[str, Any]) -> str:
    """Why nobody can tell what a version is or who trained it; empty where that is known."""
    if not body.get("trainer"):
        return (
            "its record names no trainer's key, so nobody can tell whether the approver trained it: "
            "a version that was recorded before drift-pipeline wrote that down has to be trained again"
        )
    registry = kept_registry(settings)
    try:
        if not registry.exists(body["digest"]):
            return f"{settings.registry_place} holds no bundle {body['digest']}; restore it, or train another version"
        registry.get(body["digest"])
    except IntegrityError as error:
        return f"its stored bytes do not fit: {error}; find out who changed them, and train another version"
    return ""


def unfit(settings: Settings, signer: Signer, asked: Asked, body: Mapping[str, Any], verb: str) -> str:
    """Why nothing that the key signs of the version counts; empty where it may. `verb`: what it is to do."""
    trained = f"{signer.public} trained this model; somebody else has to {verb}, with their own key"
    return untrusted(settings, body) or (trained if signer.key_id == asked.trainer_key_id else "")


def advice(settings: Settings, signer: Signer, asked: Asked) -> str:
    """What to do about a refusal of a fresh signature; empty where only its reason can help."""
    if signer.key_id not in asked.keys:
        return f"; whoever keeps {settings.home} has to add it: drift key FILE.pub.json --home {settings.home}"
    if settings.environment != REPLAY and REPLAY_ONLY in (signer.public.label, asked.keys[signer.key_id].label):
        return "; make a person's key (drift key), or approve for the replay (--environment replay)"
    return ""


def below(settings: Settings, path: Path) -> str:
    """The path as the audit names it."""
    return path.relative_to(settings.home).as_posix()


def signed_from_now(
    kind: type[Statement], signer: Signer, asked: Asked, reason: str, lasting: timedelta, role: str | None, **of: str
) -> dict[str, Any]:
    """The envelope of what the key says of a candidate, from now on and for so long; errors as of `sign`, `role_of`."""
    return sign(
        kind,
        signer,
        model=asked.model,
        digest=asked.digest,
        environment=asked.environment,
        trainer=asked.trainer_key_id,
        reason=reason,
        at=asked.now,
        expires=asked.now + lasting,
        role=role_of(signer, asked, role),
        **of,
    )


def file_signed(
    settings: Settings,
    store: ControlStore,
    clock: Clock,
    signer: Signer,
    asked: Asked,
    kind: type[Statement],
    envelope: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Path:
    """File what was signed, and tell it in the audit; its file. Raises as of `gitops.filing`.

    Args:
        more: what the audit tells besides, such as the version.
    """
    with filing(settings, store, clock) as commit:
        path = write(kind, settings.gitops, envelope)
        said = kind.model_validate_json(base64.b64decode(envelope["payload"]))
        details = {"approver": signer.key_id, "role": said.role, "environment": settings.environment, **more}
        details |= {"reason": said.reason, "file": below(settings, path), "expires": said.expires.isoformat()}
        entry = Entry(said.label or signer.key_id, f"{kind.kind}.given", asked.model, {"bundle": asked.digest}, details)
        record = store.commit(entry, put_files(store, settings.home, asked.model, [path]))
        commit(path, signer, asked.keys[signer.key_id], record)
    return path
