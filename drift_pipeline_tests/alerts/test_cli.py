"""`drift alerts` as a person types it, and what `drift status` says of channels."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.errors import InputError
from drift_pipeline.serving.up import up
from drift_pipeline.settings import Settings
from drift_pipeline_tests.alerts.test_channels import ROUTING_KEY
from drift_pipeline_tests.alerts.test_alerting import KEY_OF_HOOK, hook
from drift_pipeline_tests.alerts.worlds import AT, Endpoint, World, listening
from drift_pipeline_tests.replay.worlds import drift


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path / "home")
    monkeypatch.setenv("DRIFT_HOME", str(made.settings.home))
    monkeypatch.setenv("DRIFT_ALERTS", str(made.settings.alerts_file))
    monkeypatch.setenv("HOOK_KEY", KEY_OF_HOOK)
    monkeypatch.setenv("PD_KEY", ROUTING_KEY)
    yield made
    made.store.close()


@pytest.fixture
def at() -> Iterator[Endpoint]:
    with listening() as endpoint:
        yield endpoint


def test_list_tells_what_was_sent_what_waits_and_why(world: World, at: Endpoint) -> None:
    world.routes({"hook": hook(at.url), "dead": hook("http://127.0.0.1:9")})
    alerting = Alerting(world.settings, world.store, world.clock)
    world.opened()
    alerting.deliver()
    ended = drift("alerts", "list")
    assert ended.code == 0
    words = " ".join(ended.out.split())
    assert "hook (webhook): 1 sent dead (webhook): 0 sent, 1 wait since" in words
    assert f"1 wait since {AT.isoformat()}: is not reached: ConnectError" in words
    sent, waits = json.loads(drift("alerts", "list", "--json").out)
    assert (sent["channel"], sent["sent"], sent["waiting"]) == ("hook", 1, 0)
    assert (waits["channel"], waits["waiting"], waits["error"]) == ("dead", 1, "is not reached: ConnectError")
    assert f"alerts: dead: 1 wait since {AT.isoformat()}: is not" in " ".join(drift("status").out.split())


def test_a_test_is_a_trigger_and_its_end_and_pages_nobody(world: World, at: Endpoint) -> None:
    pager = {"kind": "pagerduty", "secret": "PD_KEY", "url": at.url}
    world.routes({"pager": pager, "hook": hook(at.url), "dead": hook("http://127.0.0.1:9")})
    ended = drift("alerts", "test")
    assert ended.code == 1
    assert ended.out.splitlines() == ["pager: took it", "hook: took it", "dead: is not reached: ConnectError"]
    trigger, resolve, *events = at.documents
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert (trigger["dedup_key"], trigger["payload"]["severity"]) == (resolve["dedup_key"], "warning")
    assert [one["data"]["severity"] for one in events] == ["ticket", "ticket"]
    assert drift("alerts", "test", "hook").code == 0
    assert json.loads(drift("alerts", "test", "dead", "--json").out) == [
        {"channel": "dead", "ok": False, "why": "is not reached: ConnectError"}
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("test", "nosuch"), "there is no channel 'nosuch'; there are: hook"),
        (("list", "--home", "absent"), "absent"),
    ],
)
def test_bad_input_ends_with_2(world: World, at: Endpoint, arguments: tuple[str, ...], told: str) -> None:
    world.routes({"hook": hook(at.url)})
    ended = drift("alerts", *arguments)
    assert (ended.code, told in ended.err) == (2, True)


def test_a_yaml_that_is_wrong_and_none_at_all_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.settings.alerts_file is not None
    world.settings.alerts_file.write_text("channels: [")
    for command in ("list", "test"):
        ended = drift("alerts", command)
        assert (ended.code, "not valid YAML" in ended.err) == (2, True)
    assert "alerts: go to" in drift("status").out
    monkeypatch.delenv("DRIFT_ALERTS")
    assert drift("alerts", "list").code == 0
    ended = drift("alerts", "test")
    assert (ended.code, "DRIFT_ALERTS is not set" in ended.err) == (2, True)


def test_up_refuses_to_start_without_a_secret_and_a_tick_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.routes({"chat": {"kind": "slack", "secret": "NO_SUCH_SECRET"}})
    with pytest.raises(InputError, match="the channel chat: NO_SUCH_SECRET: is not set"):
        up(Settings())
    ended = drift("tick")
    assert (ended.code, "the channel chat: NO_SUCH_SECRET: is not set" in ended.err) == (3, True)  # no model is here
