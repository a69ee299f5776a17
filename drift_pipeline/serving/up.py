"""`drift up`: the gateway, capture and Dagster as child processes on one machine, ended together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import drift_pipeline
from drift_pipeline.clock import system_clock
from drift_pipeline.control.postgres import beside, make_database
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import InputError
from drift_pipeline.logs import announce
from drift_pipeline.serving.keys import ANY_MODEL, add_producer, key_hash, producers, revoke_producer
from drift_pipeline.settings import Settings, secrets_folder

if TYPE_CHECKING:
    import httpx

DAGSTER_DATABASE = "DRIFT_DAGSTER_DATABASE"  # that dagster.yaml reads: no password stands in a file
LOCAL, LOCAL_KEY = "local", "gateway.key"
LOCAL_ROWS_PER_SECOND = 10_000
WORKSPACE = Path(drift_pipeline.__file__).with_name("workspace.yaml")  # the name in it stands in addresses people keep
DRIFT = (sys.executable, "-c", "from drift_pipeline.cli import main; main()")  # the command, whatever the PATH
PATIENCE_S = 15.0  # for what ends by itself, before it is killed
_LOOK_EVERY_S = 0.2

# Leads the children's process group, and ends it when its own standard input does: with `drift up`, however that died.
# The input ends only when a child that is being forked has gone into the group, so none is left out.
_GUARD = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.read()
os.killpg(0, signal.SIGTERM)
time.sleep({PATIENCE_S / 3})
os.killpg(0, signal.SIGKILL)
"""


@dataclass(frozen=True)
class Service:
    """A child: `health` is what answers 200 once it is up, `address` what people open; both may be missing."""

    name: str
    command: Sequence[str]
    health: str | None = None
    address: str | None = None


def services(
    host: str, port: int, dagster_port: int, pages_port: int = 8081, *, drills: bool = False, log: str = ""
) -> list[Service]:
    """What `up` starts. Dagster and the pages answer this machine alone, since they ask nobody who they are.

    `log` is DRIFT_LOG: their lines are JSON, unless it is text.

    `dagster dev` is one parent for webserver, daemon and the one code server that both use; started apart, each of the
    two would load the models' code for itself.
    """
    dagster = ["-w", str(WORKSPACE), "--host", "127.0.0.1", "--port", str(dagster_port)]
    dagster += [] if log == "text" else ["--log-format", "json"]
    gateway, ui = f"http://{_spelt(host)}:{port}", f"http://127.0.0.1:{dagster_port}"
    pages = f"http://127.0.0.1:{pages_port}"
    return [
        Service("pages", [*DRIFT, "pages", "--port", str(pages_port), "--dagster", ui], f"{pages}/health", f"{pages}/"),
        Service(
            "gateway",
            [*DRIFT, "serve", "--host", host, "--port", str(port), *(["--drills"] if drills else [])],
            f"{gateway}/v2/health/live",
            gateway,
        ),
        Service("capture", [*DRIFT, "capture"]),
        Service("dagster", [sys.executable, "-m", "dagster", "dev", *dagster], f"{ui}/server_info", ui),
    ]


def up(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8080,
    dagster_port: int = 3000,
    pages_port: int = 8081,
    *,
    started: Sequence[Service] | None = None,
    tell: Callable[[str], None] | None = None,
) -> int:
    """Run until SIGINT or SIGTERM (0), or until a child dies (1); then no child is left.

    The first start makes the producer "local", which may ask for every model; its key lies in `keys/gateway.key`.
    What each child says is in `logs/<name>.log`. Wants the main thread, which alone hears signals.

    Args:
        started: instead of the real children.

    Raises:
        InputError: a port is in use, or DRIFT_ALERTS is wrong or lacks a secret; nothing was started.
    """
    if settings.alerts_file is not None:
        from drift_pipeline.alerts.standing import require

        require(settings.alerts_file)
    tell = tell or partial(announce, form=settings.log)
    refuse_taken(host, port, dagster_port, pages_port)
    settings = prepare(settings)
    children = services(host, port, dagster_port, pages_port) if started is None else started
    for service in children:
        if service.name == "pages":
            tell(f"the models can be seen on {service.address} in a moment")
    with _told_to_end() as ending:
        return _run(settings, children, ending, tell)


def prepare(settings: Settings) -> Settings:
    """The home's folders, Dagster's file and database, and the local producer's key, where they are not there yet.

    Returns the settings of the home's absolute path.
    """
    settings = settings.model_copy(update={"home": settings.home.absolute()})
    for folder in ("logs", "dagster"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    _keep_instance_config(settings)
    make_local_key(settings)
    return settings


def make_local_key(settings: Settings) -> Path:
    """The file with the local producer's key, made where there is none, or one that the store does not know.

    A key that was revoked stays so.
    """
    path = settings.keys / LOCAL_KEY
    store = open_store(settings, system_clock())
    try:
        known = {producer.name: producer for producer in producers(store)}.get(LOCAL)
        if known is not None:
            with suppress(OSError):
                if key_hash(path.read_text(encoding="utf-8").strip()) == known.sha256:
                    return path
            if not known.revoked:
                revoke_producer(store, LOCAL, "drift up", "its key was lost")
        _write_secret(path, add_producer(store, LOCAL, [ANY_MODEL], LOCAL_ROWS_PER_SECOND, "drift up"))
    finally:
        store.close()
    return path


def _write_secret(path: Path, secret: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")


def _keep_instance_config(settings: Settings) -> None:
    """The packaged dagster.yaml, unless somebody has put one there; on PostgreSQL where the control store is.

    Here runs share the machine with what launches them: the normal lane is no wider than it has processors.
    """
    if settings.on_postgres:
        make_database(_beside(settings))
    config = settings.home / "dagster" / "dagster.yaml"
    if not config.exists():
        packaged = Path(drift_pipeline.__file__).with_name("dagster.yaml").read_text(encoding="utf-8")
        packaged = packaged.replace("limit: 7 ", f"limit: {min(7, os.cpu_count() or 1)} ")
        storage = f"\nstorage:\n  postgres:\n    postgres_url:\n      env: {DAGSTER_DATABASE}\n"
        config.write_text(packaged + (storage if settings.on_postgres else ""), encoding="utf-8")


def dagster_environment(settings: Settings) -> dict[str, str]:
    """What Dagster's commands want of the environment, to work on what `up` runs."""
    database = {DAGSTER_DATABASE: _beside(settings)} if settings.on_postgres else {}
    return {"DAGSTER_HOME": str(settings.home / "dagster"), **database}


def _beside(settings: Settings) -> str:
    """The url of Dagster's database: beside the control store's, for each has Alembic's table of its own."""
    return beside(settings.database_url, "dagster")


def refuse_taken(host: str, port: int, dagster_port: int, pages_port: int) -> None:
    """Raises InputError for a port that is in use; all are taken at once, so that two options cannot name one."""
    local = {"--dagster-port": ("127.0.0.1", dagster_port), "--pages-port": ("127.0.0.1", pages_port)}
    addresses = {"--port": (host, port), **local}
    with ExitStack() as stack:
        for option, address in addresses.items():
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            try:
                stack.enter_context(socket.create_server(address, family=family))
            except OSError as error:
                told = f"{address[0]}:{address[1]}: cannot listen here: {error}; give another {option}"
                raise InputError(told) from error


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM. What a handler catches is not passed on as ignored: children can be ended by both."""
    ending = threading.Event()
    before = {number: signal.signal(number, lambda *_: ending.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(settings: Settings, started: Sequence[Service], ending: threading.Event, tell: Callable[[str], None]) -> int:
    environment = os.environ | _environment(settings, started)
    children: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as logs, _group() as group:
        try:
            for service in started:
                log = logs.enter_context((settings.home / "logs" / f"{service.name}.log").open("ab"))
                children[service.name] = subprocess.Popen(
                    service.command,
                    process_group=group,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            return _watch(settings, started, children, ending, tell)
        finally:
            _end(group, children.values())


def _environment(settings: Settings, started: Sequence[Service]) -> Mapping[str, str]:
    """Ours for a child: the same home, wherever it thinks it stands, and where the pages are that Dagster links to."""
    folders = {"DRIFT_MODELS": settings.models, "DRIFT_POLICY": settings.policy, "DRIFT_ALERTS": settings.alerts_file}
    folders["DRIFT_SECRETS_DIR"] = secrets_folder()
    named = {name: str(folder.absolute()) for name, folder in folders.items() if folder}
    pages = next((service.address or "" for service in started if service.name == "pages"), "")
    return named | {
        "DRIFT_PAGES_URL": settings.pages_url or pages,
        **dagster_environment(settings),
        "DRIFT_HOME": str(settings.home),
        "DRIFT_DATABASE": settings.database.get_secret_value(),
        "DRIFT_STORE": settings.store,
        "DRIFT_ENVIRONMENT": settings.environment,
        "DRIFT_LOG": settings.log or "json",  # for Dagster's processes as well, and with what else is announced
    }


@contextmanager
def _group() -> Iterator[int]:
    """A process group that does not outlive this process, however it ends."""
    guard = subprocess.Popen([sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, process_group=0)
    try:
        yield guard.pid
    finally:
        guard.kill()
        guard.communicate()


def _watch(
    settings: Settings,
    started: Sequence[Service],
    children: Mapping[str, "subprocess.Popen[bytes]"],
    ending: threading.Event,
    tell: Callable[[str], None],
) -> int:
    import httpx

    silent = list(started)
    with httpx.Client(timeout=1, trust_env=False) as client:
        while not ending.wait(_LOOK_EVERY_S):
            for name, child in children.items():
                if child.poll() is not None:
                    log = settings.home / "logs" / f"{name}.log"
                    tell(f"{name} ended with code {child.returncode}; read {log}")
                    return 1
            for service in [one for one in silent if one.health is None or answers(client, one.health)]:
                silent.remove(service)
                tell(f"{service.name} on {service.address}" if service.address else f"{service.name} was started")
    tell("ending all")
    return 0


def answers(client: "httpx.Client", address: str) -> bool:
    """Whether it says 200."""
    import httpx

    try:
        return client.get(address).status_code == 200
    except httpx.HTTPError:
        return False


def _end(group: int, children: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Ask all to end, wait for those that were started here, and kill what is left, the guard included."""
    os.killpg(group, signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()))
    os.killpg(group, signal.SIGKILL)
    for child in children:
        child.wait()


def _spelt(host: str) -> str:
    """As an address that can be opened from this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]" if ":" in here else here
