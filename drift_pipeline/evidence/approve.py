"""Give an approval: everything that could make it not count is found out before it is filed."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import PublicKey, Signer, public_path
from drift_pipeline.control.store import ControlReader, Entry, Record
from drift_pipeline.control.trust import appoint, approvers, dismiss, open_store, require_store, rotate
from drift_pipeline.errors import DriftError, InputError, IntegrityError, SpecError
from drift_pipeline.evidence.gitops.publishing import filing
from drift_pipeline.evidence.verification import put_files
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.approval import (
    REPLAY,
    REPLAY_ONLY,
    Refusal,
    count_valid,
    read_approvals,
    sign_approval,
    verify_approval,
    write_approval,
)
from drift_pipeline.rollout.plan import Status, rollout_id
from drift_pipeline.settings import Settings
from drift_pipeline.spec import read_spec

PACKAGED_MODELS = Path(__file__).parent.parent / "defs"


@dataclass(frozen=True)
class Given:
    """An approval that is filed. `wanted` is None where no spec of the model is found; `refused` are the others."""

    path: Path
    version: str
    digest: str
    rollout: str
    approver: str
    expires: datetime
    valid: int
    wanted: int | None
    refused: tuple[str, ...]


def approve(
    settings: Settings, signer: Signer, model: str, version: str, reason: str, lasting: timedelta, clock: Clock
) -> Given | Refusal:
    """File the signer's approval of one version for `settings.environment`; a refusal files nothing and audits nothing.

    Who may approve are the keys that were appointed. It is for one rollout: the one under way, or the next. The file
    comes before the audit record: an approval that counts is audited again by the loop which accepts it, and giving it
    again after a crash replaces the file.

    Args:
        version: a name such as v3, or a digest.

    Raises:
        InputError: no control store, an unknown model or version, or a field that is no approval's.
        UnavailableError: as of `gitops.filing`; nothing is filed.
        IntegrityError: the candidate is not what its audit record says.
    """
    require_store(settings)
    store, now = open_store(settings, clock), clock.now()
    try:
        keys, body = approvers(settings, store), store.attest(_candidate(store, model, version)).body
        if fault := _unfit(settings, body):
            return Refusal(fault)
        trainer, digest = str(body["trainer"]), str(body["digest"])
        if signer.key_id == trainer:
            return Refusal(f"{signer.public} trained this model; somebody else has to approve, with their own key")
        asked: dict[str, Any] = {"model": model, "digest": digest, "environment": settings.environment}
        asked["rollout"] = rollout_to_approve(store, model, body["version"], digest)
        envelope = sign_approval(signer, **asked, trainer=trainer, reason=reason, at=now, expires=now + lasting)
        judged = {**asked, "keys": keys, "trainer_key_id": trainer, "longest": settings.longest_approval, "now": now}
        outcome = verify_approval(envelope, **judged)
        if isinstance(outcome, Refusal):
            return Refusal(outcome.reason + _advice(settings, signer, keys))
        details = {"approver": signer.key_id, "environment": settings.environment, "version": body["version"]}
        details |= {"rollout": asked["rollout"], "reason": reason, "expires": outcome.expires.isoformat()}
        entry = Entry(outcome.label or signer.key_id, "approval.given", model, {"bundle": digest}, details)
        with filing(settings, store, clock) as commit:
            path = write_approval(settings.gitops, envelope)
            record = store.commit(entry, put_files(store, settings.home, model, [path]))
            commit(path, signer, keys[signer.key_id], record)
    finally:
        store.close()
    outcomes = [verify_approval(filed, **judged) for filed in read_approvals(settings.gitops, model, digest)]
    return Given(
        path=path,
        version=body["version"],
        digest=digest,
        rollout=asked["rollout"],
        approver=str(signer.public),
        expires=outcome.expires,
        valid=count_valid(outcomes),
        wanted=approvals_wanted(settings, model),
        refused=tuple(other.reason for other in outcomes if isinstance(other, Refusal)),
    )


def rollout_to_approve(store: ControlReader, model: str, version: str, digest: str) -> str:
    """The version's rollout that is under way, else its next one: each wants approvals of its own."""
    status, begun = store.get("rollout", model), rollouts_of(store, model, version)
    under_way = status is not None and status.body["candidate"] == digest and Status.from_json(status.body).active
    return rollout_id(model, version, begun if under_way and begun else begun + 1)


def rollouts_of(store: ControlReader, model: str, version: str) -> int:
    """How many rollouts of a version have begun."""
    found = store.get("rollouts", f"{model}/{version}")
    return int(found.body["count"]) if found else 0


def make_key(
    path: Path, label: str, identity: str | None, settings: Settings | None, actor: str, clock: Clock
) -> tuple[Signer, Path | None]:
    """A new pair of files at `path`; with settings it is appointed in that home, whose approver it is then.

    Args:
        identity: whose it is, where a person has several keys; else the label.

    Raises:
        InputError: no label, a path that is taken or cannot be written, or no such home; then nothing is written.
    """
    if not label.strip():
        raise InputError("a key's label says whose it is, and is not empty: such as --label ada")
    if settings is not None:
        require_store(settings)
    signer = Signer.generate(label, (identity or label).strip())
    signer.save(path)
    if settings is None:
        return signer, None
    try:
        return signer, trust_key(signer.public, path.stem, settings, actor, clock)
    except DriftError:  # a home that nobody can write: no key is left that counts nowhere
        for file in (path, public_path(path)):
            file.unlink(missing_ok=True)
        raise


def trust_key(key: PublicKey, stem: str, settings: Settings, actor: str, clock: Clock) -> Path:
    """Appoint a key of a person's own making; the file in `keys/`. Raises InputError where there is no such home."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        return appoint(settings, store, key, actor, stem)


def revoke_key(key: PublicKey, settings: Settings, actor: str, clock: Clock) -> None:
    """Let a key's approvals count no more. Raises InputError where it is no approver's key there."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        dismiss(settings, store, key.key_id, actor)


def rotate_home_key(settings: Settings, actor: str, clock: Clock) -> PublicKey:
    """Give a home a new key of its own; errors as of `control.trust.rotate`."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        return rotate(settings, store, actor)


def approvals_wanted(settings: Settings, model: str) -> int | None:
    """What the model's spec asks for, of those in `settings.models`; None where no spec of that name can be read."""
    for path in sorted((settings.models or PACKAGED_MODELS).glob("*/defs.yaml")):
        try:
            spec = read_spec(path)
        except SpecError:  # another model's mistake; `dg check` tells it
            continue
        if spec.name == model:
            return spec.rollout.approvals
    return None


def _candidate(store: ControlReader, model: str, version: str) -> Record:
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
    return found[0]


def _unfit(settings: Settings, body: Any) -> str:
    """Why nobody can approve this version; empty when somebody can."""
    if body.get("passed") is None:
        return "its gates were not asked yet; wait until it is proven"
    if body["passed"] is not True:
        failed = [f"{gate['name']} ({gate['reason']})" for gate in body.get("results", []) if gate["outcome"] != "pass"]
        return f"its gates did not pass: {', '.join(failed) or 'none was asked'}; train another version"
    if not body.get("trainer"):
        return (
            "its record names no trainer's key, so nobody can tell whether the approver trained it: "
            "a version that was recorded before drift-pipeline wrote that down has to be trained again"
        )
    registry = LocalRegistry(settings.registry)
    try:
        if not registry.exists(body["digest"]):
            return f"{settings.registry} holds no bundle {body['digest']}; restore it, or train another version"
        registry.get(body["digest"])
    except IntegrityError as error:
        return f"its stored bytes do not fit: {error}; find out who changed them, and train another version"
    return ""


def _advice(settings: Settings, signer: Signer, keys: dict[str, PublicKey]) -> str:
    """What to do about a refusal of a fresh signature; empty where only its reason can help."""
    return next(_advices(settings, signer, keys), "")


def _advices(settings: Settings, signer: Signer, keys: dict[str, PublicKey]) -> Iterator[str]:
    if signer.key_id not in keys:
        yield f"; whoever keeps {settings.home} has to add it: drift key FILE.pub.json --home {settings.home}"
    if settings.environment != REPLAY and REPLAY_ONLY in (signer.public.label, keys[signer.key_id].label):
        yield "; make a person's key (drift key), or approve for the replay (--environment replay)"
