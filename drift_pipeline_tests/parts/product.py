"""The product's image as containerd takes it, without Docker and a registry: a base that is kept, and a layer on it.

The base is all that deploy/Dockerfile installs but the product, by `image`: it takes minutes, and changes with the
lock. The layer is the checkout's.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drift_pipeline_tests.parts import archive, containerd, image
from drift_pipeline_tests.parts.archive import Layer
from drift_pipeline_tests.parts.building import whole
from drift_pipeline_tests.parts.cache import MissingError, installed, pinned
from drift_pipeline_tests.parts.containerd import Containerd
from drift_pipeline_tests.parts.machine import wanted

REPOSITORY = "localhost/drift-pipeline"
LOCK = image.TOP / "deploy" / "requirements.lock"
_ON_IT = """mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4" && shift 4 && exec "$@" """
_INSTALL = (
    "import pathlib, sys; from drift_pipeline_tests.parts.image import product; product(pathlib.Path(sys.argv[1]))"
)


def find() -> Path:
    """The base's folder: `root`, its root file system. Raises MissingError."""
    if (ours := _folder()).is_dir():
        return ours
    how, minutes = "python -m drift_pipeline_tests.parts install product", pinned("product")["minutes"]
    raise MissingError(f"no base of deploy/Dockerfile and its lock: {how} makes it, {minutes} minutes")


def install() -> Path:
    """Make the base, where it is not in the cache, and have containerd take it. Raises MissingError.

    Needs root, containerd, debootstrap and both package indexes.
    """
    wanted()
    containerd.find()
    folder = whole(_folder(), lambda aside: image.base(aside / "root"))
    with containerd.running() as part:
        imported(part)
    return folder


def imported(node: Containerd) -> str:
    """The name of the image of this checkout, which containerd then has. Raises MissingError."""
    name = f"{REPOSITORY}:{_key()}"
    if name not in node.images():
        with tempfile.TemporaryDirectory(prefix="drift-image-", dir=_folder().parent) as temporary:
            folder, there = Path(temporary), node.blobs()
            layers = [_base(find(), folder, there), _own(find() / "root", folder)]
            archive.write(folder / "image.tar", name, layers, config(), there)
            node.take(folder / "image.tar")
    node.forget(f"{REPOSITORY}:", but=name)
    return name


def config() -> dict[str, Any]:
    """As the Dockerfile says it."""
    told = image.described(image.DOCKERFILE.read_text(encoding="utf-8"))
    return {
        "Env": [f"{name}={value}" for name, value in told.environment.items()],
        "Entrypoint": json.loads(told.entrypoint),
        "Cmd": json.loads(told.command),
        "User": told.user,
        "WorkingDir": told.folder,
    }


def _folder() -> Path:
    return installed("product").with_name(f"{installed('product').name}-{_hash([image.DOCKERFILE, LOCK])}")


def _key() -> str:
    """Of all that the image is made of."""
    text = image.DOCKERFILE.read_text(encoding="utf-8")
    copied = [source for source, _ in image.described(text).copied]
    places = [image.TOP / name for name in (*image.sources(text), *copied)]
    found = [path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return _hash([LOCK, image.DOCKERFILE, *(one for one in found if one.is_file() and "__pycache__" not in one.parts)])


def _hash(files: list[Path]) -> str:
    made = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        made.update(f"{file.relative_to(image.TOP)} {len(data)} ".encode() + data)
    return made.hexdigest()[:12]


def _base(base: Path, folder: Path, there: set[str]) -> Layer:
    """A tar of gigabytes, which is not made where containerd has it already."""
    known = base / "layer.json"
    if known.is_file():
        found = json.loads(known.read_text(encoding="utf-8"))
        if found["digest"] in there:
            return Layer(found["digest"], found["size"], folder / "base.tar")
    made = archive.layer(_tar(base / "root", folder / "base.tar"))
    known.write_text(
        json.dumps({name: value for name, value in asdict(made).items() if name != "file"}), encoding="utf-8"
    )
    return made


def _own(root: Path, folder: Path) -> Layer:
    """What the checkout's install adds to the base, as overlayfs keeps it apart."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for place in (upper, work, merged):
        place.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", _ON_IT, "sh", str(root), str(upper), str(work), str(merged)]
    given = {**os.environ, "PYTHONPATH": str(image.TOP)}
    install = [*mount, sys.executable, "-c", _INSTALL, str(merged)]
    ended = subprocess.run(install, env=given, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise MissingError(f"the checkout cannot be installed onto {root}: {ended.stderr.strip()[-1000:]}")
    if removed := [path for path in upper.rglob("*") if path.is_char_device()]:
        raise MissingError(f"installing the checkout removes {removed[0]} of the base, which a layer here cannot say")
    return archive.layer(_tar(upper, folder / "own.tar"))


def _tar(root: Path, out: Path) -> Path:
    command = ["tar", "--numeric-owner", "--sort=name", "-C", str(root), "-cf", str(out), "."]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise MissingError(f"no archive of {root}: {ended.stderr.strip()[-500:]}")
    return out
