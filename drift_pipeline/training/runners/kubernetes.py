"""A Job for each decision: its steps are the pod's init containers, which run in order, and then its container."""

from contextlib import suppress
from typing import Any

from drift_pipeline.errors import InputError
from drift_pipeline.training.runners import STEPS, Request, Run, State
from drift_pipeline.training.runners.cluster import Cluster, NotThereError, ThereAlreadyError
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.pods import (
    DEFINITE,
    GPU_STEPS,
    annotations,
    arguments,
    container,
    labels,
    pod_security,
    volumes,
)

CANCELLED = "drift/cancelled"
FORGET_SECONDS = 7 * 86400  # after its end


def job_of(place: Place, request: Request) -> dict[str, Any]:
    """The Job's manifest. A pod that a node's drain, a preemption or an eviction took costs no retry."""
    lane, nodes = place.lane(request.lane), place.nodes_of(request)
    made = [
        container(place, step, arguments(step, request.model, request.decision), _gpus(step, request)) for step in STEPS
    ]
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": place.service_account,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(place),
        "initContainers": made[:-1],
        "containers": made[-1:],
        "volumes": volumes(place),
        **({"priorityClassName": lane.priority_class} if lane.priority_class else {}),
        **({"nodeSelector": nodes.node_selector} if nodes.node_selector else {}),
        **({"tolerations": list(nodes.tolerations)} if nodes.tolerations else {}),
    }
    meta = {"labels": labels(request), "annotations": annotations(request)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": request.name, "namespace": place.namespace, **meta},
        "spec": {
            "backoffLimit": place.retries,
            "activeDeadlineSeconds": int(lane.deadline.total_seconds()),
            "ttlSecondsAfterFinished": FORGET_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(DEFINITE)}},
                ]
            },
            "template": {"metadata": meta, "spec": pod},
        },
    }


def _gpus(step: str, request: Request) -> int:
    return request.gpus if step in GPU_STEPS else 0


class JobRunner:
    kind = "kubernetes"

    def __init__(self, place: Place) -> None:
        self._place, self._at = place, Cluster(place)

    def submit(self, request: Request) -> Run:
        body, jobs = job_of(self._place, request), self._at.jobs()
        try:
            self._at.ask(f"Job {request.name}", jobs.create_namespaced_job, self._place.namespace, body)
        except ThereAlreadyError:
            pass
        except NotThereError as error:
            raise InputError(f"Kubernetes: there is no namespace {self._place.namespace!r}; create it") from error
        return self.status(request)

    def status(self, request: Request) -> Run:
        try:
            job = self._job(request)
        except NotThereError:
            return Run(request.name, State.ABSENT)
        return self._run(request, job)

    def cancel(self, request: Request) -> Run:
        """The Job is suspended, not deleted: a name that is free would be submitted again."""
        run = self.status(request)
        if run.state.over or run.state is State.ABSENT:
            return run
        patch = {"metadata": {"annotations": {CANCELLED: "true"}}, "spec": {"suspend": True}}
        jobs = self._at.jobs()
        with suppress(NotThereError):
            self._at.ask(f"Job {run.name}", jobs.patch_namespaced_job, run.name, self._place.namespace, patch)
        return self.status(request)

    def logs(self, request: Request, lines: int = 50) -> str:
        pods = self._at.pods_of(f"batch.kubernetes.io/job-name={request.name}")
        return self._at.logs_of(pods, lines, lambda _: list(STEPS))

    def _job(self, request: Request) -> Any:
        jobs = self._at.jobs()
        return self._at.ask(f"Job {request.name}", jobs.read_namespaced_job, request.name, self._place.namespace)

    def _run(self, request: Request, job: Any) -> Run:
        state, reason = state_of(job)
        link = self._place.link_of(request.name)
        hours = None
        if request.gpus and state.over:
            hours = request.gpus * hours_of(self._at.pods_of(f"batch.kubernetes.io/job-name={request.name}"))
        return Run(request.name, state, link, reason, hours)


def state_of(job: Any) -> tuple[State, str]:
    """Of a V1Job, with Kubernetes' own reason."""
    held = {one.type: one for one in job.status.conditions or () if one.status == "True"} if job.status else {}
    if "Complete" in held:
        return State.SUCCEEDED, ""
    if "Failed" in held:
        return State.FAILED, f"{held['Failed'].reason}: {held['Failed'].message}"
    if (job.metadata.annotations or {}).get(CANCELLED):
        return State.CANCELLED, "it was cancelled"
    return (State.RUNNING if job.status and job.status.active else State.PENDING), ""


def hours_of(pods: list[Any]) -> float:
    """From each pod's start to the end of its last container: so long it held what it asked for."""
    seconds = 0.0
    for pod in pods:
        states = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
        ends = [one.state.terminated.finished_at for one in states if one.state and one.state.terminated]
        known = [end for end in ends if end is not None]
        if pod.status.start_time is not None and known:
            seconds += max((max(known) - pod.status.start_time).total_seconds(), 0)
    return seconds / 3600
