"""Pauses, maintenance and snoozes: what people asked the loop to leave alone, read anew from the control store."""

from datetime import datetime

from drift_pipeline.clock import Window
from drift_pipeline.loop.context import Context


class Pauses:
    """One model's. `operating.py` writes them."""

    def __init__(self, context: Context) -> None:
        self._ledger, self._clock = context.ledger, context.clock

    def maintenances(self) -> tuple[Window, ...]:
        """All spans that operators announced, over or not: their rows judge nothing, and nothing is done meanwhile."""
        found = self._ledger.find("maintenance")
        spans = [*found["earlier"], found] if found else []
        return tuple(Window(*(datetime.fromisoformat(span[end]) for end in ("from", "to"))) for span in spans)

    def in_maintenance(self) -> bool:
        """Whether a maintenance is going on."""
        now = self._clock.now()
        return any(now in span for span in self.maintenances())

    def paused(self) -> bool:
        """Whether an operator stopped retraining and promotion for now."""
        found = self._ledger.find("pause")
        return bool(found and found["on"])

    def snoozed(self) -> bool:
        """Whether nobody wants a page about drift now."""
        found = self._ledger.find("snooze")
        return found is not None and self._clock.now() < datetime.fromisoformat(found["until"])
