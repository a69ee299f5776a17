"""What was just made for a page: who asks within some seconds gets the same, and it is made once for all who wait."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

MOST = 256
T = TypeVar("T")


class Kept(Generic[T]):
    """By what is shown, for `seconds`; at most `MOST`, the oldest goes."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._monotonic = seconds, monotonic
        self._made: dict[object, tuple[float, T]] = {}
        self._locks: dict[object, Lock] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return max(len(self._made), len(self._locks))

    def get(self, key: object, make: Callable[[], T]) -> T:
        """What was made of late, or what `make` makes; its errors are not kept."""
        with self._lock:
            mine = self._locks.setdefault(key, Lock())
        with mine:
            found = self._made.get(key)
            if found is None or self._monotonic() - found[0] > self._seconds:
                found = self._keep(key, make())
        return found[1]

    def _keep(self, key: object, made: T) -> tuple[float, T]:
        found = self._monotonic(), made
        with self._lock:
            self._made.pop(key, None)
            self._made[key] = found
            for old in list(self._made)[: max(len(self._made) - MOST, 0)]:
                del self._made[old]
                self._locks.pop(old, None)
        return found
