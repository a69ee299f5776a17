"""What people do from the launchpad: the verbs of `drift`, with who did it and why, in the fast lane."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from drift_pipeline.components.jobs import operating_jobs
from drift_pipeline_tests.components.worlds import MODEL, SPEC, at_home, copied, pinned, records, refusal, write_model
from drift_pipeline_tests.evidence.worlds import read_json
from drift_pipeline_tests.replay.worlds import drift

OPERATING = operating_jobs({MODEL: SPEC, "churn": SPEC.model_copy(update={"name": "churn"})})
submit_rollout, promote, rollback, retrain_now = OPERATING


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a champion that was promoted, so that there is a version to go back to; no rollout is under way."""
    write_model(tmp_path / "models")
    return copied(tmp_path / "home")


def done(home: Path, job: dg.JobDefinition, **config: Any) -> dg.ExecuteInProcessResult:
    (op,) = (node.name for node in job.nodes)
    with at_home(home, home.parent / "models"), dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            run_config={"ops": {op: {"config": {"model": MODEL, **config}}}},
            instance=instance,
            tags={"user": "ada@example.com"},
            raise_on_error=False,
        )


def test_what_people_do_is_in_the_fast_lane_and_each_of_its_fields_says_what_it_is() -> None:
    for job in OPERATING:
        lane = ("submit", "5") if job is OPERATING[0] else ("fast", "20")
        assert (job.tags["drift/lane"], job.tags["dagster/priority"]) == lane
        (op,) = job.nodes
        fields = op.definition.config_schema.config_type.fields  # type: ignore[union-attr]
        assert all(field.description for field in fields.values())
        assert "model" in fields


def test_a_rollback_goes_back_with_its_actor_and_its_reason(home: Path) -> None:
    before = len(records(home))
    assert done(home, rollback, reason="clicks fell", champion=True).success
    record, *written = records(home)[before:]
    assert (record.event, record.actor) == ("rollout.rolled_back", "dagster:ada@example.com")
    assert record.details["reason"] == "after full: clicks fell"
    assert {one.event for one in written} == {"documents.written"}
    card = read_json(home / "evidence" / MODEL / pinned(home)["version"] / "card.json")
    assert datetime.fromisoformat(card["at"]) >= datetime.fromisoformat(record.at)
    (outcome,) = [f["value"] for s in card["sections"] for f in s["fields"] if f["id"] == "rollout.outcome"]
    assert "rolled back" in outcome
    assert outcome.endswith("after full: clicks fell")


def test_a_retrain_is_asked_for_and_a_hotfix_is_one(home: Path) -> None:
    assert done(home, retrain_now, reason="new catalogue").success
    assert done(home, retrain_now, reason="a broken feature", hotfix=True).success
    asked, urgent = records(home)[-2:]
    assert (asked.actor, asked.details["action"], asked.details["reason"]) == (
        "dagster:ada@example.com",
        "retrain",
        "new catalogue",
    )
    assert (urgent.details["action"], urgent.details["reason"]) == ("hotfix_retrain", "a broken feature")


def test_what_the_policy_refuses_fails_with_its_reason(home: Path) -> None:
    assert done(home, retrain_now, reason="new catalogue").success
    result = done(home, retrain_now, reason="again")
    assert not result.success
    assert refusal(result).startswith(f"{MODEL}: {records(home)[-1].details['decision']} ignore: ")


def test_a_promotion_without_a_rollout_is_refused(home: Path) -> None:
    result = done(home, promote, reason="it is good")
    assert refusal(result) == f"{MODEL}: no rollout is under way; there is nothing to promote"


def test_a_candidate_that_no_gate_passed_is_not_rolled_out(home: Path) -> None:
    result = done(home, submit_rollout, digest="sha256:" + "0" * 64)
    assert refusal(result).endswith("it is not released")


def test_a_second_rollout_is_refused_while_one_is_under_way(home: Path) -> None:
    champion = pinned(home)["digest"]
    assert "proven against another champion" in refusal(done(home, submit_rollout, digest=champion))
    assert done(home, rollback, reason="clicks fell", champion=True).success
    assert "approve" in refusal(done(home, submit_rollout, digest=champion))
    key, version = home.parent / "ada.pem", pinned(home)["version"]
    for command in (("key", key, "--label", "Ada"), ("approve", MODEL, version, "--key", key, "--reason", "again")):
        assert drift(*command, "--home", home).code == 0
    card = read_json(home / "evidence" / MODEL / version / "card.json")
    fields = {field["id"]: field["value"] for section in card["sections"] for field in section["fields"]}
    assert [one["label"] for one in fields["approvals.filed"] if one["valid"]] == ["Ada"]
    assert records(home)[-1].event == "documents.written"
    assert done(home, submit_rollout, digest=champion).success
    assert [one.actor for one in records(home)[-2:]] == ["dagster:ada@example.com", "evidence"]
    assert "under way already" in refusal(done(home, submit_rollout, digest=champion))


def test_the_model_is_a_choice_of_those_that_are_declared_and_given_where_there_is_one(home: Path) -> None:
    for job in OPERATING:
        field = field_of(job)
        assert field.is_required
        assert [one.config_value for one in field.config_type.enum_values] == [MODEL, "churn"]
    for job in operating_jobs({MODEL: SPEC}):
        assert field_of(job).default_value == MODEL


def field_of(job: dg.JobDefinition) -> Any:
    """The field `model` of the launchpad."""
    (op,) = job.nodes
    return op.definition.config_schema.config_type.fields["model"]  # type: ignore[union-attr]


def test_a_stranger_is_refused_before_anything_runs(home: Path) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type Model got somebody"):
        done(home, rollback, reason="clicks fell", model="somebody")


def test_a_model_whose_file_is_gone_is_refused_with_those_that_there_are(home: Path) -> None:
    assert f"there is no model 'churn'; there are: {MODEL}" in refusal(done(home, rollback, reason="x", model="churn"))
