"""What people declare: the specs and declarations in their files, read again when a file changes; the audit tells of
each change."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import canonical, read_canonical, sha256
from drift_pipeline.control.checkpoints import HOME
from drift_pipeline.control.store import ControlReader, ControlStore, Entry, Put
from drift_pipeline.errors import ConflictError, DriftError, InputError
from drift_pipeline.evidence.verification import spec_file
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings
from drift_pipeline.spec import DECLARATIONS, ModelSpec, read_spec, spec_of

log = logging.getLogger(__name__)
SPEC, POLICY = "spec", "policy"  # kinds of state


def declared(settings: Settings, store: ControlStore, spec: ModelSpec) -> None:
    """Note in the audit which spec of an adopted model is in force, once for each that it is changed to; its text is
    kept beside the approvals. Forms and the negative label are left out: they stay what they were at the adoption.
    """
    if store.get("model", spec.name) is None:
        return
    text = canonical(spec.model_dump(mode="json", exclude={"forms": True, "outcome": {"negative"}}))
    digest, before = sha256(text), store.get(SPEC, spec.name)
    if before is not None and before.body["digest"] == digest:
        return
    write_whole(spec_file(settings, digest), text)
    details: dict[str, Any] = {"changed": _changed(settings, before.body["digest"], text)} if before else {}
    details["declarations"] = sha256(canonical(spec.declarations.model_dump(mode="json")))
    entry = Entry("loop", "spec.changed" if before else "spec.declared", spec.name, {"spec": digest}, details)
    with suppress(ConflictError):  # another process saw it first
        store.commit(entry, [Put(SPEC, spec.name, {"digest": digest}, before.generation if before else 0)])


def spec_in_force(settings: Settings, store: ControlReader, model: str) -> ModelSpec:
    """The spec that the audit names as in force, for who has no folder of models at hand.

    Raises:
        InputError: the home has no such model, or the spec's text is gone.
    """
    found = store.get(SPEC, model)
    path = spec_file(settings, found.body["digest"]) if found else settings.gitops / "specs"
    try:
        text = path.read_bytes() if found else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; restore it from a copy") from error
    if not found or sha256(text) != found.body["digest"]:
        raise InputError(f"{path}: is not the spec of {model} that the audit names; see drift audit verify")
    return spec_of(read_canonical(text))


def rules_in_force(store: ControlStore, digest: str) -> None:
    """Note in the audit which rules decide, once for each that they are changed to."""
    before = store.get(POLICY, HOME)
    if before is None or before.body["digest"] != digest:
        entry = Entry("loop", "policy.changed" if before else "policy.declared", HOME, policy_digest=digest)
        with suppress(ConflictError):  # another process saw it first
            store.commit(entry, [Put(POLICY, HOME, {"digest": digest}, before.generation if before else 0)])


def _changed(settings: Settings, before: str, text: bytes) -> list[str]:
    """The attributes that are others now."""
    try:
        old = read_canonical(spec_file(settings, before).read_bytes())
    except (OSError, DriftError):
        return []
    new = read_canonical(text)
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


class LiveSpecs(Mapping[str, ModelSpec]):
    """The specs of long-lived processes, by name, as their files say now: looked at once a second at most.

    A file that is wrong, or gone, leaves what it said before in force, and is told in the log once. A model whose
    folder is new is taken up as well.
    """

    _every = 1.0

    def __init__(
        self,
        folder: Path | None,
        specs: Mapping[str, ModelSpec],
        monotonic: Callable[[], float] = time.monotonic,
        only: str | None = None,
    ) -> None:
        """
        Args:
            folder: the models', with `NAME/defs.yaml`; None = the packaged ones, which nobody changes while it runs.
            specs: what the files said when the process began.
            only: the one model that is taken up; None = all.
        """
        self._only = only
        self._folder, self._specs, self._monotonic = folder, dict(specs), monotonic
        self._looked, self._seen = float("-inf"), dict[Path, list[tuple[int, int, int]]]()

    def __getitem__(self, name: str) -> ModelSpec:
        self._look()
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(list(self._specs))

    def __len__(self) -> int:
        return len(self._specs)

    def _look(self) -> None:
        if self._monotonic() - self._looked < self._every:
            return
        self._looked, stamps = self._monotonic(), self._stamps()
        for path, stamp in stamps.items():
            if self._seen.get(path) != stamp:
                self._read(path)
        self._seen = stamps

    def _read(self, path: Path) -> None:
        try:
            spec = read_spec(path)
        except (DriftError, OSError) as error:
            log.error("%s; what it said before is in force", error)
            return
        if self._only in (None, spec.name) and self._specs.get(spec.name) != spec:
            self._specs[spec.name] = spec

    def _stamps(self) -> dict[Path, list[tuple[int, int, int]]]:
        """Of each spec's file, and of the declarations beside it."""
        found = {}
        for path in sorted(self._folder.glob("*/defs.yaml")) if self._folder else ():
            stamps = []
            for file in (path, path.with_name(DECLARATIONS)):
                with suppress(OSError):
                    stamps.append(_stamp(file))
            if stamps:
                found[path] = stamps
        return found


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
