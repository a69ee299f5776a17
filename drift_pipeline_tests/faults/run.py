"""Hours of seeded faults through one site: what happened, and which invariant did not hold after it."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.loop.fleet import Failed
from drift_pipeline.telemetry.synthetic import Drift
from drift_pipeline_tests.faults.invariants import broken, unpaged
from drift_pipeline_tests.faults.people import Happened, People
from drift_pipeline_tests.faults.schedule import Fault, Faults
from drift_pipeline_tests.faults.world import Process, Site


@dataclass
class Tale:
    """What a run came to. `wrong`: what did not hold, by when and after what."""

    times: Counter[str] = field(default_factory=Counter)
    told: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[tuple[datetime, str, str]] = field(default_factory=list)
    checks: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    rows: int = 0

    def add(self, happened: Happened, at: datetime) -> None:
        if not happened.fault:
            return
        self.times[happened.fault] += 1
        self.told.setdefault(happened.fault, []).append(f"{at:%d %H:%M} {happened.told}")
        if happened.wrong:
            self.wrong.append((at, happened.fault, happened.wrong))


class Run:
    def __init__(
        self, site: Site, hours: float, seed: int, repeats: int, tell: Callable[[str], None], step: timedelta
    ) -> None:
        self.site, self.end, self._tell, self._step = site, site.began + hours * HOUR, tell, step
        self._last_call, self._owed = self.end - 20 * MINUTE, list[str]()
        self.processes = Process(site, inline=True), Process(site, inline=False)
        self.people = People(site, self.processes)
        self.faults = Faults(site, self.processes, seed)
        self.due = self.faults.schedule(hours, repeats)
        self.under_way: list[Fault] = []
        self.tale = Tale()
        self._full_at: datetime | None = None
        self._gone_back = False

    def go(self) -> Tale:
        while self.site.clock.now() < self.end:
            self.minute()
        self._settle()
        return self.tale

    def minute(self) -> None:
        """The second process ticks half a step after the first."""
        site, now = self.site, self.site.clock.now()
        site.clock.advance_to(now + self._step / 2)
        site.serve()
        over, self._owed = [*self._owed, *self._turn()], []
        if site.take() is None:
            self._owed.append("capture")  # what was cut short lands with the next step
        self._tick(self.processes[0])
        site.clock.advance_to(now + self._step)
        self._tick(self.processes[1])
        over += [told.fault for told in self._people()]
        over += self._hits()
        if site.filed_at == site.clock.now():
            self._owed.append("an approval")  # a file that the next tick's record names
        if self._owed:
            self._owed += over
        elif over and not site.swapped:
            self.check(", ".join(dict.fromkeys(over)))

    def _tick(self, process: Process) -> None:
        ticked = process.tick()
        if isinstance(ticked, Failed):
            self.tale.failed["conflict" if ticked.again else ticked.reason[:90]] += 1

    def _turn(self) -> list[str]:
        """Begin and end what is due; the names of what is over, and so can be checked."""
        now, over = self.site.clock.now(), []
        for fault in [one for one in self.under_way if one.at + one.lasts <= now]:
            self.under_way.remove(fault)
            ended = fault.end()
            if ended is not None:
                self.tale.add(ended, now)
            over.append(fault.name)
        for fault in [one for one in self.due if one.at <= now and self._ready(one)]:
            self.due.remove(fault)
            self.tale.add(fault.begin(), now)
            if fault.lasts:
                self.under_way.append(replace(fault, at=now))
            elif not fault.name.startswith(("killed", "two loops")):
                over.append(fault.name)
        return over

    def _ready(self, fault: Fault) -> bool:
        under_way = self.site.route.candidate is not None
        return not fault.for_rollout or under_way or self.site.clock.now() >= min(fault.at + 3 * HOUR, self._last_call)

    def _people(self) -> list[Happened]:
        """Nobody acts on a rollout while its bytes are being played with, or while it is paused."""
        if any(fault.name in ("bundle swapped", "pause", "maintenance") for fault in self.under_way):
            return []
        told, now = self.people.act(), self.site.clock.now()
        if self.site.route.previous is not None and self._full_at is None:
            self._full_at = now
        if self._full_at is not None and not self._gone_back and now >= self._full_at + 12 * MINUTE:
            self._gone_back = True
            told.append(self.people.roll_back_champion())
        for happened in told:
            self.tale.add(happened, now)
        return told

    def _hits(self) -> list[str]:
        names, now = [], self.site.clock.now()
        for fuses in (self.site.capture_fuses, *(process.fuses for process in self.processes)):
            for name in filter(None, fuses.hit):
                self.tale.add(Happened(name, ""), now)
                names.append(name)
            fuses.hit.clear()
        return names

    def check(self, after: str) -> None:
        self.tale.checks += 1
        began = time.perf_counter()
        for found in broken(self.site, self.processes):
            self.tale.wrong.append((self.site.clock.now(), after, found))
        self._tell(
            f"{self.site.clock.now():%d %H:%M} {self.site.phase()} {after} ({time.perf_counter() - began:.1f} s) "
            f"{[wrong for at, _, wrong in self.tale.wrong if at == self.site.clock.now()] or ''}"
        )

    def _settle(self) -> None:
        """All is well again for some minutes; then everything has to be there."""
        for fault in self.under_way:
            fault.end()
        self.under_way, self.due = [], []
        for fuses in (self.site.capture_fuses, *(process.fuses for process in self.processes)):
            fuses.set.clear()
        for _ in range(12):
            self.minute()
        self.check("the end")
        now = self.site.clock.now()
        self.tale.wrong += [(now, "the end", f"never paged: {what}") for what in unpaged(self.site)]
        dead = self.site.lake_of_dead_letters()
        if dead != self.site.sent.dead:
            self.tale.wrong.append((now, "the end", f"I5 {dead} dead letters of {self.site.sent.dead}"))
        self.tale.events.update(record.event for record in self.site.records())
        self.tale.deaths = sum(process.died for process in self.processes)
        self.tale.rows = len(self.site.sent.landing)


def run(
    root: Path,
    *,
    hours: float,
    seed: int,
    repeats: int,
    drifts: list[Drift],
    step: timedelta = MINUTE,
    tell: Callable[[str], None] = lambda _: None,
    **site: int,
) -> Tale:
    """A site that lives for `hours` of virtual time; every kind of fault comes `repeats` times."""
    made = Site(root, seed=seed, hours=hours + 1, drifts=drifts, **site)  # type: ignore[arg-type]
    try:
        return Run(made, hours, seed, repeats, tell, step).go()
    finally:
        made.close()
