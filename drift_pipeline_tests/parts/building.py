"""Programs that Go builds from its module proxy, into the cache, through a go.mod and go.sum that are kept here."""

import os
import shutil
import subprocess
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
    if shutil.which("go") is None:
        raise MissingError(f"no go on the PATH, which builds {part}")
    folder.mkdir(parents=True, exist_ok=True)
    go = {"GOPATH": cache() / "go", "GOCACHE": cache() / "go-build", "CGO_ENABLED": 0}
    flags = {"GOFLAGS": "-buildvcs=false -modcacherw -mod=readonly"}
    ran = subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{program}.part", package],
        cwd=HERE / "go" / part,
        env={**os.environ, **{name: str(value) for name, value in go.items()}, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise MissingError(f"{part} cannot be built: {ran.stderr.strip()[-1000:]}")
    Path(f"{program}.part").rename(program)
    return program
