"""The command starts light: what takes seconds to import is imported by the work that needs it."""

import json
import subprocess
import sys
from typing import Any

import pytest

CPU_SECONDS = 1.5
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
import json, sys, time
import drift_pipeline.cli
print(json.dumps({{"cpu": time.process_time(), "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    """What a fresh interpreter tells of importing the command; the second of two, so that bytecode is there."""
    for _ in range(2):
        found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout)
    return told


def test_the_command_imports_nothing_heavy(started: dict[str, Any]) -> None:
    assert started["heavy"] == []


def test_the_command_starts_in_time(started: dict[str, Any]) -> None:
    assert started["cpu"] < CPU_SECONDS
