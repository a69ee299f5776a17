"""Steering: who moves the traffic elsewhere is brought to where the control store says, and what he stopped is stopped
here. What he does not answer holds nothing: the control store goes on, and back, and he follows at a later tick.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import ConflictError, DriftError, InputError, NothingToDoError
from drift_pipeline.loop import concerns
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.releasing.rolling_back import roll_back
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.rollout.controllers import Controller, Served, Wanted
from drift_pipeline.rollout.controllers.reconciling import next_step
from drift_pipeline.rollout.plan import Status, version_of

log = logging.getLogger(__name__)
T = TypeVar("T")
ACTS = 4  # at most, at once: what takes longer is for the next tick
SILENT, DIFFERS, SETTINGS = "controller.silent", "controller.differs", "controller.settings"


class Steering:
    """One model's."""

    def __init__(
        self, context: Context, rollouts: Rollouts, store: ControlStore, controller: Callable[[], Controller | None]
    ) -> None:
        self._at, self._rollouts, self._store, self._controller = context, rollouts, store, controller
        self._at_rest: Wanted | None = None  # as the controller was last seen to have it

    def steer(self) -> Status | None:
        """Once: where the controller had stopped the rollout, its status, rolled back; else None.

        Raises:
            ConflictError: another process moved the rollout here meanwhile.
            IntegrityError: what the control store holds of it is not what the audit wrote.
        """
        try:
            controller = self._controller()
        except InputError as error:
            self._tell(SETTINGS, f"traffic is not moved: {error}")
            return None
        if controller is None:
            return None
        stopped = None
        for _ in range(ACTS):
            wanted = self.wanted()
            if wanted is None:
                break
            try:
                why = self._one(controller, wanted)
            except ConflictError as error:  # of the controller's; the next look is based on what it is now
                log.info("%s: %s", wanted.model, error, extra={"model": wanted.model})
                continue
            except DriftError as error:
                self._unheard(controller, wanted, error)
                break
            if why is None:
                break
            if why:
                stopped = self._stopped(controller, wanted, why) or stopped
        return stopped

    def _one(self, controller: Controller, wanted: Wanted) -> str | None:
        """One look and one act; why the rollout is stopped, "" where there may be more to do, None where not."""
        seen = controller.observe(wanted)
        step = next_step(wanted, seen)
        if differs := [*seen.odd, *([step.differs] if step.differs else [])]:
            self._tell(DIFFERS, f"{controller.kind}: {'; '.join(differs)}")
        if step.stopped:
            return step.stopped
        if step.act is None:
            self._at_rest = wanted if seen.asked is None and not differs else self._at_rest
            return None
        log.info("%s: %s is told to %s", wanted.model, controller.kind, step.act, extra={"model": wanted.model})
        controller.do(step.act, wanted, seen)
        return ""

    def standing(self, controller: Controller, wanted: Wanted) -> list[str]:
        """How traffic stands there; then what is not as it has to be, and what the next tick does about it."""
        seen = controller.observe(wanted)
        step = next_step(wanted, seen)
        newest = f", {seen.newest.version or seen.newest.digest} newest" if seen.newest.digest else ""
        stands = f"{controller.kind}: {seen.state}{newest}, {seen.share} % of the traffic"
        told = f"the next tick tells it to {step.act}" if step.act else ""
        back = f"the next tick rolls back: {step.stopped}" if step.stopped else ""
        return [stands, *seen.odd, *filter(None, (step.differs, back, told))]

    def _stopped(self, controller: Controller, wanted: Wanted, why: str) -> Status | None:
        try:
            return roll_back(self._rollouts, controller.kind, f"{controller.kind}: {why}", only=wanted.rollout_id)
        except NothingToDoError as error:
            self._tell(DIFFERS, f"{controller.kind}: {why}; {error}")
            return None

    def wanted(self) -> Wanted | None:
        """Where the control store says that traffic stands; None before a model is adopted, or where it is served
        elsewhere."""
        ledger, name = self._at.ledger, self._at.spec.name
        model, status = ledger.find("model"), self._rollouts.status
        if model is None or model["digest"] == RECORDED:
            return None
        candidate = None
        if status is not None and status.active:
            candidate = Served(status.candidate, version_of(name, status.rollout_id), status.rollout_id)
        phase, last = (status.phase, status.rollout_id) if status else (None, "")
        champion = Served(model["digest"], model["version"])
        return Wanted(name, champion, candidate, phase, last, self._at.spec.rollout.canary_weight)

    def _unheard(self, controller: Controller, wanted: Wanted, error: DriftError) -> None:
        """Told where traffic may not be as it has to be; else a line of the log is enough."""
        if wanted == self._at_rest:
            log.warning("%s: %s", wanted.model, error, extra={"model": wanted.model})
            return
        self._tell(SILENT, f"{controller.kind} is not where the control store is, or is not known to be: {error}")

    def _tell(self, event: str, why: str) -> None:
        spec, now = self._at.spec, self._at.clock.now()
        concerns.tell(self._store, spec.name, spec.owner, event, why, now, actor="loop")
