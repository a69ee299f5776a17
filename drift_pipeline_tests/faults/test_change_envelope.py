"""A candidate outside of what people foresaw is never promoted by itself, and its annex says why."""

import json
from pathlib import Path

import pytest

from drift_pipeline_tests.replay.worlds import MODEL, SPEC, data, drift, replay

pytestmark = pytest.mark.slow
ENVELOPE = "declarations: {asserted_by: ada, change_envelope: {%s}}\n"


@pytest.mark.parametrize(
    ("declared", "outside"),
    [
        (ENVELOPE % "trainers: [gradient_boosting]", "the trainer logistic_regression is none of gradient_boosting"),
        (
            "declarations: {risk: {profile: high_risk}}\n",
            "the profile is high_risk, and no change_envelope is declared",
        ),
        (ENVELOPE % "trainers: [logistic_regression], data_sources: [history, stable, canary]", None),
    ],
    ids=["outside", "high risk without an envelope", "within"],
)
def test_a_candidate_outside_of_the_envelope_is_not_shipped(tmp_path: Path, declared: str, outside: str | None) -> None:
    out = tmp_path / "out"
    assert replay(data(), out, spec=SPEC + declared).code == 0
    records = json.loads(drift("audit", "show", "--home", out, "--model", MODEL, "--json").out)
    asked = [record["details"] for record in records if record["event"] in ("candidate.proven", "candidate.rejected")]
    gates = [gate for details in asked for gate in details["results"] if gate["name"] == "change_envelope"]
    assert len(gates) == len(asked) > 0
    shipped = [record for record in records if record["event"].startswith("rollout.")]
    annexes = [json.loads(path.read_text()) for path in sorted(out.glob("evidence/*/*/annex.json"))]
    states = [f["value"] for a in annexes for s in a["sections"] for f in s["fields"] if f["id"] == "changes.state"]
    if outside is None:
        assert {gate["outcome"] for gate in gates} == {"pass"}
        assert any(record["event"] == "rollout.full" for record in shipped)
        assert set(states) == {"within the declared envelope"}
    else:
        assert {gate["outcome"] for gate in gates} <= {"fail", "unknown"}
        assert shipped == []
        assert all(state.startswith("SUBSTANTIAL_MODIFICATION_REVIEW") and outside in state for state in states)
        assert len(states) == len(asked)
