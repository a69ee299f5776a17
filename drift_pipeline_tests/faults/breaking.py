"""Real backends that die, are down or are interrupted at a named point, and else do what they always do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from drift_pipeline.bucket import Place
from drift_pipeline.clock import Clock
from drift_pipeline.control.checkpoints import Checkpoints
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry, Message, Put
from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop.context import Backends
from drift_pipeline.loop.home import Home
from drift_pipeline.policy.engines import DECISION, Answer, PolicyEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake, Table

Point = Literal[
    "lake.append",
    "lake.drop",
    "lake.compact",
    "store.commit",
    "store.remember",
    "store.forget",
    "registry.put",
    "registry.get",
    "channel.send",
    "capture.flush",
]
Side = Literal["before", "after"]
POINTS: tuple[Point, ...] = (
    "lake.append",
    "store.commit",
    "store.remember",
    "store.forget",
    "registry.put",
    "channel.send",
    "capture.flush",
)
SIDES: tuple[Side, ...] = ("before", "after")


class KilledError(BaseException):
    """The process ends here: nothing catches it, as nothing catches kill -9."""


def kill() -> None:
    raise KilledError


@dataclass
class Fuses:
    """What is to happen once at which point of which process, before or after the effect.

    `only`: at a point, the one effect that is meant; `of`: the effects that were struck. `after`: the process dies
    once so many effects were begun or done, whatever they are; `passed` counts them.
    """

    set: dict[tuple[Point, Side], Callable[[], None]] = field(default_factory=dict)
    only: dict[Point, str] = field(default_factory=dict)
    hit: list[str] = field(default_factory=list)
    of: list[str] = field(default_factory=list)
    after: int | None = None
    passed: int = 0

    @contextmanager
    def around(self, point: Point, name: str = "") -> Iterator[None]:
        """`name` tells which of several effects it is, where `only` asks for one."""
        self._strike(point, "before", name)
        yield
        self._strike(point, "after", name)

    def _strike(self, point: Point, side: Side, name: str) -> None:
        self.passed += 1
        if self.passed == self.after:
            self.hit.append(f"killed {side} {point} {name}")
            kill()
        if (point, side) in self.set and self.only.get(point, name) == name:
            action = self.set.pop((point, side))
            told = f"killed {side} {point}" if action is kill else getattr(action, "__doc__", "") or ""
            self.hit.append(told)
            self.of.append(name)
            action()


class BreakableStore(ControlStore):
    def __init__(self, url: str, clock: Clock, fuses: Fuses, checkpoints: Checkpoints) -> None:
        super().__init__(url, clock, checkpoints)
        self._fuses = fuses

    def commit(
        self, entry: Entry, puts: Sequence[Put] = (), messages: Sequence[Message] = (), memory: Sequence[Put] = ()
    ) -> AuditRecord:
        with self._fuses.around("store.commit", entry.event):
            return super().commit(entry, puts, messages, memory)

    def remember(self, *memory: Put) -> None:
        with self._fuses.around("store.remember"):
            super().remember(*memory)

    def forget(self, keys: Sequence[str]) -> None:
        with self._fuses.around("store.forget"):
            super().forget(keys)


class BreakableLake(Lake):
    """The loop's: it writes profiles."""

    def __init__(self, root: Place, source: str, fuses: Fuses) -> None:
        super().__init__(root, source)
        self._fuses = fuses

    def append(self, table: Table, frame: pl.DataFrame, batch: int) -> bool:
        with self._fuses.around("lake.append", table):
            return super().append(table, frame, batch)

    def drop(self, table: Table, where: str) -> int:
        with self._fuses.around("lake.drop", table):
            return super().drop(table, where)

    def compact(self, table: Table) -> int:
        with self._fuses.around("lake.compact", table):
            return super().compact(table)


class CaptureLake(Lake):
    """Capture's: it can die between what lands and the segment that is done."""

    def __init__(self, root: Place, source: str, fuses: Fuses) -> None:
        super().__init__(root, source)
        self._fuses = fuses

    def append_next(self, table: Table, *arguments: Any) -> int:
        if table != "predictions":
            return super().append_next(table, *arguments)
        with self._fuses.around("capture.flush"):
            return super().append_next(table, *arguments)


class BreakableRegistry(LocalRegistry):
    def __init__(self, root: Path, fuses: Fuses) -> None:
        super().__init__(root)
        self._fuses = fuses

    def put(self, manifest_fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        with self._fuses.around("registry.put"):
            return super().put(manifest_fields, files)

    def get(self, digest: str) -> Bundle:
        with self._fuses.around("registry.get", digest):
            return super().get(digest)


@dataclass
class Pager:
    """The receiver of alerts, outside of all processes; what came twice it would know by its id."""

    up: bool = True
    received: list[Message] = field(default_factory=list)


class PagerChannel:
    def __init__(self, pager: Pager, fuses: Fuses) -> None:
        self._pager, self._fuses = pager, fuses

    def send(self, message: Message) -> None:
        if not self._pager.up:
            raise UnavailableError("nobody answers")
        with self._fuses.around("channel.send"):
            self._pager.received.append(message)


class MortalPolicy:
    """The real engine while it is `up`."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine, self.up, self.refused = engine, True, 0

    @property
    def digest(self) -> str | None:
        return self._engine.digest

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer:
        if not self.up:
            self.refused += 1
            raise UnavailableError("it is dead")
        return self._engine.evaluate(facts, rule)


@dataclass(frozen=True)
class BreakableHome(Home):
    fuses: Fuses

    def backends(self, spec: ModelSpec) -> Backends:
        lake = BreakableLake(self.settings.lake / spec.name, "loop", self.fuses)
        return Backends(lake, self.store, self.registry, self.policy, self.alerts)
