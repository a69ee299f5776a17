"""The fleet: many models in one tick, in order of need and within its time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drift_pipeline.alerts.alert import CONCERN_OVER, Action, Teller
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop import Loop, Ticked, concerns
from drift_pipeline.loop.fleet import FAILED, Failed, Fleet
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.rollout.advance import start
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline_tests.training import worlds

MODELS = ["a", "b", "c", "d", "e"]
SPECS = {name: worlds.spec().model_copy(update={"name": name}) for name in MODELS}


class Slow:
    """Stands for a loop: each step takes as long as it says, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: float) -> None:
        self.now, self.stepped, self.takes = 0.0, list[str](), takes
        monkeypatch.setattr(Loop, "tick", lambda loop, *, inline: self._step(loop, inline))
        monkeypatch.setattr(Loop, "step_rollout", lambda loop: self._step(loop, None))

    def _step(self, loop: Loop, _: bool | None) -> Ticked:
        self.stepped.append(loop.spec.name)
        self.now += self.takes
        return Ticked(loop.spec.name, None)

    def told(self) -> str:
        told, self.stepped = "".join(self.stepped), []
        return told


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """All are adopted, and have a rollout under way, as far as the control store says."""
    with opened(Settings(home=tmp_path / "home", database=""), SystemClock(), new=True) as at:
        puts = [Put("model", name, {}) for name in MODELS]
        for name in MODELS:
            status, _ = start(f"{name}-v2", name, f"sha256:{'a' * 64}", f"sha256:{'b' * 64}", datetime.now(UTC))
            puts.append(Put("rollout", name, status.to_json()))
        at.store.commit(Entry("test", "test", "test"), puts)
        yield at


@pytest.mark.parametrize("step", ["tick", "advance"])
def test_who_finds_no_time_comes_first_the_next_time(home: Home, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    slow = Slow(monkeypatch, takes=3.0)
    fleet = Fleet(home, SPECS, monotonic=lambda: slow.now)

    def within(seconds: float) -> str:
        fleet.tick(inline=False, seconds=seconds) if step == "tick" else fleet.advance(seconds=seconds)
        return slow.told()

    assert [within(6.0) for _ in range(5)] == ["ab", "cd", "ea", "bc", "de"]
    assert (within(0.0), fleet.waiting) == ("a", 4)
    assert (within(1e9), fleet.waiting) == ("bcdea", 0)


def test_a_model_that_was_looked_at_a_moment_ago_is_not_due(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, takes=1.0)
    fleet = Fleet(home, SPECS, monotonic=lambda: slow.now)

    def within(seconds: float) -> str:
        fleet.tick(inline=False, seconds=seconds, every=10.0)
        return slow.told()

    assert [within(2.0), within(2.0), within(2.0), within(2.0)] == ["ab", "cd", "e", ""]
    slow.now = 10.5
    assert [within(9.0), fleet.waiting] == ["a", 0]
    slow.now = 20.0
    assert within(9.0) == "bcde"


def test_without_a_limit_every_model_ticks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, takes=1e6)
    assert len(Fleet(home, SPECS, monotonic=lambda: slow.now).tick(inline=True)) == len(MODELS)


def test_a_step_looks_at_the_cards_of_models_that_were_named_since_and_of_all_at_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, asked = Slow(monkeypatch, takes=1.0), list[str]()
    monkeypatch.setattr(Home, "document", lambda _, spec: asked.append(spec.name))
    fleet = Fleet(home, SPECS, monotonic=lambda: slow.now)

    def looked(seconds: float = 1e9) -> list[str]:
        asked.clear()
        fleet.tick(inline=False, seconds=seconds)
        return sorted(asked)

    assert looked() == MODELS
    assert looked() == []
    for name in ("b", "d"):
        home.store.commit(Entry("ada", "approval.given", name))
    assert looked(seconds=3.0) == ["b"]  # the others had no time; what was named is not forgotten
    assert looked() == ["d"]
    assert looked() == []


def test_cards_get_what_is_left_of_the_time_and_one_always_in_the_order_in_which_they_were_named(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, asked = Slow(monkeypatch, takes=1.0), list[str]()

    def document(_: Home, spec: ModelSpec) -> None:
        slow.now += 2.0
        asked.append(spec.name)
        if spec.name == "a":
            raise UnavailableError("its disk is full")

    monkeypatch.setattr(Home, "document", document)
    fleet = Fleet(home, SPECS, monotonic=lambda: slow.now)

    def looked(seconds: float) -> str:
        asked.clear()
        fleet.tick(inline=False, seconds=seconds)
        return "".join(asked)

    assert looked(5.0) == "a"  # the models took all of it
    home.store.commit(Entry("ada", "approval.given", "b"))
    assert [looked(9.0), looked(5.0), looked(5.0), looked(5.0)] == ["bc", "d", "e", "a"]  # who failed comes last


def test_a_card_that_cannot_be_written_stops_no_tick_and_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, takes=1.0)
    record = Put("candidate", f"a/sha256:{'a' * 64}", {"passed": True, "version": "v2"})
    home.store.commit(Entry("test", "test", "a"), [record])  # and the registry holds no such bundle
    fleet = Fleet(home, SPECS, monotonic=lambda: slow.now)
    for _ in range(2):
        done = fleet.tick(inline=False)
        assert [one.model for one in done if isinstance(one, Ticked)] == MODELS
        (failed,) = [one for one in done if isinstance(one, Failed)]
        assert failed.reason.startswith("its card is older than what it tells: ")


def test_ticks_that_fail_are_over_once_none_failed_for_a_while_and_are_told_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, broken = Slow(monkeypatch, takes=60.0), True
    fleet = Fleet(home, {"a": SPECS["a"]}, monotonic=lambda: slow.now)
    step = Loop.tick

    def tick(loop: Loop, *, inline: bool) -> Ticked:
        done = step(loop, inline=inline)
        if broken:
            raise UnavailableError("the lake is away")
        return done

    def told() -> tuple[list[str], int, bool]:
        events = [record.event for record in home.store.records() if record.event in (FAILED, CONCERN_OVER)]
        pages = home.store.messages(ALERTS, 0, 10_000)
        return events, len(pages), FAILED in concerns.lasting(home.store, "a", home.clock.now())

    monkeypatch.setattr(Loop, "tick", tick)
    fleet.tick(inline=False)
    fleet.tick(inline=False)
    assert told() == ([FAILED], 1, True)
    broken = False
    fleet.tick(inline=False)
    assert told() == ([FAILED], 1, True)
    for _ in range(12):
        fleet.tick(inline=False)
    assert told() == ([FAILED, CONCERN_OVER], 1, False)
    broken = True
    fleet.tick(inline=False)
    assert told() == ([FAILED, CONCERN_OVER, FAILED], 2, True)
    broken = False
    Fleet(home, {"a": SPECS["a"]}, monotonic=lambda: slow.now).tick(inline=False)
    assert told() == ([FAILED, CONCERN_OVER] * 2, 2, False)
    over = [one for one in home.store.records() if one.event == CONCERN_OVER]
    ends = [Teller(home.store, "production", "").followed(record) for record in over]
    assert {(end.incident, end.action) for end in ends if end} == {("production/a/tick.failed", Action.RESOLVE)}
