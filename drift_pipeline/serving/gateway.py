"""What the gateway holds between two requests, and how it follows the control store: each second, without a restart."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from drift_pipeline.clock import DAY, Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import DriftError, InputError, IntegrityError, SpecError, UnavailableError
from drift_pipeline.logs import told
from drift_pipeline.loop.routes import Route, route_of
from drift_pipeline.observability.otel import Outlet
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.answer import Count
from drift_pipeline.serving.brake import Brake, Judge, RolledBack
from drift_pipeline.serving.callers import Callers
from drift_pipeline.serving.guard import Guard
from drift_pipeline.serving.keys import Producer, producers
from drift_pipeline.serving.metrics import Metrics
from drift_pipeline.serving.models import Models, is_elsewhere
from drift_pipeline.serving.recent import Recent
from drift_pipeline.serving.steady import SteadyClock
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import LINE_BYTES
from drift_pipeline.telemetry.sources.set_aside import oldest
from drift_pipeline.telemetry.sources.spool import SpoolWriter

log = logging.getLogger(__name__)
AGAIN_SECONDS = 0.1
SEE_LOG = "the gateway's log tells why"
BAKE = DAY  # after a promotion: so long a breach of its SLO takes the new champion back


class Gateway:
    """One process's gateway. All but `_read` and `prepare` runs on the event loop, so nothing is locked.

    Without the control store it goes on with what it last heard; `routes_age_seconds` tells since when.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        store: ControlStore,
        registry: Registry,
        spool: SpoolWriter,
        clock: Clock,
        *,
        judge_slo: Judge,
        rolled_back: RolledBack,
        every_seconds: float,
        rotate_seconds: float,
        drills: bool,
        outlet: Outlet | None = None,
        pin: str = "",
    ) -> None:
        self.drills, self.outlet = drills, outlet
        self.specs, self.clock, self.spool = dict(specs), SteadyClock(clock, spool.last_line), spool
        self.models, self.guard, self.metrics = Models(specs, registry, pin=pin), Guard(), Metrics()
        self.callers, self.recent = Callers(store, every_seconds), Recent()
        self.trouble = "the routes were not read yet"
        self.brake = Brake(self.guard, self.models, self.metrics, judge_slo, rolled_back)
        self._given, self._store = specs, store
        self._every, self._rotate_every = every_seconds, rotate_seconds
        self._heard_at: float | None = None
        self._said: dict[str, str] = {}
        self._again_at = float("-inf")
        self._looking = asyncio.Lock()
        self.metrics.waits.set_function(
            lambda: time.time() - min(oldest(spool.folder.parent).values(), default=time.time())
        )
        self.metrics.routes_age.set_function(lambda: time.monotonic() - (self._heard_at or float("nan")))
        if outlet is not None:
            for reason in ("full", "refused"):
                self.metrics.unsent.labels(reason).set_function(partial(_lost, outlet, reason))

    @property
    def heard(self) -> bool:
        """Whether the control store ever answered."""
        return self._heard_at is not None

    async def run(self) -> None:
        """Until it is cancelled."""
        every, brake = self._every, self.brake
        steps = ((self.follow, every), (brake.judge, every), (brake.tell, every), (self.rotate, self._rotate_every))
        await asyncio.gather(*(repeat(step, seconds) for step, seconds in steps))

    async def follow(self) -> None:
        """Take up what the control store says; a version is loaded before the first request is sent to it."""
        try:
            found, specs, known, ticked = await asyncio.to_thread(self._read)
        except Exception as error:  # the old routes hold; told by /v2/health/ready
            self._trouble(f"the control store: {told(error)}")
        else:
            self.callers.heard(known)
            for model, spec in specs.items():
                if isinstance(spec, DriftError):
                    self._problem(model, str(spec))
                    continue
                self.specs[model] = spec
                if model in found:
                    await self._switch(found[model])
            for model, at in ticked.items():
                self.metrics.ticked_at.labels(model).set(at.timestamp())
            self._heard_at, self.trouble = time.monotonic(), ""

    async def look_again(self) -> None:
        """Follow now, for who would be refused by what was heard a moment ago. It is a look that begins after this was
        asked for; all who ask before it begins share it, and it begins `AGAIN_SECONDS` after the last one at the
        earliest."""
        await asyncio.wait({asyncio.ensure_future(self._look(time.monotonic()))}, timeout=self._every)

    async def _look(self, asked_at: float) -> None:
        async with self._looking:
            if self._again_at < asked_at:
                await asyncio.sleep(self._again_at + AGAIN_SECONDS - time.monotonic())
                self._again_at = time.monotonic()
                await self.follow()

    async def rotate(self) -> None:
        """Hand over what was written; a segment is read once it is closed."""
        self.spool.rotate()

    def write(self, model: str, events: Sequence[bytes]) -> None:
        """All or none.

        Raises:
            InputError: an event is longer than a line of the spool may be.
            UnavailableError: the spool does not take them; then nothing may be answered.
        """
        if (longest := max(map(len, events))) > LINE_BYTES:
            raise InputError(f"{model}: a row of {longest:,} bytes; send shorter texts, at most {LINE_BYTES:,} in all")
        try:
            self.spool.write(events)
        except UnavailableError as error:
            self.metrics.spool_failures.labels(model).inc()
            self.say_once(model, str(error))
            raise UnavailableError(
                f"{model}: the events cannot be written down, so nothing is answered; {SEE_LOG}"
            ) from error

    def count(self, model: str, count: Count) -> None:
        """Take what was answered into the metrics and the guard's counts."""
        labels = (model, count.version, count.route)
        self.metrics.rows.labels(*labels).inc(count.rows)
        if count.errors:
            self.metrics.errors.labels(*labels).inc(count.errors)
        self.guard.count(model, count.version, count.rows, count.errors, count.slow)
        if count.errors or count.slow:
            self.brake.judge_now(model)

    def count_off_form(self, model: str, counts: Mapping[str, int]) -> None:
        """Values by the column whose form they do not fit."""
        for column, values in counts.items():
            self.metrics.off_form.labels(model, column).inc(values)

    def say_once(self, model: str, failure: str) -> None:
        """A failure of scoring or of the spool, which the metrics count."""
        if self._said.get(model) != failure:
            self._said[model] = failure
            log.error("%s: %s", model, failure, extra={"model": model})

    def _read(self) -> tuple[dict[str, Route], dict[str, ModelSpec | DriftError], list[Producer], dict[str, datetime]]:
        """Routes, the spec of each model or why it cannot be followed, producers, and when each model last ticked.

        A spec has the forms that its model was adopted with, which may have been a moment ago.
        """
        found: dict[str, Route] = {}
        specs: dict[str, ModelSpec | DriftError] = {}
        for model in self._given:
            try:
                specs[model] = spec = self._given[model]
                if (route := route_of(self._store, spec)) is not None:
                    found[model] = route
            except (SpecError, IntegrityError) as error:
                specs[model] = error
        ticked = {model: at for model in specs if (at := _ticked_at(self._store, model)) is not None}
        return found, specs, producers(self._store), ticked

    async def _switch(self, route: Route) -> None:
        model, models = route.model, self.models
        if is_elsewhere(route):
            models.elsewhere.add(model)
            return
        models.elsewhere.discard(model)
        if models.is_current(route):
            return
        served, problem = await asyncio.to_thread(models.prepare, route)
        self._problem(model, problem)
        if served is not None:
            self.guard.watch(route, _bakes_for(route, self.clock.now()))
            weight = 0 if self.guard.stopped(route) else served.weight
            models.served[model] = replace(served, weight=weight)
        self.metrics.show(model, models.served.get(model), has_problem=model in models.problems)

    def _problem(self, model: str, problem: str) -> None:
        """Of loading a model; "" = there is none."""
        if problem and problem != self.models.problems.get(model):
            log.error("%s: %s", model, problem, extra={"model": model})
        self.models.problems.pop(model, None)
        if problem:
            self.models.problems[model] = problem

    def _trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("%s", trouble)
        self.trouble = trouble


def _ticked_at(store: ControlStore, model: str) -> datetime | None:
    """None also where what its loop remembered cannot be read, of which its tick tells."""
    try:
        tick = store.recall(model)
        return datetime.fromisoformat(tick.body["at"]) if tick else None
    except (IntegrityError, KeyError, TypeError, ValueError):
        return None


def _bakes_for(route: Route, now: datetime) -> float:
    """Seconds for which a promotion can still be taken back by itself."""
    if route.phase is not Phase.FULL or route.since is None or not route.previous:
        return 0.0
    return (route.since + BAKE - now).total_seconds()


def _lost(outlet: Outlet, reason: str) -> int:
    return outlet.lost.get(reason, 0)


async def repeat(step: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Until it is cancelled, whatever a step raises."""
    said = ""
    while True:
        try:
            await step()
            said = ""
        except Exception as error:  # the edge of a background task: it says so, once, and goes on
            if str(error) != said:
                said = str(error)
                log.exception("%s failed, and is tried again", step)
        await asyncio.sleep(seconds)
