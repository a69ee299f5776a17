"""Verify a home: its audit chain, its checkpoints, its state, and that every artefact the chain names is there."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.checkpoints import checkpoint_file, read_checkpoints
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import Put
from drift_pipeline.control.trust import key_faults, read_store
from drift_pipeline.control.verifying import Cover, Verification, verify
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.champions import derived_faults
from drift_pipeline.evidence.gitops.progress import FORMS, last_checkpoint, read
from drift_pipeline.evidence.placing import FILE, put_digests, waiting_for
from drift_pipeline.files import read_plain, write_whole
from drift_pipeline.policy.engines import Bundle, read_bundle
from drift_pipeline.registry.backends import Registry, kept_registry
from drift_pipeline.settings import Settings

_LOOKS = 6  # at a home that is written to meanwhile: what is found is believed once two in a row say it
_PAUSE_S = 0.2


def keep_policy(settings: Settings, bundle: Bundle) -> None:
    """File the rules that decide in the GitOps folder, so that their digest in the audit can be looked up."""
    folder = _policy_folder(settings, bundle.digest)
    for name, text in bundle.modules.items():
        path, data = folder / name, text.encode()
        if not path.is_file() or path.read_bytes() != data:
            write_whole(path, data)


def put_files(store: ControlReader, home: Path, model: str, files: Iterator[Path] | list[Path]) -> list[Put]:
    """As `put_digests`, of what the files hold now."""
    return put_digests(store, home, model, {path: sha256(path.read_bytes()) for path in files})


def verify_home(settings: Settings, kept: tuple[str, Mapping[str, Any]] | None = None) -> Verification:
    """Check everything below `settings.home`, and change nothing; see `control.verifying.verify` for what that cannot
    detect.

    What cannot be read (a checkpoint, a key, an artefact) is a finding like any other: `reason` names it.

    Args:
        kept: a checkpoint that somebody kept elsewhere, by name: the chain has to go on from it.

    Raises:
        InputError: there is no control store.
    """
    said = None
    for _ in range(_LOOKS):
        before = _touched(settings)
        found = _verified(settings, kept)
        if found.ok or (said == found.reason and before == _touched(settings)):  # else a writer came while it was read
            break
        said = found.reason
        time.sleep(_PAUSE_S)  # an approval lies there a moment before the record that names it
    return found


def _verified(settings: Settings, kept: tuple[str, Mapping[str, Any]] | None) -> Verification:
    store = read_store(settings)
    registry = kept_registry(settings, copies=False)
    faults: list[str] = []

    def exists(digest: str) -> bool:
        try:
            return _holds(registry, digest) or _policy_fits(settings, digest) or _spec_fits(settings, digest)
        except (InputError, IntegrityError) as error:
            faults.append(str(error))
            return False

    try:
        snapshot = store.snapshot()
        faults += [*_file_faults(settings, store), *key_faults(settings, store)]
        last, _ = read(store)
        written = last.written if last.forms == FORMS else 0
        faults += [*derived_faults(store, settings.gitops, written), *_unsigned(settings, store)]
        found = verify(
            store.records(),
            checkpoints=read_checkpoints(settings.checkpoints),
            exists=exists,
            snapshot=snapshot,
            wanted=Cover(settings.checkpoint_records, settings.checkpoint_age),
            kept=kept,
        )
    finally:
        store.close()
    if not found.records and not found.reason:
        faults.append("the audit has no record at all, which every home has")
    told = "; ".join(filter(None, [found.reason, *dict.fromkeys(faults)]))
    return replace(found, ok=found.ok and not faults, reason=told)


def _touched(settings: Settings) -> object:
    """Changes where the store was written to; a database that nobody has open is read without a lock."""
    if settings.database:
        return None
    files = [settings.home / f"control.db{suffix}" for suffix in ("", "-wal")]
    return [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None for file in files]


def _file_faults(settings: Settings, store: ControlReader) -> Iterator[str]:
    """Approvals and documents that are not what their record says."""
    for record in store.find(FILE):
        path = settings.home / record.key.partition("/")[2]
        named, why = record.body["digest"], f"record {record.seq} of the audit names"
        try:
            held = sha256(read_plain(path)) if path.exists() else None
            if held != named and named:  # its writer may have been killed
                waits = waiting_for(settings.home, path, named)
                held = sha256(read_plain(waits)) if waits.exists() else held
        except OSError as error:
            yield f"{path}: cannot be read: {error.strerror}"
            continue
        if held != named and (named is not None or held is not None):
            what = "is gone" if held is None else "was changed" if named else "lies here again, and was withdrawn"
            yield f"{path}: {what}; {why} {'another one' if held and named else 'it'}"


def _unsigned(settings: Settings, store: ControlReader) -> Iterator[str]:
    """The last checkpoint, where it is gone: an earlier one would cover less than was signed."""
    size, _ = last_checkpoint(store)
    if size and not (path := checkpoint_file(settings.checkpoints, size)).is_file():
        yield f"{path}: is gone, and was the last checkpoint"


def _holds(registry: Registry, digest: str) -> bool:
    """Read whole: `get` recomputes every digest, and raises IntegrityError for bytes that were changed."""
    return registry.exists(digest) and registry.get(digest).digest == digest


def _policy_folder(settings: Settings, digest: str) -> Path:
    return settings.gitops / "policies" / digest.removeprefix("sha256:")


def _policy_fits(settings: Settings, digest: str) -> bool:
    folder = _policy_folder(settings, digest)
    return folder.is_dir() and read_bundle(folder).digest == digest


def spec_file(settings: Settings, digest: str) -> Path:
    """Where a spec that was in force is kept, so that its digest in the audit can be looked up."""
    return settings.gitops / "specs" / f"{digest.removeprefix('sha256:')}.json"


def _spec_fits(settings: Settings, digest: str) -> bool:
    path = spec_file(settings, digest)
    return path.is_file() and sha256(path.read_bytes()) == digest
