"""A controller of the traffic follows the control store, and what it stopped is one rollback here, with its audit."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline.loop import operating
from drift_pipeline.loop.context import Context, Trust
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.releasing.rolling_back import roll_back
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.loop.steering import DIFFERS, SETTINGS, SILENT, Steering
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.controllers import Act, Seen, Served, State, Wanted
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.test_loop import World
from drift_pipeline_tests.training import worlds

SPEC = worlds.spec()
NOW = worlds.START
OLD, NEW = Served(f"sha256:{1:064}", "v1"), Served(f"sha256:{2:064}", "v2", f"{SPEC.name}-v2")
MODEL = {"digest": OLD.digest, "version": OLD.version, "trained_from": NOW.isoformat(), "unseen_from": NOW.isoformat()}


@dataclass
class Elsewhere:
    """A controller whose traffic is what the test says; what it is told comes true at once."""

    seen: Seen = field(default_factory=lambda: Seen(State.SETTLED, OLD, OLD.digest))
    told: list[Act] = field(default_factory=list)
    error: Exception | None = None
    kind: str = "argo"

    def observe(self, wanted: Wanted) -> Seen:  # noqa: ARG002
        if self.error is not None:
            raise self.error
        return self.seen

    def do(self, act: Act, wanted: Wanted, seen: Seen) -> None:
        assert seen == self.seen
        self.told.append(act)
        self.seen = {
            Act.CREATE: Seen(State.SETTLED, OLD, OLD.digest),
            Act.BEGIN: Seen(State.SHADOW, wanted.candidate or NEW, OLD.digest),
            Act.PROMOTE: replace(seen, state=State.CANARY, share=wanted.canary_weight),
            Act.COMPLETE: Seen(State.SETTLED, seen.newest, seen.newest.digest),
            Act.ABORT: replace(seen, state=State.ABORTED, share=0, asked=Act.ABORT),
            Act.RESTORE: Seen(State.SETTLED, wanted.champion, wanted.champion.digest),
        }[act]


class Place:
    """A control store with a champion, and a rollout where the test puts it."""

    def __init__(self, home: Path) -> None:
        self.clock = ManualClock(NOW)
        self.store = ControlStore(f"sqlite:///{home / 'control.db'}", self.clock)
        self.home, self.controller = home, Elsewhere()
        self.ledger = self.rollouts().context.ledger
        self.ledger.commit("model.adopted", {}, puts={"model": {**MODEL, "previous": None}})

    def rollouts(self) -> Rollouts:
        """As another process has them."""
        ledger, registry = Ledger(SPEC, self.store, self.clock), LocalRegistry(self.home / "registry")
        trust = Trust(self.home, "test", dict, "")
        return Rollouts(Context(SPEC, ledger, Lake(self.home / "lake"), registry, self.clock, trust))

    def is_in(self, phase: Phase) -> None:
        where = Status(NEW.rollout_id, SPEC.name, NEW.digest, OLD.digest, phase, NOW, NOW, "a test")
        self.rollouts().move(where, (), "loop")

    def steer(self) -> Status | None:
        """As another tick would."""
        rollouts = self.rollouts()
        return Steering(rollouts.context, rollouts, self.store, lambda: self.controller).steer()

    def events(self, prefix: str) -> list[str]:
        return [record.event for record in self.store.records() if record.event.startswith(prefix)]

    @property
    def phase(self) -> Phase | None:
        status = self.rollouts().status
        return status.phase if status else None


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def test_the_whole_way_is_told_once_each_and_nothing_once_it_is_there(place: Place) -> None:
    place.controller.seen = Seen(State.ABSENT)
    for phase, acts in (
        (None, [Act.CREATE]),
        (Phase.SHADOW, [Act.BEGIN]),
        (Phase.AWAITING_APPROVAL, []),
        (Phase.CANARY, [Act.PROMOTE]),
    ):
        if phase is not None:
            place.is_in(phase)
        assert place.steer() is place.steer() is None
        assert place.controller.told == acts
        place.controller.told.clear()
    where = Status(NEW.rollout_id, SPEC.name, NEW.digest, OLD.digest, Phase.FULL, NOW, NOW, "a test")
    champion = {**MODEL, "digest": NEW.digest, "version": "v2", "previous": MODEL}
    place.rollouts().move(where, (), "loop", champion=champion)
    assert place.steer() is place.steer() is None
    assert (place.controller.told, place.controller.seen.stable) == ([Act.COMPLETE], NEW.digest)
    assert place.events("controller") == []


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.AWAITING_APPROVAL, Phase.CANARY])
def test_an_abort_there_is_one_rollback_here_and_the_champions_pods_come_back(place: Place, phase: Phase) -> None:
    place.is_in(phase)
    place.controller.seen = Seen(State.ABORTED, NEW, OLD.digest, reason="Metric errors assessed Failed")
    back = place.steer()
    assert back is not None
    assert (back.phase, back.reason) == (Phase.ROLLED_BACK, f"{phase}: argo: Metric errors assessed Failed")
    assert place.steer() is place.steer() is None
    assert place.events("rollout.rolled_back") == ["rollout.rolled_back"]
    (record,) = [one for one in place.store.records() if one.event == "rollout.rolled_back"]
    assert record.actor == "argo"
    assert place.controller.told == [Act.RESTORE]


def test_a_rollback_here_is_an_abort_there(place: Place) -> None:
    place.is_in(Phase.CANARY)
    place.controller.seen = Seen(State.CANARY, NEW, OLD.digest, share=SPEC.rollout.canary_weight)
    roll_back(place.rollouts(), "ada", "complaints")
    assert place.steer() is None
    assert place.controller.told == [Act.ABORT, Act.RESTORE]
    assert place.events("rollout.rolled_back") == ["rollout.rolled_back"]


def test_who_was_promoted_there_without_our_approval_is_rolled_back_here_and_aborted_at_once(place: Place) -> None:
    place.is_in(Phase.AWAITING_APPROVAL)
    place.controller.seen = Seen(State.CANARY, NEW, OLD.digest, share=10)
    back = place.steer()
    assert back is not None
    assert "nobody approved here" in back.reason
    assert place.controller.told == [Act.ABORT, Act.RESTORE]


def test_what_argo_takes_back_after_full_goes_back_to_the_version_before(place: Place) -> None:
    where = Status(NEW.rollout_id, SPEC.name, NEW.digest, RECORDED, Phase.FULL, NOW, NOW, "a test")
    champion = {**MODEL, "digest": NEW.digest, "version": "v2"}
    aborted = Seen(State.ABORTED, NEW, OLD.digest, reason="its pods crash")
    place.rollouts().move(where, (), "loop", champion={**champion, "previous": None})
    place.controller.seen = aborted
    assert place.steer() is None
    assert (place.phase, place.events("controller")) == (Phase.FULL, [DIFFERS]), "there is nothing to go back to"
    before = {**champion, "previous": {**MODEL, "digest": RECORDED}}
    place.rollouts().context.ledger.commit("model.adopted", {}, puts={"model": before})
    back = place.steer()
    assert back is not None
    assert (place.phase, back.reason) == (Phase.ROLLED_BACK, "after full: argo: its pods crash")


@pytest.mark.parametrize("error", [UnavailableError("it does not answer"), InputError("403: no right")])
def test_who_does_not_answer_holds_nothing_and_is_told_of_once_an_hour(place: Place, error: Exception) -> None:
    place.is_in(Phase.CANARY)
    place.controller.error = error
    for _ in range(3):
        assert place.steer() is None
    roll_back(place.rollouts(), "ada", "complaints")
    assert place.steer() is None
    assert (place.phase, place.events("controller")) == (Phase.ROLLED_BACK, [SILENT])
    place.clock.advance_to(place.clock.now() + timedelta(hours=1))
    place.steer()
    assert place.events("controller") == [SILENT, SILENT]
    place.controller.error, place.controller.seen = None, Seen(State.CANARY, NEW, OLD.digest, share=10)
    place.steer()
    assert place.controller.told == [Act.ABORT, Act.RESTORE], "it hears of it once it answers"


def test_an_outage_while_all_stands_as_it_has_to_is_a_line_of_the_log(place: Place) -> None:
    rollouts = place.rollouts()
    steering = Steering(rollouts.context, rollouts, place.store, lambda: place.controller)
    steering.steer()
    place.controller.error = UnavailableError("it does not answer")
    steering.steer()
    assert place.events("controller") == []


def test_another_process_that_was_faster_is_looked_at_again(place: Place) -> None:
    place.is_in(Phase.SHADOW)

    class Faster(Elsewhere):
        def do(self, act: Act, wanted: Wanted, seen: Seen) -> None:
            super().do(act, wanted, seen)
            raise ConflictError("moved on since it was looked at")

    place.controller = Faster()
    assert place.steer() is None
    assert place.controller.told == [Act.BEGIN]


def test_drift_between_both_and_a_file_that_cannot_be_used_are_told(place: Place) -> None:
    place.controller.seen = Seen(State.SETTLED, OLD, OLD.digest, odd=("the weights sum to 110, not 100",))
    place.steer()
    rollouts = place.rollouts()

    def refused() -> Elsewhere:
        raise InputError("DRIFT_CONTROLLER_FILE: is not set")

    assert Steering(rollouts.context, rollouts, place.store, refused).steer() is None
    assert place.events("controller") == [DIFFERS, SETTINGS]


def test_a_model_that_is_served_elsewhere_is_not_steered(place: Place) -> None:
    place.ledger.commit("model.adopted", {}, puts={"model": {**MODEL, "digest": RECORDED, "previous": None}})
    place.controller.seen = Seen(State.ABSENT)
    assert place.steer() is None
    assert place.controller.told == []


@pytest.mark.live
def test_a_loop_steers_when_it_advances_and_when_it_goes_back_whatever_comes_of_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    asked = list[str]()

    class Steered(Steering):
        def steer(self) -> Status | None:
            asked.append(str(self._rollouts.status.phase) if self._rollouts.status else "")
            if asked[-1] == "rolled_back":
                raise ConflictError("moved on")
            return None

    at = world.loop.rollouts.context
    world.loop.steering = Steered(at, world.loop.rollouts, world.store, lambda: None)
    assert world.loop.release(world.proven().digest)
    assert world.loop.advance() is None
    assert operating.roll_back(world.loop, "ada", "complaints").phase is Phase.ROLLED_BACK
    assert asked == ["shadow", "rolled_back"]
    world.store.close()
