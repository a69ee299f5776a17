"""Lanes: whatever floods the queue, what is urgent finds a slot."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.remote_origin import RemoteRepositoryOrigin  # not exported, as what follows
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster._serdes import serialize_value
from dagster._utils.tags import TagConcurrencyLimitsCounter

from drift_pipeline.components.lanes import (
    FAST,
    HOTFIX,
    LANE,
    NICE,
    NORMAL,
    SUBMIT,
    LanedRunCoordinator,
    give_way,
    retrain_tags,
    run_of_worker,
)
from drift_pipeline.components.training import TRAINING
from drift_pipeline.definitions import needed
from drift_pipeline.settings import Settings
from drift_pipeline_tests.components.daemon import FROM_A_FOLDER, LOCATION, ROOT
from drift_pipeline_tests.components.worlds import write_model

pytestmark = FROM_A_FOLDER
SLOTS = 10


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """With the repository's dagster.yaml."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def submitted(
    instance: dg.DagsterInstance, tags: Mapping[str, str], *assets: str, run_config: Mapping[str, Any] | None = None
) -> dg.DagsterRun:
    """A run as the UI, a backfill or a sensor submits it."""
    selection = frozenset(map(dg.AssetKey.from_user_string, assets)) or None
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        run_id=str(uuid4()),
        tags=tags,
        run_config=run_config or {},
        asset_selection=selection,
        remote_job_origin=RemoteRepositoryOrigin(LOCATION, "__repository__").get_job_origin("__ASSET_JOB"),
    )
    instance.add_run(run)
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        context = SubmitRunContext(dagster_run=run, workspace=workspace.create_request_context())
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, LanedRunCoordinator)
        return coordinator.submit_run(context)


def launched(instance: dg.DagsterInstance, waiting: list[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Those that the queue lets go, by its own counter, until its slots are full."""
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    assert limits.max_concurrent_runs == SLOTS
    counter, going = TagConcurrencyLimitsCounter(limits.tag_concurrency_limits, []), list[dg.DagsterRun]()
    for run in sorted(waiting, key=lambda run: -int(run.tags.get("dagster/priority", "0"))):
        if len(going) < SLOTS and not counter.is_blocked(run):
            counter.update_counters_with_launched_item(run)
            going.append(run)
    return going


def test_a_run_of_the_ui_waits_in_the_normal_lane(instance: dg.DagsterInstance) -> None:
    report = submitted(instance, {"dagster/partition": "2026-03-01"}, "fraud/drift_report")
    assert (report.status, report.tags["drift/lane"]) == (dg.DagsterRunStatus.QUEUED, "normal")
    assert "drift/retrain" not in report.tags
    training = submitted(instance, {}, *(f"fraud/{name}" for name in TRAINING))
    assert (training.tags["drift/lane"], training.tags["drift/retrain"]) == ("normal", "fraud")


def test_a_run_that_has_a_lane_keeps_it(instance: dg.DagsterInstance) -> None:
    tags = retrain_tags("fraud", "fraud-1", "hotfix")
    run = submitted(instance, tags, *(f"fraud/{name}" for name in TRAINING))
    assert {name: run.tags[name] for name in tags} == tags
    assert "drift/retrain" not in run.tags


def test_a_flood_of_normal_runs_leaves_three_slots(instance: dg.DagsterInstance) -> None:
    flood = [submitted(instance, {}, f"model_{n}/drift_report") for n in range(20)]
    assert len(launched(instance, flood)) == 7
    urgent = [
        submitted(instance, retrain_tags("model_1", "model_1-9", "hotfix"), "model_1/training_dataset"),
        *(submitted(instance, FAST) for _ in range(2)),
    ]
    going = launched(instance, [*flood, *urgent])
    assert len(going) == SLOTS
    assert [run.tags["drift/lane"] for run in going] == ["fast", "fast", "hotfix", *["normal"] * 7]


def test_a_flood_of_submissions_leaves_slots_for_people(instance: dg.DagsterInstance) -> None:
    flood = [submitted(instance, {}, f"model_{n}/drift_report") for n in range(20)]
    flood += [submitted(instance, SUBMIT) for _ in range(9)]
    urgent = [submitted(instance, retrain_tags("fraud", "fraud-1", "hotfix")), submitted(instance, FAST)]
    going = launched(instance, [*flood, *urgent])
    assert [run.tags["drift/lane"] for run in going] == ["fast", "hotfix", "submit", *["normal"] * 7]


def test_backfills_together_fill_four_slots(instance: dg.DagsterInstance) -> None:
    days = [
        submitted(
            instance, {"dagster/backfill": f"b{n % 3}", "dagster/partition": f"2026-03-{n:02}"}, "fraud/drift_report"
        )
        for n in range(1, 16)
    ]
    assert len(launched(instance, days)) == 4
    assert all(run.tags["drift/lane"] == "normal" for run in days)


def test_one_normal_retrain_a_model_runs_at_a_time(instance: dg.DagsterInstance) -> None:
    runs = [
        submitted(instance, retrain_tags("fraud", "fraud-1", "normal"), "fraud/training_dataset"),
        submitted(instance, {}, "fraud/training_dataset"),
        submitted(instance, retrain_tags("churn", "churn-1", "normal"), "churn/training_dataset"),
    ]
    assert launched(instance, runs) == [runs[0], runs[2]]
    hotfix = submitted(instance, retrain_tags("fraud", "fraud-2", "hotfix"), "fraud/training_dataset")
    assert hotfix in launched(instance, [*runs, hotfix])


def test_what_dies_is_started_again_and_what_fails_is_not(instance: dg.DagsterInstance) -> None:
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_resume_run_attempts == 0
    assert instance.run_retries_enabled
    assert not instance.run_retries_retry_on_asset_or_op_failure


def niceness(lane: str) -> int:
    give_way(dg.DagsterRun(job_name="a", tags={LANE: lane}))
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_worker_of_the_normal_lane_gives_way_and_no_other() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        found = workers.map(niceness, ["fast", HOTFIX, NORMAL], chunksize=1)
    assert found == [mine, mine, max(mine, NICE)]
    assert niceness(NORMAL) == mine


BOTH = ["churn", "fraud"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BOTH:
        write_model(tmp_path / "models", name)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))


def loaded() -> list[str]:
    found, specs = needed(Settings())
    assert {key.path[0] for key in found.resolve_asset_graph().get_all_asset_keys()} == specs.keys()
    return sorted(specs)


def about(*assets: str, **config: Any) -> dg.DagsterRun:
    selection = frozenset(map(dg.AssetKey.from_user_string, assets)) or None
    ops = {"ops": {"an_op": {"config": config}}} if config else {}
    return dg.DagsterRun(
        job_name="a", run_id=str(uuid4()), tags={LANE: NORMAL}, run_config=ops, asset_selection=selection
    )


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (about("fraud/training_dataset", "fraud/evaluation"), ["fraud"]),
        (about("fraud/drift_report", "churn/drift_report"), BOTH),
        (about(model="churn", reason="a"), ["churn"]),
        (about(apply=False), BOTH),
        (about(model="in_another_folder"), BOTH),
        (about(model="../models/fraud"), BOTH),
        (None, BOTH),
    ],
    ids=["assets", "assets of two", "an op", "an op of all", "a folder of another name", "a path", "no worker"],
)
def test_a_worker_loads_the_one_model_that_its_run_is_about(
    monkeypatch: pytest.MonkeyPatch, run: dg.DagsterRun | None, wanted: list[str]
) -> None:
    monkeypatch.setattr("drift_pipeline.definitions.run_of_worker", lambda: run)
    assert loaded() == wanted


def begun(_: str, told: Any) -> None:
    told.put((loaded(), os.getpriority(os.PRIO_PROCESS, 0)))


@pytest.mark.live
@pytest.mark.usefixtures("models")
def test_what_a_worker_is_for_is_among_the_arguments_that_the_code_server_gives_it(
    instance: dg.DagsterInstance,
) -> None:
    assert run_of_worker() is None
    instance.add_run(run := about("fraud/training_dataset"))
    origin = RemoteRepositoryOrigin(LOCATION, "__repository__").get_job_origin("a")
    asked = ExecuteExternalJobArgs(job_origin=origin, run_id=run.run_id, instance_ref=instance.get_ref())
    mine, processes = os.getpriority(os.PRIO_PROCESS, 0), multiprocessing.get_context("spawn")
    told = processes.Queue()
    worker = processes.Process(target=begun, args=(serialize_value(asked), told))
    worker.start()
    assert told.get(timeout=120) == (["fraud"], max(mine, NICE))
    worker.join()
