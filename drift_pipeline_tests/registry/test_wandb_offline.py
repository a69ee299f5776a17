"""Without a key versions are written as offline runs of W&B's real client, and read back from their folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from drift_pipeline.control.canonical import sha256
from drift_pipeline_tests.components.worlds import MODEL, copied, records
from drift_pipeline_tests.registry.wandb_runs import OfflineRun, read_run
from drift_pipeline_tests.registry.wandb_worlds import delivered, files_of, offline, runs_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Delivered. It is only read."""
    made = copied(tmp_path_factory.mktemp("wandb") / "home")
    delivered(offline(made))
    return made


@pytest.fixture(scope="module")
def runs(home: Path) -> list[OfflineRun]:
    return [read_run(path) for path in runs_of(home)]


def of(runs: list[OfflineRun], kind: str) -> OfflineRun:
    return next(run for run in runs if run.kind == kind)


def test_each_step_of_a_version_is_a_run_in_the_order_of_the_audit(runs: list[OfflineRun], home: Path) -> None:
    steps = {"model.adopted": "adopt", "reference.frozen": "profile", "candidate.trained": "fit"}
    steps |= {"candidate.proven": "prove", "candidate.rejected": "prove"}
    wanted = [steps[record.event] for record in records(home) if record.event in steps]
    assert [run.kind for run in runs] == [*wanted, "stand"]
    assert all(run.exit_code == 0 for run in runs)


def test_a_fit_used_its_dataset_and_made_the_model_with_its_trials_as_steps(runs: list[OfflineRun]) -> None:
    run = of(runs, "fit")
    (used,) = [one for one in run.artifacts if one.used]
    made = run.made("model")
    assert (used.kind, used.name) == ("dataset", f"{MODEL}-dataset")
    assert {"predictions", "outcomes", "from", "to"} <= used.metadata["data"].keys()
    assert (made.name, set(made.files)) == (MODEL, {"model.skops", "manifest.json"})
    assert {"latest", "candidate", "drift-v2", made.metadata["digest"].replace(":", "-")} == set(made.aliases)
    assert run.group == f"{MODEL}-v2"
    trials = [step for step in run.history if "validation" in step]
    assert [step["trial"] for step in trials] == list(range(len(trials)))
    assert max(step["validation"] for step in trials) == run.summary["validation_auroc"]


def test_what_is_told_has_the_bytes_that_the_registry_verifies(runs: list[OfflineRun], home: Path) -> None:
    made = of(runs, "fit").made("model")
    bundle = Path(made.files["manifest.json"]).read_bytes()
    assert sha256(bundle) == made.metadata["digest"]
    assert json.loads(bundle)["files"]["model.skops"]["sha256"] == sha256(Path(made.files["model.skops"]).read_bytes())


def test_what_sending_deletes_are_copies(runs: list[OfflineRun], home: Path) -> None:
    """`wandb sync` deletes the files that an offline run names, wherever they lie."""
    files = [Path(path) for run in runs for one in run.artifacts for path in one.files.values()]
    assert files
    assert all(path.is_relative_to(home / "wandb") for path in files)


def test_a_proof_made_the_evaluation_with_a_table_of_gates_and_the_auroc(runs: list[OfflineRun], home: Path) -> None:
    run, said = of(runs, "prove"), next(one for one in records(home) if one.event == "candidate.proven").details
    made = run.made("evaluation")
    assert json.loads(Path(made.files["evaluation.json"]).read_bytes()) == said
    assert sha256(Path(made.files["evaluation.json"]).read_bytes()) == made.metadata["digest"]
    assert (run.summary["auroc"], run.summary["auroc_champion"]) == (said["auroc"]["after"], said["auroc"]["before"])
    (table,) = [step for step in run.history if "gates/_type" in step]
    assert (table["gates/_type"], table["gates/nrows"]) == ("table-file", len(said["results"]))


def test_the_standing_tells_champion_gates_approvals_and_phases(runs: list[OfflineRun], home: Path) -> None:
    run = of(runs, "stand")
    champion = next(one for one in run.artifacts if "champion" in one.aliases)
    assert champion.metadata["passed"] is True
    assert champion.metadata["gates"]["auroc"]["outcome"] == "pass"
    assert [one["phase"] for one in champion.metadata["phases"].values()][-1] == "full"
    assert [one["outcome"] for one in champion.metadata["approvals"].values()] == ["accepted"]
    assert "candidate" in run.config[champion.metadata["digest"]]["is_not"]


def test_a_second_delivery_writes_nothing_and_tells_how_to_send(home: Path) -> None:
    before = runs_of(home)
    (line,) = delivered(offline(home))
    assert runs_of(home) == before
    assert f"{len(before)} runs are kept offline, since WANDB_API_KEY is not set" in line
    assert f"wandb sync {home}/wandb/offline-run-*" in line


def test_nothing_else_of_the_home_is_changed(home: Path) -> None:
    from drift_pipeline_tests.components.worlds import replayed

    ours, theirs = files_of(home), files_of(replayed())
    assert {name.removeprefix(str(home)): data for name, data in ours.items()} == {
        name.removeprefix(str(replayed())): data for name, data in theirs.items()
    }


def test_the_mirror_imports_nothing_of_wandb_here() -> None:
    script = (
        "import sys, drift_pipeline.loop.mirroring, drift_pipeline.components.training; print('wandb' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
