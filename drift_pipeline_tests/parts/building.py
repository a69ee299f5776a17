"""Programs that Go builds from its module proxy, into the cache, through a go.mod and go.sum that are kept here.

A build that was broken off goes on where it was: Go keeps what it has compiled.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drift_pipeline_tests.parts.cache import HERE, MissingError, cache, installed

TELL_S = 15.0  # between two lines of progress
BUILD = ("build", "-v", "-trimpath")  # go_for_minutes shows how far it is


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


def whole(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made where it is not there: `make` fills one beside it, which then takes its place.

    Another process that makes the same is waited for. Raises MissingError where `make` does.
    """
    aside = folder.with_name(f"{folder.name}.part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder.name}: another process makes it; waiting", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            make(aside)
            aside.rename(folder)
    return folder


def module(part: str, name: str) -> Path:
    """The folder of a Go module's source, of the version in `go/<part>`. Raises MissingError."""
    told: dict[str, Any] = json.loads(go(part, ["mod", "download", "-json", name], HERE / "go" / part))
    return Path(told["Dir"])


def go(part: str, arguments: Sequence[str], folder: Path) -> str:
    """What the command says, run there, with modules and what it compiles in the cache.

    Raises:
        MissingError: there is no Go, or the command fails.
    """
    ran = subprocess.run(
        ["go", *arguments], cwd=folder, env=_environment(part), capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise MissingError(f"{part} cannot be built: {(ran.stderr or ran.stdout).strip()[-1000:]}")
    return ran.stdout


def go_for_minutes(part: str, arguments: Sequence[str], folder: Path) -> None:
    """As `go`, and tells on stderr how far it is: with -v, Go says each package that it has compiled."""
    begin = told = time.monotonic()
    count, last = 0, deque[str](maxlen=20)
    with subprocess.Popen(
        ["go", *arguments],
        cwd=folder,
        env=_environment(part),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        for line in running.stderr or ():
            count, now = count + 1, time.monotonic()
            last.append(line)
            if now - told > TELL_S:
                told = now
                print(f"{part}: {now - begin:.0f} s, line {count}: {line.strip()}", file=sys.stderr, flush=True)
    if running.returncode != 0:
        raise MissingError(f"{part} cannot be built: {''.join(last).strip()[-1000:]}")


def _environment(part: str) -> dict[str, str]:
    if shutil.which("go") is None:
        raise MissingError(f"no go on the PATH, which builds {part}")
    places = {"GOPATH": cache() / "go", "GOCACHE": cache() / "go-build", "CGO_ENABLED": 0}
    flags = {"GOFLAGS": "-buildvcs=false -modcacherw -mod=readonly"}
    return {**os.environ, **{name: str(value) for name, value in places.items()}, **flags}
