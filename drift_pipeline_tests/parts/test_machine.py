"""A machine of its own reaches nothing else, and nothing of it outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drift_pipeline_tests.parts import product
from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.containerd import PAUSE, Containerd
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes_files import PORT
from drift_pipeline_tests.parts.machine import Inside, Machine, lives, wanted

pytestmark = pytest.mark.live
URL = "http://127.0.0.1:8080/"
STARTER = "from drift_pipeline_tests.parts.machine import Machine; print(Machine().pid, flush=True); input()"


@pytest.fixture
def machine() -> Iterator[Machine]:
    try:
        made = Machine()
    except MissingError as error:
        pytest.skip(str(error))
    with closing(made):
        yield made


def state(pid: int) -> str:
    """A letter, as in proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def within(so: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not (found := so()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def ended(pid: int) -> bool:
    return within(lambda: not lives(pid))


def test_nothing_but_itself_is_reached_from_it(machine: Machine) -> None:
    assert [line.split()[0] for line in machine.run(["ip", "-br", "link"]).stdout.splitlines()] == ["lo"]
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        with machine.joined():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            with pytest.raises(OSError, match="unreachable"):
                socket.create_connection(("192.0.2.1", 80), 5)
        socket.create_connection(("127.0.0.1", port), 5).close()  # and back


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[Inside]:
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "8080"]
    made = Inside(machine, command, tmp_path / "log", lambda: machine.answers(URL))
    made.start()
    yield made
    made.kill()


def test_a_server_in_it_is_killed_frozen_and_started_again(machine: Machine, server: Inside) -> None:
    first = server.pid
    assert b"http.server" in Path(f"/proc/{first}/cmdline").read_bytes().split(b"\0")
    server.kill()
    assert ended(first)
    assert not machine.answers(URL)
    server.start()
    server.freeze(True)
    assert within(lambda: state(server.pid) == "T")
    server.freeze(False)
    last = server.pid
    server.stop()
    assert ended(last)
    server.start()
    last = server.pid
    server.freeze(True)
    server.kill()
    assert ended(last)


def test_what_runs_in_it_and_what_it_mounted_ends_with_it(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    machine.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "place")])
    machine.run(["sh", "-c", f"echo x >{tmp_path}/place/file; setsid sleep 3600 >/dev/null 2>&1 </dev/null &"])
    assert not (tmp_path / "place" / "file").exists()  # its mounts are its own
    first = machine.pid
    machine.run(["mkdir", *(f"{place}/drift-{first}" for place in ("/run", "/var/lib", "/var/log"))])
    assert not any(Path(place, f"drift-{first}").exists() for place in ("/run", "/var/lib", "/var/log"))
    (left,) = (pid for pid in os.listdir("/proc") if pid.isdigit() and _is_sleep_of(first, pid))
    machine.close()
    assert ended(int(left))
    (tmp_path / "place").rmdir()


def _is_sleep_of(machine: int, pid: str) -> bool:
    try:
        same = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{machine}/ns/pid")
        return same and b"3600" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_it_ends_where_the_one_that_made_it_is_killed() -> None:
    try:
        wanted()
    except MissingError as error:
        pytest.skip(str(error))
    with subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        first = int(starter.stdout.readline())
        starter.send_signal(signal.SIGKILL)
    assert ended(first)


def test_a_layer_is_what_an_install_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        wanted()
    except MissingError as error:
        pytest.skip(str(error))
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "old").write_text("old", encoding="utf-8")
    adds = "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'etc' / 'new').write_text('new')"
    monkeypatch.setattr(product, "_INSTALL", adds)
    made = product._own(tmp_path / "root", tmp_path)
    listed = subprocess.run(["tar", "-tf", str(made.file)], capture_output=True, text=True, check=True).stdout.split()
    assert listed == ["./", "./etc/", "./etc/new"]
    assert not (tmp_path / "root" / "etc" / "new").exists()
    (again := tmp_path / "again").mkdir()
    removes = "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'etc' / 'old').unlink()"
    monkeypatch.setattr(product, "_INSTALL", removes)
    with pytest.raises(MissingError, match=r"removes .*etc/old"):
        product._own(tmp_path / "root", again)


@pytest.mark.slow
def test_nothing_of_a_cluster_outlives_it() -> None:
    before = _places()
    with needed("kubernetes").running() as cluster:
        pids = {server.pid for server in cluster.servers.values()} | {cluster.machine.pid}
        folder, named = cluster.folder, {"name": "waits", "namespace": "default"}
        spec = {"containers": [{"name": "waits", "image": PAUSE}]}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec})
        cluster.kubectl("wait", "--for=condition=Ready", "pod/waits", "--timeout=250s")
        groups = _groups(cluster.containerd)
        assert groups
    assert all(ended(pid) for pid in pids)
    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text(encoding="utf-8")
    assert [group for group in groups if group.exists()] == []
    assert _places() <= before


def _places() -> set[Path]:
    """Where its programs write on a machine that they have for themselves."""
    groups = {path for place in ("", "*/") for path in Path("/sys/fs/cgroup").glob(f"{place}k8s.io")}
    names = ("/var/log/pods", "/var/log/containers", "/var/lib/kubelet", "/usr/libexec/kubernetes", "/run/containerd")
    kept = Path.home() / ".kube" / "cache" / "discovery" / f"127.0.0.1_{PORT}"
    return {path for path in (*map(Path, names), kept) if path.exists()} | groups


def _groups(containerd: Containerd) -> list[Path]:
    """The control groups of its containers."""
    names = containerd.ctr("tasks", "ls", "-q").split()
    return [path for name in names for path in Path("/sys/fs/cgroup").glob(f"**/{name}")]
