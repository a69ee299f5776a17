"""A circuit: a system that let somebody wait in vain is left alone for a while, by all models of the process."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from drift_pipeline.errors import DriftError, UnavailableError

T = TypeVar("T")
WAITED_S = 0.2  # what is refused at once costs nothing, and may be of one run alone
REST_S = 30.0


class Circuit:
    """An outage of what is asked through it costs a tick of all models one wait, and no tick fails for what a client's
    library raises: that is an UnavailableError too."""

    def __init__(self, kind: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._kind, self._monotonic = kind, monotonic
        self._until, self._why = -math.inf, ""

    def ask(self, call: Callable[[], T]) -> T:
        began = self._monotonic()
        if began < self._until:
            raise UnavailableError(self._why)
        try:
            return call()
        except Exception as error:  # of others' libraries
            known = isinstance(error, DriftError)
            told = error if known else UnavailableError(f"{self._kind}: {type(error).__name__}: {str(error)[:300]}")
            if isinstance(told, UnavailableError) and (now := self._monotonic()) - began >= WAITED_S:
                self._until, self._why = now + REST_S, str(told)
            if known:
                raise
            raise told from error
