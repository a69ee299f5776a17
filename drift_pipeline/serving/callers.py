"""Who asks the gateway: producers by their key, what each may still cost, and who asked for what is not theirs."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from drift_pipeline.clock import HOUR
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import UnavailableError
from drift_pipeline.serving.allowance import Allowance
from drift_pipeline.serving.keys import Producer, producers, refused

log = logging.getLogger(__name__)


class Callers:
    """On the event loop; only the control store is asked in a thread. `bounds` are an `Allowance`'s."""

    def __init__(self, store: ControlStore, every_seconds: float, **bounds: Any) -> None:
        self._store, self._every, self._bounds = store, every_seconds, bounds
        self._known: dict[str, Producer] = {}  # by the key's hash
        self._allowances: dict[str, Allowance] = {}
        self._refused: dict[tuple[str, str], float] = {}
        self._asked_at = float("-inf")

    def heard(self, known: Sequence[Producer]) -> None:
        self._known = {producer.sha256: producer for producer in known if not producer.revoked}

    async def producer_of(self, sha256: str) -> Producer | None:
        """Whose key has this hash. One that was not heard of may be new: then the control store is asked at once."""
        if sha256 not in self._known and time.monotonic() - self._asked_at >= self._every:
            self._asked_at = time.monotonic()
            with suppress(UnavailableError):  # the gateway, which asks each second, tells of it
                self.heard(await asyncio.to_thread(producers, self._store))
        return self._known.get(sha256)

    def allowance(self, producer: Producer) -> Allowance:
        """A new one where the producer was given another rate."""
        found = self._allowances.get(producer.name)
        if found is None or found.producer != producer:
            found = self._allowances[producer.name] = Allowance(producer, **self._bounds)
        return found

    async def record_refusal(self, producer: Producer, model: str) -> None:
        """Once an hour for each producer and model; "" stands for all models that do not exist."""
        key = (producer.name, model)
        if time.monotonic() - self._refused.get(key, float("-inf")) < HOUR.total_seconds():
            return
        self._refused[key] = time.monotonic()
        try:
            await asyncio.to_thread(refused, self._store, *key)
        except UnavailableError as error:  # it is refused all the same, and recorded the next time
            del self._refused[key]
            log.warning("%s: the refusal could not be recorded: %s", producer.name, error)
