"""`drift up`: what it starts, and that nothing outlives it, however it or a child ends."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError
from drift_pipeline.serving.keys import key_hash, producers, revoke_producer
from drift_pipeline.serving.up import PATIENCE_S, Service, make_local_key, services, up
from drift_pipeline.settings import Settings

# A child that writes down its process id, and that of a child of its own, which it leaves to itself
CHILD = """
import os, signal, subprocess, sys, time
name, stubborn = sys.argv[1], len(sys.argv) > 2
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.environ["DRIFT_HOME"], os.environ["DAGSTER_HOME"], flush=True)
path = os.path.join(os.environ["DRIFT_HOME"], name)
open(path + ".partial", "w").write(f"{os.getpid()} {own.pid}")
os.rename(path + ".partial", path + ".pids")
time.sleep(600)
"""
PARENT = """
import sys
from pathlib import Path
from drift_pipeline.serving import up as module
from drift_pipeline.settings import Settings
home, patience, ports = Path(sys.argv[1]), float(sys.argv[2]), [int(port) for port in sys.argv[3:6]]
module.PATIENCE_S = patience
commands = [[sys.executable, "-c", sys.argv[6], *words.split()] for words in sys.argv[7:]]
started = [module.Service(command[3], command) for command in commands]
sys.exit(module.up(Settings(home=home, database=""), "127.0.0.1", *ports, started=started))
"""


def free_ports(n: int) -> list[int]:
    """Different ones: all are taken for a moment."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in taken]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", database="", models=None)


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    pids: list[int]


@contextmanager
def running(settings: Settings, *children: str, patience: float = PATIENCE_S) -> Iterator[Running]:
    """`drift up` in a process of its own, with children that are up."""
    ports = [str(port) for port in free_ports(3)]
    command = [sys.executable, "-c", PARENT, str(settings.home), str(patience), *ports, CHILD, *children]
    pids: list[int] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for child in children:
                path = settings.home / f"{child.split()[0]}.pids"
                until(path.exists)
                pids += [int(pid) for pid in path.read_text().split()]
            yield Running(process, pids)
        finally:
            process.kill()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def until(holds: Callable[[], bool], seconds: float = 30) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def alive(pids: Sequence[int]) -> list[int]:
    """Those that run; one that is dead and was not waited for by init does not."""
    states = {}
    for pid in pids:
        with suppress(OSError):
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return [pid for pid, state in states.items() if state != "Z"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_children_and_theirs(settings: Settings, ending: signal.Signals) -> None:
    with running(settings, "gateway", "capture") as run:
        assert run.process.stderr is not None
        told = [run.process.stderr.readline() for _ in run.pids[::2]]
        assert len(alive(run.pids)) == 4
        run.process.send_signal(ending)
        assert run.process.wait(10) == 0
        assert alive(run.pids) == []
        assert told == ["gateway was started\n", "capture was started\n"]
        assert run.process.stderr.read() == "ending all\n"


def test_a_child_that_does_not_listen_is_killed_after_a_while(settings: Settings) -> None:
    with running(settings, "gateway stubborn", "capture", patience=0.5) as run:
        run.process.terminate()
        assert run.process.wait(10) == 0
        assert alive(run.pids) == []


@pytest.mark.parametrize("child", ["gateway", "gateway stubborn"])
def test_no_child_outlives_a_parent_that_is_killed(settings: Settings, child: str) -> None:
    with running(settings, child, "capture") as run:
        run.process.kill()
        assert until(lambda: alive(run.pids) == [], 10) < 10


def test_when_a_child_dies_it_is_said_which_log_to_read_and_the_others_are_ended(settings: Settings) -> None:
    with running(settings, "gateway", "capture") as run:
        os.kill(run.pids[2], signal.SIGKILL)
        assert run.process.wait(10) == 1
        assert alive(run.pids) == []
        assert run.process.stderr is not None
        log = settings.home / "logs" / "capture.log"
        assert f"capture ended with code -9; read {log}" in run.process.stderr.read()
        assert log.read_text() == f"{settings.home} {settings.home / 'dagster'}\n"


def test_an_address_is_told_once_it_answers(settings: Settings) -> None:
    (port, other, pages, served) = free_ports(4)
    late = f"import time, http.server as h; time.sleep(1); h.test(h.SimpleHTTPRequestHandler, port={served})"
    told: list[tuple[float, str]] = []
    began = time.monotonic()
    url = f"http://127.0.0.1:{served}"
    children = [
        Service("web", [sys.executable, "-c", late], f"{url}/", url),
        Service("end", [sys.executable, "-c", "import time; time.sleep(4)"]),
    ]
    ports = (port, other, pages)
    code = up(settings, "127.0.0.1", *ports, started=children, tell=lambda line: told.append((time.monotonic(), line)))
    assert code == 1
    assert [line for _, line in told][:2] == ["end was started", f"web on {url}"]
    assert told[1][0] - began > 1


def test_a_port_in_use_is_told_before_anything_is_there(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, (free, other) = taken.getsockname()[1], free_ports(2)
        for ports, option in (
            ((port, free, other), "--port"),
            ((free, port, other), "--dagster-port"),
            ((free, free, other), "--dagster-port"),
            ((free, other, port), "--pages-port"),
        ):
            with pytest.raises(InputError, match=f"cannot listen here.*give another {option}"):
                up(settings, "127.0.0.1", *ports, started=[])
    assert not settings.home.exists()


def test_a_child_that_cannot_be_started_leaves_none_behind(settings: Settings) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)", str(settings.home)]
    with pytest.raises(FileNotFoundError):
        up(settings, "127.0.0.1", *free_ports(3), started=[Service("one", sleeps), Service("two", ["no/such/program"])])
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(settings.home) not in running


def test_the_signal_handlers_are_put_back(settings: Settings) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert up(settings, "127.0.0.1", *free_ports(3), started=[Service("ends", [sys.executable, "-c", ""])]) == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# the local key


@contextmanager
def store_of(settings: Settings) -> Iterator[ControlStore]:
    store = ControlStore(settings.database_url, SystemClock())
    try:
        yield store
    finally:
        store.close()


def test_the_local_key_is_made_once_and_only_its_owner_may_read_it(settings: Settings) -> None:
    settings.home.mkdir()
    path = make_local_key(settings)
    key = path.read_text()
    assert (path, stat.S_IMODE(path.stat().st_mode)) == (settings.home / "keys" / "gateway.key", 0o600)
    assert make_local_key(settings).read_text() == key
    with store_of(settings) as store:
        (known,) = producers(store)
        assert (known.name, known.sha256, known.models, known.revoked) == (
            "local",
            key_hash(key.strip()),
            ("*",),
            False,
        )
        assert [record.event for record in store.records()] == ["home.made", "producer.added"]


def test_a_local_key_that_was_lost_is_revoked_and_made_anew(settings: Settings) -> None:
    settings.home.mkdir()
    path = make_local_key(settings)
    lost = path.read_text()
    path.unlink()
    assert make_local_key(settings).read_text() != lost
    with store_of(settings) as store:
        events = [record.event for record in store.records()]
        assert events[1:] == ["producer.added", "producer.revoked", "producer.added"]


def test_a_local_key_of_another_store_is_replaced_and_one_that_was_revoked_stays_so(settings: Settings) -> None:
    settings.home.mkdir()
    settings.keys.mkdir()
    (settings.keys / "gateway.key").write_text("of another home\n")
    key = make_local_key(settings).read_text()
    assert key != "of another home\n"
    with store_of(settings) as store:
        revoke_producer(store, "local", "ada", "it leaked")
    assert make_local_key(settings).read_text() == key
    with store_of(settings) as store:
        assert producers(store)[0].revoked


def test_dagsters_own_configuration_is_put_there_once(settings: Settings) -> None:
    ends = [Service("ends", [sys.executable, "-c", ""])]
    up(settings, "127.0.0.1", *free_ports(3), started=ends)
    config = settings.home / "dagster" / "dagster.yaml"
    found = yaml.safe_load(config.read_text())
    assert found["telemetry"] == {"enabled": False}
    limits = {one.get("value"): one["limit"] for one in found["concurrency"]["runs"]["tag_concurrency_limits"][:2]}
    assert limits == {"normal": min(7, os.cpu_count() or 1), "submit": 1}
    config.write_text("mine: true\n")
    up(settings, "127.0.0.1", *free_ports(3), started=ends)
    assert config.read_text() == "mine: true\n"


# the real children


def test_the_first_thing_that_is_told_is_where_the_models_can_be_seen(settings: Settings) -> None:
    ports, told = free_ports(3), list[str]()
    first = Service("pages", [sys.executable, "-c", ""], address=services("::", *ports)[0].address)
    assert up(settings, "127.0.0.1", *ports, started=[first], tell=told.append) == 1
    assert told[0] == f"the models can be seen on http://127.0.0.1:{ports[2]}/ in a moment"


def test_dagster_and_the_pages_answer_this_machine_alone_wherever_the_gateway_listens() -> None:
    pages, gateway, capture, dagster = services("0.0.0.0", 1, 2, 3)
    assert (pages.address, "--host" in pages.command) == ("http://127.0.0.1:3/", False)
    assert pages.command[-2:] == ["--dagster", dagster.address]
    assert gateway.address == "http://127.0.0.1:1"
    assert "0.0.0.0" in gateway.command
    assert "0.0.0.0" not in dagster.command
    assert capture.health is None
    assert services("::", 1, 2)[1].health == "http://[::1]:1/v2/health/live"


@pytest.mark.live
def test_dagster_starts_answers_and_ends(settings: Settings) -> None:
    """The real `dagster dev`, with the packaged models; kill -9 of the parent ends its code server, too."""
    port, dagster_port, pages_port = free_ports(3)
    script = (
        "import sys\nfrom pathlib import Path\nfrom drift_pipeline.serving.up import services, up\n"
        "from drift_pipeline.settings import Settings\n"
        f"up(Settings(home=Path({str(settings.home)!r}), database=''), '127.0.0.1', {port}, {dagster_port},"
        f" {pages_port}, started=services('127.0.0.1', {port}, {dagster_port})[3:])"
    )
    query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
    url = f"http://127.0.0.1:{dagster_port}/graphql"
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                assert process.stderr.readline() == f"dagster on http://127.0.0.1:{dagster_port}\n"
                until(lambda: len(_of_home(settings)) >= 4, 60)
                until(lambda: "__repository__" in httpx.post(url, json=query, trust_env=False).text, 60)
                process.send_signal(ending)
                process.wait(20)
            finally:
                process.kill()
        until(lambda: _of_home(settings) == [], 10)


def _of_home(settings: Settings) -> list[int]:
    """Processes that have this home as Dagster's, by their environment."""
    wanted, found = f"DAGSTER_HOME={settings.home / 'dagster'}".encode(), []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return alive(found)


def test_the_code_location_has_one_name_however_dagster_is_started() -> None:
    """`dagster dev` reads the checkout's workspace.yaml; it is the packaged one that `drift up` names."""
    (dagster,) = (one for one in services("127.0.0.1", 1, 2) if one.name == "dagster")
    named = Path(dagster.command[dagster.command.index("-w") + 1])
    assert named.samefile(Path(__file__).parents[2] / "workspace.yaml")
    (location,) = yaml.safe_load(named.read_text())["load_from"]
    assert location["python_module"]["location_name"] == "drift_pipeline"
