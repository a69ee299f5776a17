"""Gate: has the environment that trained a known vulnerability? pip-audit asks an OSV database; its exit code is no
answer, its JSON is.

Each run first asks for a pin that is known to be vulnerable: a scanner, or a database, that does not report it would
not report anything else either.
"""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY, format_duration
from drift_pipeline.training.results import GateResult, Outcome, unknown

NAME = "vulnerabilities"
KNOWN = ("requests", "2.19.1")  # CVE-2018-18074, in every copy of the database
OWN = "drift-pipeline"  # a wheel of one's own is in no database
DEADLINE_S = 600.0
TIMEOUT_S = 15
MOST_TOLD = 10
NOT_ASKED = "the vulnerability scan of the environment is off (DRIFT_SCAN)"


@dataclass(frozen=True)
class Scan:
    """How the environment is scanned: `url` is a mirror's query address, "" the public database's.

    A mirror says how old its copy is in the header Last-Modified of its answers; older than `stale` is no answer.
    """

    url: str = ""
    stale: timedelta = 7 * DAY
    installed: Sequence[tuple[str, str]] | None = field(default=None)  # None = this environment


def vulnerabilities_gate(scan: Scan, now: datetime) -> GateResult:
    """FAIL where a vulnerability is reported. UNKNOWN: the database cannot be reached or is stale, the known one is not
    reported, a package was skipped, or the answer cannot be read."""
    facts: dict[str, Any] = {"tool": f"pip-audit {version('pip-audit')}", "database": scan.url or "public"}
    try:
        facts["database_at"] = _database_at(scan, now)
        if not _reported(_audited(scan, [KNOWN])):
            return unknown(
                NAME, f"self-test: {'=='.join(KNOWN)} is known to be vulnerable, and not reported", 0.0, facts
            )
        installed = scan.installed if scan.installed is not None else _installed()
        answer = _audited(scan, installed)
    except _NoAnswerError as error:
        return unknown(NAME, str(error)[:500], 0.0, facts)
    facts["packages"] = len(installed)
    told = {(entry["name"], entry.get("version")) for entry in answer}
    missing = [name for name, pin in installed if (_canonical(name), pin) not in {(_canonical(n), v) for n, v in told}]
    if missing or any("skip_reason" in entry for entry in answer):
        skipped = missing or [str(entry["name"]) for entry in answer if "skip_reason" in entry]
        return unknown(NAME, f"skipped: {', '.join(skipped[:MOST_TOLD])}", 0.0, facts)
    found = _reported(answer)
    if found:
        more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        reason = f"{len(found)} known vulnerabilities: {', '.join(found[:MOST_TOLD])}{more}"
        return GateResult(NAME, Outcome.FAIL, float(len(found)), None, 0.0, reason, facts)
    return GateResult(NAME, Outcome.PASS, 0.0, None, 0.0, f"none is known of {len(installed)} packages", facts)


class _NoAnswerError(Exception):
    """Why the question has no answer."""


def _database_at(scan: Scan, now: datetime) -> str | None:
    """As of when the database is; None of the public one, which is live. Raises _NoAnswerError: not told, or stale."""
    if not scan.url:
        return None
    query = {"package": {"name": KNOWN[0], "ecosystem": "PyPI"}, "version": KNOWN[1]}
    request = urllib.request.Request(scan.url, json.dumps(query).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            told = answer.headers.get("Last-Modified")
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise _NoAnswerError(f"the database {scan.url} cannot be reached: {error}") from error
    try:
        at = parsedate_to_datetime(told or "").astimezone(UTC)
    except ValueError as error:
        raise _NoAnswerError(f"{scan.url} does not say how old its copy of the database is (Last-Modified)") from error
    if now - at > scan.stale:
        limit = f"{format_duration(scan.stale)} (DRIFT_SCAN_STALE_DAYS)"
        raise _NoAnswerError(f"the database {scan.url} is stale: of {at:%Y-%m-%d}, older than {limit}")
    return at.isoformat()


def _audited(scan: Scan, pins: Sequence[tuple[str, str]]) -> list[Mapping[str, Any]]:
    """What pip-audit says of exactly these pins, nothing resolved and nothing cached. Raises _NoAnswerError."""
    with tempfile.TemporaryDirectory(prefix="drift-scan-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{name}=={pin}\n" for name, pin in pins))
        address = ["--osv-url", scan.url] if scan.url else []
        exactly = ["-r", str(wanted), "--no-deps", "--disable-pip", "-S", "-s", "osv", *address]
        quiet = ["-f", "json", "--progress-spinner", "off", "--cache-dir", folder, "--timeout", str(TIMEOUT_S)]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pip_audit", *exactly, *quiet],
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE_S,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise _NoAnswerError(f"pip-audit did not end in {DEADLINE_S:g} s") from error
    try:
        found = json.loads(ended.stdout)["dependencies"]
        if not all(isinstance(one["name"], str) and ("vulns" in one or "skip_reason" in one) for one in found):
            raise ValueError("a dependency without vulns")
    except (ValueError, LookupError, TypeError) as error:
        last = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
        raise _NoAnswerError(f"pip-audit gave no answer (exit code {ended.returncode}): {last}") from error
    return list(found)


def _installed() -> list[tuple[str, str]]:
    """The distributions of this environment, but our own."""
    found = {(_canonical(one.metadata["Name"]), one.version) for one in distributions() if one.metadata["Name"]}
    return sorted(pin for pin in found if pin[0] != OWN)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _reported(answer: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{one['name']} {one.get('version')} {vuln['id']}" for one in answer for vuln in one.get("vulns", ())]
