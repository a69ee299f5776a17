"""Holds: what people asked the loop to leave alone, and until when. Each is read anew from the control store."""

from datetime import datetime

from drift_pipeline.clock import Clock, Window
from drift_pipeline.loop.ledger import Ledger


class Holds:
    """One model's. `operating.py` writes them."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock

    def maintenance(self) -> Window | None:
        """The span that an operator announced, from its beginning on; its rows judge nothing, and nothing is done."""
        found = self._ledger.find("maintenance")
        return Window(*(datetime.fromisoformat(found[end]) for end in ("from", "to"))) if found else None

    def at_rest(self) -> bool:
        """Whether a maintenance is going on."""
        maintained = self.maintenance()
        return maintained is not None and self._clock.now() in maintained

    def paused(self) -> bool:
        """Whether an operator holds retraining and promotion."""
        found = self._ledger.find("pause")
        return bool(found and found["on"])

    def snoozed(self) -> bool:
        """Whether nobody wants a page about drift now."""
        found = self._ledger.find("snooze")
        return found is not None and self._clock.now() < datetime.fromisoformat(found["until"])
