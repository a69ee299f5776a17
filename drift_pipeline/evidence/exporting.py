"""The audit as one file, for who has no home at hand: canonical JSON lines, the same for the same audit.

```
{"form":"drift-audit-export/1","head":"<hash>","records":<count>}
{"key":{"identity","label","public","revoked","role", ...}}    each key that was ever trusted, for people to see
{"checkpoint":{...DSSE...},"name":"<records counted>.dsse.json"}
{"hash":"<hash>","record":{...}}
```
Nothing in the file is trusted: who verifies it brings the keys, or says that the file's own will do.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from drift_pipeline.control.audit import AuditRecord, read_record
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.checkpoints import KEY, claimed_size, read_checkpoints
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.trust import read_store
from drift_pipeline.control.verifying import Cover, Verification, verify
from drift_pipeline.errors import DriftError, InputError, IntegrityError, UnavailableError
from drift_pipeline.files import read_plain, write_parts
from drift_pipeline.settings import Settings

FORM = "drift-audit-export/1"
Kept = tuple[str, Mapping[str, Any]]


def export_audit(settings: Settings, out: Path) -> int:
    """Write the home's audit to a file; how many records. The home is only read.

    Raises:
        InputError: there is no home, or the file cannot be written.
        IntegrityError: a record or a checkpoint cannot be read; nothing is written.
    """
    with closing(read_store(settings)) as store:
        head = store.head()
        if head is None:
            raise IntegrityError(f"{settings.home}: the audit has no record at all, which every home has")
        write_parts(out, (canonical(line) + b"\n" for line in _lines(settings, store, head)))
    return head.seq


def _lines(settings: Settings, store: ControlReader, head: AuditRecord) -> Iterator[Mapping[str, Any]]:
    yield {"form": FORM, "head": head.hash, "records": head.seq}
    for row in store.find(KEY):
        if row.seq <= head.seq:
            yield {"key": row.body}
    for name, envelope in read_checkpoints(settings.checkpoints):
        if isinstance(envelope, DriftError):
            raise IntegrityError(f"{settings.checkpoints / name}: {envelope}")
        if claimed_size(envelope) <= head.seq:
            yield {"checkpoint": envelope, "name": name}
    for record in store.records():
        if record.seq <= head.seq:
            yield {"hash": record.hash, "record": json.loads(record.body)}


def verify_export(path: Path, wanted: Cover, kept: Kept | None = None) -> Verification:
    """Check an exported audit from the file alone: its chain and checkpoints, not state and artefacts, which are not in
    it. Whose key signed it is for the caller to judge, by `signers`.

    Raises:
        InputError: it cannot be read, or is no export.
    """
    try:
        with path.open("rb") as file:
            return _verified(path, file, wanted, kept)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _verified(path: Path, lines: Iterator[bytes], wanted: Cover, kept: Kept | None) -> Verification:
    try:
        head = _line(next(lines, b""))
    except IntegrityError:
        head = {}
    if head.get("form") != FORM:
        raise InputError(f"{path}: is no audit that drift audit export wrote")
    checkpoints, first = list[tuple[str, Mapping[str, Any] | DriftError]](), list[bytes]()
    for line in lines:
        try:
            told = _line(line)
        except IntegrityError:  # named in its turn, as a record
            told = {}
        if isinstance(envelope := told.get("checkpoint"), dict):
            checkpoints.append((str(told.get("name")), envelope))
        elif "key" not in told:
            first = [line]
            break
    found = verify(_records(first, lines), checkpoints=checkpoints, wanted=wanted, kept=kept)
    if found.ok and (found.records, found.head) != (head.get("records"), head.get("head")):
        why = "it holds other records than its first line says"
        return replace(found, ok=False, first_bad=found.records + 1, reason=why)
    return found


def _records(first: list[bytes], lines: Iterator[bytes]) -> Iterator[AuditRecord]:
    for line in chain(first, lines):
        found = _line(line)
        if found.keys() != {"hash", "record"}:
            raise IntegrityError("it is no line of a record")
        yield read_record(canonical(found["record"]), str(found["hash"]))


def _line(line: bytes) -> dict[str, Any]:
    found = read_canonical(line.removesuffix(b"\n"))
    if not isinstance(found, dict):
        raise IntegrityError("a line is a JSON object")
    return found


def read_kept(path: Path) -> Kept:
    """A checkpoint that somebody kept. Raises InputError where the file holds none."""
    try:
        envelope = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint: {error}") from error
    if not isinstance(envelope, dict) or claimed_size(envelope) < 0:
        raise InputError(f"{path}: is no checkpoint, such as those in gitops/checkpoints")
    return str(path), envelope


def require_trusted(found: Verification, keys: Mapping[str, PublicKey], what: object) -> None:
    """Raises UnavailableError where none of the keys signed a checkpoint that can be believed."""
    if not found.signers & keys.keys():
        by = ", ".join(sorted(key_id[:16] for key_id in found.signers)) or "nobody"
        raise UnavailableError(f"{what}: holds together, but is signed by {by}, whom none of the trusted keys is")
