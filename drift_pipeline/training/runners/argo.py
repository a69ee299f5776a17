"""Argo Workflows, written by Hera: a template for each lane, a Workflow for each decision, a CronWorkflow a model."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.runners import HOTFIX, STEPS, Request, Run, State
from drift_pipeline.training.runners.cluster import Cluster, NotThereError, ThereAlreadyError
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.pods import (
    DEFINITE,
    GPU_STEPS,
    LABELS,
    annotations,
    arguments,
    container,
    labels,
    pod_security,
    volumes,
)

if TYPE_CHECKING:
    from hera.workflows import Container, CronWorkflow, Workflow, WorkflowTemplate

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
RETRY = f"asInt(lastRetry.exitCode) not in {list(DEFINITE)}"  # -1 of a pod that was taken away
_STATES = {"Succeeded": State.SUCCEEDED, "Failed": State.FAILED, "Error": State.FAILED, "Running": State.RUNNING}
_GATES = {"prove": "gates"}  # what the task is called
LANES = ("normal", HOTFIX)


def template_name(lane: str) -> str:
    return "drift-hotfix" if lane == HOTFIX else "drift-retrain"


@contextmanager
def _written() -> Iterator[None]:
    """What Argo's models do not take, such as a volume's source, is the file's."""
    try:
        yield
    except ValidationError as error:
        said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise InputError(f"DRIFT_RUNNER_FILE: Argo has no such {error.title}: {'; '.join(said)[:500]}") from error


@_written()
def template(place: Place, lane: str) -> "WorkflowTemplate":
    """pin -> search, by several workers -> fit -> gates -> register. One a model at a time; a hotfix has a mutex of its
    own, so that it does not wait for a long retrain."""
    hera, models = _hera()
    limits, model, decision = place.lane(lane), "{{workflow.parameters.model}}", "{{workflow.parameters.decision}}"
    with hera.WorkflowTemplate(
        name=template_name(lane),
        namespace=place.namespace,
        labels=LABELS,
        entrypoint="main",
        service_account_name=place.service_account,
        arguments=[
            hera.Parameter(name="model"),
            hera.Parameter(name="decision"),
            hera.Parameter(name="gpus", value="0"),
        ],
        pod_priority_class_name=limits.priority_class or None,
        priority=limits.priority,
        active_deadline_seconds=int(limits.deadline.total_seconds()),
        synchronization=models.Synchronization(mutexes=[models.Mutex(name=f"{template_name(lane)}-{model}")]),
        security_context=models.PodSecurityContext.model_validate(pod_security(place)),
        volumes=[models.Volume.model_validate(one) for one in volumes(place)],
        pod_gc=models.PodGC(strategy="OnWorkflowSuccess", delete_delay_duration="1h"),
        ttl_strategy=models.TTLStrategy(seconds_after_completion=7 * 86400),
    ) as made:
        for step in STEPS:
            worker = "{{inputs.parameters.worker}}" if step == "search" else ""
            _container(place, step, arguments(step, model, decision, worker))
        with hera.DAG(name="main"):
            tasks = [_task(hera, models, place, step) for step in STEPS]
            for before, after in pairwise(tasks):
                before >> after
    of_lane: WorkflowTemplate = made
    return of_lane


def _task(hera: Any, models: Any, place: Place, step: str) -> Any:
    name = _GATES.get(step, step)
    if step != "search":
        return hera.Task(name=name, template=step)
    many = models.Sequence(count=str(place.search_workers))
    return hera.Task(name=name, template=step, with_sequence=many, arguments={"worker": "{{item}}"})


def _container(place: Place, name: str, given: list[str]) -> "Container":
    hera, models = _hera()
    told = container(place, name, given)
    patch = {"containers": [{"name": "main", "resources": _gpu(place)}]}
    made: Container = hera.Container(
        name=name,
        image=told["image"],
        image_pull_policy=told["imagePullPolicy"],
        command=told["command"],
        args=told["args"],
        inputs=[hera.Parameter(name="worker")] if name == "search" else None,
        env=[models.EnvVar.model_validate(one) for one in told["env"]] if name in STEPS else None,
        env_from=[models.EnvFromSource.model_validate(one) for one in told["envFrom"]] or None,
        resources=models.ResourceRequirements.model_validate(told["resources"]),
        security_context=models.SecurityContext.model_validate(told["securityContext"]),
        volume_mounts=[models.VolumeMount.model_validate(one) for one in told["volumeMounts"]],
        pod_spec_patch=json.dumps(patch) if name in GPU_STEPS else None,
        retry_strategy=models.RetryStrategy(
            limit=str(place.retries),
            retry_policy="Always",
            expression=RETRY,
            backoff=models.Backoff(duration="20s", factor="2", cap="5m"),
        ),
    )
    return made


def _gpu(place: Place) -> dict[str, dict[str, str]]:
    asked = {place.gpu: "{{workflow.parameters.gpus}}"}
    return {"requests": asked, "limits": asked}


@_written()
def workflow(place: Place, request: Request) -> "Workflow":
    """The run of a decision: the lane's template, on the nodes that the policy wants."""
    hera, models = _hera()
    nodes = place.nodes_of(request)
    made: Workflow = hera.Workflow(
        name=request.name,
        namespace=place.namespace,
        labels=labels(request),
        annotations=annotations(request),
        workflow_template_ref=models.WorkflowTemplateRef(name=template_name(request.lane)),
        arguments={"model": request.model, "decision": request.decision, "gpus": str(request.gpus)},
        node_selector=nodes.node_selector or None,
        tolerations=[models.Toleration.model_validate(one) for one in nodes.tolerations] or None,
    )
    return made


@_written()
def calendar(place: Place, spec: ModelSpec) -> "CronWorkflow":
    """For who has no Dagster: the model's tick at the times of `retrain.cron`, which asks the policy once for each, and
    submits the retrain that it agrees to."""
    hera, models = _hera()
    with hera.CronWorkflow(
        name=f"drift-calendar-{re.sub('_+', '-', spec.name).strip('-')}"[:52].rstrip("-"),
        namespace=place.namespace,
        labels=LABELS,
        schedules=[spec.retrain.cron],
        timezone="UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        entrypoint="tick",
        service_account_name=place.service_account,
        active_deadline_seconds=3600,
        security_context=models.PodSecurityContext.model_validate(pod_security(place)),
        volumes=[models.Volume.model_validate(one) for one in volumes(place)],
    ) as made:
        _container(place, "tick", ["tick", spec.name])
    of_model: CronWorkflow = made
    return of_model


def _hera() -> tuple[Any, Any]:
    try:
        from hera import workflows
        from hera.workflows import models
    except ImportError as error:
        raise InputError("DRIFT_RUNNER=argo: needs another package; pip install 'drift-pipeline[argo]'") from error
    return workflows, models


class ArgoRunner:
    kind = "argo"

    def __init__(self, place: Place) -> None:
        self._place, self._at = place, Cluster(place)
        self._where = GROUP, VERSION, place.namespace, PLURAL

    def submit(self, request: Request) -> Run:
        body, create = workflow(self._place, request).to_dict(), self._at.objects().create_namespaced_custom_object
        try:
            self._at.ask(f"Workflow {request.name}", create, *self._where, body)
        except ThereAlreadyError:
            pass
        except NotThereError as error:
            raise InputError("Argo Workflows: the cluster has no such API, or no such namespace; install it") from error
        return self.status(request)

    def status(self, request: Request) -> Run:
        get = self._at.objects().get_namespaced_custom_object
        try:
            found = self._at.ask(f"Workflow {request.name}", get, *self._where, request.name)
        except NotThereError:
            return Run(request.name, State.ABSENT)
        state, reason = state_of(found)
        return Run(request.name, state, self._place.link_of(request.name), reason, gpu_hours(found, self._place.gpu))

    def cancel(self, request: Request) -> Run:
        run = self.status(request)
        if run.state.over or run.state is State.ABSENT:
            return run
        patch, body = self._at.objects().patch_namespaced_custom_object, {"spec": {"shutdown": "Terminate"}}
        with suppress(NotThereError):
            self._at.ask(f"Workflow {run.name}", patch, *self._where, run.name, body)
        return self.status(request)

    def logs(self, request: Request, lines: int = 50) -> str:
        pods = self._at.pods_of(f"workflows.argoproj.io/workflow={request.name}")
        return self._at.logs_of(pods, lines, lambda _: ["main"])


def state_of(found: dict[str, Any]) -> tuple[State, str]:
    """Of a Workflow as the API tells it. One that is told to stop is CANCELLED from then on."""
    status = found.get("status") or {}
    state, said = _STATES.get(status.get("phase", ""), State.PENDING), str(status.get("message") or "")
    if found.get("spec", {}).get("shutdown") and state is not State.SUCCEEDED:
        return State.CANCELLED, said or "it was cancelled"
    failed = [
        f"{node.get('displayName')}: {node['message']}"
        for node in (status.get("nodes") or {}).values()
        if node.get("type") == "Pod" and node.get("phase") in ("Failed", "Error") and node.get("message")
    ]
    return state, "; ".join(filter(None, [said, *failed]))[:500] if state is State.FAILED else said


def gpu_hours(found: dict[str, Any], resource: str) -> float | None:
    """Of all its pods, as Argo counts them (seconds of one each); None before it counted."""
    counted = (found.get("status") or {}).get("resourcesDuration")
    return None if counted is None else counted.get(resource, 0) / 3600
