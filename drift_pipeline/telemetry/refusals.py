"""How much of what comes is laid aside: a few bad events are slips, many are a producer that is broken."""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from drift_pipeline.clock import HOUR
from drift_pipeline.telemetry.event import DeadLetter, OutcomeKnown, Prediction

LAST = 1000  # events of a model that are looked at, as far as they came within the hour
SHARE, LEAST = 0.05, 20  # of them, above which and from which on they are many


@dataclass(frozen=True)
class Refused:
    """Many of the newest `events` of a model were laid aside; `model` "": they name no model that is known."""

    model: str
    refused: int
    events: int


class Refusals:
    """Counted in memory: what an earlier process laid aside is not counted here."""

    def __init__(self) -> None:
        self._last: defaultdict[str, deque[tuple[datetime, bool]]] = defaultdict(lambda: deque(maxlen=LAST))

    def add(self, events: Iterable[Prediction | OutcomeKnown | DeadLetter], now: datetime) -> None:
        """What names no known model is seen against all that came."""
        for event in events:
            refused = isinstance(event, DeadLetter)
            self._last[""].append((now, refused and not event.model))
            if event.model:
                self._last[event.model].append((now, refused))

    def found(self, now: datetime) -> list[Refused]:
        """Where they are many; for as long as they are."""
        found = []
        for model, last in self._last.items():
            while last and last[0][0] <= now - HOUR:
                last.popleft()
            refused = sum(aside for _, aside in last)
            if refused >= LEAST and refused > SHARE * len(last):
                found.append(Refused(model, refused, len(last)))
        return found
