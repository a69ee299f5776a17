"""Capture as a process: the spools of a home, its lakes, and the mirror of its rollouts."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event

from drift_pipeline.clock import Clock
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.loop.forms import FrozenSpecs
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.serving.mirror import Mirror
from drift_pipeline.serving.receiver import receiving
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Lake

PATIENCE_S = 2.0  # for who writes one model's lake, while all others wait; then its events are set aside for a while


@contextmanager
def capturing(
    settings: Settings, specs: Mapping[str, ModelSpec], clock: Clock, sources: Sequence[str] = ()
) -> Iterator[tuple[Capture, Event]]:
    """The capture of a home, and what SIGINT and SIGTERM set: a segment under way is finished.

    Args:
        sources: where else events come in: otlp://HOST:PORT is listened to.

    Raises:
        InputError: a source cannot be had.
        UnavailableError: a source ended by itself.
    """
    lakes: dict[tuple[str, str], Lake] = {}

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
    try:
        specs = FrozenSpecs(store, specs)
        mirror = Mirror(store, registry_of(settings), specs)
        with ExitStack() as stack:
            for url in sources:
                stack.enter_context(receiving(settings, specs, clock, url, stop))
            yield Capture(settings.home / "spool", lake_of, specs, clock, mirror.mirror), stop
    finally:
        store.close()
