"""A home with one adopted model, its traffic through spool and capture, and its processes, on a manual clock."""

import json
import shutil
from contextlib import AbstractContextManager, closing
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY, HOUR, MINUTE, Clock, ManualClock, Window
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import AuditRecord, ControlStore
from drift_pipeline.control.trust import appoint, checkpoints_of, open_store
from drift_pipeline.errors import ConflictError, DriftError, IntegrityError
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.loop import Loop, Ticked
from drift_pipeline.loop.routes import Route, routes
from drift_pipeline.loop.state import Version
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.approval import sign_approval, write_approval
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.rollout.route import split
from drift_pipeline.serving.mirror import Mirror
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture, Captured
from drift_pipeline.telemetry.history import History
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import START, Drift, synthetic_history
from drift_pipeline_tests.faults.breaking import (
    BreakableHome,
    BreakableRegistry,
    BreakableStore,
    CaptureLake,
    Fuses,
    KilledError,
    MortalPolicy,
    Pager,
    PagerChannel,
)

NAME = "recommendation_v3"
BEGINS_AT = 8 * HOUR  # of the day after the reference: the traffic of a night would be thin
THINNED = 3  # of the reference, each third row: it costs less and knows the same
DELAY = HOUR / 6


def spec_of(**retrain: object) -> ModelSpec:
    return ModelSpec.model_validate(document_of(**retrain))


def document_of(**retrain: object) -> dict[str, object]:
    """The spec as its YAML has it."""
    return {
        "name": NAME,
        "owner": "ml@example.com",
        "task": "binary_classification",
        "columns": {"timestamp": "ts", "prediction_id": "id", "entity": "user", "latency_ms": "latency_ms"},
        "features": {
            "session_length_s": "numeric",
            "items_viewed": "numeric",
            "price_eur": "numeric",
            "days_since_visit": "numeric",
            "device": "categorical",
            "country": "categorical",
        },
        "prediction": {"score": "score"},
        "outcome": {"column": "clicked", "delay": "10m"},
        "protected": {"age_band": "categorical"},
        "retrain": {
            "trainer": "logistic_regression",
            "trials": 1,
            "min_rows": 700,
            "cooldown": "30m",
            "max_per_month": 30,
            **retrain,
        },
        "rollout": {"shadow": "5m", "canary": "5m"},
    }


def history(
    days: int, hours: float, rows_per_hour: int, seed: int, drifts: list[Drift], starts: datetime = START
) -> pl.DataFrame:
    """The reference and what comes after it, in the lake's words."""
    spans = days + 1 + int((hours + 8) // 24)
    told = synthetic_history(spans, 24 * rows_per_hour, seed, drifts=drifts, score=False, start=starts)
    names = {"ts": "_time", "prediction_id": "_id", "clicked": "_label", "latency_ms": "_latency_ms"}
    numbers = pl.col("session_length_s", "items_viewed", "price_eur", "days_since_visit").cast(pl.Float64)
    return told.rename(names).drop("user_id").with_columns(numbers, _entity=pl.col("_id"))


class OwnClock:
    """A process's own: `ahead` of the site's, and gaining `rate` seconds a second from when `rate` was set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.right()

    def right(self) -> None:
        """As the site's again."""
        self.set(timedelta())

    def set(self, ahead: timedelta, rate: float = 0.0) -> None:
        self._ahead, self._rate, self._since = ahead, rate, self._clock.now()

    def now(self) -> datetime:
        now = self._clock.now()
        return now + self._ahead + self._rate * (now - self._since)


class Process:
    """One that ticks: its own connections and memory; after it was killed the next tick is a new one's."""

    def __init__(self, site: "Site", *, inline: bool) -> None:
        self.site, self.inline, self.fuses, self.died = site, inline, Fuses(), 0
        self.policy, self.clock = site.policy, OwnClock(site.clock)
        self.begin()

    def begin(self) -> None:
        settings, clock = self.site.settings, self.clock
        self.store = BreakableStore(settings.database_url, clock, self.fuses, checkpoints_of(settings, clock))
        registry = BreakableRegistry(settings.registry, self.fuses)
        channel = PagerChannel(self.site.pager, self.fuses)
        self.home = BreakableHome(settings, clock, self.store, registry, self.policy, channel, self.fuses)
        self.fleet = Fleet(self.home, {NAME: self.site.spec})

    def restart(self) -> None:
        self.store.close()
        self.begin()

    def tick(self) -> Ticked | Failed | None:
        """None where it was killed meanwhile."""
        try:
            ticked, *_ = self.fleet.tick(inline=self.inline)  # what has no model of its own comes after it
        except KilledError:
            self.died += 1
            self.restart()
            return None
        return ticked

    @property
    def loop(self) -> Loop:
        return self.fleet.loop(self.site.spec)


@dataclass
class Sent:
    """What producers said, by what has to become of it."""

    landing: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    dead: int = 0
    repeated: int = 0


class Site:
    """All of it. Rows are served by the version that the control store's route names, as a gateway does."""

    history: pl.DataFrame
    clock: ManualClock
    policy: MortalPolicy
    pager: Pager
    approver: Signer
    stranger: Signer

    def __init__(
        self,
        root: Path,
        *,
        seed: int = 0,
        hours: float = 3,
        rows_per_hour: int = 2000,
        reference_days: int = 14,
        drifts: list[Drift] | None = None,
        spec: ModelSpec | None = None,
        like: "Site | None" = None,
        starts: datetime = START,
    ) -> None:
        """`drifts` have their days from the moment of adoption on; `like`: one to go on from, on a copy of its home;
        `starts`: the reference, which is `reference_days` and `BEGINS_AT` before that moment."""
        self.spec, self.settings = spec or spec_of(), Settings(home=root / "home")
        begins = reference_days * DAY + BEGINS_AT
        moved = [Drift(d.kind, d.day + begins / DAY, d.ramp_days, d.size) for d in drifts or []]
        rows = like.history if like else history(reference_days, hours, rows_per_hour, seed, moved, starts)
        self.history = rows
        self.began = starts + begins
        self.clock = ManualClock(like.clock.now() if like else self.began)
        self.rows = rows.filter(pl.col("_time") >= self.began)
        self.pager, self.sent, self.captured = Pager(), Sent(), Captured()
        self.engine = EmbeddedEngine()
        self.policy = MortalPolicy(self.engine)
        self._keys(like)
        self.home = self._home()
        self.registry = LocalRegistry(self.settings.registry)
        self.store = ControlStore(self.settings.database_url, self.clock)
        before = rows.filter(pl.col("_time") < self.began).gather_every(THINNED)
        if like is None:
            adopt(self.home, self.spec, History(before, ()))
        self.before = set(before["_id"])
        self._writers: dict[str, SpoolWriter] = {}
        self._scored: dict[str, pl.Series] = {}
        self._served_to = self.began
        self.newest = self.began
        self._waiting: list[tuple[datetime, str, int]] = []
        self.capture_fuses, self.capture_clock = Fuses(), OwnClock(self.clock)
        self.silent = self.swapped = False
        self.last_lines: list[bytes] = []
        self.held: list[tuple[datetime, str, datetime]] = []  # predictions that a producer sends later: when, id, time
        self.begin_capture()
        self.approved: set[str] = set()
        if like is not None:
            self._go_on_from(like)

    def _keys(self, like: "Site | None") -> None:
        if like is not None:
            shutil.copytree(like.settings.home, self.settings.home)
            self.approver, self.stranger = like.approver, like.stranger
            return
        self.approver, self.stranger = Signer.generate("ada"), Signer.generate("mallory")
        with closing(open_store(self.settings, self.clock)) as store:
            appoint(self.settings, store, self.approver.public, "ops", "ada")

    def _go_on_from(self, like: "Site") -> None:
        self.sent, self._waiting, self.approved = deepcopy((like.sent, like._waiting, like.approved))
        self._served_to, self.newest, self.last_lines = like._served_to, like.newest, like.last_lines

    def _home(self) -> BreakableHome:
        fuses = Fuses()
        store = BreakableStore(self.settings.database_url, self.clock, fuses, checkpoints_of(self.settings, self.clock))
        registry = BreakableRegistry(self.settings.registry, fuses)
        channel = PagerChannel(self.pager, fuses)
        return BreakableHome(self.settings, self.clock, store, registry, self.policy, channel, fuses)

    def close(self) -> None:
        self.engine.close()
        self.store.close()
        self.home.store.close()
        for writer in self._writers.values():
            writer.close()

    # producers

    def send(self, lines: list[bytes], source: str = "gateway") -> None:
        """One closed segment."""
        if source not in self._writers:
            self._writers[source] = SpoolWriter(self.settings.home / "spool" / source)
        self._writers[source].write(lines)
        self._writers[source].rotate()

    @property
    def route(self) -> Route:
        return routes(self.store, [self.spec])[NAME]

    def serve(self) -> int:
        """What users asked for since the last call, and the labels that came since; how many answers."""
        now = self.clock.now()
        inside = pl.col("_time").is_between(self._served_to, now, closed="left")
        asked = self.rows.with_row_index("_row").filter(inside)
        self._served_to = now
        lines = [] if self.silent or asked.is_empty() else self._answers(asked)
        due = [(at, name, label) for at, name, label in self._waiting if at <= now]
        self._waiting = [one for one in self._waiting if one[0] > now]
        lines += [self.outcome(name, at, label) for at, name, label in due]
        if lines:
            self.send(lines)
            self.last_lines = lines
        for _, name, at in [one for one in self.held if one[0] <= now]:
            self.sent.landing.add(name)
            self.send([self.prediction({**self.some_row(), "_time": at}, id=name)])
        self.held = [one for one in self.held if one[0] > now]
        return len(asked)

    def _answers(self, asked: pl.DataFrame) -> list[bytes]:
        route = self.route
        served = asked.with_columns(self.scores(route.champion).gather(asked["_row"]))
        served = served.with_columns(_version=pl.lit(route.champion["version"]), _route=pl.lit("stable"))
        if route.candidate is not None and route.weight and (told := self._candidate_scores(route)) is not None:
            chosen = pl.Series(split(asked["_entity"], route.rollout_id, route.weight))
            there = pl.when(chosen)
            served = served.with_columns(
                there.then(told.gather(asked["_row"])).otherwise("_score").alias("_score"),
                there.then(pl.lit(route.candidate["version"])).otherwise("_version").alias("_version"),
                there.then(pl.lit("canary")).otherwise("_route").alias("_route"),
            )
        for name, at, label in asked.select("_id", "_time", "_label").iter_rows():
            self._waiting.append((at + DELAY, name, label))
        self.sent.landing |= set(asked["_id"])
        newest = asked["_time"].max()
        assert isinstance(newest, datetime)
        self.newest = max(self.newest, newest)
        return [self.prediction(row) for row in served.iter_rows(named=True)]

    def _candidate_scores(self, route: Route) -> pl.Series | None:
        try:
            return self.scores(route.candidate)
        except IntegrityError:  # a gateway that cannot load the candidate lets the champion answer
            return None

    def scores(self, version: Any) -> pl.Series:
        """Of all rows to come, once a version."""
        digest = str(version["digest"])
        if digest not in self._scored:
            self._scored[digest] = Version.load(version, self.registry).scores(self.rows, self.spec)
        return self._scored[digest]

    def prediction(self, row: dict[str, Any], **changes: Any) -> bytes:
        event = {
            "event": "prediction",
            "model": NAME,
            "id": row["_id"],
            "time": row["_time"].isoformat(),
            "version": row["_version"],
            "route": row["_route"],
            "score": row["_score"],
            "latency_ms": row["_latency_ms"],
            "entity": row["_entity"],
            "features": {name: row[name] for name in self.spec.watched},
        }
        return json.dumps({**event, **changes}).encode()

    def outcome(self, name: str, at: datetime, label: int) -> bytes:
        self.sent.labels.add(name)
        return json.dumps(
            {"event": "outcome", "model": NAME, "id": name, "time": at.isoformat(), "label": label}
        ).encode()

    def some_row(self, seed: int = 0) -> dict[str, Any]:
        """A row as the champion answers it, to make an event of."""
        place = seed % self.rows.height
        row = self.rows.row(place, named=True)
        champion = self.route.champion
        told = {"_score": self.scores(champion)[place], "_version": champion["version"], "_route": "stable"}
        return {**row, **told}

    # people

    def approve(self, signer: Signer, digest: str, rollout: str = "") -> bytes:
        """File what the signer says to a candidate, in this rollout or the one under way; the envelope."""
        envelope = sign_approval(
            signer,
            model=NAME,
            digest=digest,
            rollout=rollout or self.route.rollout_id,
            environment=self.settings.environment,
            trainer=Signer.load(self.settings.keys / "trainer.pem").key_id,
            reason="read",
            at=self.clock.now(),
            expires=self.clock.now() + 60 * DAY,
        )
        return write_approval(self.settings.gitops, envelope).read_bytes()

    # processes

    def begin_capture(self) -> None:
        lakes: dict[tuple[str, str], Lake] = {}

        def lake_of(model: str, source: str) -> Lake:
            folder = self.settings.lake / model if model else self.settings.dead_letters
            return lakes.setdefault((model, source), CaptureLake(folder, source, self.capture_fuses))

        mirror = Mirror(self.store, self.registry, {NAME: self.spec})
        spool = self.settings.home / "spool"
        self.capture = Capture(spool, lake_of, {NAME: self.spec}, self.capture_clock, mirror.mirror)

    def take(self) -> Captured | None:
        """A step of capture; None where it was killed, and begun anew."""
        try:
            return self.capture.step()
        except KilledError:
            self.begin_capture()
            return None

    def lake(self) -> Lake:
        return Lake(self.settings.lake / NAME, source="observer")

    def lake_of_dead_letters(self) -> int:
        """How many there are."""
        return Lake(self.settings.dead_letters, source="observer").read("dead_letters", self.landed()).height

    def landed(self) -> Window:
        return Window(self.began, self.clock.now() + DAY)

    def records(self) -> list[AuditRecord]:
        return list(self.store.records())

    def phase(self) -> Phase | None:
        return self.route.phase

    def twin(self) -> Loop:
        """A loop that knows nothing but what the backends hold."""
        loop = self.home.loop(self.spec)
        loop.resume()
        return loop

    def by_hand(self) -> Loop:
        """What a command of an operator works with."""
        return self.twin()


@dataclass
class Live:
    """A site with one process that goes on."""

    site: Site
    kept: Process

    def minutes(self, number: int, step: timedelta = MINUTE) -> None:
        """So many of traffic, captured and ticked each `step`."""
        for _ in range(number * MINUTE // step):
            self.site.clock.advance_to(self.site.clock.now() + step)
            self.site.serve()
            self.site.take()
            self.kept.tick()

    def until(self, phase: Phase, step: timedelta = 5 * MINUTE) -> None:
        """Traffic and inline ticks until the rollout is there, with its approval when it is asked for."""
        self.kept.inline = True
        for _ in range(12):
            if self.site.phase() is phase:
                return
            self.minutes(step // MINUTE, step)
            self.approve()
        raise AssertionError(f"the rollout stays in {self.site.phase()}")

    def approve(self) -> None:
        """By ada, where one is waited for."""
        site, candidate = self.site, self.site.route.candidate
        if (
            candidate is not None
            and site.phase() is Phase.AWAITING_APPROVAL
            and candidate["digest"] not in site.approved
        ):
            site.approved.add(candidate["digest"])
            site.approve(site.approver, candidate["digest"])

    def minute_in(self, fault: AbstractContextManager[None]) -> list[str]:
        """A minute whose traffic was written down before the fault and is captured and ticked in it; what is told."""
        self.site.clock.advance_to(self.site.clock.now() + MINUTE)
        self.site.serve()
        told = []
        with fault:
            for step in (self.site.take, self.kept.tick):
                try:
                    came = step()
                except DriftError as error:
                    told.append(f"{type(error).__name__}: {error}")
                    continue
                told += [came.reason] if isinstance(came, Failed) else []
        return told


__all__ = ["NAME", "ConflictError", "DriftError", "Live", "Process", "Site", "history", "spec_of"]
