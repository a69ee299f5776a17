"""What the GitOps repository holds, by path: what the audit names, and what is made from the control store alone."""

import re
from contextlib import suppress
from pathlib import Path

from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import Record
from drift_pipeline.errors import DriftError, IntegrityError
from drift_pipeline.evidence.champions import derived
from drift_pipeline.evidence.placing import FILE
from drift_pipeline.policy.engines import read_bundle
from drift_pipeline.settings import Settings

_CHECKPOINT = re.compile(r"(\d{12})\.dsse\.json")


def content(settings: Settings, store: ControlReader, covered: int, size: int) -> dict[str, bytes | None]:
    """What the audit names, as it lies there; None for what was withdrawn. What was changed is not committed.

    Args:
        covered, size: the first and the last checkpoint that is wanted, by how many records they count.
    """
    found: dict[str, bytes | None] = {}
    for row in store.find(FILE):
        name = row.key.partition("/gitops/")[2]
        data = _bytes(settings.gitops / name) if name else None
        if name and row.body["digest"] in (None, sha256(data or b"")) and _fits(store, row):
            found[name] = data if row.body["digest"] else None
    for path in settings.gitops.glob("specs/*.json"):
        if sha256(data := _bytes(path) or b"") == f"sha256:{path.stem}":
            found[f"specs/{path.name}"] = data
    for folder in settings.gitops.glob("policies/*"):
        with suppress(DriftError):
            if (rules := read_bundle(folder)).digest == f"sha256:{folder.name}":
                found |= {f"policies/{folder.name}/{name}": text.encode() for name, text in rules.modules.items()}
    for path in settings.checkpoints.glob("*"):
        if (match := _CHECKPOINT.fullmatch(path.name)) and covered < int(match[1]) <= size:
            found[f"checkpoints/{path.name}"] = _bytes(path)
    return found | {name: data for name, (_, data) in derived(store).items()}


def _fits(store: ControlReader, row: Record) -> bool:
    with suppress(IntegrityError):
        store.attest(row)
        return True
    return False


def _bytes(path: Path) -> bytes | None:
    """None also of what is no plain file: a pipe would never end."""
    with suppress(OSError):
        return path.read_bytes() if path.is_file() else None
    return None
