"""The world of the metrics' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline_tests.observability.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.store.close()
