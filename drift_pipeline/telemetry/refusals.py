"""What people should hear of what comes: a few bad events are slips, many are a producer that is broken."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from drift_pipeline.clock import HOUR
from drift_pipeline.telemetry.event import DeadLetter, Event

LAST = 1000  # events of a model that are looked at, as far as they came within the hour
SHARE, LEAST = 0.05, 20  # of them, above which and from which on they are many


class What(StrEnum):
    """What became of an event: laid aside as no event; too late for its slice; of an id that is another's as well."""

    LAID_ASIDE = "laid_aside"
    LATE = "late"
    SHARED = "shared_ids"


@dataclass(frozen=True)
class Refused:
    """This became of many of the newest `events` of a model; `model` "": they name no model that is known."""

    model: str
    refused: int
    events: int
    what: What = What.LAID_ASIDE


@dataclass(frozen=True)
class Waiting:
    """Events of a model have waited for so many seconds to land; `model` "": those of a whole segment."""

    model: str
    seconds: float


Concern = Refused | Waiting


class Refusals:
    """Counted in memory: what became of an earlier process' events is not counted here."""

    def __init__(self) -> None:
        self._last: defaultdict[str, deque[tuple[datetime, What | None]]] = defaultdict(lambda: deque(maxlen=LAST))
        self._noted = list[tuple[str, What, int]]()

    def add(self, events: Iterable[Event], now: datetime) -> None:
        """What names no known model is seen against all that came."""
        for event in events:
            refused = What.LAID_ASIDE if isinstance(event, DeadLetter) else None
            self._last[""].append((now, None if event.model else refused))
            if event.model:
                self._last[event.model].append((now, refused))

    def mark(self, model: str, what: What, events: int, now: datetime) -> None:
        """This became of so many of the model's newest that nothing else became of."""
        last = self._last[model]
        for place in range(len(last) - 1, -1, -1):
            if events <= 0:
                return
            if last[place][1] is None:
                last[place], events = (now, what), events - 1

    def note(self, model: str, what: What, events: int) -> None:
        """To `mark` at the next `settle`: a batch lands before it is gone, and `add` is told of it only then."""
        self._noted.append((model, what, events))

    def settle(self, now: datetime) -> None:
        """Mark what was noted."""
        for model, what, events in self._noted:
            self.mark(model, what, events, now)
        self._noted.clear()

    def found(self, now: datetime) -> list[Refused]:
        """Where they are many; for as long as they are."""
        found = []
        for model, last in self._last.items():
            while last and last[0][0] <= now - HOUR:
                last.popleft()
            counts = Counter(fate for _, fate in last)
            for what in What:
                refused = counts[what]
                if refused >= LEAST and refused > SHARE * len(last):
                    found.append(Refused(model, refused, len(last), what))
        return found
