"""The SBOM of an environment: made once for each that a version was trained in, and kept by the environment's digest.

It takes seconds, so nobody makes it on the way: `drift docs --sbom` and Dagster's `audit_artifacts` do.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import UnavailableError
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings

MOST_SECONDS = 300


@cache
def environment_digest() -> str:
    """Of the names and versions of all that is installed beside this process."""
    return sha256(canonical(sorted({f"{found.name}=={found.version}" for found in distributions()})))


def kept_sbom(settings: Settings, *records: Mapping[str, Any] | None) -> bytes | None:
    """That of the environment which the first of the records names, if one was made; none of another one."""
    named = next((record["environment"] for record in records if record and record.get("environment")), None)
    path = _path(settings, named) if named else None
    return path.read_bytes() if path is not None and path.is_file() else None


def keep_sbom(settings: Settings) -> Path:
    """Make that of this environment, unless it is kept already (CycloneDX 1.6, the same bytes each time).

    Raises:
        UnavailableError: the tool ends with an error, or says nothing that can be read.
    """
    path = _path(settings, environment_digest())
    if path.is_file():
        return path
    options = ["--output-reproducible", "--no-validate", "--sv", "1.6", "--of", "JSON", "-o", "-"]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *options, sys.executable]
    try:
        made = subprocess.run(command, capture_output=True, check=True, timeout=MOST_SECONDS).stdout
        if not json.loads(made)["components"]:
            raise ValueError("no component")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise UnavailableError(f"cyclonedx_py made no SBOM of {sys.executable}: {error}") from error
    return write_whole(path, made)


def _path(settings: Settings, digest: str) -> Path:
    return settings.environments / f"{digest.removeprefix('sha256:')}.cdx.json"
