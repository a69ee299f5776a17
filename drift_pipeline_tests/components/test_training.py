"""The training half: a run trains, proves, registers and documents, and the control store decides, not the UI."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from drift_pipeline.components.home import home as home_of_a_step
from drift_pipeline.components.links import chain
from drift_pipeline.components.training import TRAINING as HALF
from drift_pipeline.components.training import check_name, gate_names
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import NO_STORE
from drift_pipeline.errors import ConflictError, DriftError, UnavailableError
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training import gates
from drift_pipeline_tests.components.worlds import (
    ATTRIBUTES,
    MODEL,
    SPEC,
    at_home,
    checks,
    copied,
    events,
    made,
    materialised,
    metadata,
    pinned,
    records,
    refusal,
    replayed,
    store,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dg.ExecuteInProcessResult]:
    """A home on which the whole half ran, and what it came to. It is only read."""
    home = copied(tmp_path_factory.mktemp("trained") / "home")
    return home, materialised(home, *HALF)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dg.ExecuteInProcessResult]:
    """A home on which the whole half ran with a gate that nothing passes. It is only read."""
    home = copied(tmp_path_factory.mktemp("failed") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "POISON_FLOOR", 0.999)
        return home, materialised(home, *HALF)


def new_events(home: Path) -> list[str]:
    return events(home)[len(records(replayed())) :]


def put(home: Path, key: str, kind: str, **changes: Any) -> None:
    """Change a record of the control store, as a commit that says who did it."""
    with store(home) as opened:
        found = opened.get(kind, key)
        assert found is not None
        changed = Put(kind, key, {**found.body, **changes}, found.generation)
        opened.commit(Entry(actor="test", event="test.changed", subject=MODEL), [changed])


def test_one_run_trains_proves_registers_and_documents(trained: tuple[Path, dg.ExecuteInProcessResult]) -> None:
    home, result = trained
    assert result.success
    assert tuple(made(result)) == HALF
    assert new_events(home) == [
        "decision.made",
        "training.claimed",
        "training.started",
        "candidate.trained",
        "candidate.proven",
        "model.registered",
        "documents.written",
    ]
    assert all(check.passed for check in checks(result).values())
    assert set(checks(result)) == {*gate_names(SPEC), "audit_chain"}


def test_what_the_assets_show_is_what_the_control_store_holds(
    trained: tuple[Path, dg.ExecuteInProcessResult],
) -> None:
    home, result = trained
    body, dataset = pinned(home), metadata(result, "training_dataset")
    assert (dataset["version"], dataset["decision"]) == (body["version"], body["decision"]) == ("v3", body["decision"])
    assert (dataset["dagster/row_count"], dataset["rows_that_prove"]) == (body["rows"], body["block_rows"])
    assert {dataset[f"delta_version_{table}"] for table in ("predictions", "outcomes")} == set(
        body["versions"].values()
    )
    assert metadata(result, "candidate_model")["bundle"] == body["digest"]
    assert metadata(result, "registered_model")["bundle"] == body["digest"]
    with store(home) as opened:
        candidate = opened.get("candidate", f"{MODEL}/{body['digest']}")
        registered = opened.get("registered", f"{MODEL}/v3")
    assert candidate is not None
    assert registered is not None
    assert candidate.body["passed"] is True
    shown = {check_name(gate["name"]): gate["outcome"] == "pass" for gate in candidate.body["results"]}
    assert shown == {name: check.passed for name, check in checks(result).items() if name != "audit_chain"}
    evaluation = metadata(result, "evaluation")
    assert evaluation["auroc_candidate"] == candidate.body["auroc"]["after"]
    assert [row.data["name"] for row in evaluation["gates"].records] == [
        gate["name"] for gate in candidate.body["results"]
    ]


def test_the_card_in_the_ui_is_the_file_below_the_home(trained: tuple[Path, dg.ExecuteInProcessResult]) -> None:
    home, result = trained
    shown, folder = metadata(result, "audit_artifacts"), home / "evidence" / MODEL / "v3"
    assert shown["card"] == (folder / "card.md").read_text(encoding="utf-8")
    assert shown["page"] == str(folder / "card.html")
    assert checks(result)["audit_chain"].metadata["records"].value == len(records(home))


def test_a_registered_model_is_shipped_by_nobody_yet(trained: tuple[Path, dg.ExecuteInProcessResult]) -> None:
    home, result = trained
    assert "rollout.shadow" not in new_events(home)
    assert metadata(result, "registered_model")["next"].startswith(f"drift approve {MODEL} v3 ")


def test_the_decision_says_that_an_operator_asked(trained: tuple[Path, dg.ExecuteInProcessResult]) -> None:
    asked = records(trained[0])[len(records(replayed()))]
    assert (asked.event, asked.details["trigger"]) == ("decision.made", "operator")
    assert asked.details["action"] in ("retrain", "hotfix_retrain")


def test_a_gate_that_fails_stops_the_run_before_anything_is_registered(
    failed: tuple[Path, dg.ExecuteInProcessResult],
) -> None:
    home, result = failed
    floor = checks(result)["poison_floor"]
    assert not result.success
    assert (floor.passed, floor.severity, floor.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert tuple(made(result)) == HALF[:3]
    assert new_events(home)[-1] == "candidate.rejected"


def test_registering_alone_refuses_what_failed_its_gates(
    failed: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path
) -> None:
    """In a run of its own no check blocks it; the control store does."""
    home = again(failed[0], tmp_path)
    result = materialised(home, "registered_model")
    digest = pinned(home)["digest"]
    assert not result.success
    assert checks(result) == {}
    lacking = "gate poison_floor did not pass and has 0 of 1 waivers"
    assert (
        refusal(result) == f"{MODEL}: no record says that the gates of {digest} passed ({lacking}); it is not released"
    )
    assert events(home) == events(failed[0])


@pytest.mark.parametrize("passed", [False, None, "true", 1])
def test_registering_alone_refuses_a_record_that_does_not_say_passed(
    trained: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path, passed: object
) -> None:
    """Dagster's checks have seen nothing but passes of this version."""
    home = again(trained[0], tmp_path)
    put(home, f"{MODEL}/{pinned(home)['digest']}", "candidate", passed=passed)
    result = materialised(home, "registered_model")
    assert not result.success
    assert "it is not released" in refusal(result)


def test_documents_alone_refuse_what_failed_its_gates(
    failed: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path
) -> None:
    home = again(failed[0], tmp_path)
    assert "it is not released" in refusal(materialised(home, "audit_artifacts"))
    assert not (home / "evidence" / MODEL / "v3").exists()


def test_a_verdict_is_not_asked_again_until_it_passes(
    failed: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path
) -> None:
    """Also not by a gate that it would pass by now."""
    home = again(failed[0], tmp_path)
    result = materialised(home, "evaluation", "registered_model")
    assert not checks(result)["poison_floor"].passed
    assert made(result) == ["evaluation"]
    assert events(home) == events(failed[0])


@pytest.mark.parametrize(("pages", "linked"), [("http://pages:8081/", True), ("", False)])
def test_how_a_version_came_about_is_linked_where_pages_are_served(pages: str, linked: bool) -> None:
    found = chain(Settings(pages_url=pages), SPEC, "v2")
    assert found == ({"came_about": dg.MetadataValue.url(f"http://pages:8081/{MODEL}/v2/chain.html")} if linked else {})


@pytest.mark.parametrize("name", ["evaluation", "registered_model", "audit_artifacts"])
def test_what_follows_a_training_refuses_while_nothing_is_trained(
    trained: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path, name: str
) -> None:
    home = again(trained[0], tmp_path)
    put(home, MODEL, "training", digest=None)
    result = materialised(home, name)
    assert not result.success
    assert refusal(result).startswith(f"{MODEL}: v3 is not trained")


def test_what_was_trained_is_not_trained_again(trained: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path) -> None:
    home = again(trained[0], tmp_path)
    result = materialised(home, *HALF[1:])
    assert result.success
    assert metadata(result, "candidate_model")["bundle"] == pinned(trained[0])["digest"]
    assert events(home) == [*events(trained[0]), "documents.written"]  # the card tells when it was made


def test_too_few_rows_are_no_dataset_and_the_audit_says_why(tmp_path: Path) -> None:
    home = copied(tmp_path / "home")
    greedy = ModelSpec.model_validate({**ATTRIBUTES, "retrain": {**ATTRIBUTES["retrain"], "min_rows": 50_000}})
    result = materialised(home, *HALF, spec=greedy)
    assert not result.success
    assert made(result) == []
    assert refusal(result) == "no training: the reason is in the audit record training.refused"
    assert new_events(home)[-1] == "training.refused"


@pytest.mark.parametrize("name", HALF)
def test_a_home_without_a_control_store_fails_with_what_to_do(tmp_path: Path, name: str) -> None:
    told = refusal(materialised(tmp_path, name))
    assert told == f"{tmp_path}: {NO_STORE}"


@pytest.mark.parametrize("error", [ConflictError, UnavailableError])
def test_a_step_that_somebody_was_faster_than_tries_again(tmp_path: Path, error: type[DriftError]) -> None:
    with (
        at_home(copied(tmp_path / "home")),
        pytest.raises(dg.RetryRequested),
        home_of_a_step(dg.DagsterRun(job_name="a")),
    ):
        raise error("read it again")


def test_a_defect_is_told_and_tried_again_by_no_policy(tmp_path: Path) -> None:
    """A policy is for pods that were lost: it would train three times more what cannot be trained."""
    asked = dg.RetryRequested(max_retries=1)
    with at_home(copied(tmp_path / "home")):
        with pytest.raises(dg.Failure) as failed, home_of_a_step(dg.DagsterRun(job_name="a")):
            raise ZeroDivisionError("of a trainer")
        with pytest.raises(dg.RetryRequested) as again, home_of_a_step(dg.DagsterRun(job_name="a")):
            raise asked
    assert (failed.value.description, failed.value.allow_retries) == ("ZeroDivisionError: of a trainer", False)
    assert again.value is asked


def test_a_gates_name_becomes_a_checks_name_that_dagster_takes() -> None:
    assert check_name("parity_âge band") == "parity__ge_band"
    always = ["auroc", "parity_age_band", "latency", "poison_floor"]
    assert gate_names(SPEC) == [*always, "allowed_types", "secrets"]


def test_what_is_asked_of_this_model_in_this_home_is_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_SCAN", "osv")
    (tmp_path / "tests").mkdir()
    document = SPEC.model_dump(mode="json")
    column = next(name for name, kind in SPEC.features.items() if kind == "numeric")
    declared = {"invariance": ["age_band"], "direction": {column: "up"}, "minimum_slice": {"age_band": 0.6}}
    retrain = {**document["retrain"], "trainer": "./train.py"}
    of = ModelSpec.model_validate({**document, "gates": declared, "retrain": retrain}).placed(tmp_path)
    asked = ["invariance_age_band", f"direction_{column}", "minimum_slice_age_band"]
    named = ["auroc", "parity_age_band", "latency", "poison_floor", *asked]
    assert gate_names(of) == [*named, "allowed_types", "secrets", "trainer_tests", "vulnerabilities"]


def again(home: Path, folder: Path) -> Path:
    """A copy, to write to."""
    shutil.copytree(home, folder / "home")
    return folder / "home"
