"""Isolation: each step of a retrain is a Job that dagster-k8s makes, placed by lane and capacity."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.dependency import NodeHandle  # not exported, as what follows
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context_creation_job import (
    PlanOrchestrationContextManager,
    orchestration_context_event_generator,
)
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.executor.step_delegating import StepDelegatingExecutor
from dagster_shared.error import SerializableErrorInfo

from drift_pipeline.clock import SystemClock
from drift_pipeline.components import isolation
from drift_pipeline.components.isolation import placed
from drift_pipeline.components.pods import CONFIG
from drift_pipeline.components.sensors import _waits, retrain_request
from drift_pipeline.components.training import TRAINING
from drift_pipeline.definitions import defs
from drift_pipeline.errors import InputError
from drift_pipeline.loop import operating
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.retraining.working import LEASE
from drift_pipeline.settings import Settings
from drift_pipeline_tests.components.daemon import FROM_A_FOLDER, ROOT
from drift_pipeline_tests.components.test_lanes import submitted
from drift_pipeline_tests.components.test_pods import GIVEN, SPOT
from drift_pipeline_tests.components.worlds import MODEL, SPEC, at_home, copied, write_model

pytestmark = FROM_A_FOLDER
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}
DECISION = {"decision": f"{MODEL}-7", "incident": "i", "tries": 0}


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_EXECUTOR", "k8s_job")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """With the repository's dagster.yaml, pods, and dagster-k8s's launcher, which speaks to no cluster."""
    told = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    told["run_coordinator"]["config"] = {"pods": GIVEN | {"capacities": {**GIVEN["capacities"], "on_demand": STEADY}}}
    told["run_launcher"] = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher(tmp_path)}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


STEADY = {"node_selector": {"pool": "steady"}}


def launcher(folder: Path) -> dict[str, Any]:
    (folder / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG), encoding="utf-8")
    return {
        "service_account_name": "runs",
        "job_image": "drift:1",
        "instance_config_map": "dagster",
        "dagster_home": "/opt/dagster",
        "job_namespace": "ml",
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
        "run_k8s_config": {"job_spec_config": {"backoff_limit": 0}},
    }


class Recorded:
    """Of Kubernetes' API what creates a Job."""

    def __init__(self) -> None:
        self.jobs = list[Any]()

    def create_namespaced_job(self, *, body: Any, namespace: str, **_: Any) -> None:
        assert namespace == "ml"
        self.jobs.append(body)


def step_job(instance: dg.DagsterInstance, step: str, lane: str, capacity: str | None) -> Any:
    """What dagster-k8s asks the API for when a run that a sensor wanted comes to this step, as it is sent."""
    from kubernetes.client import ApiClient

    request = retrain_request(MODEL, {**DECISION, "lane": lane, "capacity": capacity})
    keys = frozenset(request.asset_selection or ())
    job = ReconstructableRepository.for_module("drift_pipeline.definitions", "defs").get_reconstructable_job("retrain")
    subset = job.get_subset(asset_selection=keys)
    plan = create_execution_plan(subset, request.run_config)
    run = instance.create_run_for_job(
        subset.get_definition(), execution_plan=plan, run_config=request.run_config, tags=request.tags
    )
    manager = PlanOrchestrationContextManager(
        orchestration_context_event_generator, subset, plan, request.run_config, run, instance
    )
    list(manager.prepare_context())
    context, recorded = manager.get_context(), Recorded()
    executor = context.executor
    assert isinstance(executor, StepDelegatingExecutor)
    handler: Any = executor._step_handler
    handler._api_client.batch_api = recorded
    steps = [plan.get_step_by_key(f"{MODEL}__{step}")]
    begun = ActiveExecution(plan, executor.retries)
    list(handler.launch_step(executor._get_step_handler_context(context, steps, begun)))
    list(manager.shutdown_context())
    (made,) = recorded.jobs
    return ApiClient().sanitize_for_serialization(made)


@pytest.mark.usefixtures("isolated")
def test_a_step_that_trains_goes_to_the_capacity_and_the_others_to_no_spot_node(instance: dg.DagsterInstance) -> None:
    trains, proves = (step_job(instance, step, "normal", "spot") for step in ("candidate_model", "evaluation"))
    pod = trains["spec"]["template"]["spec"]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"pool": "spot"}, [SPOT])
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "8Gi", "gpu": "1"},
    }
    other = proves["spec"]["template"]["spec"]
    assert not {"nodeSelector", "tolerations"} & other.keys()
    assert other["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "8Gi"},
    }


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("step", ["candidate_model", "evaluation"])
def test_a_hotfix_is_urgent_and_on_demand_in_all_its_steps(instance: dg.DagsterInstance, step: str) -> None:
    pod = step_job(instance, step, "hotfix", "on_demand")["spec"]["template"]["spec"]
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("urgent", {"pool": "steady"})


@pytest.mark.usefixtures("isolated")
def test_a_step_is_one_job_that_is_replaced_when_its_pod_is_gone_and_has_no_token(instance: dg.DagsterInstance) -> None:
    job = step_job(instance, "training_dataset", "normal", None)
    assert (job["spec"]["backoffLimit"], job["spec"]["podReplacementPolicy"]) == (0, "Failed")
    pod = job["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("runs", False)
    assert pod["containers"][0]["args"][1:] == ["api", "execute_step"]


@pytest.mark.usefixtures("isolated")
def test_the_pod_that_waits_for_the_steps_takes_neither_their_nodes_nor_their_resources(
    instance: dg.DagsterInstance,
) -> None:
    tags = retrain_request(MODEL, {**DECISION, "lane": "normal", "capacity": "spot"}).tags
    alone = submitted(instance, dict(tags))
    assert "spot" in alone.tags[CONFIG]
    config = placed(Settings(), "hotfix", "on_demand")
    waits = submitted(instance, {**tags, "drift/lane": "hotfix"}, run_config=config)
    lane = {"pod_spec_config": {"node_selector": {"pool": "on-demand"}, "priority_class_name": "urgent"}}
    assert yaml.safe_load(waits.tags[CONFIG]) == lane
    assert CONFIG not in submitted(instance, dict(tags), run_config=placed(Settings(), "normal", "spot")).tags


@pytest.mark.usefixtures("isolated")
def test_a_lost_pod_is_replaced_and_who_launches_may_say_lane_and_capacity_alone() -> None:
    found = defs()
    job = found.get_repository_def().get_job("retrain")
    assert job.executor_def.name == "k8s_job"
    for name in TRAINING:
        policy = job.get_retry_policy_for_handle(NodeHandle(f"{MODEL}__{name}", None))
        assert policy is not None
        assert policy.max_retries == 3
    for other in ("rollback", "retrain_now", "__ASSET_JOB"):
        assert found.get_repository_def().get_job(other).executor_def.name == "in_process"
    create_execution_plan(job, {"execution": {"config": {"lane": "normal"}}})
    wrong: list[dict[str, Any]] = [
        {"step_k8s_config": {}},
        {"job_image": "other"},
        {"lane": "fast"},
        {"capacity": "any"},
    ]
    for asked in wrong:
        with pytest.raises(dg.DagsterInvalidConfigError):
            create_execution_plan(job, {"execution": {"config": {"lane": "normal", **asked}}})
    with pytest.raises(dg.DagsterInvalidConfigError):  # else its run would not be known for one of pods
        create_execution_plan(job, {})


def test_without_the_setting_steps_share_the_runs_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    job = defs().get_repository_def().get_job("retrain")
    assert job.executor_def.name == "in_process"
    assert job.get_retry_policy_for_handle(NodeHandle(f"{MODEL}__evaluation", None)) is None
    assert retrain_request(MODEL, {**DECISION, "lane": "normal", "capacity": "spot"}).run_config == {}


def test_between_two_steps_it_is_the_run_that_goes_on_and_in_a_step_its_process_has_to_tell(
    instance: dg.DagsterInstance,
) -> None:
    run = dg.DagsterRun(job_name="retrain", run_id="r", run_config={"execution": {"config": {}}})
    assert not _waits(instance, "drift train a-1")
    instance.add_run(run)
    lost: Any = StepRetryData(SerializableErrorInfo("its pod is gone", [], None))  # type: ignore[no-untyped-call]
    for told, waits in ((None, True), ("STEP_START", False), ("STEP_UP_FOR_RETRY", True), ("STEP_RESTARTED", False)):
        if told is not None:
            data = lost if told == "STEP_UP_FOR_RETRY" else None
            event = dg.DagsterEvent(told, "retrain", step_key="s", event_specific_data=data)
            instance.report_dagster_event(event, "r")
        assert _waits(instance, "r") is waits, told
    instance.add_run(dg.DagsterRun(job_name="retrain", run_id="alone"))
    assert not _waits(instance, "alone")
    instance.report_run_failed(run)
    assert not _waits(instance, "r")


def test_a_decision_whose_holder_waits_for_a_node_is_not_taken_back(tmp_path: Path) -> None:
    with at_home(copied(tmp_path / "home")), opened(Settings(), SystemClock()) as at:
        loop = at.loop(SPEC)
        decision_id = operating.retrain(loop, "ada", "the season turned")[0]
        assert loop.queue.claim(decision_id, "r")
        entry = loop.ledger.get(f"retrain/{decision_id}")
        held = {**entry["held"], "at": (SystemClock().now() - LEASE).isoformat()}
        loop.ledger.commit("test", {}, puts={f"retrain/{decision_id}": {**entry, "held": held}})
        loop.queue.keep(lambda holder: holder == "r")
        loop.queue.take_back()
        assert loop.queue.holder(decision_id) == "r"


@pytest.mark.usefixtures("isolated")
def test_an_instance_without_dagster_k8s_and_an_image_without_it_are_told_what_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as plain, pytest.raises(InputError, match="wants K8sRunLauncher"):
        step_job(plain, "evaluation", "normal", None)
    monkeypatch.setattr(isolation, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"drift-pipeline\[k8s\]"):
        isolation.isolation("k8s_job")
