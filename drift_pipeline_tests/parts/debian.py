"""Debian's packages, fetched by apt-get and unpacked into the cache: nothing is installed and no service is started."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError


def unpacked(part: str, wanted: Mapping[str, str], folder: Path) -> None:
    """The files of packages (name: how its version begins) in the folder. Raises MissingError."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise MissingError(f"no apt-get here, which fetches {part}: put its programs on the PATH")
    with tempfile.TemporaryDirectory(prefix="drift-debian-") as temporary:
        for command in (["download", *wanted], ["update"], ["download", *wanted]):
            got = subprocess.run(
                ["apt-get", "-qq", *command], cwd=temporary, capture_output=True, text=True, check=False
            )
            files = {path.name.partition("_")[0]: path for path in Path(temporary).glob("*.deb")}
            if files.keys() >= wanted.keys():
                break
        else:
            raise MissingError(f"apt-get has no {' '.join(wanted)}: {got.stderr.strip()[-1000:]}")
        for name, version in wanted.items():
            if not files[name].name.startswith(f"{name}_{version}"):
                raise MissingError(f"apt-get has {files[name].name}, and {version} is wanted (pins.toml)")
            subprocess.run(["dpkg", "-x", str(files[name]), str(folder)], check=True)
