"""Gates of what is stored: the types that its model file makes, and no secret in any of its files.

No finding is ever told by its value: neither result nor log may become the place where a secret leaks.
"""

import io
import json
import re
import socket
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from drift_pipeline.errors import IntegrityError
from drift_pipeline.registry.archive import MOST_BYTES
from drift_pipeline.registry.bundle import ALLOWED_TYPES, untrusted_types
from drift_pipeline.training.results import GateResult, Outcome, unknown

ALLOWED, SECRETS = "allowed_types", "secrets"
NAMED_APART = ("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector")  # digests and levels look so
OF_SOURCES = ("KeywordDetector",)  # a bundle's JSON has keys of its own
LET_PASS = "detect_secrets.filters.allowlist.is_line_allowlisted"
FILTERS = (
    "detect_secrets.filters.heuristic.is_sequential_string",
    "detect_secrets.filters.heuristic.is_templated_secret",
    "detect_secrets.filters.heuristic.is_not_alphanumeric_string",
)  # none that asks a network whether a secret is one
LEAST_TEXT = 12  # shorter than any secret that a pattern knows
CHUNK, OVERLAP = 4096, 512
_TEXT = re.compile(rb"[\t -~]{12,}")
_PLAIN = re.compile(r"[A-Za-z_]*[\d.]*(npy)?|[a-z_]+(\.[A-Za-z_0-9]+)*")  # names of arrays and of code
MOST_TOLD = 10


def allowed_types_gate(models: Mapping[str, bytes]) -> GateResult:
    """Do the model's files, one a step, make types of the registry's list alone, beside those that skops itself
    trusts?"""
    facts = {"tool": f"skops {version('skops')}"}
    try:
        found = frozenset[str]().union(*map(untrusted_types, models.values()))
    except Exception as error:  # whatever zipfile, json and skops raise on bytes that are no model
        return unknown(ALLOWED, f"the model cannot be read: {type(error).__name__}: {error}"[:300], 0.0, facts)
    refused = sorted(found - ALLOWED_TYPES)
    outcome = Outcome.FAIL if refused else Outcome.PASS
    told = f"not allowed: {', '.join(refused)}" if refused else "all of the registry's list"
    reason = f"{len(found)} types beside those that skops trusts, {told}"
    return GateResult(ALLOWED, outcome, float(len(refused)), None, 0.0, reason, {**facts, "types": sorted(found)})


def secrets_gate(files: Mapping[str, bytes]) -> GateResult:
    """Is there a secret in any file of the bundle, archives unpacked, by the patterns of detect-secrets?

    In source a line with `# pragma: allowlist secret` is let pass.
    """
    facts = {"tool": f"detect-secrets {version('detect-secrets')}", "files": sorted(files)}
    try:
        found = [f"{place}: {kind}" for name, data in sorted(files.items()) for place, kind in _found(name, data)]
    except (IntegrityError, zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, EOFError) as error:
        return unknown(SECRETS, f"a file cannot be unpacked: {error}"[:300], 0.0, facts)
    if not found:
        reason = f"none in {', '.join(sorted(files))}"
        return GateResult(SECRETS, Outcome.PASS, 0.0, None, 0.0, reason, facts)
    more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    reason = f"{'; '.join(found[:MOST_TOLD])}{more}; take it out, let it be revoked, and train again"
    return GateResult(SECRETS, Outcome.FAIL, float(len(found)), None, 0.0, reason, facts)


def _found(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(place, kind) of each secret of a file: `train.py:3`, `model.skops/schema.json`."""
    if name.endswith(".py"):
        lines = data.decode(errors="replace").splitlines()
        yield from _scanned(((f"{name}:{number}", line) for number, line in enumerate(lines, 1)), OF_SOURCES)
    else:
        texts = {text: place for place, part in _unpacked(name, data) for text in _texts(part)}
        yield from _scanned((place, text) for text, place in texts.items())


def _unpacked(name: str, data: bytes, deep: int = 2) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, and of an archive in it; another file as it is. Raises IntegrityError: too large."""
    if not deep or not data.startswith(b"PK"):
        yield name, data
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:  # and no more than that is ever read
            raise IntegrityError(f"{name} takes more than {MOST_BYTES:,} bytes")
        for entry in archive.infolist():
            yield from _unpacked(f"{name}/{entry.filename}", archive.read(entry), deep - 1)


def _scanned(texts: Iterable[tuple[str, str]], more: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    _import_quietly()
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    plugins: Mapping[str, type] = get_mapping_from_secret_type_to_class()
    known = {plugin.__name__ for plugin in plugins.values()}
    filters = (*FILTERS, LET_PASS) if more else FILTERS
    wanted = sorted(known - {*NAMED_APART, *OF_SOURCES} | {*more})
    used = {"plugins_used": [{"name": name} for name in wanted], "filters_used": [{"path": path} for path in filters]}
    with transient_settings(used):
        for place, text in texts:
            chunks = (text[at : at + CHUNK] for at in range(0, max(len(text), 1), CHUNK - OVERLAP))
            yield from {(place, secret.type) for chunk in chunks for secret in scan_line(chunk)}


def _texts(data: bytes) -> Iterator[str]:
    """The texts in a file's bytes that are long enough: of JSON its own, each once; else runs of printable signs."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        found = {run.decode() for run in _TEXT.findall(data)}
    else:
        found = set(_strings(document))
    return (text for text in found if len(text) >= LEAST_TEXT and not _PLAIN.fullmatch(text))


def _strings(document: object) -> Iterator[str]:
    left = [document]
    while left:
        part = left.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            left += part


def _import_quietly() -> None:
    """detect-secrets imports requests, whose urllib3 binds a socket to learn whether there is IPv6: who scans a bundle
    opens none. Without that look urllib3 tries what a name resolves to, IPv6 as well."""
    if "urllib3" in sys.modules:
        return
    known, socket.has_ipv6 = socket.has_ipv6, False
    try:
        import urllib3.util.connection
    finally:
        socket.has_ipv6 = known
    urllib3.util.connection.HAS_IPV6 = known
