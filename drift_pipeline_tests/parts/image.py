"""The image's root file system without Docker: what deploy/Dockerfile says, done by debootstrap, chroot and pip.

    python -m drift_pipeline_tests.parts.image FOLDER

Packages, lock, copied files, variables and user are read from deploy/Dockerfile, so that both install the same; Python
is Debian's of the same minor version. Wants root, a Debian with debootstrap, and both package indexes: for the base,
which is all but the product itself.
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
    command: str
    folder: str


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
    said = {word: rest for word, rest in last if word in ("ENV", "USER", "ENTRYPOINT", "CMD", "WORKDIR")}
    pairs = [rest.split(" ") for word, rest in last if word == "COPY" and not rest.startswith("--from=")]
    return Image(
        python=base[1],
        debian=base[2],
        packages=tuple(installed[0].removeprefix(_INSTALL).split(" ")),
        environment=dict(pair.split("=", 1) for pair in said["ENV"].split(" ")),
        user=said["USER"],
        copied=tuple((source, target) for source, target in pairs),
        entrypoint=said["ENTRYPOINT"],
        command=said["CMD"],
        folder=said["WORKDIR"],
    )


def install(folder: Path) -> Path:
    """The root file system in a folder that is absent or empty. Raises MissingError."""
    base(folder)
    product(folder)
    return folder


def base(folder: Path) -> None:
    """All that is not the product's own: Debian, Python, what is locked, user and home. Raises MissingError."""
    image = described(DOCKERFILE.read_text(encoding="utf-8"))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != image.python:
        raise MissingError(f"the image has Python {image.python}, and wheels are fetched by this one, {here}")
    if shutil.which("debootstrap") is None:
        raise MissingError("no debootstrap; as root: apt-get install debootstrap")
    if folder.exists() and any(folder.iterdir()):
        raise MissingError(f"{folder} is not empty; name another folder")
    included = ",".join((*_VENV, *image.packages))
    alone = ["unshare", "--mount"]  # what debootstrap mounts is gone with it, whatever ends it
    _run([*alone, "debootstrap", "--variant=minbase", f"--include={included}", image.debian, folder])
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels]
    _run([*pip, "--require-hashes", "-r", TOP / "deploy" / "requirements.lock"])
    _run(["chroot", folder, "python3", "-m", "venv", "/opt/drift"])
    names = [f"/wheels/{wheel.name}" for wheel in sorted(wheels.glob("*.whl"))]
    _run(["chroot", folder, "/opt/drift/bin/pip", "install", "-q", "--no-index", "--no-deps", *names])
    shutil.rmtree(wheels)
    home, (uid, gid) = folder / image.environment["DRIFT_HOME"].lstrip("/"), image.user.split(":")
    home.mkdir(parents=True)
    shutil.chown(home, int(uid), int(gid))
    with (folder / "etc" / "passwd").open("a", encoding="utf-8") as users:
        users.write(f"drift:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n")


def product(folder: Path) -> None:
    """The product itself, and what is copied beside it, onto a base; needs no index. Raises MissingError."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    source = folder / "src"
    for name in sources(text):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(TOP / name, source / name)
    pip = ["/opt/drift/bin/pip", "install", "-q", "--no-cache-dir", "--no-deps", "--no-index", "--no-build-isolation"]
    _run(["chroot", folder, *pip, "/src"])
    shutil.rmtree(source)
    for origin, target in described(text).copied:
        (folder / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / origin, folder / target.lstrip("/"))


def sources(text: str) -> list[str]:
    """What of the checkout the product is installed from: what the first stage copies, beside the lock."""
    copied = [rest.split(" ")[:-1] for word, rest in instructions(text) if word == "COPY" and "--from=" not in rest]
    kept = {source for source, _ in described(text).copied} | {"deploy/requirements.lock"}
    return [name for names in copied for name in names if name not in kept]


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
