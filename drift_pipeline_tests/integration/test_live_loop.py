"""From a request at the gateway to a promoted model, touched by nobody but the approver; and back from a bad canary."""

import json
from pathlib import Path

import pytest

from drift_pipeline_tests.integration.drill import MODEL, Drill
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
    with Drill(tmp_path, speed=600, retrain="{min_rows: 400, trials: 1, trainer: logistic_regression}") as drill:
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
def test_a_change_of_the_world_becomes_a_promoted_model_and_a_slow_canary_is_taken_back(tmp_path: Path) -> None:
    with Drill(tmp_path) as drill:
        drill.up()
        drill.traffic("concept@25s:1.25", rate=50, seconds=900)
        drill.event("incident.opened", 150)
        proven = drill.event("candidate.proven", 400)  # a first candidate may be rejected, as in life
        waiting = drill.event("rollout.awaiting_approval", 150, proven.seq)
        version = str(proven.details["version"])
        drill.drift("approve", MODEL, version, "--key", str(tmp_path / "ada.pem"), "--reason", "read the card")
        full = drill.event("rollout.full", 150, waiting.seq)
        drill.event("reference.frozen", 30, full.seq)
        events = iter(drill.events())
        assert [event for event in WAY if event not in events] == []
        (status,) = json.loads(drill.drift("status", "--json"))
        assert status["champion"] == version
        assert "incident.opened" in drill.paged()

        drill.drift("rollback", MODEL, "--reason", "a rehearsal", "--actor", "Ada")
        restored = drill.event("reference.restored", 60, full.seq)
        drill.traffic("canary_latency@0s:2", seconds=400, rate=50, seed=1)
        drill.drift("approve", MODEL, version, "--key", str(tmp_path / "ada.pem"), "--reason", "once more")
        drill.launch("submit_rollout", "begin_rollout", {"model": MODEL, "digest": proven.digests["bundle"]})
        canary = drill.event("rollout.canary", 150, restored.seq)
        back = drill.event("rollout.rolled_back", 60, canary.seq)
        assert (back.actor, "SLO breach" in back.details["reason"]) == ("gateway", True)
        (status,) = json.loads(drill.drift("status", "--json"))
        assert status["champion"] == "v1"
        drill.until(lambda: drill.paged().count("rollout.rolled_back") == 2, 30, "second page")
        assert "records verified" in drill.drift("audit", "verify")
