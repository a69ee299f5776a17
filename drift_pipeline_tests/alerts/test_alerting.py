"""The channels of the YAML: new ones, ones that hang, a YAML that breaks, a secret that is missing."""

import threading

import pytest

from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.alerts.standing import standings, told
from drift_pipeline.clock import MINUTE
from drift_pipeline_tests.alerts.worlds import AT, World, kept, listening


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
