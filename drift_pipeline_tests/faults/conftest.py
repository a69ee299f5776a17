"""A home is adopted once a worker, and each test has a copy of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.settings import Settings
from drift_pipeline_tests.faults import homes
from drift_pipeline_tests.faults.world import Live, Process, Site


@pytest.fixture(scope="session")
def just_adopted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Only copied."""
    made = Site(tmp_path_factory.mktemp("faults"), seed=3, hours=2, reference_days=2)
    yield made
    made.close()


def lived(folder: Path, like: Site, *, inline: bool) -> Iterator[Live]:
    """What goes on from a copy of a home."""
    site = Site(folder, hours=2, reference_days=2, like=like)
    kept = Process(site, inline=inline)
    yield Live(site, kept)
    kept.store.close()
    site.close()


@pytest.fixture
def live(tmp_path: Path, just_adopted: Site) -> Iterator[Live]:
    yield from lived(tmp_path, just_adopted, inline=False)


@pytest.fixture(scope="session")
def just_proven(tmp_path_factory: pytest.TempPathFactory, just_adopted: Site) -> Iterator[Site]:
    """Half an hour later, with a candidate that may be rolled out; only copied."""
    site = Site(tmp_path_factory.mktemp("proven"), hours=2, reference_days=2, like=just_adopted)
    live = Live(site, Process(site, inline=False))
    live.minutes(30, 5 * MINUTE)
    decision, _ = operating.retrain(live.kept.loop, "ada", "it is time")
    trained = live.kept.loop.train(decision)
    assert trained is not None
    assert trained.accepted
    live.kept.store.close()
    yield site
    site.close()


@pytest.fixture
def proven(tmp_path: Path, just_proven: Site) -> Iterator[Live]:
    yield from lived(tmp_path, just_proven, inline=True)


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only copied."""
    return homes.lived(tmp_path_factory.mktemp("lived")).home.parent


@pytest.fixture
def settings(lived_in: Path, tmp_path: Path) -> Settings:
    """A home with v2 in the shadow, approved by ada; `ada.pem` lies beside it."""
    shutil.copytree(lived_in, tmp_path / "site")
    return homes.settings_of(tmp_path / "site")
