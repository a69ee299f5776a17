"""Which parts there are, where they are installed, and which versions."""

import importlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
PINS: Mapping[str, Mapping[str, str]] = tomllib.loads((HERE / "pins.toml").read_text(encoding="utf-8"))
LONG = [part for part, pin in PINS.items() if "minutes" in pin]  # to install; the CI only looks for them


class MissingError(Exception):
    """The part is not here, or cannot be installed or started here; says why."""


def cache() -> Path:
    return Path(os.environ.get("DRIFT_PARTS") or Path.home() / ".cache" / "drift_pipeline" / "parts").absolute()


def pinned(part: str) -> Mapping[str, str]:
    """The part's entry in pins.toml."""
    return PINS[part]


def module_of(part: str) -> ModuleType:
    """What has its `find` and `install`; of a server also `running`, and the `VARIABLE` that names its url."""
    return importlib.import_module(f"drift_pipeline_tests.parts.{part}")


def installed(part: str) -> Path:
    """The folder of its pinned version in the cache, whether it is there or not."""
    return cache() / f"{part}-{pinned(part)['version'].removeprefix('v')}"
