"""Weights & Biases: where data scientists look. It decides nothing, and what comes back counts by our own sha256 alone.

The client works in a child process that is ended when its time is over: it holds nothing up, imports nothing here, and
its own child, wandb-core, ends with it. Runs are written offline and sent from there by `wandb sync`, so that what is
not sent yet lies on the disk.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.registry.backends import kept_registry
from drift_pipeline.registry.bundle import MANIFEST, Bundle, check_file, checked_digest, read_manifest
from drift_pipeline.registry.mirror import Made, Run, Standing, Use
from drift_pipeline.settings import Settings

CHILD = "drift_pipeline.registry.backends.wandb_client"
RUN = "offline-run-"
_SENT = "*.wandb.synced"  # beside a run's file
FETCH_S, PAUSE_S = 20.0, 120.0  # of one bundle, and before it is asked for again
_NOT_A_REASON = ("wandb: Using", "wandb: Syncing", "wandb: [wandb sync] Loaded")


def require_wandb() -> None:
    """Raises InputError where the package is not installed, without importing it."""
    if importlib.util.find_spec("wandb") is None:
        raise InputError(
            "DRIFT_REGISTRY=wandb: the package wandb is not installed; install drift-pipeline[wandb], or unset "
            "DRIFT_REGISTRY"
        )


@dataclass(frozen=True)
class Stood:
    """What came of standings: what was refused for ever, in words, and what is there in part only."""

    refused: Sequence[str]
    partial: Sequence[Made]


class Wandb:
    """The client. Each call takes as long as it is given.

    Raises of each: UnavailableError with a reason that holds no key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = settings.wandb_api_key.get_secret_value()

    @property
    def destination(self) -> str:
        settings = self._settings
        return f"{settings.wandb_base_url.rstrip('/')}/{settings.wandb_entity}/{settings.wandb_project}"

    def write(self, runs: Sequence[Run], seconds: float) -> None:
        """As offline runs; those that lie there already stay as they are."""
        self._ask("write", seconds, runs=[asdict(run) for run in runs])

    def unsent(self) -> list[Path]:
        """The oldest first."""
        return sorted((run for run in self._runs() if not any(run.glob(_SENT))), key=lambda path: path.name)

    def send(self, runs: Sequence[Path], seconds: float) -> Mapping[str, str]:
        """In their order, by `wandb sync`, whose exit code says nothing: it marks what went. Returns why others are
        refused for good, by the names of their folders; some went, so that it is not the account."""
        told = self._ask("send", seconds, runs=[str(run.absolute()) for run in runs])
        if told["left"]:
            name, why = next(iter(told["left"].items()))
            raise UnavailableError(f"{name} is not taken: {self._plain(why)}")
        return {name: self._plain(why) for name, why in told["refused"].items()}

    def stand(self, standings: Sequence[Standing], uses: Sequence[Use], made: Sequence[Made], seconds: float) -> Stood:
        """Tell how versions stand, and what runs that are sent used; and look whether what was made is there whole."""
        told = self._ask(
            "stand",
            seconds,
            standings=[asdict(one) for one in standings],
            uses=[asdict(one) for one in uses],
            made=[asdict(one) for one in made],
        )
        return Stood([str(why) for why in told["refused"]], [Made(**one) for one in told["partial"]])

    def kept(self) -> list[str]:
        """Names of runs that are sent, and could be sent again."""
        return [run.name.removeprefix(RUN) for run in self._runs() if any(run.glob(_SENT))]

    def send_again(self) -> None:
        """What is kept is not sent any more."""
        for marker in (marker for run in self._runs() for marker in run.glob(_SENT)):
            marker.unlink(missing_ok=True)

    def forget_sent(self) -> None:
        """Runs that are sent, and stand as they should."""
        for run in self._runs():
            if any(run.glob(_SENT)):
                for path in (self._settings.wandb / room / run.name.removeprefix(RUN) for room in ("copies", "kept")):
                    shutil.rmtree(path, ignore_errors=True)
                shutil.rmtree(run, ignore_errors=True)

    def _runs(self) -> Iterator[Path]:
        return self._settings.wandb.glob(f"{RUN}*")

    def tidy(self) -> None:
        """What killed clients left, and the log that each one writes, once they are a day old."""
        folder, old = self._settings.wandb, time.time() - DAY.total_seconds()
        for path in (*folder.glob("incoming-*"), *folder.glob("cache/wandb/logs/*")):
            with suppress(OSError):
                if path.lstat().st_mtime < old:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def fetch(self, digest: str, to: Path, seconds: float) -> bool:
        """What it says are the files of a bundle, into a folder; False where it knows none."""
        return bool(self._ask("fetch", seconds, digest=digest, to=str(to))["found"])

    def _ask(self, verb: str, seconds: float, **job: Any) -> Mapping[str, Any]:
        sends, settings = verb != "write", self._settings
        folder = settings.wandb.absolute()
        about: dict[str, Any] = {
            "folder": str(folder),
            "entity": settings.wandb_entity,
            "project": settings.wandb_project,
        }
        about |= {"registry": settings.wandb_registry, "seconds": seconds, **job}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            told = subprocess.run(
                [sys.executable, "-P", "-m", CHILD, verb],
                input=json.dumps(about),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
                env={**_others(), **variables(settings, sends=sends)},
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"W&B's client did not come to an end within {seconds:.0f} s") from error
        except OSError as error:
            raise UnavailableError(f"{folder}: W&B's client cannot work here: {error.strerror or error}") from error
        return self._answer(told)

    def _answer(self, told: "subprocess.CompletedProcess[str]") -> Mapping[str, Any]:
        """The last line of stdout; else the last reason among what else it said."""
        lines = told.stdout.strip().splitlines()
        with suppress(ValueError, IndexError):
            answer: Mapping[str, Any] = json.loads(lines[-1])
            if answer.get("ok"):
                return {**answer, "said": self._reason(told)}
            raise UnavailableError(self._without_key(str(answer.get("why"))))
        raise UnavailableError(f"W&B's client ended with {told.returncode}: {self._reason(told)}")

    def _reason(self, told: "subprocess.CompletedProcess[str]") -> str:
        lines = [line for line in f"{told.stdout}\n{told.stderr}".splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("{", *_NOT_A_REASON))]
        return self._plain(lines[-1]) if lines else "no reason is told"

    def _plain(self, line: str) -> str:
        return self._without_key(line.removeprefix("wandb: ").removeprefix("ERROR "))

    def _without_key(self, words: str) -> str:
        return (words.replace(self._key, "...") if self._key else words)[:300]


def variables(settings: Settings, *, sends: bool) -> dict[str, str]:
    """Environment of the client: everything it writes lies below the home, it tells nobody how it is used, and has the
    key only where it sends."""
    folder = settings.wandb.absolute()
    ours = {
        "WANDB_MODE": "online" if sends else "offline",
        "WANDB_BASE_URL": settings.wandb_base_url,
        "WANDB_PROJECT": settings.wandb_project,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "false" if sends else "true",
        "NETRC": str(folder / "no-netrc"),
        "WANDB_DIR": str(folder / "cache"),
        **{f"WANDB_{name}_DIR": str(folder / "cache") for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT")},
    }
    ours |= {"WANDB_ENTITY": settings.wandb_entity} if settings.wandb_entity else {}
    return ours | ({"WANDB_API_KEY": settings.wandb_api_key.get_secret_value()} if sends else {})


def _others() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "DRIFT_"))}


class WandbRegistry:
    """The registry that keeps; a bundle that it lacks is fetched from W&B, verified, and kept from then on."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises InputError where the package is not installed."""
        require_wandb()
        self._kept, self._settings, self._monotonic = kept_registry(settings), settings, monotonic
        self._failed: dict[str, tuple[float, Exception]] = {}

    def put(self, manifest_fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        return self._kept.put(manifest_fields, files)

    def get(self, digest: str) -> Bundle:
        if not self._kept.exists(digest) and self._settings.wandb_sends:
            self._fetch(digest)
        return self._kept.get(digest)

    def exists(self, digest: str) -> bool:
        """Here: what W&B says that it has is no promise."""
        return self._kept.exists(digest)

    def _fetch(self, digest: str) -> None:
        at, before = self._failed.get(checked_digest(digest), (0.0, None))
        if before is not None and self._monotonic() - at < PAUSE_S:
            raise before
        try:
            self._take(digest)
        except (UnavailableError, IntegrityError) as error:
            self._failed[digest] = self._monotonic(), error
            raise
        self._failed.pop(digest, None)

    def _take(self, digest: str) -> None:
        with _incoming(self._settings.wandb) as folder:
            try:
                if not Wandb(self._settings).fetch(digest, folder, FETCH_S):
                    return
            except UnavailableError as error:
                raise UnavailableError(f"{digest} is not here, and W&B does not give it: {error}") from error
            try:
                manifest = read_manifest(digest, (folder / MANIFEST).read_bytes())
                files = {name: check_file(manifest, name, (folder / name).read_bytes()) for name in manifest["files"]}
            except OSError as error:
                raise IntegrityError(f"{self._settings.wandb_base_url}: {digest} lacks a file: {error}") from error
            except IntegrityError as error:
                raise IntegrityError(f"{self._settings.wandb_base_url} gave other bytes, refused: {error}") from error
        fields = {name: value for name, value in manifest.items() if name != "files"}
        self._kept.put(fields, files)


@contextmanager
def _incoming(folder: Path) -> Iterator[Path]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix="incoming-", dir=folder)
    except OSError as error:
        raise UnavailableError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
