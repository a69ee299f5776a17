"""candidate_model and evaluation work inside W&B runs, by dagster-wandb and the real client, which hold nothing up."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from drift_pipeline.components.jobs import operating_jobs
from drift_pipeline.components.sensors import loop_sensors
from drift_pipeline.components.training import TRAINING
from drift_pipeline.components.wandb import wandb_sensor
from drift_pipeline_tests.components.worlds import MODEL, SPEC, at_home, copied, materialised, metadata
from drift_pipeline_tests.fakes.wandb_server import ENTITY, FakeWandb, fake_wandb
from drift_pipeline_tests.registry.wandb_runs import OfflineRun, read_run
from drift_pipeline_tests.registry.wandb_worlds import KEY, cores, delivered, online, runs_of

HALF = TRAINING[:3]


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose versions are mirrored, without a key."""
    monkeypatch.setenv("DRIFT_REGISTRY", "wandb")
    monkeypatch.setenv("DRIFT_TEST_MARK", str(os.getpid()))
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return copied(tmp_path / "home")


@pytest.fixture
def fake() -> Iterator[FakeWandb]:
    with fake_wandb() as made:
        yield made


def of(home: Path, kind: str) -> OfflineRun:
    return next(run for run in map(read_run, runs_of(home)) if run.kind == kind)


@pytest.mark.live
def test_both_work_inside_a_run_that_lies_below_the_home(wandb_home: Path) -> None:
    environment = dict(os.environ)
    result = materialised(wandb_home, *HALF)
    assert result.success
    train, evaluate = of(wandb_home, "train"), of(wandb_home, "evaluate")
    assert [step["trial"] for step in train.history] == list(range(len(train.history)))
    assert evaluate.summary["auroc"] == metadata(result, "evaluation")["auroc_candidate"]
    assert any("gates/_type" in step for step in evaluate.history)
    assert train.config["dagster_run_id"] == evaluate.config["dagster_run_id"] == result.run_id
    assert train.group == f"{MODEL}-{metadata(result, 'candidate_model')['version']}"
    for name in ("candidate_model", "evaluation"):
        told = metadata(result, name)
        assert Path(told["wandb"]) in runs_of(wandb_home)
        assert told["wandb_send_by"] == f"wandb sync {told['wandb']}"
    assert dict(os.environ) == environment
    assert cores() == []


@pytest.mark.live
def test_with_a_key_their_address_is_told_and_the_sensor_sends_them(
    wandb_home: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"API_KEY": KEY, "ENTITY": ENTITY, "BASE_URL": fake.url}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    result = materialised(wandb_home, *HALF)
    assert fake.asked == [], "a step asks nobody"
    told = {name: metadata(result, name)["wandb"] for name in ("candidate_model", "evaluation")}
    with at_home(wandb_home):
        said = wandb_sensor()(dg.build_sensor_context())
    assert isinstance(said, dg.SkipReason)
    delivered(online(wandb_home, fake.url))
    for address in told.values():
        assert address.startswith(f"{fake.url}/{ENTITY}/drift/runs/")
        assert address.rpartition("/")[2] in fake.runs
    assert runs_of(wandb_home) == []


@pytest.mark.live
def test_a_step_that_failed_leaves_a_run_that_failed(wandb_home: Path) -> None:
    assert materialised(wandb_home, "training_dataset").success
    for lake in wandb_home.glob(f"lake/{MODEL}/*/*.parquet"):
        lake.unlink()
    result = materialised(wandb_home, "candidate_model")
    assert not result.success
    assert of(wandb_home, "train").exit_code == 1


def test_a_client_that_cannot_work_is_told_and_the_training_goes_on(wandb_home: Path) -> None:
    (wandb_home / "wandb").write_text("in the way")
    result = materialised(wandb_home, *HALF)
    assert result.success
    for name in ("candidate_model", "evaluation"):
        assert "W&B has no run of this" in metadata(result, name)["wandb"]


@pytest.mark.parametrize(("kind", "there"), [("local", False), ("wandb", True)])
def test_the_sensor_is_there_only_where_versions_are_mirrored(
    monkeypatch: pytest.MonkeyPatch, kind: str, there: bool
) -> None:
    monkeypatch.setenv("DRIFT_REGISTRY", kind)
    specs = {SPEC.name: SPEC}
    assert ("wandb" in {one.name for one in loop_sensors(specs, operating_jobs(specs)[0])}) is there
