"""The YAML of DRIFT_ALERTS: who is told what, and that each mistake is told with its line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.alerts.alert import Severity
from drift_pipeline.alerts.routing import read_routing
from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.settings import Settings, secret
from drift_pipeline_tests.alerts.test_channels import alert

YAML = """
channels:
  pager: {kind: pagerduty, secret: PAGERDUTY_KEY}
  chat: {kind: slack, secret: SLACK_URL}
  mail: {kind: email, host: mail.example.com, sender: drift@example.com, to: [sre@example.com]}
  hook: {kind: webhook, url: "https://example.com/drift", secret: HOOK_KEY}
  bus: {kind: pubsub, project: my-project, topic: drift-alerts}
routes:
  - {severity: page, channels: [pager]}
  - {model: "fraud_*", channels: [chat, hook]}
  - {owner: "*@risk.example.com", severity: ticket, channels: [mail]}
  - {channels: [bus]}
"""


def wants(path: Path, **told: Any) -> list[str]:
    routing, one = read_routing(path), replace(alert(), **told)
    return [name for name in routing.channels if routing.wants(name, one)]


def test_an_alert_goes_to_the_channels_of_every_route_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(YAML)
    assert wants(path) == ["pager", "bus"]
    assert wants(path, model="fraud_eu", severity=Severity.TICKET) == ["chat", "hook", "bus"]
    assert wants(path, owner="ada@risk.example.com", severity=Severity.TICKET) == ["mail", "bus"]
    assert wants(path, owner="ada@risk.example.com") == ["pager", "bus"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no YAML mapping; it has channels, routes"),
        ("- a", "is no YAML mapping"),
        ("channels: [", r"alerts\.yaml:1: not valid YAML"),
        ("channels: {}\nroutes: []", r"alerts\.yaml:1: channels: Dictionary should have at least 1 item"),
        (
            "channels:\n  a: {kind: slack, secret: X}\nroutes: []",
            r"alerts\.yaml:3: routes: List should have at least 1",
        ),
        ("channels:\n  a: {kind: sms}\nroutes: [{channels: [a]}]", r"alerts\.yaml:2: channels\.a: .*'pagerduty'"),
        (
            "channels:\n  a: {kind: slack}\nroutes: [{channels: [a]}]",
            r"alerts\.yaml:2: .*secret: required, and missing",
        ),
        (
            YAML.replace("kind: slack,", "kind: slack, urk: 1,"),
            r"alerts\.yaml:4: channels\.chat\.slack\.urk: unknown key",
        ),
        (YAML.replace("severity: page", "severity: loud"), r"alerts\.yaml:9: routes\.0\.severity"),
        (YAML.replace("[pager]", "[pagr]"), "a route names the channel 'pagr'; there are: pager, chat"),
        (YAML.replace("[bus]", "[chat]"), "no route leads to the channel 'bus'"),
        (YAML.replace("chat:", "Chat room:"), r"channels\.Chat room"),
        (YAML.replace("secret: HOOK_KEY", "secret: ../../etc/passwd"), r"alerts\.yaml:6: .*secret"),
        (YAML.replace("https://example.com/drift", "ftp://example.com"), r"alerts\.yaml:6: .*url"),
        (YAML.replace("https://example.com/drift", "https://me:hunter2@example.com"), r"alerts\.yaml:6: .*url"),
        *(
            (
                YAML.replace("https://example.com/drift", url),
                r"alerts\.yaml:6: channels\.hook\.webhook\.url: is no address",
            )
            for url in ("https://[::1", "https://h:99999/", "https://h:0/", "https:///drift")
        ),
        (YAML.replace("PAGERDUTY_KEY}", "PAGERDUTY_KEY, url: 'http://example.com'}"), r"alerts\.yaml:3: .*url"),
        (YAML + "routes: []\n", "the key 'routes' stands twice"),
        (YAML.replace("SLACK_URL", '"{{ SLACK }}"'), r"alerts\.yaml:4: '\{\{' found"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_no_secret(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told) as error:
        read_routing(path)
    assert "hunter2" not in str(error.value)


CHANNEL = "channels:\n  a: {kind: slack, secret: X}\n"
BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9 if n else 'a')}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CHANNEL + "routes: &r [*r]\n", r"alerts\.yaml:3: routes\.0: Input should be"),
        ("channels: &c {a: *c}\nroutes: [{channels: [a]}]", r"alerts\.yaml:1: channels\.a: Unable to extract"),
        (
            CHANNEL + "routes: [{channels: [a]}]\nmore: &m [*m]",
            r"alerts\.yaml:4: more: unknown key; known here: channels",
        ),
        (BOMB + CHANNEL + "routes: *x8\n", "its anchors come to more than 200,000 values"),
        (CHANNEL + "routes: " + "[" * 500, "is nested too deep"),
        (CHANNEL + "routes: [{channels: a}]", r"alerts\.yaml:3: routes\.0\.channels: Input should be a valid list"),
        ("channels: {a: {kind: [slack], secret: X}}\nroutes: []", r"alerts\.yaml:1: channels\.a: Input tag"),
        (CHANNEL + "  ? {b: c}\n  : {}\nroutes: []", "not valid YAML: found unhashable key"),
        (CHANNEL + "  a: {kind: slack, secret: Y}\nroutes: []", r"alerts\.yaml:3: the key 'a' stands twice; keep one"),
        (CHANNEL + "routes: [{channels: [a]}]\n---\n{}", "not valid YAML: but found another document"),
        (CHANNEL + "routes: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("channels: \x00", "not valid YAML: unacceptable character"),
    ],
)
def test_what_a_stranger_wrote_is_one_error(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=told):
        read_routing(path)


def test_routes_that_say_the_same_are_one(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text(YAML + "  - {severity: page, channels: [pager, pager]}\n")
    assert wants(path) == ["pager", "bus"]


def test_a_yaml_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        read_routing(tmp_path / "absent.yaml")


# secrets


def test_a_secret_is_of_the_environment_or_a_file_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_SECRETS_DIR", str(tmp_path))
    (tmp_path / "PAGERDUTY_KEY").write_text("of the file\n")
    (tmp_path / "DRIFT_PAGES_KEY").write_text("a key of the pages")
    assert secret("PAGERDUTY_KEY").get_secret_value() == "of the file"
    assert Settings().pages_key.get_secret_value() == "a key of the pages"
    monkeypatch.setenv("PAGERDUTY_KEY", "of the environment")
    assert secret("PAGERDUTY_KEY").get_secret_value() == "of the environment"
    assert "environment" not in repr(secret("PAGERDUTY_KEY"))
    (tmp_path / "EMPTY").write_text("\n")
    for name in ("EMPTY", "ABSENT"):
        with pytest.raises(InputError, match=f"{name}: is not set; set it in the environment, or as a file"):
            secret(name)


def test_a_folder_of_secrets_that_is_none_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_SECRETS_DIR", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"DRIFT_SECRETS_DIR: .*absent is no folder"):
        Settings()
