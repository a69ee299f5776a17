"""Give an approval: everything that could make it not count is found out before it is filed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import ControlStore, Entry, Record
from drift_pipeline.errors import InputError, IntegrityError, SpecError
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
from drift_pipeline.settings import Settings
from drift_pipeline.spec import read_spec

PACKAGED_MODELS = Path(__file__).parent.parent / "defs"


@dataclass(frozen=True)
class Given:
    """An approval that is filed. `wanted` is None where no spec of the model is found; `refused` are the others."""

    path: Path
    version: str
    digest: str
    approver: str
    expires: datetime
    valid: int
    wanted: int | None
    refused: tuple[str, ...]


def approve(
    settings: Settings, signer: Signer, model: str, version: str, reason: str, lasting: timedelta, clock: Clock
) -> Given | Refusal:
    """File the signer's approval of one version for `settings.environment`; a refusal files nothing and audits nothing.

    Who may approve are the public keys in `settings.keys`. The file comes before the audit record: an approval that
    counts is audited again by the loop which accepts it, and giving it again after a crash replaces the file.

    Args:
        version: a name such as v3, or a digest.

    Raises:
        InputError: no control store, an unknown model or version, or a field that is no approval's.
        IntegrityError: a file in `settings.keys` holds another key than it says.
    """
    if not settings.database and not (settings.home / "control.db").is_file():
        raise InputError(f"{settings.home}: no control store (control.db) here; name a home or a replay's --out folder")
    keys, now = read_keys(settings.keys), clock.now()
    store = ControlStore(settings.database_url, clock)
    try:
        body = _candidate(store, model, version).body
        if fault := _unfit(settings, body):
            return Refusal(fault)
        trainer, digest = str(body["trainer"]), str(body["digest"])
        asked: dict[str, Any] = {"model": model, "digest": digest, "environment": settings.environment}
        envelope = sign_approval(signer, **asked, trainer=trainer, reason=reason, at=now, expires=now + lasting)
        judged = {**asked, "keys": keys, "trainer_key_id": trainer, "now": now}
        outcome = verify_approval(envelope, **judged)
        if isinstance(outcome, Refusal):
            return Refusal(outcome.reason + _advice(settings, signer, keys, trainer))
        path = write_approval(settings.gitops, envelope)
        details = {"approver": signer.key_id, "environment": settings.environment, "version": body["version"]}
        details |= {"reason": reason, "expires": outcome.expires.isoformat()}
        who = signer.public.label or signer.key_id
        store.commit(Entry(who, "approval.given", model, digests={"bundle": digest}, details=details))
    finally:
        store.close()
    outcomes = [verify_approval(filed, **judged) for filed in read_approvals(settings.gitops, model, digest)]
    return Given(
        path=path,
        version=body["version"],
        digest=digest,
        approver=str(signer.public),
        expires=outcome.expires,
        valid=count_valid(outcomes),
        wanted=approvals_wanted(settings, model),
        refused=tuple(other.reason for other in outcomes if isinstance(other, Refusal)),
    )


def read_keys(folder: Path) -> dict[str, PublicKey]:
    """The public keys `*.pub.json` of a folder by their key id; whoever can write there decides who may approve.

    Raises:
        InputError, IntegrityError: a file that holds no such key; one that is damaged must not go unnoticed.
    """
    keys = map(PublicKey.load, sorted(folder.glob("*.pub.json")))
    return {key.key_id: key for key in keys}


def make_key(path: Path, label: str, settings: Settings | None) -> tuple[Signer, Path | None]:
    """A new pair of files at `path`; with settings the public half is copied into that home, whose approver it is then.

    Raises:
        InputError: no label, a path that is taken or cannot be written, or no such home; then nothing is written.
    """
    if not label.strip():
        raise InputError("a key's label says whose it is, and is not empty: such as --label ada")
    folder, signer = _keys_folder(settings), Signer.generate(label)
    signer.save(path)
    if folder is None:
        return signer, None
    copy = folder / f"{path.stem}-{signer.key_id[-12:]}.pub.json"
    signer.public.save(copy)
    return signer, copy


def _keys_folder(settings: Settings | None) -> Path | None:
    if settings is None:
        return None
    if not settings.home.is_dir():
        raise InputError(f"{settings.home}: there is no such home; name the folder that holds control.db")
    try:
        settings.keys.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{settings.keys}: cannot be written: {error.strerror}") from error
    return settings.keys


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


def _candidate(store: ControlStore, model: str, version: str) -> Record:
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


def _advice(settings: Settings, signer: Signer, keys: dict[str, PublicKey], trainer: str) -> str:
    """What to do about a refusal of a fresh signature; empty where only its reason can help."""
    return next(_advices(settings, signer, keys, trainer), "")


def _advices(settings: Settings, signer: Signer, keys: dict[str, PublicKey], trainer: str) -> Iterator[str]:
    if signer.key_id not in keys:
        yield f"; whoever keeps {settings.keys} has to put the public half of this key (its .pub.json) there"
    if signer.key_id == trainer:
        yield "; somebody else has to, with a key of their own (drift key)"
    if settings.environment != REPLAY and REPLAY_ONLY in (signer.public.label, keys[signer.key_id].label):
        yield "; make a person's key (drift key), or approve for the replay (--environment replay)"
