"""The rules of deploy/prometheus, by Prometheus' and Alertmanager's own tools: each alert fires, and does not."""

import re
import shutil
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.alerts.alert import ROUTE, dedup_key
from drift_pipeline.observability.series import DELIVERY, SERIES
from drift_pipeline.serving.metrics import Metrics
from drift_pipeline_tests.parts import alertmanager, prometheus
from drift_pipeline_tests.parts.prometheus import DEPLOY

FILES = [yaml.safe_load((DEPLOY / f"{name}.yaml").read_text()) for name in ("recording", "alerts")]
RULES = [rule for file in FILES for group in file["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES = ("alerts_test.yaml", "slow_alerts_test.yaml")


def test_rules_name_series_that_are_there() -> None:
    known = {*SERIES, DELIVERY, *(rule["record"] for rule in RULES if "record" in rule)}
    known |= {
        line.split()[2] for line in Metrics().text(lambda _: True).decode().splitlines() if line.startswith("# TYPE")
    }
    texts = [rule["expr"] for rule in RULES] + [
        text for rule in ALERTS.values() for text in rule["annotations"].values()
    ]
    named = {name for text in texts for name in re.findall(r"\b(?:model:)?drift_\w+(?::\w+)?(?=[{\[)\s])", text)}
    assert len(named) > 30
    assert named - known == set()


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    seen = defaultdict[str, set[bool]](set)
    for file in CASES:
        for case in yaml.safe_load((DEPLOY / file).read_text())["tests"]:
            for check in case["alert_rule_test"]:
                seen[check["alertname"]].add(bool(check["exp_alerts"]))
    assert {name: found for name, found in seen.items() if found != {True, False}} == {}
    assert seen.keys() == ALERTS.keys()


def test_the_readme_tells_every_series_and_every_alert() -> None:
    text = (DEPLOY / "README.md").read_text()
    assert [name for name in (*SERIES, DELIVERY, *ALERTS) if f"`{name}`" not in text] == []


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("page", "ticket", "none")
        assert rule["annotations"].keys() >= (
            {"summary"} if rule["labels"]["severity"] == "none" else {"summary", "do"}
        )


def test_the_outbox_gives_a_page_the_key_that_alertmanager_makes_of_its_route() -> None:
    """As a real one does in test_alerting.py: sha256 of the route's matchers and the group's labels."""
    root = yaml.safe_load((DEPLOY / "alertmanager.yaml").read_text())["route"]
    (route,) = (one for one in root["routes"] if 'alertname="DriftIncident"' in one["matchers"])
    assert "matchers" not in root
    assert (route["group_by"], ROUTE) == (["incident"], f"{{}}/{{{','.join(sorted(route['matchers']))}}}")
    assert dedup_key("prod/fraud/k") == sha256(f'{ROUTE}:{{incident="prod/fraud/k"}}'.encode()).hexdigest()


@pytest.mark.live
@pytest.mark.usefixtures("promtool")
def test_promtool_takes_rules_and_configuration(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "deploy" / "gateway.key").write_text("a key")
    checked = prometheus.promtool("check", "config", str(tmp_path / "deploy" / "prometheus.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text((DEPLOY / "alerts.yaml").read_text().replace("max by (model)", "max by model"))
    assert prometheus.promtool("check", "rules", str(broken)).returncode != 0


@pytest.mark.live
@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("file", CASES)
def test_promtool_sees_each_alert_fire_and_not_fire(file: str) -> None:
    tested = prometheus.promtool("test", "rules", str(DEPLOY / file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.live
@pytest.mark.usefixtures("amtool")
def test_amtool_routes_pages_tickets_and_what_is_neither(tmp_path: Path) -> None:
    file = str(DEPLOY / "alertmanager.yaml")
    checked = alertmanager.amtool("check-config", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name, rule in ALERTS.items():
        severity = rule["labels"]["severity"]
        wanted = {"page": "page", "ticket": "ticket", "none": "nobody"}[severity]
        labels = [f"alertname={name}", f"severity={severity}", "model=fraud"]
        command = ("config", "routes", "test", f"--config.file={file}", f"--verify.receivers={wanted}", *labels)
        tested = alertmanager.amtool(*command)
        assert tested.returncode == 0, tested.stdout + tested.stderr
    command = ("config", "routes", "test", f"--config.file={file}", "--verify.receivers=page", "severity=ticket")
    assert alertmanager.amtool(*command).returncode != 0


def test_the_configurations_hold_no_secret() -> None:
    for path in DEPLOY.glob("*.yaml"):
        document: Any = yaml.safe_load(path.read_text())
        keys = set(re.findall(r'"(\w*(?:key|token|password|secret)\w*)"', str(document).replace("'", '"')))
        assert keys <= {"routing_key_file"}, path
