"""Where parts are installed, and which versions."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent


class MissingError(Exception):
    """The part is not here, or cannot be installed or started here; says why."""


def cache() -> Path:
    return Path(os.environ.get("DRIFT_PARTS") or Path.home() / ".cache" / "drift_pipeline" / "parts").absolute()


def pinned(part: str) -> Mapping[str, str]:
    """The part's entry in pins.toml."""
    found: Mapping[str, str] = tomllib.loads((HERE / "pins.toml").read_text(encoding="utf-8"))[part]
    return found


def installed(part: str) -> Path:
    """The folder of its pinned version in the cache, whether it is there or not."""
    return cache() / f"{part}-{pinned(part)['version'].removeprefix('v')}"
