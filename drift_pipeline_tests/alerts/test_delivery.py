"""Delivery: each channel by itself, in order, at least once; one page an incident; nothing lost in an outage."""

import time
from dataclasses import replace

import pytest

from drift_pipeline.alerts.alert import Alert
from drift_pipeline.alerts.delivery import Progress, recalled
from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.control.store import Message, Put
from drift_pipeline.errors import ConflictError
from drift_pipeline_tests.alerts.worlds import AT, KEY, Heard, World, down, kept, run

MODELS = [f"model_{number}" for number in range(10)]


def concern(world: World, hour: str) -> Message:
    """What is told again each hour."""
    made = world.alert("fraud", hour, "tick.failed")
    return replace(made, body={**made.body, "incident": "tick.failed"})


# what is told


def test_a_page_has_all_that_somebody_woken_by_it_needs(world: World) -> None:
    world.opened()
    pager = Heard()
    run(world, pager)
    (page,) = pager.taken
    assert (page.severity, page.action, page.incident) == ("page", "trigger", f"production/fraud/{KEY}")
    assert (page.since, page.at) == ("2026-03-01T11:00:00+00:00", AT.isoformat())
    assert page.columns == (
        "amount: higher, PSI 0.41 over 30d",
        "device: more of ios, PSI 0.22 over 1d",
        "age: lower, PSI 0.2 over 30d",
    )
    assert page.decided == "retrain (fraud-1): psi is over"
    assert page.link == f"http://pages/fraud#incident-{KEY}"
    assert page.commands[0] == 'drift incident ack fraud --reason "looking into it"'
    assert page.commands[-1].startswith("drift rollback fraud ")
    assert "psi BREACH: PSI 0.41 over 30d" in page.text()


def test_acknowledgement_and_end_follow_and_what_reopens_is_told_again(world: World) -> None:
    pager = Heard()
    world.opened()
    for what in ("joined", "acknowledged", "closed"):
        run(world, pager)
        world.followed(what)
    run(world, pager)
    world.followed("acknowledged")  # of what is over
    world.followed("reopened")
    world.followed("closed")
    run(world, pager)
    actions = [action for _, action in pager.told]
    assert actions == ["trigger", "acknowledge", "resolve", "trigger", "resolve"]
    assert len({alert.incident for alert in pager.taken}) == 1
    assert len({alert.id for alert in pager.taken}) == 5


def test_a_new_champion_ends_the_incident_of_the_one_before(world: World) -> None:
    pager = Heard()
    world.opened()
    world.commit("reference.frozen", "fraud", {"version": "v2", "closes": KEY})
    world.commit("reference.frozen", "fraud", {"version": "v3", "closes": None})
    run(world, pager)
    assert [action for _, action in pager.told] == ["trigger", "resolve"]


def test_in_a_snooze_nothing_is_told_again(world: World) -> None:
    pager = Heard()
    world.opened()
    world.followed("closed")
    world.commit("incident.snoozed", "fraud", {}, puts=[Put("snooze", "fraud", {"until": (AT + HOUR).isoformat()})])
    world.followed("reopened")
    run(world, pager)
    assert [action for _, action in pager.told] == ["trigger", "resolve"]


def test_what_was_never_told_has_no_end_to_tell(world: World) -> None:
    pager = Heard()
    world.opened()
    world.followed("closed")
    run(world, pager, wanted=lambda _: False)
    assert pager.taken == []
    assert kept(world).place >= (3, 1)


def test_what_is_told_each_hour_is_told_once_an_hour_however_often_it_comes(world: World) -> None:
    pager = Heard()
    for minutes in (0, 1, 59, 61, 122):
        world.clock.advance_to(AT + minutes * MINUTE)
        hour = f"{world.clock.now():%Y-%m-%dT%H}"
        world.commit("tick.failed", "fraud", {}, messages=[concern(world, hour)])
        run(world, pager)
    assert [(one.incident, one.at[11:16]) for one in pager.taken] == [
        ("production/fraud/tick.failed", at) for at in ("12:00", "13:01", "14:02")
    ]


# storms and outages


def test_a_storm_is_one_page_an_incident(world: World) -> None:
    """1,000 alerts of 10 models in a minute."""
    pager, sent = Heard(), 0
    for model in MODELS:
        world.opened(model)
    for second in range(60):
        world.clock.advance_to(AT + (second + 1) * MINUTE / 61)
        storm = [(MODELS[n % 10], f"{second}-{n}") for n in range(17 if second < 30 else 16)]
        alerts = [world.alert(model, number, "incident.opened") for model, number in storm]
        sent += len(alerts)
        told = [replace(one, body={**one.body, "incident": KEY}) for one in alerts]
        world.commit("incident.joined", "model_0", {"key": KEY, "kpis": {}}, messages=told)
        run(world, pager)
    assert sent + len(MODELS) == 1000
    assert sorted(pager.told) == sorted((model, "trigger") for model in MODELS)


def test_a_channel_that_is_down_for_an_hour_loses_nothing_keeps_the_order_and_blocks_no_other(world: World) -> None:
    pager, chat = Heard(wrong=down), Heard()
    for number in range(31):
        world.clock.advance_to(AT + number * 2 * MINUTE)
        model = MODELS[number % 10]
        if number < 10:
            world.opened(model)
        elif number < 20:
            world.followed("acknowledged", model)
        elif number < 30:
            world.followed("closed", model)
        run(world, pager)
        run(world, chat, "chat")
    assert (pager.taken, len(chat.taken)) == ([], 30)
    assert 8 <= kept(world).failures <= 20
    pager.wrong = lambda _: None
    world.clock.advance_to(AT + 66 * MINUTE)  # the longest pause is five minutes
    run(world, pager)
    assert [one.id for one in pager.taken] == [one.id for one in chat.taken]
    assert (kept(world).failures, kept(world).error, kept(world).lost) == (0, "", 0)


def test_between_attempts_there_is_a_pause_that_grows(world: World) -> None:
    pager, tries = Heard(), list[int]()

    def wrong(alert: Alert) -> None:
        tries.append(round((world.clock.now() - AT).total_seconds()))
        down(alert)

    pager.wrong = wrong
    world.opened()
    for second in range(0, 160, 5):
        world.clock.advance_to(AT + second * MINUTE / 60)
        run(world, pager)
    assert tries == [0, 5, 15, 35, 75, 155]


def test_a_clock_that_was_set_back_does_not_silence_a_channel(world: World) -> None:
    world.opened()
    far = Progress(again_at=(AT + 5 * HOUR).timestamp(), busy_until=time.time() + 3600)
    world.store.remember(Put("", "_alerts/pager", {**vars(far), "told": {}, "parked": []}))
    pager = Heard()
    run(world, pager)
    assert len(pager.taken) == 1


# at least once


def test_what_was_sent_and_not_marked_is_sent_again_under_the_same_names(world: World) -> None:
    """As after a kill between the two."""
    pager = Heard()
    world.opened()
    run(world, pager)
    before, generation = recalled(world.store, "pager")
    assert before is not None
    back = {**vars(before), "seq": 0, "number": 0, "told": {}, "sent": 0}
    world.store.remember(Put("", "_alerts/pager", back, generation))
    run(world, pager)
    first, second = pager.taken
    assert first == second


def test_of_two_processes_one_sends(world: World) -> None:
    world.opened()
    pager, other = Heard(), Heard()
    pager.wrong = lambda _: run(world, other)  # while it is at it, the second one comes
    run(world, pager)
    assert (len(pager.taken), other.taken) == (1, [])


def test_a_process_that_lost_its_lease_does_not_move_the_other_ones_cursor(world: World) -> None:
    world.opened()
    pager, other = Heard(), Heard()

    def wrong(_: Alert) -> None:
        found, generation = recalled(world.store, "pager")
        assert found is not None
        world.store.remember(Put("", "_alerts/pager", {**vars(found), "busy_until": 0.0}, generation))
        run(world, other)

    pager.wrong = wrong
    with pytest.raises(ConflictError):
        run(world, pager)
    assert len(other.taken) == 1
    assert kept(world).told == {f"production/fraud/{KEY}": ["trigger", AT.isoformat()]}


def test_a_damaged_record_of_the_audit_holds_no_page_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    import sqlite3

    world.commit("model.adopted", "fraud", {})
    world.opened("fraud")
    world.opened("other")
    path = world.settings.home / "control.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE audit SET body = '{' WHERE seq = 2")
    connection.close()
    pager = Heard()
    run(world, pager)
    assert pager.told == [("fraud", "trigger"), ("other", "trigger")]
    assert "what became of incidents cannot be told" in caplog.text
