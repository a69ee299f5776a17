"""The fleet: every adopted model of a home, ticked one after the other; what fails in one does not stop the next."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.alerts.outbox import deliver
from drift_pipeline.clock import MINUTE
from drift_pipeline.errors import ConflictError, DriftError, IntegrityError, UnavailableError
from drift_pipeline.logs import about
from drift_pipeline.loop import concerns
from drift_pipeline.loop.documents import Documents
from drift_pipeline.loop.erasure import carry_on
from drift_pipeline.loop.failed import Failed
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.loop import Loop, Ticked
from drift_pipeline.rollout.plan import Status
from drift_pipeline.spec import ModelSpec

__all__ = ["Failed", "Fleet"]

FAILED = "tick.failed"
_QUIET_S = 600.0


class Fleet:
    """Keeps the loops between ticks, so that a tick costs what is new.

    `waiting` is how many models the last step had no time for.
    """

    def __init__(
        self,
        home: Home,
        specs: Mapping[str, ModelSpec],
        progress: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        apart: bool = False,
    ) -> None:
        """apart: a step waits neither for alert channels nor for documents; somebody else calls `alert`, `document`."""
        self._home, self._specs, self._progress, self._monotonic = home, specs, progress, monotonic
        self._documents, self._apart = Documents(home, monotonic), apart
        self._alerting = Alerting(home.settings, home.store, home.clock)
        self.waiting = 0
        self._loops: dict[str, Loop] = {}
        self._begun: dict[tuple[str, str], float] = {}
        self._failed_at: dict[str, float] = {}
        self._latest = home.clock.now()

    def take_up(self, specs: Mapping[str, ModelSpec]) -> None:
        """Go on by these specs; the loop of a model whose spec is another one is opened anew."""
        for name in [name for name in self._loops if specs.get(name) != self._specs.get(name)]:
            del self._loops[name]
        self._specs = specs

    def tick(self, *, inline: bool, seconds: float = math.inf, every: float = 0.0) -> list[Ticked | Failed]:
        """One tick of each adopted model and the alerts, then what is left of erasures that were begun.

        Args:
            inline: as for `Loop.tick`.
            seconds: after so long no other model begins; those that waited longest come first the next time.
            every: a model whose last tick began less than so many seconds ago is left out.
        """
        before = self._monotonic() - every
        due = [spec for spec in self._specs.values() if self._begun.get(("tick", spec.name), -math.inf) <= before]
        adopted = [spec for spec in due if self._may_be("model", spec, lambda _: True)]
        ticked = self._each("tick", adopted, partial(Loop.tick, inline=inline), seconds)
        return ticked + [failed for spec in adopted if (failed := self._erase(spec)) is not None]

    def advance(self, *, seconds: float = math.inf) -> list[Ticked | Failed]:
        """Only the rollouts that are under way, which may need more looks than a minute has; then the alerts. Another
        controller than the gateway is also brought to where those stand that are over."""
        elsewhere = self._home.settings.controller != "gateway"
        active = [
            spec
            for spec in self._specs.values()
            if self._may_be("rollout", spec, lambda rollout: elsewhere or _is_under_way(rollout))
        ]
        return self._each("rollout", active, Loop.step_rollout, seconds)

    def _may_be(self, kind: str, spec: ModelSpec, so: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Whether the model's row is there and says so, or cannot be read, of which its own step then tells."""
        try:
            found = self._home.store.get(kind, spec.name)
            return found is not None and so(found.body)
        except IntegrityError:
            return True

    def _each(
        self, what: str, specs: Sequence[ModelSpec], step: Callable[[Loop], Ticked], seconds: float
    ) -> list[Ticked | Failed]:
        """The first one always, and as many more as begin in time; what is left of it is for the documents."""
        self._forget_the_future()
        ended, done = self._monotonic() + seconds, list[Ticked | Failed]()
        for spec in sorted(specs, key=lambda spec: self._begun.get((what, spec.name), -math.inf)):
            if done and self._monotonic() >= ended:
                break
            self._begun[what, spec.name] = self._monotonic()
            done.append(self._try(spec, step))
            if what == "tick" and isinstance(done[-1], Ticked):
                self._recovered(spec)
        self.waiting = len(specs) - len(done)
        deliver(self._home.store, self._home.alerts)
        ticked = {one.model for one in done if isinstance(one, Ticked)}
        if not self._apart:
            self.alert()
            done += self._documents.refresh([spec for spec in specs if spec.name in ticked], ended)
        done += self._covered()
        if not self._apart:
            self._documents.publish(ended)
        return done

    def alert(self) -> None:
        """Tell the channels of DRIFT_ALERTS what is new to them."""
        self._alerting.deliver()

    def document(self, *, seconds: float = math.inf) -> list[Failed]:
        """Cards and annexes of all adopted models that are older than what they tell, and the commits that wait.

        Args:
            seconds: after so long no other model begins.
        """
        ended = self._monotonic() + seconds
        adopted = [spec for spec in self._specs.values() if self._may_be("model", spec, lambda _: True)]
        failed = self._documents.refresh(adopted, ended)
        self._documents.publish(ended)
        return failed

    def _forget_the_future(self) -> None:
        """Where the clock went back, loops hold what they took for past: they are opened anew, from what is stored."""
        now = self._home.clock.now()
        if now < self._latest - MINUTE:
            self._loops.clear()
        self._latest = now

    def loop(self, spec: ModelSpec) -> Loop:
        """The model's loop as it was left, by the spec in force; it takes up what others did when it ticks."""
        if spec.name not in self._loops:
            spec = self._specs.get(spec.name, spec)
            self._loops[spec.name] = self._home.loop(spec, progress=self._progress)
        return self._loops[spec.name]

    def _erase(self, spec: ModelSpec) -> Failed | None:
        try:
            carry_on(self._home, spec)
        except Exception as error:  # the edge between models, as for their ticks
            again = isinstance(error, ConflictError | UnavailableError)
            return Failed(spec.name, f"an erasure is not at its end: {error}", again)
        return None

    def _covered(self) -> list[Ticked | Failed]:
        """A checkpoint of the audit where one is due, whoever wrote the records; nothing, or why there is none."""
        try:
            self._home.store.checkpoint(only_if_due=True)
        except DriftError as error:
            return [Failed("audit", f"no checkpoint: {error}", again=False)]
        return []

    def _try(self, spec: ModelSpec, step: Callable[[Loop], Ticked]) -> Ticked | Failed:
        try:
            with about(model=spec.name):
                return step(self.loop(spec))
        except ConflictError as error:
            return Failed(spec.name, str(error), again=True)
        except Exception as error:  # the edge between models: one that is broken must not blind the others
            self._loops.pop(spec.name, None)
            self._alert(spec, error)
            return Failed(spec.name, f"{type(error).__name__}: {error}", again=False)

    def _alert(self, spec: ModelSpec, error: Exception) -> None:
        """A model whose tick fails is blind. What others' code says in an error may quote data: its kind is told."""
        self._failed_at[spec.name] = self._monotonic()
        why = f"{spec.name} is not watched: its tick fails: "
        why += str(error) if isinstance(error, DriftError) else f"{type(error).__name__}; drift tick tells more"
        with suppress(DriftError):  # the store may be what is broken
            concerns.tell(self._home.store, spec.name, spec.owner, FAILED, why, self._home.clock.now(), actor="loop")

    def _recovered(self, spec: ModelSpec) -> None:
        """A failure that comes and goes is one page: it is over once none was seen here for a while."""
        failed_at = self._failed_at.get(spec.name, -math.inf)
        if failed_at < math.inf and self._monotonic() - failed_at >= _QUIET_S:
            with suppress(DriftError):
                concerns.end(self._home.store, spec.name, FAILED, self._home.clock.now(), actor="loop")
                self._failed_at[spec.name] = math.inf  # nothing is to be told of


def _is_under_way(rollout: Mapping[str, Any]) -> bool:
    return Status.from_json(rollout).active
