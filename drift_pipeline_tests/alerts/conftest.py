"""The world of the alerts' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline_tests.alerts.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.store.close()
