"""Kubeflow Pipelines: the same steps as a pipeline that kfp compiles, and a run of it for each decision.

kfp is imported here alone, and has an extra of its own: it wants older packages than the rest.
"""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.training.runners import STEPS, Request, Run, State
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.pods import GPU_STEPS

_STATES = {
    "SUCCEEDED": State.SUCCEEDED,
    "SKIPPED": State.SUCCEEDED,
    "FAILED": State.FAILED,
    "CANCELED": State.CANCELLED,
    "CANCELING": State.CANCELLED,
    "RUNNING": State.RUNNING,
    "PAUSED": State.RUNNING,
}


def _take(command: list, model: str, decision: str, worker: int) -> str:  # type: ignore[type-arg]  # kfp reads it
    """What each component does; kfp takes this function's text into the component, so it imports what it needs."""
    import subprocess
    import sys

    more = ["--worker", str(worker)] if worker >= 0 else []
    done = subprocess.run([*command, model, "--decision", decision, *more], capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def pipeline(place: Place, gpus: int = 0) -> Any:
    """pin -> search, by several workers -> fit -> prove -> register; its parameters are model and decision."""
    dsl, _ = _kfp()
    step = dsl.component(func=_take, base_image=place.image)

    def train(model: str, decision: str) -> None:
        before = list[Any]()
        for name in STEPS:
            workers = range(place.search_workers) if name == "search" else (-1,)
            made = [_task(step, place, name, model, decision, worker, gpus) for worker in workers]
            for task in made:
                task.after(*before) if before else None
            before = made

    return dsl.pipeline(train, name="drift-train")


def _task(step: Any, place: Place, name: str, model: str, decision: str, worker: int, gpus: int) -> Any:
    task = step(command=[*place.command, "train", name], model=model, decision=decision, worker=worker)
    task.set_display_name(f"{name} {worker}" if name == "search" else name).set_caching_options(False)
    task.set_retry(num_retries=place.retries, backoff_duration="20s", backoff_factor=2)
    task.set_env_variable("DRIFT_RUNNER", "inline")
    task.set_cpu_request(place.cpu).set_cpu_limit(place.cpu)
    task.set_memory_request(place.memory).set_memory_limit(place.memory)
    if gpus and name in GPU_STEPS:
        task.set_accelerator_type(place.gpu).set_accelerator_limit(gpus)
    return task


def compiled(place: Place, path: Path, gpus: int = 0) -> None:
    """Write the pipeline as YAML."""
    _, compiler = _kfp()
    compiler.Compiler().compile(pipeline(place, gpus), str(path))


def compiled_text(place: Place, gpus: int = 0) -> str:
    with tempfile.TemporaryDirectory() as folder:
        compiled(place, path := Path(folder) / "pipeline.yaml", gpus)
        return path.read_text(encoding="utf-8")


def _kfp() -> tuple[Any, Any]:
    try:
        from kfp import compiler, dsl
    except ImportError as error:
        raise InputError(
            "DRIFT_RUNNER=kubeflow: needs another package; pip install 'drift-pipeline[kubeflow]'"
        ) from error
    return dsl, compiler


class KubeflowRunner:
    """Runs are found by their name: Kubeflow itself gives a name twice, so two that submit in the same second may begin
    two runs, of which each step is done once all the same."""

    kind = "kubeflow"

    def __init__(self, place: Place) -> None:
        if not place.server:
            raise InputError("DRIFT_RUNNER_FILE: kubeflow wants a server, the address of its Pipelines API")
        self._place = place

    @cached_property
    def _client(self) -> Any:
        """Of the API alone: kfp.Client waits in its constructor for a server that is down, and without a limit."""
        _kfp()
        import kfp_server_api

        made = kfp_server_api.Configuration(host=self._place.server.rstrip("/"))
        made.retries = False
        return kfp_server_api.ApiClient(made)

    def submit(self, request: Request) -> Run:
        known = self.status(request)
        if known.state is not State.ABSENT:
            return known
        body = {
            "display_name": request.name,
            "experiment_id": self._experiment(),
            "pipeline_spec": yaml.safe_load(compiled_text(self._place, request.gpus)),
            "runtime_config": {"parameters": {"model": request.model, "decision": request.decision}},
            "service_account": self._place.service_account,
        }
        self._ask("RunServiceApi", "run_service_create_run", body)
        return self.status(request)

    def status(self, request: Request) -> Run:
        found = self._found(request)
        if found is None:
            return Run(request.name, State.ABSENT)
        state = _STATES.get(str(found.state), State.PENDING)
        overdue = not state.over and _age(found) > self._place.lane(request.lane).deadline
        reason = str(getattr(found.error, "message", "") or "") if found.error else ""
        link = self._place.link_of(request.name) or f"{self._place.server.rstrip('/')}/#/runs/details/{found.run_id}"
        if overdue:  # Kubeflow has no deadline of its own
            self._terminate(found)
            return Run(request.name, State.FAILED, link, "it took longer than its deadline")
        return Run(request.name, state, link, reason)

    def cancel(self, request: Request) -> Run:
        found, run = self._found(request), self.status(request)
        if found is None or run.state.over:
            return run
        self._terminate(found)
        return self.status(request)

    def logs(self, request: Request, lines: int = 50) -> str:
        """Which task stands how; the lines themselves are in Kubeflow, at the link."""
        found = self._found(request)
        details = (found.run_details.task_details or ()) if found is not None and found.run_details else ()
        return "\n".join(f"{task.display_name}: {task.state}" for task in details[:lines])

    def _found(self, request: Request) -> Any:
        """The run of this name, the oldest where there are several; None where there is none."""
        runs = self._named("RunServiceApi", "run_service_list_runs", request.name).runs
        return min(runs or (), key=lambda run: run.created_at, default=None)

    def _experiment(self) -> str:
        """Its id; it is made where there is none."""
        api, name = "ExperimentServiceApi", self._place.experiment
        found = self._named(api, "experiment_service_list_experiments", name).experiments
        body = {"display_name": name, "namespace": self._place.namespace}
        made = found[0] if found else self._ask(api, "experiment_service_create_experiment", body)
        return str(made.experiment_id)

    def _named(self, api: str, call: str, name: str) -> Any:
        same = {"key": "display_name", "operation": "EQUALS", "stringValue": name}
        told = json.dumps({"predicates": [same]})
        return self._ask(api, call, filter=told, namespace=self._place.namespace, page_size=10)

    def _terminate(self, found: Any) -> None:
        self._ask("RunServiceApi", "run_service_terminate_run", found.run_id)

    def _ask(self, api: str, call: str, *arguments: Any, **named: Any) -> Any:
        client, seconds = self._client, self._place.timeout_seconds

        import kfp_server_api
        import urllib3

        try:
            asked = getattr(getattr(kfp_server_api, api)(client), call)
            return asked(*arguments, _request_timeout=(seconds, seconds), **named)
        except kfp_server_api.ApiException as error:
            said = f"Kubeflow answers {error.status} {error.reason}: {str(error.body)[:300]}"
            raise (InputError(said) if error.status == 400 else UnavailableError(said)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnavailableError(f"Kubeflow at {self._place.server} does not answer: {str(error)[:300]}") from error


def _age(found: Any) -> timedelta:
    begun: datetime = found.created_at
    return datetime.now(UTC) - begun
