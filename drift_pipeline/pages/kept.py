"""Pages that were just drawn: who asks within some seconds gets the same one, and it is drawn once for all who wait."""

import time
from collections.abc import Callable
from threading import Lock

SECONDS, MOST = 3.0, 256


class Kept:
    """By what they show; at most `MOST`, the oldest goes."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._pages: dict[object, tuple[float, bytes]] = {}
        self._locks: dict[object, Lock] = {}
        self._lock = Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """What was made of late, or what `make` makes; its errors are not kept."""
        with self._lock:
            mine = self._locks.setdefault(key, Lock())
        with mine:
            found = self._pages.get(key)
            if found is None or self._monotonic() - found[0] > SECONDS:
                made = make()
                found = self._monotonic(), made
                with self._lock:
                    self._pages.pop(key, None)
                    self._pages[key] = found
                    for old in list(self._pages)[: max(len(self._pages) - MOST, 0)]:
                        del self._pages[old]
                        self._locks.pop(old, None)
        return found[1]
