"""A breaker: an outage of a runner costs a process one wait a while, for all its models."""

import time
from collections.abc import Callable

from drift_pipeline.circuit import Circuit
from drift_pipeline.training.runners import Request, Run, Runner


class Breaker:
    """Around a runner."""

    def __init__(self, runner: Runner, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.kind, self._runner, self._circuit = runner.kind, runner, Circuit(runner.kind, monotonic)

    def submit(self, request: Request) -> Run:
        return self._circuit.ask(lambda: self._runner.submit(request))

    def status(self, request: Request) -> Run:
        return self._circuit.ask(lambda: self._runner.status(request))

    def cancel(self, request: Request) -> Run:
        return self._circuit.ask(lambda: self._runner.cancel(request))

    def logs(self, request: Request, lines: int = 50) -> str:
        return self._circuit.ask(lambda: self._runner.logs(request, lines))
