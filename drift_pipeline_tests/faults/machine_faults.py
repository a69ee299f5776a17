"""What the machine does to a site in one moment of its hours: each kind begins, is lived through, and is over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.control import engine
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.fleet import Failed
from drift_pipeline.loop.retention import retain
from drift_pipeline_tests.faults.breaking import KilledError, Point, Side, kill
from drift_pipeline_tests.faults.machine import Fault, away, flipped, locked, read_only, short_files
from drift_pipeline_tests.faults.people import Happened
from drift_pipeline_tests.faults.world import OwnClock, Process, Site

OURS = tuple(f"{kind.__name__}: " for kind in DriftError.__subclasses__())
RETAINED: tuple[tuple[Point, str], ...] = (
    ("store.commit", "retention.begun"),
    ("lake.drop", "predictions"),
    ("lake.drop", "outcomes"),
    ("lake.compact", "predictions"),
    ("store.commit", "retention.applied"),
)


@dataclass
class MachineFaults:
    """`rng` decides how much, which, and when."""

    site: Site
    processes: tuple[Process, Process]
    rng: np.random.Generator

    def kinds(self) -> Iterator[tuple[str, Callable[[], Happened]]]:
        settings = self.site.settings
        yield "disk full", lambda: self._lived("disk full", short_files(int(self.rng.choice([0, 300, 5000]))))
        yield "disk read-only", lambda: self._lived("disk read-only", read_only(settings.home))
        yield "database locked", lambda: self._lived("database locked", self._impatient())
        yield "database gone", lambda: self._lived("database gone", away(*settings.home.glob("control.db*")))
        yield "champion missing", lambda: self._lived("champion missing", away(self._champion()), anew=True)
        yield "champion flipped", lambda: self._lived("champion flipped", flipped(self._champion()), anew=True)
        for name, ahead in (("ahead", HOUR), ("a day ahead", DAY), ("back", -HOUR), ("minutes back", -5 * MINUTE)):
            yield f"clock {name}", self._clock(f"clock {name}", ahead)
        yield "capture's clock ahead", self._clock("capture's clock ahead", DAY, of_capture=True)
        yield "capture's clock back", self._clock("capture's clock back", -5 * MINUTE, of_capture=True)
        yield "retention killed", self.retained

    def retained(self) -> Happened:
        """By hand, killed around one of its effects, and done again."""
        site, fuses = self.site, self.site.home.fuses
        keep = site.spec.retention.model_copy(update={"telemetry": 6 * DAY})
        spec = site.spec.model_copy(update={"retention": keep})
        sides: tuple[Side, ...] = ("before", "after")
        (point, name), side = RETAINED[int(self.rng.integers(len(RETAINED)))], sides[int(self.rng.integers(2))]
        fuses.only[point], fuses.set[point, side] = name, kill
        with suppress(KilledError):
            retain(site.home, spec, "ada")
        fuses.set.clear()
        fuses.only.clear()
        retain(site.home, spec, "ada")
        return Happened("retention killed", f"{side} {name}")

    def _clock(self, name: str, ahead: timedelta, *, of_capture: bool = False) -> Callable[[], Happened]:
        def wrong() -> Happened:
            clock: OwnClock = self.site.capture_clock if of_capture else self.processes[0].clock
            clock.set(ahead)
            try:
                return self._lived(name, nullcontext())
            finally:
                clock.right()

        return wrong

    def _lived(self, name: str, fault: Fault, *, anew: bool = False) -> Happened:
        """Capture and both processes do what is due. What is told, is told as ours.

        Args:
            anew: the processes begin anew, and so look at what they had read already.
        """
        told: list[str] = []
        with fault:
            for process in self.processes if anew else ():
                process.restart()
            for step in (self.site.take, *(process.tick for process in self.processes)):
                try:
                    came = step()
                except DriftError as error:
                    told.append(f"{type(error).__name__}: {error}")
                else:
                    told += [came.reason] if isinstance(came, Failed) and not came.again else []
        strange = [text for text in told if not text.startswith(OURS)]
        return Happened(name, f"{len(told)} were told", wrong="; ".join(strange))

    @contextmanager
    def _impatient(self) -> Iterator[None]:
        """Somebody holds the database, and nobody waits."""
        patience = engine._BUSY_SECONDS
        engine._BUSY_SECONDS = 0
        try:
            for process in self.processes:
                process.restart()
            with locked(self.site.settings.home / "control.db"):
                yield
        finally:
            engine._BUSY_SECONDS = patience
            for process in self.processes:
                process.restart()

    def _champion(self) -> Path:
        digest = str(self.site.route.champion["digest"]).removeprefix("sha256:")
        return self.site.settings.registry / digest[:2] / digest / "manifest.json"
