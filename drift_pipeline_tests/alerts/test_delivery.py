"""Delivery: each channel by itself, in order, at least once; one page an incident; nothing lost in an outage."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drift_pipeline.alerts.alert import Alert, Teller
from drift_pipeline.alerts.delivery import Alerting, ChannelRun, Progress, recalled
from drift_pipeline.alerts.standing import standings, told
from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.control.store import Message, Put
from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline_tests.alerts.worlds import AT, KEY, Heard, World, listening

MODELS = [f"model_{number}" for number in range(10)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.store.close()


def run(world: World, receiver: Heard, name: str = "pager", wanted: Callable[[Alert], bool] = lambda _: True) -> None:
    """One call's delivery to a channel that was there from the beginning."""
    teller = Teller(world.store, "production", "http://pages")
    ChannelRun(name, world.store, teller, world.clock, wanted, lambda: receiver).run(time.monotonic() + 60)


def kept(world: World, name: str = "pager") -> Progress:
    found = recalled(world.store, name)[0]
    assert found is not None
    return found


def concern(world: World, hour: str) -> Message:
    """What is told again each hour."""
    made = world.alert("fraud", hour, "tick.failed")
    return replace(made, body={**made.body, "incident": "tick.failed"})


def down(_: Alert) -> None:
    raise UnavailableError("is not reached: ConnectError")


def refuses(key: str) -> Callable[[Alert], None]:
    def wrong(alert: Alert) -> None:
        if key in alert.incident:
            raise InputError("answers 400: it refuses the alert")

    return wrong


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


# poison


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


# the channels of the YAML


def hook(url: str) -> dict[str, str]:
    return {"kind": "webhook", "url": url, "secret": "HOOK_KEY"}


KEY_OF_HOOK = "whsec_" + "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"


def test_a_channel_that_is_new_is_told_what_comes_and_what_the_file_has_not_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY_OF_HOOK)
    world.opened("old")
    for message in world.store.pending():
        world.store.delivered(message.id)
    world.opened("pending")
    with listening() as at:
        world.routes({"hook": hook(at.url)})
        alerting = Alerting(world.settings, world.store, world.clock)
        world.opened("fraud")
        alerting.deliver()
        alerting.deliver()
        assert [one["data"]["model"] for one in at.documents] == ["pending", "fraud"]


def test_one_that_hangs_holds_neither_the_others_nor_the_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY_OF_HOOK)
    released = threading.Event()

    def hang(_: bytes) -> tuple[int, bytes]:
        released.wait(60)
        return 202, b""

    with listening() as slow, listening() as at:
        slow.answer = hang
        world.routes({"slow": hook(slow.url), "hook": hook(at.url)})
        alerting = Alerting(world.settings, world.store, world.clock)
        world.opened()
        while not at.posted:  # deliver comes back, though nothing comes of the other one
            alerting.deliver(seconds=0.2)
        assert (slow.posted, kept(world, "slow").sent) == ([], 0)
        released.set()
        while not kept(world, "slow").sent:
            alerting.deliver(seconds=0.2)
            world.clock.advance_to(world.clock.now() + MINUTE)
        assert len(at.posted) == 1


def test_a_yaml_that_breaks_while_it_runs_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY_OF_HOOK)
    assert world.settings.alerts_file is not None
    with listening() as at:
        world.routes({"hook": hook(at.url)})
        alerting = Alerting(world.settings, world.store, world.clock)
        world.settings.alerts_file.write_text("channels: [")
        world.opened()
        alerting.deliver()
        assert "not valid YAML" in caplog.text
        assert "not valid YAML" in told(world.settings, world.store)[0]
        world.routes({"hook": hook(at.url)})
        alerting.deliver()
        assert len(at.posted) == 1


def test_a_secret_that_is_missing_is_named_and_its_channel_alone_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", KEY_OF_HOOK)
    with listening() as at:
        world.routes({"hook": hook(at.url), "chat": {"kind": "slack", "secret": "NO_SUCH_SECRET"}})
        alerting = Alerting(world.settings, world.store, world.clock)
        world.opened()
        alerting.deliver()
        assert len(at.posted) == 1
        (chat,) = [one for one in standings(world.settings, world.store) if one.channel == "chat"]
        assert (chat.waiting, chat.since) == (1, AT.isoformat())
        assert chat.error.startswith("NO_SUCH_SECRET: is not set")
        monkeypatch.setenv("NO_SUCH_SECRET", f"{at.url}/services/T/B/x")
        world.clock.advance_to(AT + MINUTE)
        alerting.deliver()
        assert [path for path, _, _ in at.posted] == ["/", "/services/T/B/x"]


def test_without_a_yaml_nothing_is_kept_and_nobody_is_told(world: World) -> None:
    world.opened()
    settings = world.settings.model_copy(update={"alerts_file": None})
    Alerting(settings, world.store, world.clock).deliver()
    assert world.store.recalled("_alerts/") == []
    assert (standings(settings, world.store), told(settings, world.store)) == ([], [])
