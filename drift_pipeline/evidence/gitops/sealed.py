"""SealedSecrets in the GitOps repository: `manifests/sealed/NAMESPACE/NAME.yaml`, each named by the audit."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.sealed_secret import Certificate, Scope, SealedSecret, require_names, seal
from drift_pipeline.control.store import ControlStore, Entry, Put
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.errors import ConflictError, InputError, NothingToDoError
from drift_pipeline.evidence.champions import MANIFESTS
from drift_pipeline.evidence.placing import FILE, file_key, let_wait, put_digests, put_in_place
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings

OWNER = MANIFESTS  # stands for the model of such files: what waits for a place is looked for by its second folder
_TRIES = 5


@dataclass(frozen=True)
class Sealing:
    """What is to be sealed, and for whom. `values` are plain, by key; `replace` = keys that are not among them go."""

    namespace: str
    name: str
    scope: Scope
    values: Mapping[str, bytes]
    certificate: Certificate
    replace: bool = False

    def of(self, before: SealedSecret | None, where: Path) -> SealedSecret:
        """With the keys that were sealed before.

        Raises:
            InputError: a name that is none, values that are too large together, or what lies there is sealed for
                another name or scope, in which nobody could read it.
        """
        require_names(self.namespace, self.name)
        kept = dict(before.encrypted) if before and not self.replace else {}
        kept = {key: sealed for key, sealed in kept.items() if key not in self.values}
        if before and (before.namespace, before.name) != (self.namespace, self.name):
            raise InputError(f"{where}: is sealed for {before.namespace}/{before.name}; name another file")
        if before and kept and before.scope != self.scope:
            others = ", ".join(sorted(kept))
            raise InputError(f"{where}: {others} are sealed {before.scope}; say --scope {before.scope}, or --replace")
        label = self.scope.label(self.namespace, self.name)
        fresh = {key: seal(self.certificate, value, label) for key, value in self.values.items()}
        return SealedSecret(self.namespace, self.name, self.scope, {**kept, **fresh})


def seal_file(path: Path, sealing: Sealing) -> SealedSecret:
    """Write it to a file of no home. Raises InputError as `Sealing.of`, or where another file lies there."""
    try:
        before = SealedSecret.parse(path.read_bytes(), str(path)) if path.exists() else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    made = sealing.of(before, path)
    write_whole(path, made.to_yaml())
    return made


def seal_into(settings: Settings, clock: Clock, actor: str, sealing: Sealing) -> tuple[Path, SealedSecret]:
    """Write it into the home's GitOps repository; the next tick commits it. Killed at any time it is there or not.

    Raises:
        InputError: as `Sealing.of`, there is no home, or what lies there is not what the audit names.
        ConflictError: others sealed the same meanwhile, again and again.
    """
    require_names(sealing.namespace, sealing.name)
    require_store(settings)
    path = _place(settings, sealing.namespace, sealing.name)
    with closing(open_store(settings, clock)) as store:
        for left in reversed(range(_TRIES)):
            put_in_place(settings.home, store)
            made = sealing.of(_audited(settings, store, path), path)
            files = let_wait(settings.home, path.parent, {path.name: made.to_yaml()})
            entry = Entry(actor, "secret.sealed", f"{made.namespace}/{made.name}", details=_told(sealing, made))
            try:
                store.commit(entry, put_digests(store, settings.home, OWNER, files))
                break
            except ConflictError:
                if not left:
                    raise
        put_in_place(settings.home, store)
    return path, made


def unseal_from(settings: Settings, clock: Clock, actor: str, namespace: str, name: str) -> Path:
    """Take the file out of the GitOps repository; whoever applies it takes the Secret out of the cluster.

    Raises:
        NothingToDoError: there is none.
        InputError: there is no home.
    """
    require_names(namespace, name)
    require_store(settings)
    path = _place(settings, namespace, name)
    with closing(open_store(settings, clock)) as store:
        put_in_place(settings.home, store)
        key = file_key(settings.home, OWNER, path)
        row = store.get(FILE, key)
        if row is None or (row.body["digest"] is None and not path.exists()):
            raise NothingToDoError(f"{path}: is not there; nothing was changed")
        if row.body["digest"] is not None:
            entry = Entry(actor, "secret.removed", f"{namespace}/{name}")
            store.commit(entry, [Put(FILE, key, {"digest": None}, row.generation)])
        path.unlink(missing_ok=True)
    return path


def _place(settings: Settings, namespace: str, name: str) -> Path:
    return settings.gitops / MANIFESTS / "sealed" / namespace / f"{name}.yaml"


def _audited(settings: Settings, store: ControlStore, path: Path) -> SealedSecret | None:
    """What lies there, if the audit names it."""
    row = store.get(FILE, file_key(settings.home, OWNER, path))
    named = store.attest(row).body["digest"] if row else None
    if named is None:
        return None
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; restore it, or take it out by --remove") from error
    if sha256(text) != named:
        raise InputError(f"{path}: is not what the audit names; restore it, or take it out by --remove")
    return SealedSecret.parse(text, str(path))


def _told(sealing: Sealing, made: SealedSecret) -> dict[str, Any]:
    """For the audit: no value, and nothing that is made of one."""
    return {
        "keys": sorted(made.encrypted),
        "sealed": sorted(sealing.values),
        "scope": str(made.scope),
        "certificate": sealing.certificate.fingerprint,
    }
