"""Verify an `evidence` folder, or a copy of it or of one version's, from its files alone: no home, store or network.

What it cannot tell: that a newer evidence folder exists. An older one, copied whole, verifies; `at` says as of when.
"""

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.statement import Statement, read_statement
from drift_pipeline.control.trust import trusted_keys
from drift_pipeline.errors import DriftError, InputError, IntegrityError
from drift_pipeline.evidence.attestation import ATTESTATION, EVIDENCE_TYPE, MANIFEST, VERSION_TYPE, bundle_subjects
from drift_pipeline.registry.backends.local import LocalRegistry

_LOOKS = 4  # at a folder that a home writes to meanwhile: what is found is believed once two in a row say it
_PAUSE_S = 0.3
_MOST_DOCUMENT = 1 << 40
_MOST_BYTES = 64 << 20  # of a signed file, which is read before anything says how large it should be


@dataclass(frozen=True)
class Fault:
    """`file` is named from the folder that was verified."""

    file: str
    reason: str


@dataclass(frozen=True)
class Version:
    """What the attestation of a version says; `signer` is as the trusted key's file names it."""

    model: str
    version: str
    bundle: str
    outcome: str
    environment: str
    at: str
    expires: str | None
    signer: str
    key_id: str
    bytes_verified: bool


@dataclass
class Verified:
    """`at` is as of when the whole was signed, and by whom; None of one version's folder."""

    at: str | None = None
    signer: str | None = None
    audit: Mapping[str, Any] | None = None
    files: int = 0
    versions: list[Version] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def verify_evidence(path: Path, keys: Path, registry: Path | None = None) -> Verified:
    """Hold every file of the folder against what a trusted key signed. Nothing is changed.

    Args:
        path: an `evidence` folder, or one of a version.
        keys: a folder of public files as `drift key` writes them, or one of them.
        registry: also the models' bytes, as they lie in this registry.

    Raises:
        InputError: there is no such folder, or it is another one of a home; the keys lie in what is to be verified,
            whose word for itself is none; a file is no key's.
        UnavailableError: there is no trusted key.
    """
    _require_evidence(path)
    trusted = _trusted(keys, path)
    if registry is not None and not registry.is_dir():
        raise InputError(f"{registry}: is no folder of a registry")
    found = _looked(path, trusted, registry)
    for _ in range(_LOOKS):
        if not found.faults:
            break
        before = found.faults
        time.sleep(_PAUSE_S)  # a home puts the files of a version in their places one after the other
        found = _looked(path, trusted, registry)
        if found.faults == before:
            break
    return found


def _trusted(folder: Path, verified: Path) -> dict[str, PublicKey]:
    files = [folder] if folder.is_file() else sorted(folder.glob("*.pub.json"))
    if any(one.resolve().is_relative_to(verified.resolve()) for one in (folder, *files)):
        raise InputError(f"{folder}: lies in what is to be verified; trusted keys come from elsewhere: --keys DIR")
    return trusted_keys(folder)


def _require_evidence(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; name a home's evidence folder, or one of a version in it")
    if any(os.path.lexists(path / name) for name in (MANIFEST, ATTESTATION)):
        return
    if (path / "evidence").is_dir():
        raise InputError(f"{path}: is no evidence folder but holds one; name {path / 'evidence'}")
    if any(path.glob(f"*/{ATTESTATION}")):
        raise InputError(f"{path}: holds versions of one model; name one of them, or the folder of all models above it")


def _looked(path: Path, keys: Mapping[str, PublicKey], registry: Path | None) -> Verified:
    look = _Look(path, keys, registry)
    if os.path.lexists(path / ATTESTATION):
        look.version("")
    else:
        look.evidence()
    look.found.faults.sort(key=lambda fault: fault.file)
    return look.found


class _Look:
    """One look at a folder; what does not hold becomes a fault of what was found."""

    def __init__(self, path: Path, keys: Mapping[str, PublicKey], registry: Path | None) -> None:
        self._path, self._keys, self._registry = path, keys, registry
        self.found = Verified()

    def evidence(self) -> None:
        """The manifest of all versions, and each that it lists."""
        statement = self._signed(MANIFEST, EVIDENCE_TYPE)
        if statement is None:
            return
        self.found.at, self.found.audit = statement.predicate.get("at"), statement.predicate.get("audit")
        listed = {path.rpartition("/")[0]: digest for path, digest in statement.subjects.items()}
        models = {version.partition("/")[0] for version in listed}
        self._only("", {MANIFEST}, models)
        for model in sorted(models):
            self._only(f"{model}/", set(), {one.partition("/")[2] for one in listed if one.startswith(f"{model}/")})
        for version, digest in sorted(listed.items()):
            self.version(f"{version}/", digest)

    def version(self, place: str, attested: str | None = None) -> None:
        """What lies at `place`, which ends in / unless it is the folder itself.

        Args:
            attested: what its attestation has to be, in hex, where the manifest says so.
        """
        name = f"{place}{ATTESTATION}"
        statement = self._signed(name, VERSION_TYPE, attested)
        if statement is None:
            return
        try:
            told, documents = _told(statement, self._by), _documents(statement)
        except (LookupError, TypeError, ValueError) as error:
            self._fault(name, f"says not what an attestation says: {type(error).__name__}: {error}")
            return
        if attested is not None and place != f"{told.model}/{told.version}/":
            self._fault(name, f"is of {told.model} {told.version}")
        self._only(place, {ATTESTATION, *documents}, set())
        for document, (digest, size) in sorted(documents.items()):
            self._document(f"{place}{document}", digest, size)
        held = self._registry is not None and self._bundle(name, statement, told.bundle)
        self.found.versions.append(replace(told, bytes_verified=held))

    def _signed(self, name: str, wanted: str, digest: str | None = None) -> Statement | None:
        """The statement of a file; None, and a fault, where it does not hold."""
        data = self._read(name, _MOST_BYTES)
        if data is None:
            return None
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            self._fault(name, f"is another one than {MANIFEST} lists")
            return None
        try:
            statement, self._by = read_statement(data, self._keys, wanted)
        except IntegrityError as error:
            self._fault(name, str(error))
            return None
        if wanted == EVIDENCE_TYPE:
            self.found.signer = str(self._by)
        return statement

    def _document(self, name: str, digest: str, size: int) -> None:
        data = self._read(name, size)
        if data is None:
            return
        if len(data) != size:
            more = "more" if len(data) > size else "less"
            self._fault(name, f"was changed: it holds {more} than the {size:,} bytes that were signed")
        elif hashlib.sha256(data).hexdigest() != digest:
            self._fault(name, "was changed: it is not what was signed")

    def _bundle(self, name: str, statement: Statement, digest: str) -> bool:
        """Whether the registry holds the bundle as it was attested."""
        assert self._registry is not None
        try:
            bundle = LocalRegistry(self._registry).get(digest)
            if bundle_subjects(digest, bundle.manifest) != statement.subjects:
                raise IntegrityError(f"the bundle {digest} holds other files than were attested")
        except DriftError as error:
            self._fault(name, f"the model's bytes: {error}")
            return False
        return True

    def _read(self, name: str, most: int) -> bytes | None:
        """A regular file of at most so many bytes, and one more; no link is followed, and nothing else is opened."""
        try:
            handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise IsADirectoryError
                self.found.files += 1
                return file.read(most + 1)
        except FileNotFoundError:
            self._fault(name, "is missing")
        except OSError as error:
            link = (self._path / name).is_symlink()
            odd = isinstance(error, IsADirectoryError)
            self._fault(name, "is a link" if link else "is no file" if odd else f"cannot be read: {error.strerror}")
        return None

    def _only(self, place: str, files: set[str], folders: set[str]) -> None:
        """Faults for what lies in a folder and is not listed, and for a folder that is none."""
        try:
            entries = sorted(os.scandir(self._path / place), key=lambda entry: entry.name)
        except FileNotFoundError:
            return  # each file that it should hold is missing
        except OSError as error:
            self._fault(place or ".", f"cannot be read: {error.strerror}")
            return
        for entry in entries:
            if entry.name in folders and not entry.is_dir(follow_symlinks=False):
                self._fault(f"{place}{entry.name}", "is a link" if entry.is_symlink() else "is no folder")
            elif entry.name not in files | folders:
                self._fault(f"{place}{entry.name}", "is not listed by what was signed")

    def _fault(self, name: str, reason: str) -> None:
        self.found.faults.append(Fault(name, reason))


def _told(statement: Statement, by: PublicKey) -> Version:
    """Raises LookupError or TypeError where it is no attestation's."""
    told = statement.predicate
    names = {name: told[name] for name in ("model", "version", "bundle", "environment", "at", "expires")}
    return Version(**names, outcome=told["decision"]["outcome"], signer=str(by), key_id=by.key_id, bytes_verified=False)


def _documents(statement: Statement) -> dict[str, tuple[str, int]]:
    """Digest in hex and size of each document. Raises as `_told`, and ValueError for a name that is a path."""
    found = {name: (entry["sha256"], int(entry["size"])) for name, entry in statement.predicate["documents"].items()}
    if paths := [name for name in found if "/" in name or name in ("", ".", "..")]:
        raise ValueError(f"{paths[0]!r} names no file of the folder")
    if odd := [size for _, size in found.values() if not 0 <= size <= _MOST_DOCUMENT]:
        raise ValueError(f"{odd[0]:.3g} bytes is of no file")
    return found
