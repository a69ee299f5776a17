"""A drift that begins at a seeded time, and how long until its incident is open and its page is out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.loop.fleet import Failed
from drift_pipeline.telemetry.synthetic import Drift, DriftKind
from drift_pipeline_tests.faults.world import NAME, Process, Site

TICK = timedelta(seconds=30)
KINDS: Sequence[DriftKind] = ("concept", "covariate")
WATCHED, PATIENCE = 40 * MINUTE, 4 * HOUR  # healthy before the drift at least; after it at most


@dataclass(frozen=True)
class Detection:
    """`opened` None: not within `PATIENCE`. `waited`: from the arrival of the first event that the deciding tick was
    the first to see, in virtual time; `worked_s`: capture, tick and delivery, in wall time. `early`: incidents before
    the drift."""

    seed: int
    kind: str
    began: datetime
    opened: datetime | None
    waited: timedelta | None
    worked_s: float | None
    early: int
    rows: int

    @property
    def minutes(self) -> float | None:
        return (self.opened - self.began) / MINUTE if self.opened else None

    @property
    def chain_s(self) -> float | None:
        """From arrival to page. An event that arrives just after a capture waits longest; this is that one."""
        return None if self.waited is None or self.worked_s is None else self.waited.total_seconds() + self.worked_s


def detect(root: Path, seed: int, **site: int) -> Detection:
    """One run: traffic captured and ticked each 30 virtual seconds, capture at a seeded moment between two ticks."""
    rng = np.random.default_rng([seed, 99])
    kind = KINDS[seed % len(KINDS)]
    after = WATCHED + float(rng.uniform(0, 20)) * MINUTE
    phase = timedelta(seconds=float(rng.uniform(1, 29)))
    made = Site(root, seed=seed, hours=6, drifts=[Drift(kind, after / timedelta(days=1))], **site)  # type: ignore[arg-type]
    try:
        return _watch(made, seed, kind, made.began + after, phase)
    finally:
        made.close()


def _watch(site: Site, seed: int, kind: str, began: datetime, phase: timedelta) -> Detection:
    process, early, captured_at = Process(site, inline=False), 0, site.began
    while site.clock.now() < began + PATIENCE:
        tick_at = site.clock.now() + TICK
        site.clock.advance_to(tick_at - TICK + phase)
        site.serve()
        since, captured_at = captured_at, site.clock.now()
        start = time.perf_counter()
        site.take()
        worked = time.perf_counter() - start
        site.clock.advance_to(tick_at)
        start = time.perf_counter()
        ticked = process.tick()  # with what it ends with: the outbox is driven
        worked += time.perf_counter() - start
        assert ticked is not None
        if isinstance(ticked, Failed):
            raise RuntimeError(ticked.reason)
        if ticked.incident:
            if tick_at < began:
                early += 1
                break
            paged = [message.id for message in site.pager.received]
            assert paged == [f"{NAME}:{ticked.incident}:incident.opened"], paged
            return Detection(seed, kind, began, tick_at, tick_at - since, worked, early, len(site.sent.landing))
    return Detection(seed, kind, began, None, None, None, early, len(site.sent.landing))
