"""The image's root file system without Docker: what deploy/Dockerfile says, done by debootstrap, chroot and pip.

    python -m drift_pipeline_tests.parts.image FOLDER

Packages, lock, copied files, variables and user are read from deploy/Dockerfile, so that both install the same; Python
is Debian's of the same minor version. Wants root, a Debian with debootstrap, and both package indexes.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drift_pipeline_tests.parts.cache import MissingError

TOP = Path(__file__).parents[2]
DOCKERFILE = TOP / "deploy" / "Dockerfile"
_VENV = ("python3", "python3-venv")  # that the base image has and minbase has not
_INSTALL = "apt-get install -y --no-install-recommends "


@dataclass(frozen=True)
class Image:
    """`copied` are (source in the checkout, target in the image) of the last stage."""

    python: str
    debian: str
    packages: tuple[str, ...]
    environment: dict[str, str]
    user: str
    copied: tuple[tuple[str, str], ...]
    entrypoint: str


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments), each on one line."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [" ".join(line.split()) for line in kept.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def described(text: str) -> Image:
    """The image of a Dockerfile. Raises ValueError where its last stage is not as the one of deploy/."""
    steps = instructions(text)
    begin = max(at for at, (word, _) in enumerate(steps) if word == "FROM")
    last = steps[begin:]
    base = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-([a-z]+)", last[0][1])
    (run,) = (rest for word, rest in last if word == "RUN")
    installed = [part for part in run.split(" && ") if part.startswith(_INSTALL)]
    if base is None or len(installed) != 1:
        raise ValueError("the last stage is FROM python:3.X.Y-slim-DEBIAN and has one apt-get install")
    said = {word: rest for word, rest in last if word in ("ENV", "USER", "ENTRYPOINT")}
    pairs = [rest.split(" ") for word, rest in last if word == "COPY" and not rest.startswith("--from=")]
    return Image(
        python=base[1],
        debian=base[2],
        packages=tuple(installed[0].removeprefix(_INSTALL).split(" ")),
        environment=dict(pair.split("=", 1) for pair in said["ENV"].split(" ")),
        user=said["USER"],
        copied=tuple((source, target) for source, target in pairs),
        entrypoint=said["ENTRYPOINT"],
    )


def install(folder: Path) -> Path:
    """The root file system in a folder that is absent or empty. Raises MissingError."""
    image = described(DOCKERFILE.read_text(encoding="utf-8"))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != image.python:
        raise MissingError(f"the image has Python {image.python}, and wheels are fetched by this one, {here}")
    if shutil.which("debootstrap") is None:
        raise MissingError("no debootstrap; as root: apt-get install debootstrap")
    if folder.exists() and any(folder.iterdir()):
        raise MissingError(f"{folder} is not empty; name another folder")
    included = ",".join((*_VENV, *image.packages))
    _run(["debootstrap", "--variant=minbase", f"--include={included}", image.debian, folder])
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels]
    _run([*pip, "--require-hashes", "-r", TOP / "deploy" / "requirements.lock"])
    _run([*pip, TOP])
    _run(["chroot", folder, "python3", "-m", "venv", "/opt/drift"])
    names = [f"/wheels/{wheel.name}" for wheel in sorted(wheels.glob("*.whl"))]
    _run(["chroot", folder, "/opt/drift/bin/pip", "install", "-q", "--no-index", "--no-deps", *names])
    shutil.rmtree(wheels)
    for source, target in image.copied:
        (folder / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / source, folder / target.lstrip("/"))
    home, (uid, gid) = folder / image.environment["DRIFT_HOME"].lstrip("/"), image.user.split(":")
    home.mkdir(parents=True)
    shutil.chown(home, int(uid), int(gid))
    with (folder / "etc" / "passwd").open("a", encoding="utf-8") as users:
        users.write(f"drift:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n")
    return folder


def _run(command: Sequence[Any]) -> None:
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise MissingError(
            f"{command[0]} ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-500:].strip()}"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m drift_pipeline_tests.parts.image FOLDER")
    try:
        print(install(Path(sys.argv[1]).absolute()))
    except MissingError as error:
        sys.exit(str(error))
