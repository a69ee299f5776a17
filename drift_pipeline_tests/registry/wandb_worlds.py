"""A home that is mirrored to W&B: a copy of a replay's, offline or with the fake service."""

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.mirroring import deliver_mirror, told
from drift_pipeline.settings import Settings
from drift_pipeline_tests.fakes.wandb_server import ENTITY

KEY = "0123456789abcdef" * 2 + "01234567"
LONG = 100.0  # seconds that a delivery of tests may take


def offline(home: Path, **more: Any) -> Settings:
    return Settings(home=home, database="", registry_kind="wandb", **more)


def online(home: Path, url: str, **more: Any) -> Settings:
    return offline(home, wandb_api_key=KEY, wandb_base_url=url, wandb_entity=ENTITY, **more)


def delivered(settings: Settings, **more: Any) -> list[str]:
    """What there is to say after one delivery."""
    with closing(ControlStore(settings.database_url, system_clock())) as store:
        deliver_mirror(settings, store, **{"seconds": LONG, "at_once": True, **more})
        return told(settings, store)


def runs_of(home: Path) -> list[Path]:
    return sorted((home / "wandb").glob("offline-run-*"))


def files_of(home: Path, room: str = "registry") -> Mapping[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((home / room).rglob("*")) if path.is_file()}


def cores() -> list[int]:
    """Processes of wandb-core that this one, or one that it started, has left: they have the test's own mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"wandb-core" in (folder / "cmdline").read_bytes():
                environment = (folder / "environ").read_bytes()
                if f"DRIFT_TEST_MARK={os.getpid()}".encode() in environment:
                    found.append(int(folder.name))
        except OSError:  # it is over
            continue
    return found
