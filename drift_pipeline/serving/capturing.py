"""Capture as a process: the spools of a home, its lakes, and the mirror of its rollouts."""

import logging
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.errors import DriftError
from drift_pipeline.files import write_whole
from drift_pipeline.loop.forms import FrozenSpecs
from drift_pipeline.observability import lag
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.observability.landings import LANDED, merged, tracing
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.serving.mirror import Mirror
from drift_pipeline.serving.receiver import receiving
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources import Lag, Source, opened, scheme_of
from drift_pipeline.telemetry.sources.positions import Positions
from drift_pipeline.telemetry.sources.spool import SpoolWriter

log = logging.getLogger(__name__)
PATIENCE_S = 2.0  # for who writes one model's lake, while all others wait; then its events are set aside for a while


def machine_of(settings: Settings) -> str:
    """What tells this machine's spools from those of others that land in the same bucket, whose names and numbers are
    the same; made once.

    Raises InputError where the home cannot be written.
    """
    path = settings.home / "machine"
    if not path.exists():
        made = write_whole(path.with_name(f"machine.{uuid4().hex}"), uuid4().hex[:12])
        with suppress(FileExistsError):  # another process was faster
            os.link(made, path)
        made.unlink()
    return path.read_text(encoding="utf-8")


class Tally:
    """What became of events, counted for ever by all captures of a home together, and when one last looked for some:
    for metrics, so now and then."""

    def __init__(
        self, store: ControlStore, clock: Clock, every_s: float = 15.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock, self._every_s, self._monotonic = store, clock, every_s, monotonic
        self._counts, self._wrote = Counter[str](), -math.inf
        self.landed: Mapping[str, Sequence[str]] = {}  # as of `Landings`; what traces go by
        self.logs: Sequence[Source] = ()  # of which it is told how far behind they are

    def add(self, counts: Mapping[str, int]) -> None:
        """Raises as `write`; nothing is lost, the next one writes it."""
        self._counts.update(counts)
        if self._monotonic() - self._wrote >= self._every_s:
            self.write()

    def write(self) -> None:
        """Raises UnavailableError where the store does not answer."""
        lags = [one for log in self.logs for one in log.lags()]
        self._store.revise(CAPTURE, lambda found: self._with(found, lags))
        self._wrote = self._monotonic()
        self._counts.clear()

    def _with(self, found: Mapping[str, Any], lags: Sequence[Lag]) -> dict[str, Any]:
        """What this capture and the others came to."""
        events, landed = Counter(found.get("events", {})) + self._counts, merged(found.get(LANDED, {}), self.landed)
        told = {"at": self._clock.now().isoformat(), "events": dict(events)}
        return {**told, **lag.remembered(found, lags, self._clock.now()), **({LANDED: landed} if landed else {})}


@contextmanager
def capturing(
    settings: Settings, specs: Mapping[str, ModelSpec], clock: Clock, sources: Sequence[str] = ()
) -> Iterator[tuple[Capture, Event]]:
    """The capture of a home, and what SIGINT and SIGTERM set: a segment under way is finished.

    Args:
        sources: URLs of what is read beside the spool, or listened to: kafka://HOST:PORT/TOPIC, otlp://HOST:PORT.

    Raises:
        InputError: a source that cannot be used.
        UnavailableError: a source that is listened to ended by itself.
    """
    lakes: dict[tuple[str, str], Lake] = {}
    machine = f"@{machine_of(settings)}" if settings.bucket else ""

    def lake_of(model: str, source: str) -> Lake:
        place = (model, source)
        if place not in lakes:
            folder = settings.lake / model if model else settings.dead_letters
            lakes[place] = Lake(folder, source=source, patience_s=PATIENCE_S)
        return lakes[place]

    stop = Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    require_store(settings)
    store = open_store(settings, clock)
    tally = Tally(store, clock)
    try:
        specs = FrozenSpecs(store, specs)
        mirror = Mirror(store, registry_of(settings), specs)
        group, positions = f"drift-{next(iter(store.records())).hash[:16]}", Positions(lake_of)
        with ExitStack() as stack:
            landed = None
            if landings := stack.enter_context(tracing(clock)):
                tally.landed, landed = landings.last, landings.landed
            logs = list[Source]()
            for url in sources:
                if scheme_of(url) == "otlp":
                    stack.enter_context(receiving(settings, specs, clock, url, stop))
                else:
                    logs.append(stack.enter_context(opened(url, settings, group, positions, clock)))
            tally.logs, spool = logs, settings.home / "spool"
            capture = Capture(
                spool, lake_of, specs, clock, mirror.mirror, logs=logs, beat=tally.add, landed=landed, machine=machine
            )
            yield capture, stop
            tally.write()
    finally:
        store.close()


def drain(capture: Capture, spool: Path, patience_s: float, every_s: float) -> None:
    """Land what the folders of a spool hold, also what a dead writer left open; tried again for so long.

    Raises what the last try raised.
    """
    for folder in sorted(spool.iterdir()) if spool.is_dir() else []:
        try:
            SpoolWriter(folder).close()
        except DriftError as error:  # one that lives hands over by itself
            log.info("left as it is: %s", error)
    until = time.monotonic() + patience_s
    while True:
        try:
            capture.once(Event())
            return
        except (DriftError, OSError) as error:
            if time.monotonic() + every_s > until:
                raise
            log.warning("not landed yet: %s", error)
        time.sleep(every_s)
