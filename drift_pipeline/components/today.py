"""Today in Dagster and in Evidently: what a model looks like now, each hour and whenever its verdict changes."""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from drift_pipeline.clock import HOUR
from drift_pipeline.components.links import card, live_page
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting
from drift_pipeline.loop import Loop
from drift_pipeline.loop.day import write_hour
from drift_pipeline.settings import Settings

MOST_A_TICK = 20  # models whose hour is told in one tick; the others' is in the next ones


class Today:
    """What was told last, so that a tick tells only news; a process that starts tells each model once."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[datetime, str]] = {}
        self._left = MOST_A_TICK

    def begin(self) -> None:
        """A tick begins."""
        self._left = MOST_A_TICK

    def news(self, loop: Loop, settings: Settings) -> Iterator[dg.AssetObservation]:
        """An observation of the model's `drift_report`, and a point on its Evidently dashboard, where there is news.

        Raises:
            InputError: the workspace cannot be written; the next tick tries again.
        """
        seen, now = loop.session.memory.seen, loop.clock.now()
        about = floor(now, HOUR), told_verdict(seen)
        if self._told.get(loop.spec.name) == about or not self._left:
            return
        self._left -= 1
        numbers = write_hour(settings.evidently, loop.spec, seen, loop.monitor.reference.baseline, now)
        self._told[loop.spec.name] = about
        metadata = {
            "verdict": told_verdict(seen),
            "not_judged": "; ".join(told_waiting(seen["not_judged"])) or "nothing",
            "as_of": now.isoformat(timespec="seconds"),
            "incident": loop.incident.key if loop.incident.open else "none is open",
            "champion": seen["champion"],
            "card": card(settings, loop.spec, seen["champion"]),
            **live_page(settings, loop.spec),
            **{f"now_{name}": dg.MetadataValue.float(number) for name, number in numbers.items()},
        }
        yield dg.AssetObservation(dg.AssetKey([loop.spec.name, "drift_report"]), metadata=metadata)
