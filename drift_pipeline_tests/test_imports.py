"""The command starts light: what takes seconds to import is imported by the work that needs it."""

import json
import subprocess
import sys
from typing import Any

import pytest

MODULES = 200  # most of them the standard library's
HEAVY = (
    "dagster",
    "evidently",
    "fairlearn",
    "great_expectations",
    "kubernetes",
    "optuna",
    "pandas",
    "scipy.stats",
    "skops",
    "sklearn",
    "wandb",
)
SCRIPT = f"""
import json, sys
import drift_pipeline.cli
print(json.dumps({{"modules": len(sys.modules), "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    """What a fresh interpreter tells of importing the command."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout)
    return told


def test_the_command_imports_nothing_heavy(started: dict[str, Any]) -> None:
    assert started["heavy"] == []


def test_the_command_imports_little(started: dict[str, Any]) -> None:
    assert started["modules"] < MODULES
