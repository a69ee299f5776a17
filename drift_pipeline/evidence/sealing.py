"""Sealing: what was written of a version is signed, named by the audit, and put in its place, all of it or nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from drift_pipeline.control.signing import Signer
from drift_pipeline.control.statement import Statement, sign_statement
from drift_pipeline.control.store import ControlStore, Entry, Put
from drift_pipeline.control.trust import home_signer
from drift_pipeline.errors import ConflictError
from drift_pipeline.evidence.attestation import ATTESTATION, MANIFEST, attest_evidence
from drift_pipeline.evidence.placing import ALL, FILE, file_key, let_wait, put_digests, put_in_place
from drift_pipeline.settings import Settings

_TRIES = 10  # at a manifest that other versions' documents are put into at the same time


def seal(
    settings: Settings, store: ControlStore, documents: Mapping[str, bytes], statement: Statement
) -> dict[str, str]:
    """Put the documents of one version, with the statement signed, into its folder, and nothing else; their digests.

    The manifest of all versions is signed anew with them. Whatever the process is killed at, the folder has what it had
    before, or the next `put_in_place` gives it these.

    Args:
        statement: of `attest_version`, about these documents.

    Raises:
        ConflictError: another process sealed some meanwhile; nothing is changed.
        InputError, IntegrityError: the home's key cannot be read, or the files cannot be written.
    """
    told, signer = statement.predicate, home_signer(settings, store)
    folder = settings.evidence / told["model"] / told["version"]
    files = let_wait(settings.home, folder, {**documents, ATTESTATION: sign_statement(statement, signer)})
    _note(settings, store, signer, folder, files, told["at"])
    put_in_place(settings.home, store)
    return {path.name: digest for path, digest in files.items()}


def _note(
    settings: Settings, store: ControlStore, signer: Signer, folder: Path, files: Mapping[Path, str], at: str
) -> None:
    """One record of the audit names all of it."""
    model, puts = folder.parent.name, put_digests(store, settings.home, folder.parent.name, files)
    if not puts:
        return
    gone = [*_gone(store, settings.home, folder, files)]
    told = {path.name: digest for path, digest in files.items()}
    entry = Entry("evidence", "documents.written", model, details={"version": folder.name, "files": told})
    for tries_left in reversed(range(_TRIES)):
        attested = {f"{model}/{folder.name}": files[folder / ATTESTATION]}
        try:
            store.commit(entry, [*puts, *gone, _manifest(settings, store, signer, attested, at)])
            return
        except ConflictError:  # of another version's documents, which the manifest is signed anew with, or of these
            if not tries_left or put_digests(store, settings.home, model, files) != puts:
                raise


def _manifest(settings: Settings, store: ControlStore, signer: Signer, attested: Mapping[str, str], at: str) -> Put:
    """The manifest waits for its record; returns the state that is to name it."""
    key = file_key(settings.home, ALL, settings.evidence / MANIFEST)
    before = store.get(FILE, key)  # before what it lists is read
    page = sign_statement(attest_evidence({**_attested(store), **attested}, at, store.head()), signer)
    (digest,) = let_wait(settings.home, settings.evidence, {MANIFEST: page}).values()
    return Put(FILE, key, {"digest": digest}, before.generation if before else 0)


def _attested(store: ControlStore) -> dict[str, str]:
    """The digest of each version's attestation, by model/version."""
    found = store.find(FILE, ending=f"/{ATTESTATION}")
    return {"/".join(record.key.split("/")[-3:-1]): str(record.body["digest"]) for record in found}


def _gone(store: ControlStore, home: Path, folder: Path, files: Mapping[Path, str]) -> Iterator[Put]:
    """State that withdraws what was written of the version before, and is not any more."""
    kept = {file_key(home, folder.parent.name, path) for path in files}
    for record in store.find(FILE, f"{file_key(home, folder.parent.name, folder)}/"):
        if record.body["digest"] is not None and record.key not in kept:
            yield Put(FILE, record.key, {"digest": None}, record.generation)
