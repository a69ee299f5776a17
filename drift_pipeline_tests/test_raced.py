"""What people do while another process moves the same model: the act counts once, and what is said of it is so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drift_pipeline.clock import DAY, ManualClock, Window
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry
from drift_pipeline.errors import ConflictError, NothingToDoError
from drift_pipeline.loop import operating
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.loop.loop import Loop
from drift_pipeline.loop.releasing.rolling_back import roll_back
from drift_pipeline.loop.routes import routes
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.settings import Settings
from drift_pipeline_tests.faults.homes import MODEL, NOW, lived, spec_of
from drift_pipeline_tests.faults.test_audit_attacks import change, records
from drift_pipeline_tests.test_live import day
from drift_pipeline_tests.test_loop import World, twin


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A live home with v2 in the shadow."""
    return lived(tmp_path)


@pytest.fixture
def at(settings: Settings) -> Iterator[Home]:
    with opened(settings, ManualClock(NOW)) as made:
        yield made


@pytest.fixture
def just_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Let another process act once, just before a record of that event is committed."""

    def lay(event: str, act: Callable[[], object]) -> None:
        commit, acts = ControlStore.commit, [act]

        def committed(self: ControlStore, entry: Entry, *args: object, **more: object) -> AuditRecord:
            if entry.event == event and acts:
                acts.pop()()
            return commit(self, entry, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(ControlStore, "commit", committed)

    return lay


def by_the_gateway(settings: Settings) -> Callable[[], object]:
    def act() -> object:
        with opened(settings, ManualClock(NOW)) as other:
            rollouts = other.loop(spec_of(settings)).rollouts
            return roll_back(rollouts, "gateway", "SLO breach: slow", only=f"{MODEL}-v2")

    return act


Lay = Callable[[str, Callable[[], object]], None]


def test_a_rollback_that_put_back_who_answers_and_then_comes_second_says_what_it_did(
    settings: Settings, at: Home, just_before: Lay
) -> None:
    change(settings.home, "DELETE FROM state WHERE kind = 'model'")
    just_before("rollout.rolled_back", by_the_gateway(settings))
    moved = operating.roll_back(at.loop(spec_of(settings)), "ada", "who is that?")
    route = routes(at.store, [spec_of(settings)])[MODEL]
    assert (moved.phase, moved.champion) == (Phase.ROLLED_BACK, route.champion["digest"])
    assert [one.actor for one in records(settings.home) if one.event == "rollout.rolled_back"] == ["gateway"]
    assert [one.actor for one in records(settings.home) if one.event == "model.put_back"] == ["ada"]


def test_a_rollback_that_comes_second_says_who_answers_also_where_there_is_no_earlier_version(
    settings: Settings, at: Home, just_before: Lay
) -> None:
    just_before("rollout.rolled_back", by_the_gateway(settings))
    with pytest.raises(NothingToDoError, match=r"v2 is rolled back already, and v1 answers \(shadow: SLO breach: slow"):
        operating.roll_back(at.loop(spec_of(settings)), "ada", "it is slow")


def in_canary(world: World) -> None:
    """For a day, and nobody ticked since."""
    world.rolled_out(days=2)
    now = world.clock.now()
    world._land(Window(now, now + DAY))
    world.clock.advance_to(now + DAY)


def test_a_rollback_wins_over_the_promotion_that_comes_in_between(world: World, just_before: Lay) -> None:
    in_canary(world)
    before, other, by_hand = world.loop.monitor.champion, twin(world), twin(world)
    just_before("rollout.rolled_back", other.advance)
    status = operating.roll_back(by_hand, "ada", "complaints")
    assert (status.phase, status.champion, status.reason) == (
        Phase.ROLLED_BACK,
        before.digest,
        "after full: complaints",
    )
    day(world)
    for loop in (other, world.loop):
        loop.tick(inline=False)
        assert loop.monitor.champion.digest == before.digest


@pytest.mark.parametrize(
    "act", [lambda loop: operating.promote(loop, "ada", "in a hurry"), Loop.advance], ids=["by hand", "by a tick"]
)
def test_a_promotion_that_another_process_takes_up_first_is_told_as_done(
    world: World, just_before: Lay, act: Callable[[Loop], object]
) -> None:
    in_canary(world)
    other, acting = twin(world), twin(world)
    just_before("reference.frozen", other.catch_up)
    moved = act(acting)
    assert getattr(moved, "phase", None) is Phase.FULL
    assert world.events().count("reference.frozen") == 2
    acting.catch_up()
    assert acting.monitor.champion.name == "v2"


@pytest.mark.parametrize("conflicts", [0, 4, 5])
def test_what_conflicts_is_done_again_and_told_where_it_does_each_of_five_times(conflicts: int) -> None:
    tries = list[int]()

    def do() -> int:
        tries.append(1)
        if len(tries) <= conflicts:
            raise ConflictError("somebody else ticked")
        return len(tries)

    if conflicts < 5:
        assert operating.retried(do) == conflicts + 1
        return
    with pytest.raises(ConflictError):
        operating.retried(do)
    assert len(tries) == 5
