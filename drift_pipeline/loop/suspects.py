"""Suspects: what a receiver refuses, until another one goes. Then it is not the receiver, and what it refuses once more
is left out. Of one that refuses everything, such as a wrong address or a proxy, all waits, and nothing is lost."""

from collections.abc import Callable
from typing import Generic, TypeVar

from drift_pipeline.errors import UnavailableError

PATIENCE = 5  # failures in a row, from which on a receiver that breaks (500) refuses
MOST = 20  # refused in a row before it is the receiver

T = TypeVar("T")


class Suspects(Generic[T]):
    """Of one call. While there are any, no cursor goes on."""

    def __init__(self, send: Callable[[T], object], refused: type[Exception]) -> None:
        """
        Args:
            send: raises `refused` of what is refused.
        """
        self._send, self._refused = send, refused
        self._held = list[tuple[T, str]]()

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, one: T, why: str) -> None:
        """Raises UnavailableError where there are too many."""
        self._held.append((one, why))
        if len(self._held) > MOST:
            self.hold()

    def hold(self) -> None:
        """Raises UnavailableError where there are any: nothing else went, so that it may be the receiver."""
        if self._held:
            raise UnavailableError(self._held[0][1])

    def again(self) -> list[tuple[T, str]]:
        """Another one went: each is sent once more; returns those that are refused for ever, and why."""
        refused = list[tuple[T, str]]()
        for one, _ in self._held:
            try:
                self._send(one)
            except self._refused as error:
                refused.append((one, str(error)))
        self._held = []
        return refused
