"""A seeded schedule of faults: each kind with what begins it, how long it lasts, and what ends it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.errors import DriftError
from drift_pipeline.loop import operating
from drift_pipeline.policy.decide import Action
from drift_pipeline.telemetry.lake import TABLES
from drift_pipeline_tests.faults.breaking import Point, Side, kill
from drift_pipeline_tests.faults.machine_faults import MachineFaults
from drift_pipeline_tests.faults.people import Happened
from drift_pipeline_tests.faults.world import NAME, Process, Site

CAPTURE: Point = "capture.flush"
FOR_ROLLOUT = ("pause", "bundle swapped")


@dataclass
class Fault:
    """`begin` and `end` tell what happened; one that lasts no time is over when it has begun."""

    name: str
    begin: Callable[[], Happened]
    at: datetime
    lasts: timedelta = timedelta()
    end: Callable[[], Happened | None] = lambda: None
    for_rollout: bool = False  # waits a while for one that is under way


class Faults:
    """Every kind of one site, and what they need to remember."""

    def __init__(self, site: Site, processes: tuple[Process, Process], seed: int) -> None:
        self.site, self.processes, self.rng = site, processes, np.random.default_rng(seed)
        self.machine = MachineFaults(site, processes, self.rng)
        self._made = 0
        self._early: list[str] = []
        self._swapped: list[tuple[Path, bytes]] = []

    def schedule(self, hours: float, repeats: int) -> list[Fault]:
        """Every kind `repeats` times, at minutes of a grid, the spells that stop the loop early and late."""
        minutes = int(60 * hours)
        kinds = list(self._instants())
        found: list[Fault] = []
        for left in reversed(range(repeats)):
            for name, begin in kinds:
                at = self.site.began + int(self.rng.integers(1, (minutes - 10) // 5)) * 5 * MINUTE
                found.append(Fault(name, begin, at))
            found += self._spells(minutes, last=left == 0)
        return sorted(found, key=lambda fault: fault.at)

    def _instants(self) -> Iterator[tuple[str, Callable[[], Happened]]]:
        yield "duplicates", self.duplicates
        yield "late events", self.late
        yield "out of order", self.out_of_order
        yield "poison", self.poison
        yield "future-dated", self.future
        yield "schema break", self.schema
        yield "label before its prediction", self.label_first
        yield "two loops tick at once", self.at_once
        yield "lake compacted", self.compact
        yield from self.machine.kinds()
        sides: tuple[Side, ...] = ("before", "after")
        points: tuple[Point, ...] = ("lake.append", "store.commit", "store.remember", "registry.put", "channel.send")
        for point in (*points, CAPTURE):
            for side in sides:
                yield f"killed {side} {point}", self._killed(point, side)

    def _spells(self, minutes: int, *, last: bool) -> Iterator[Fault]:
        """One after the other, each in its part of the time; only the last of all wait for a rollout."""
        spells: list[tuple[str, int, Callable[[], Happened], Callable[[], Happened | None]]] = [
            ("policy dead", 6, self.kill_policy, self.revive_policy),
            ("alert channel down", 12, self.mute, self.unmute),
            ("pause", 6, self.pause, self.go_on),
            ("maintenance", 8, self.maintain, lambda: None),
            ("bundle swapped", 4, self.swap, self.restore),
            ("no traffic", 20, self.silence, self.speak),
        ]
        order = self.rng.permutation(len(spells))
        free = (minutes - 5) / len(spells)
        for place, which in enumerate(order):
            name, lasts, begin, end = spells[which]
            first = place * free + float(self.rng.random()) * max(free - lasts - 2, 0.0)
            yield Fault(
                name,
                begin,
                self.site.began + max(int(first), 2) * MINUTE,
                lasts * MINUTE,
                end,
                last and name in FOR_ROLLOUT,
            )

    def _extra(self, number: int) -> list[str]:
        self._made += number
        return [f"x{self._made - k}" for k in range(number)]

    # events

    def duplicates(self) -> Happened:
        """What was sent in the last minutes comes again, from another producer."""
        now, sent = self.site.clock.now(), self.site.last_lines
        self.site.sent.repeated += len(sent)
        self.site.send(sent, source="again")
        return Happened("duplicates", f"{len(sent)} lines again at {now:%H:%M}")

    def late(self) -> Happened:
        behind, late = self._extra(5), self._extra(5)
        self.site.sent.landing |= set(behind)
        self.site.sent.late |= set(late)
        self._send(behind, at := self.site.newest - HOUR - 5 * MINUTE)
        self._send(late, too_late := self.site.newest - 9 * DAY)
        return Happened("late events", f"5 of {at:%H:%M}, 5 of {too_late:%m-%d %H:%M}")

    def out_of_order(self) -> Happened:
        names, at = self._extra(5), self.site.newest - 20 * MINUTE
        self.site.sent.landing |= set(names)
        self._send(names, at)
        self.site.send([self.site.outcome(name, self.site.clock.now(), 1) for name in names])
        return Happened("out of order", f"5 of {at:%H:%M} with their labels")

    def _send(self, names: list[str], at: datetime) -> None:
        row = self.site.some_row(self._made)
        self.site.send([self.site.prediction({**row, "_time": at}, id=name) for name in names])

    def poison(self) -> Happened:
        lines = [b"\xff\x00", b"{}", b"[" * 5000, b'{"event": "prediction"', b"null"]
        self.site.sent.dead += len(lines)
        self.site.send(lines)
        return Happened("poison", f"{len(lines)} lines that are no event")

    def future(self) -> Happened:
        row, at = self.site.some_row(self._made), self.site.clock.now() + DAY
        self.site.sent.dead += 3
        self.site.send([self.site.prediction({**row, "_time": at}, id=name) for name in self._extra(3)])
        return Happened("future-dated", f"3 of {at:%m-%d %H:%M}")

    def schema(self) -> Happened:
        row = self.site.some_row(self._made)
        features = {name: row[name] for name in self.site.spec.watched if name != "price_eur"}
        row["_time"] = self.site.clock.now()
        self.site.sent.dead += 20
        self.site.send([self.site.prediction(row, id=name, features=features) for name in self._extra(20)])
        return Happened("schema break", "20 without price_eur")

    def label_first(self) -> Happened:
        """Its prediction is held up for ten minutes by its producer; `late_predictions` sends it."""
        (name,) = self._extra(1)
        self.site.send([self.site.outcome(name, self.site.clock.now(), 1)])
        self.site.held.append((self.site.clock.now() + 10 * MINUTE, name, self.site.clock.now() - MINUTE))
        return Happened("label before its prediction", f"{name}, ten minutes before")

    # processes

    def _killed(self, point: Point, side: Side) -> Callable[[], Happened]:
        def lay() -> Happened:
            fuses = self.site.capture_fuses if point == CAPTURE else self._either(point).fuses
            fuses.set[point, side] = kill
            return Happened("", f"killed {side} {point}")

        return lay

    def _either(self, point: Point) -> Process:
        """Only the first trains, and delivers first."""
        return self.processes[0 if point in ("registry.put", "channel.send") else int(self.rng.integers(2))]

    def at_once(self) -> Happened:
        first, second = self.processes

        def race() -> None:
            """two loops tick at once"""
            second.tick()

        first.fuses.set["store.remember", "before"] = race
        return Happened("", "the second ticks within the first's tick")

    def compact(self) -> Happened:
        lake = self.site.lake()
        merged = sum(lake.compact(table) for table in TABLES)
        return Happened("lake compacted", f"{merged} files merged")

    # spells

    def kill_policy(self) -> Happened:
        self.site.policy.up = False
        return Happened("", "it answers nothing")

    def revive_policy(self) -> Happened:
        """An operator asks just before it is back."""
        said = operating.retrain(self.site.by_hand(), "ada", "now")[1]
        self.site.policy.up = True
        wrong = "" if said.action is Action.IGNORE else f"it decided {said.action}"
        return Happened("policy dead", f"an operator asked: {said.action}, {said.reasons[0]}", wrong=wrong)

    def mute(self) -> Happened:
        self.site.pager.up = False
        return Happened("", "")

    def unmute(self) -> Happened:
        self.site.pager.up = True
        waiting = len(self.site.store.pending())
        return Happened("alert channel down", f"{waiting} waited in the outbox")

    def pause(self) -> Happened:
        operating.pause(self.site.by_hand(), "ada", "audit", on=True)
        self._before = self.site.route.phase
        return Happened("", "")

    def go_on(self) -> Happened:
        after = self.site.route.phase
        wrong = "" if after in (self._before, "rolled_back") else f"{self._before} -> {after} in a pause"
        operating.pause(self.site.by_hand(), "ada", "done", on=False)
        return Happened("pause", f"rollout {self._before} -> {after}", wrong=wrong)

    def maintain(self) -> Happened:
        now = self.site.clock.now()
        operating.announce_maintenance(self.site.by_hand(), "ada", "migration", Window(now, now + 8 * MINUTE))
        return Happened("maintenance", f"{now:%H:%M} for 8 min")

    def swap(self) -> Happened:
        """Of the candidate where there is one, and of the champion else; the processes begin anew."""
        route = self.site.route
        of = route.candidate or route.champion
        digest = str(of["digest"]).removeprefix("sha256:")
        (path,) = self.site.settings.registry.rglob(f"{digest}/model.skops")
        self._swapped = [(path, path.read_bytes())]
        path.write_bytes(b"another model")
        for process in self.processes:
            process.restart()
        self._phase = route.phase
        self._what = "candidate" if route.candidate else "champion"
        self.site.swapped = True
        return Happened("", "")

    def restore(self) -> Happened:
        for path, data in self._swapped:
            path.write_bytes(data)
        after = self.site.route.phase
        self.site.swapped = False
        wrong = "" if after in (self._phase, "rolled_back") else f"{self._phase} -> {after} with other bytes"
        return Happened("bundle swapped", f"of the {self._what}; rollout {self._phase} -> {after}", wrong=wrong)

    def silence(self) -> Happened:
        self.site.silent = True
        return Happened("", "")

    def speak(self) -> Happened:
        verdicts = self._verdicts()
        self.site.silent = False
        return Happened("no traffic", f"verdicts after 20 min: {verdicts}")

    def _verdicts(self) -> str:
        try:
            report = self.site.by_hand().look()
        except DriftError as error:
            return str(error)
        return ", ".join(f"{name} {kpi.verdict}" for name, kpi in report.kpis.items())


__all__ = ["NAME", "Fault", "Faults"]
