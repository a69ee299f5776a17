"""Recent: the predictions that this gateway answered, or was told of, last; an outcome of one of them finds it."""

from collections.abc import Iterable

MOST = 100_000


class Recent:
    """The last `most` predictions at least, and up to twice as many; some 8 MB. Nothing of them is read from disk."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._new, self._old = set[int](), set[int]()

    def add(self, model: str, ids: Iterable[str]) -> None:
        self._new.update(hash((model, id)) for id in ids)
        if len(self._new) >= self._most:
            self._new, self._old = set(), self._new

    def knows(self, model: str, id: str) -> bool:
        known = hash((model, id))
        return known in self._new or known in self._old
