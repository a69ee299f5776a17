"""What a receiver refuses or breaks on is parked and told, once it is seen not to be the channel."""

import pytest

from drift_pipeline.alerts.alert import Alert
from drift_pipeline.alerts.standing import told
from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.errors import UnavailableError
from drift_pipeline_tests.alerts.worlds import AT, KEY, Heard, World, kept, refuses, run


def test_what_the_receiver_refuses_is_parked_once_another_went_and_told(world: World) -> None:
    pager = Heard(wrong=refuses("poison"))
    world.opened("poison")
    run(world, pager)
    assert (kept(world).lost, kept(world).failures) == (0, 1)  # it may be the channel
    world.opened("fraud")
    world.followed("closed", "poison")
    world.clock.advance_to(AT + MINUTE)
    run(world, pager)
    assert pager.told == [("fraud", "trigger")]
    (parked,) = kept(world).parked
    assert (parked["incident"], parked["why"]) == (f"production/poison/{KEY}", "answers 400: it refuses the alert")
    world.routes({"pager": {"kind": "slack", "secret": "S"}})
    (line,) = told(world.settings, world.store)
    assert line == "pager: 1 were refused; the last: answers 400: it refuses the alert"


def test_where_all_is_refused_it_is_the_channel_and_nothing_is_parked(world: World) -> None:
    """A key that is mistyped must not cost a page."""
    pager = Heard(wrong=refuses("production"))
    for number in range(25):  # more than are tried at once
        world.opened(f"model_{number}")
    for minute in range(0, 60, 10):
        world.clock.advance_to(AT + minute * MINUTE)
        run(world, pager)
    assert (kept(world).lost, pager.taken) == (0, [])
    pager.wrong = lambda _: None
    world.clock.advance_to(AT + HOUR)
    run(world, pager)
    assert pager.told == [(f"model_{number}", "trigger") for number in range(25)]


def test_an_alert_that_the_server_breaks_on_does_not_hold_the_others_for_ever(world: World) -> None:
    pager = Heard()

    def wrong(alert: Alert) -> None:
        if alert.model == "poison":
            raise UnavailableError("answers 500")

    pager.wrong = wrong
    world.opened("poison")
    world.opened("fraud")
    for second in range(0, 600, 5):
        world.clock.advance_to(AT + second * MINUTE / 60)
        run(world, pager)
    assert pager.told == [("fraud", "trigger")]
    assert [one["why"] for one in kept(world).parked] == ["answers 500"]


def test_one_that_comes_back_just_then_loses_nothing(world: World) -> None:
    """The probe goes since the receiver is up again: then so does what waited before it, though after it."""
    pager, up = Heard(), False

    def wrong(alert: Alert) -> None:
        nonlocal up
        before, up = up, alert.model == "fraud" or up
        if not before and alert.model != "fraud":
            raise UnavailableError("answers 503")

    pager.wrong = wrong
    world.opened("first")
    world.followed("acknowledged", "first")
    run(world, pager)
    assert kept(world).failures == 1
    for second in range(5, 100, 5):
        world.clock.advance_to(AT + second * MINUTE / 60)
        run(world, pager)
    world.opened("fraud")
    world.clock.advance_to(AT + HOUR)
    run(world, pager)
    assert pager.told == [("fraud", "trigger"), ("first", "trigger"), ("first", "acknowledge")]
    assert kept(world).lost == 0


def test_a_receiver_whose_code_fails_parks_its_alert_and_tells_no_word_of_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pager = Heard()

    def wrong(alert: Alert) -> None:
        if alert.model == "poison":
            raise RuntimeError("the key is hunter2")

    pager.wrong = wrong
    world.opened("poison")
    world.opened("fraud")
    run(world, pager)
    assert pager.told == [("fraud", "trigger")]
    assert [one["why"] for one in kept(world).parked] == ["fails: RuntimeError"]
    assert "hunter2" not in caplog.text + str(kept(world))
