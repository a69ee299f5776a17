"""A machine of its own, as far as its processes see: a network with nothing but `lo`, and its own processes and mounts.

No packet can leave it, whatever an address says. The kernel ends all that runs in it, and all that it mounted, with its
first process, which ends with the one that started it, also where that is killed. What is written there to /run,
/var/lib and /var/log is gone then, too. Wants root.
"""

import ctypes
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.server import PATIENCE_S, Server

ADDRESS = "10.99.0.1"  # of its own beside 127.0.0.1, which a kubelet does not take for a node's
_OVER = "lowerdir=/var/lib,upperdir=/run/over,workdir=/run/work"
TOOLS = ("ip", "mount", "nsenter", "setpriv", "unshare")
_NEW = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_FIRST = """import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody else waits for who lost its parent
while True:
    signal.pause()
"""
_NETWORK_NAMESPACE = 0x40000000


def wanted() -> None:
    """Raises MissingError where there can be none."""
    if os.getuid() != 0:
        raise MissingError("only root can make a network of its own")
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise MissingError(f"no {', '.join(lacking)}: apt-get install -y util-linux iproute2 mount")


class Machine:
    """Ends with `close`. To be made by the main thread: it ends with the thread that made it, too."""

    def __init__(self) -> None:
        """Raises MissingError."""
        wanted()
        first = [sys.executable, "-S", "-E", "-c", _FIRST]
        self._keeper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *_NEW, *first], stdin=subprocess.DEVNULL
        )
        try:
            self.pid = self._first()
            for command in (
                ("ip", "link", "set", "lo", "up"),
                ("ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"),
                *(("mount", "-t", "tmpfs", "tmpfs", place) for place in ("/run", "/var/log")),
                ("mkdir", "/run/over", "/run/work"),
                ("mount", "-t", "overlay", "overlay", "-o", _OVER, "/var/lib"),  # a kubelet writes there
            ):
                self.run(command)
        except (subprocess.CalledProcessError, MissingError) as error:
            self.close()
            told = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
            raise MissingError(f"no machine of its own can be made here: {told}") from error

    @property
    def hint(self) -> str:
        """For people: what a command begins with to be run there."""
        return f"nsenter --target {self.pid} --net --mount --pid"

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, to be run there, in the present folder."""
        return [*self.hint.split(), f"--wd={Path.cwd()}", *command]

    def run(
        self, command: Sequence[str], told: str = "", *, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """With `told` on its standard input. Raises CalledProcessError, unless `check` is False."""
        return subprocess.run(self.inside(command), input=told, check=check, capture_output=True, text=True, **options)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """The present thread, and threads that it starts, are in its network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as ours, Path(f"/proc/{self.pid}/ns/net").open() as its:
            _enter(libc, its.fileno())
            try:
                yield
            finally:
                _enter(libc, ours.fileno())

    def answers(self, url: str, **how: Any) -> bool:
        """Whether it is 200 for who asks from inside."""
        with (
            self.joined(),
            suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(url, timeout=2, **how) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def close(self) -> None:
        """All that is in it ends at once."""
        self._keeper.kill()
        self._keeper.wait()
        end = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{getattr(self, 'pid', 'none')}").exists() and time.monotonic() < end:
            time.sleep(0.02)

    def _first(self) -> int:
        """Its first process; there it is the only child of the one that made it, and ready once it runs Python."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._keeper.poll() is None:
            for pid in children(self._keeper.pid):
                with suppress(OSError):
                    if _FIRST.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
            time.sleep(0.01)
        raise MissingError("unshare makes no namespaces here; in a container it wants CAP_SYS_ADMIN")


def children(pid: int) -> list[int]:
    """Of its main thread; none where it has ended."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


class Inside(Server):
    """A server of a machine: `nsenter` waits for it, and signals are for the process itself."""

    def __init__(
        self,
        machine: Machine,
        command: Sequence[str],
        log: Path,
        answers: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(machine.inside(command), log, answers, environment, patience_s)

    @property
    def pid(self) -> int:
        waits = super().pid
        return next(iter(children(waits)), waits)

    def _signal(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, how)

    def _wait(self, timeout_s: float | None = None) -> None:
        """`nsenter` stops itself where its child is stopped, and may do so late: it is not asked, and ends last."""
        pid, end = self.pid, time.monotonic() + (timeout_s or float("inf"))
        while pid != super().pid and lives(pid):
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self._command, timeout_s or 0.0)
            time.sleep(0.02)
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def lives(pid: int) -> bool:
    """A process that has ended and was not waited for does not; one whose first thread alone has ended does."""
    with suppress(OSError):
        return any(_runs(task) for task in Path(f"/proc/{pid}/task").iterdir())
    return False


def _runs(task: Path) -> bool:
    with suppress(OSError):
        told = (task / "stat").read_text(encoding="ascii", errors="replace")
        return told.rpartition(")")[2].split()[0] not in "ZX"
    return False


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _NETWORK_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
