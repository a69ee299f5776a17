"""Verify a home: its audit chain, its checkpoint, and that every artefact the chain names is there."""

import json
from dataclasses import replace
from pathlib import Path

from drift_pipeline.clock import Clock
from drift_pipeline.control.audit import Verification, checkpoint, verify
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.policy.engines import Bundle, read_bundle
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.settings import Settings


def keep_policy(settings: Settings, bundle: Bundle) -> None:
    """File the rules that decide in the GitOps folder, so that their digest in the audit can be looked up."""
    folder = _policy_folder(settings, bundle.digest)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in bundle.modules.items():
        (folder / name).write_bytes(text.encode())


def write_checkpoint(settings: Settings, store: ControlStore, signer: Signer, origin: str, clock: Clock) -> None:
    """Sign the head of the chain into the GitOps folder; pushed elsewhere it shows a tail that was cut later."""
    envelope = checkpoint(store.records(), signer, origin, clock.now())
    settings.checkpoint.write_text(json.dumps(envelope, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def verify_home(settings: Settings, clock: Clock) -> Verification:
    """Check everything below `settings.home`; see `control.audit.verify` for what that cannot detect.

    What cannot be read (a checkpoint, a key, an artefact) is a finding like any other: `reason` names it.

    Raises:
        InputError: there is no control store.
    """
    if not settings.database and not (settings.home / "control.db").is_file():
        raise InputError(f"{settings.home}: no control store (control.db) here; name a home or a replay's --out folder")
    registry = LocalRegistry(settings.registry)
    faults: list[str] = []

    def exists(digest: str) -> bool:
        try:
            return _holds(registry, digest) or _policy_fits(settings, digest)
        except (InputError, IntegrityError) as error:
            faults.append(str(error))
            return False

    checkpoints, keys = _checkpoints(settings.checkpoint, faults), _keys(settings.keys, faults)
    store = ControlStore(settings.database_url, clock)
    try:
        found = verify(store.records(), checkpoints=checkpoints, keys=keys, exists=exists)
    finally:
        store.close()
    told = "; ".join(filter(None, [found.reason, *dict.fromkeys(faults)]))
    return replace(found, ok=found.ok and not faults, reason=told)


def _holds(registry: LocalRegistry, digest: str) -> bool:
    """Read whole: `get` recomputes every digest, and raises IntegrityError for bytes that were changed."""
    return registry.exists(digest) and registry.get(digest).digest == digest


def _policy_folder(settings: Settings, digest: str) -> Path:
    return settings.gitops / "policies" / digest.removeprefix("sha256:")


def _policy_fits(settings: Settings, digest: str) -> bool:
    folder = _policy_folder(settings, digest)
    return folder.is_dir() and read_bundle(folder).digest == digest


def _checkpoints(path: Path, faults: list[str]) -> list[dict[str, object]]:
    if not path.exists():
        return []
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path}: the checkpoint cannot be read: {error}")
        return []
    return [envelope if isinstance(envelope, dict) else {}]


def _keys(folder: Path, faults: list[str]) -> dict[str, PublicKey]:
    keys = {}
    for path in sorted(folder.glob("*.pub.json")):
        try:
            key = PublicKey.load(path)
        except (InputError, IntegrityError) as error:
            faults.append(str(error))
            continue
        keys[key.key_id] = key
    return keys
