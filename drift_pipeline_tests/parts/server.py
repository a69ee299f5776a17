"""A server process of our own: on a free port of 127.0.0.1, with a log, ended by its process id."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError

PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One process, which may be killed, stopped and started again; what it says goes to the end of `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        answers: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.log, self._patience_s = log, patience_s
        self._command, self._answers, self._environment = list(command), answers, environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} does not run")
        return self._process.pid

    def start(self) -> None:
        """Back once it answers. Raises MissingError where it ends, or does not answer in time, with its last words."""
        with self.log.open("ab") as log:
            environment = {**os.environ, **self._environment}
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        end = time.monotonic() + self._patience_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                told = self.log.read_text(encoding="utf-8", errors="replace")[-1000:].strip()
                raise MissingError(f"{self._command[0]} does not run here: {told}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it in order; killed where that takes too long."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)  # it may be frozen
        self._signal(how)
        try:
            self._wait(20.0)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._wait()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._wait()
            self._process = None

    def freeze(self, frozen: bool) -> None:
        """Let it hang, and go on."""
        self._signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _signal(self, how: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} does not run")
        self._process.send_signal(how)

    def _wait(self, timeout_s: float | None = None) -> None:
        """Raises TimeoutExpired."""
        if self._process is not None:
            self._process.wait(timeout_s)
