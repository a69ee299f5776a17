"""Dagster's runs on a real cluster, as the chart's launcher makes them: a pod a run, and of a retrain a pod a step."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from drift_pipeline.components.jobs import RETRAIN_JOB
from drift_pipeline.components.training import TRAINING
from drift_pipeline_tests.deploy.charts import NAMESPACE
from drift_pipeline_tests.deploy.terminal import MODEL, ROOMY_S, Terminal, at_cluster
from drift_pipeline_tests.parts.kubernetes import Cluster

pytestmark = [pytest.mark.live, pytest.mark.slow]
WEBSERVER = "http://127.0.0.1:3000/graphql"  # a pod's port is the machine's
WEBSERVER_POD = "app.kubernetes.io/component=webserver"
LAUNCH = """mutation($of: ExecutionParams!) { launchRun(executionParams: $of) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def terminal(
    kubernetes_cluster: Cluster, product_image: str, helm_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """Of a release whose model is adopted."""
    folder = tmp_path_factory.mktemp("terminal")
    with at_cluster(kubernetes_cluster, product_image, folder, dagster={"executor": "k8s_job"}) as at:
        at.install()
        at.adopt()
        yield at


@pytest.fixture(scope="module")
def launched(terminal: Terminal) -> str:
    """The id of a run that the webserver was told to launch: it asks for a hotfix."""
    terminal.cluster.kubectl(
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l",
        WEBSERVER_POD,
        f"--timeout={ROOMY_S:.0f}s",
        patience_s=ROOMY_S,
    )
    job = {"repositoryLocationName": "drift_pipeline", "repositoryName": "__repository__", "jobName": "retrain_now"}
    config = {"model": MODEL, "reason": "to be trained in pods", "hotfix": True}
    asked = {"selector": job, "runConfigData": json.dumps({"ops": {"ask_for_retrain": {"config": config}}})}
    answer = _asked(LAUNCH, of=asked)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def test_a_run_that_the_webserver_was_told_to_launch_is_one_pod_and_succeeds(terminal: Terminal, launched: str) -> None:
    assert _status(terminal, launched) == "SUCCESS"
    (pod,) = _pods(terminal, launched)
    assert pod["metadata"]["name"].startswith(f"dagster-run-{launched}-")


def test_each_step_of_the_retrain_that_comes_of_it_is_a_pod_of_its_own_without_a_token(
    terminal: Terminal, launched: str
) -> None:
    """Launched by Dagster's daemon; the run's own pod, which has a token, asks for the others."""
    assert _status(terminal, launched) == "SUCCESS"
    terminal.cluster.until("retrain", lambda: bool(_retrains()), ROOMY_S)
    (run,) = _retrains()
    assert _status(terminal, run) == "SUCCESS"
    waits, *steps = _pods(terminal, run)
    assert waits["metadata"]["name"].startswith(f"dagster-run-{run}-")
    assert [pod["metadata"]["labels"]["dagster/op"] for pod in steps] == [f"{MODEL}__{name}" for name in TRAINING]
    names = {pod["metadata"]["name"] for pod in steps}
    assert len(names) == len(TRAINING)
    assert all(name.startswith("dagster-step-") for name in names)
    assert _has_token(waits)
    assert not any(map(_has_token, steps))


def _status(terminal: Terminal, run: str) -> str:
    """Of a run that has ended, as its pods have."""

    def status() -> str:
        return str(next(one["status"] for one in _runs() if one["runId"] == run))

    terminal.cluster.until(f"end of run {run}", lambda: status() in ENDED, ROOMY_S)

    def phases() -> set[str]:
        return {pod["status"]["phase"] for pod in _pods(terminal, run)}

    terminal.cluster.until(f"end of the pods of {run}", lambda: phases() <= {"Succeeded", "Failed"})
    assert phases() == {"Succeeded"}
    return status()


def _retrains() -> list[str]:
    return [one["runId"] for one in _runs() if one["jobName"] == RETRAIN_JOB]


def _runs() -> list[dict[str, Any]]:
    return list(_asked(RUNS)["runsOrError"]["results"])


def _pods(terminal: Terminal, run: str) -> list[dict[str, Any]]:
    """In the order in which they were made."""
    label = f"dagster%2Frun-id%3D{run}"
    found = terminal.cluster.ask(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={label}")["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _has_token(pod: dict[str, Any]) -> bool:
    mounts = [mount for one in pod["spec"]["containers"] for mount in one["volumeMounts"]]
    return TOKEN in {mount["mountPath"] for mount in mounts}


def _asked(query: str, **variables: Any) -> Any:
    """What the webserver's GraphQL answers."""
    body = {"query": query, "variables": variables}
    answer = httpx.post(WEBSERVER, json=body, timeout=120, trust_env=False).json()
    assert "errors" not in answer, answer
    return answer["data"]
