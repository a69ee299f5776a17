"""From a request at the gateway to a promoted model, touched by nobody but the approver; and back from a bad canary."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from drift_pipeline.control.store import ControlReader
from drift_pipeline.serving.demo import MODEL
from drift_pipeline_tests.integration.drill import Drill, command, free_port
from drift_pipeline_tests.replay.worlds import drift

WAY = [
    "model.adopted",
    "reference.frozen",
    "incident.opened",
    "decision.made",
    "training.claimed",
    "training.started",
    "candidate.trained",
    "candidate.proven",
    "model.registered",
    "rollout.shadow",
    "rollout.awaiting_approval",
    "approval.given",
    "approval.accepted",
    "rollout.canary",
    "rollout.full",
    "model.promoted",
    "reference.frozen",
]


def test_requests_of_a_changed_world_become_an_incident_a_decision_and_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway is a process; traffic, capture and ticks are commands in this one, and an hour is six seconds."""
    with Drill(tmp_path, speed=600, retrain="min_rows: 400, trials: 1, trainer: logistic_regression") as drill:
        for name, value in drill.environment.items():
            monkeypatch.setenv(name, value)
        key, url = drift("producer", "add", "app").out.strip(), drill.serve()
        answered = landed = 0
        for seed in range(15):
            asked = ("--rate", 400, "--for", "2s", "--seed", seed, "--drift", "concept@0s:2", "--json")
            answered += drift("simulate", MODEL, "--url", url, "--key", key, *asked).summary["answered"]
            landed += drift("capture", "--once", "--json").summary["predictions"]
            assert drift("tick").code == 0
            if "candidate.trained" in drill.events():
                break
        drill.end()
        landed += drift("capture", "--once", "--json").summary["predictions"]
        assert landed == answered > 0
        events, way = iter(drill.events()), WAY[: WAY.index("candidate.trained") + 1]
        assert [event for event in way if event not in events] == [], drill.story()
        assert "incident.opened" in drill.paged()


@pytest.mark.live
def test_the_live_demo_promotes_what_learnt_a_change_and_takes_a_slow_canary_back(tmp_path: Path) -> None:
    """Everything that `drift up` starts, as a person starts it; the demo itself waits for each step and ends with 0."""
    home = tmp_path / "demo"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DRIFT_"))}
    ports = [part for name in ("--port", "--dagster-port", "--pages-port") for part in (name, str(free_port()))]
    ended = typed("demo", "--live", "--end", "--home", str(home), *ports, environment=kept)
    logs = [log.read_text(errors="replace")[-2000:] for log in (home / "logs").glob("*.log")]
    assert ended.returncode == 0, "\n".join([ended.stdout, ended.stderr, *logs])
    with closing(ControlReader(f"sqlite:///{home / 'control.db'}")) as store:
        records = list(store.records())
    events = iter(record.event for record in records)
    assert [event for event in WAY if event not in events] == [], ended.stdout
    back = [record for record in records if record.event == "rollout.rolled_back"]
    assert [(record.actor, "SLO breach" in record.details["reason"]) for record in back] == [
        ("ada", False),
        ("gateway", True),
    ]
    environment = {**kept, "DRIFT_HOME": str(home), "DRIFT_MODELS": str(home / "models")}
    (status,) = json.loads(typed("status", "--json", environment=environment).stdout)
    assert status["champion"] == "v1"
    paged = [json.loads(line)["what"] for line in (home / "alerts.jsonl").read_text().splitlines()]
    assert "incident.opened" in paged
    assert "records verified" in typed("audit", "verify", environment=environment).stdout


def typed(*arguments: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(arguments), env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
