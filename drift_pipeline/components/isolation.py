"""Where the steps of a retrain run: in the process of its run, or (DRIFT_EXECUTOR=k8s_job) each in a pod of its own.

The run's own pod only waits then, and asks Kubernetes for a Job a step; it alone has a token. The step that searches
and fits goes to the capacity that the policy wants; the others are short, and go to no node that is taken away.
"""

from importlib.util import find_spec
from typing import Any

import dagster as dg

from drift_pipeline.components.lanes import HOTFIX, NORMAL, LanedRunCoordinator
from drift_pipeline.components.pods import Pods
from drift_pipeline.errors import InputError
from drift_pipeline.settings import Settings

SEARCHES = "candidate_model"  # the asset whose step may take hours, and a GPU
ON_DEMAND = "on_demand"
LOST_PODS = dg.RetryPolicy(max_retries=3, delay=10)  # what a step's own error says is never tried again: home.py
_LANES = dg.Enum("RetrainLane", [dg.EnumValue(NORMAL), dg.EnumValue(HOTFIX)])
_CAPACITIES = dg.Enum("RetrainCapacity", [dg.EnumValue("spot"), dg.EnumValue(ON_DEMAND)])


def isolation(executor: str) -> dict[str, Any]:
    """What `define_asset_job` is told of the executor. Raises InputError where dagster-k8s is not installed."""
    if executor == "in_process":
        return {}
    if find_spec("dagster_k8s") is None:
        raise InputError("DRIFT_EXECUTOR=k8s_job: needs another package; pip install 'drift-pipeline[k8s]'")
    return {"executor_def": steps_in_pods, "op_retry_policy": LOST_PODS}


def placed(settings: Settings, lane: str, capacity: str | None) -> dict[str, Any]:
    """The run configuration of a retrain: where its steps go, if they are pods of their own."""
    if settings.executor == "in_process":
        return {}
    return {"execution": {"config": {"lane": lane, **({"capacity": capacity} if capacity else {})}}}


@dg.executor(
    name="k8s_job",
    config_schema={
        "lane": dg.Field(_LANES, description="Of the pods of its steps."),
        "capacity": dg.Field(_CAPACITIES, is_required=False, description="Of the pod that searches and fits."),
    },
    requirements=dg.multiple_process_executor_requirements(),
)
def steps_in_pods(init_context: dg.InitExecutorContext) -> dg.Executor:
    """dagster-k8s's `k8s_job_executor`, of which who launches a run may say lane and capacity, and nothing else."""
    from dagster_k8s import K8sRunLauncher, k8s_job_executor

    instance, asked = init_context.instance, init_context.executor_config
    if not isinstance(instance.run_launcher, K8sRunLauncher):
        found = type(instance.run_launcher).__name__
        raise InputError(f"DRIFT_EXECUTOR=k8s_job: dagster.yaml has the run_launcher {found}; it wants K8sRunLauncher")
    coordinator = instance.run_coordinator
    pods = coordinator.pods if isinstance(coordinator, LanedRunCoordinator) else Pods()
    names = [node.name for node in init_context.job.get_definition().nodes]
    lane, capacity = str(asked["lane"]), str(asked.get("capacity", ""))
    given = {
        "retries": {"enabled": {}},
        "enable_owner_references": True,  # whoever deletes the run's pod ends its steps
        "step_k8s_config": {
            "pod_spec_config": {"automount_service_account_token": False},
            "job_spec_config": {"pod_replacement_policy": "Failed"},  # a pod that still ends is not replaced yet
        },
        "per_step_k8s_config": {name: pods.of(lane, _capacity_of(name, capacity)).config() for name in names},
    }
    create = k8s_job_executor.executor_creation_fn
    assert create is not None
    return create(init_context._replace(executor_config=given))


def _capacity_of(node: str, capacity: str) -> str:
    return capacity if capacity == ON_DEMAND or node.endswith(f"__{SEARCHES}") else ""
