"""Programs that Go builds from its module proxy, into the cache, through a go.mod and go.sum that are kept here."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from drift_pipeline_tests.parts.cache import HERE, MissingError, cache, installed


def built(part: str, package: str) -> Path:
    """The part's program, in the cache; the package is built in `go/<part>` where it is not there yet.

    Raises:
        MissingError: there is no Go, or it does not build.
    """
    folder = installed(part)
    program = folder / part
    if program.is_file():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    go(part, ["build", "-trimpath", "-ldflags", "-s -w", "-o", f"{program}.part", package], HERE / "go" / part)
    Path(f"{program}.part").rename(program)
    return program


def go(part: str, arguments: Sequence[str], folder: Path) -> str:
    """What the command says, run there, with modules and what it compiles in the cache.

    Raises:
        MissingError: there is no Go, or the command fails.
    """
    if shutil.which("go") is None:
        raise MissingError(f"no go on the PATH, which builds {part}")
    places = {"GOPATH": cache() / "go", "GOCACHE": cache() / "go-build", "CGO_ENABLED": 0}
    flags = {"GOFLAGS": "-buildvcs=false -modcacherw -mod=readonly"}
    ran = subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env={**os.environ, **{name: str(value) for name, value in places.items()}, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise MissingError(f"{part} cannot be built: {ran.stderr.strip()[-1000:]}")
    return ran.stdout
