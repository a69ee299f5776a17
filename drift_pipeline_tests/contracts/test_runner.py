"""Every Runner keeps the same obligations: inline here and now, `kubernetes` and `argo` on a real cluster, in pods.

In the product's image a shell takes the place of `drift`, so that a step lasts as long as a test wants. Who asks has
the rights that runners/README.md names. No Kubeflow is here: that runner is held to an API that does not answer.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
import yaml

from drift_pipeline.circuit import REST_S
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.training.runners import Request, Run, Runner, State
from drift_pipeline.training.runners.argo import ArgoRunner
from drift_pipeline.training.runners.breaker import Breaker
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.inline import InlineRunner
from drift_pipeline.training.runners.kubeflow import KubeflowRunner
from drift_pipeline.training.runners.kubernetes import JobRunner
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.training.on_cluster import NAMESPACE, give_templates, pods_of, prepare

OK, NO, LONG = "contract_ok", "contract_no", "contract_long"  # models, by what comes of them
STEP = f'echo "step $2 of $5"; case $3 in {NO}) exit 1;; {LONG}) sleep 900;; esac'  # in the place of drift
STEPS_ONCE = ("pin", "search", "fit", "prove", "register")
WAIT_S = 900.0  # for five pods, one after the other, on a machine that has more to do
ON_CLUSTER = ("kubernetes", "argo")
LIVE = (pytest.mark.live, pytest.mark.slow)


@dataclass
class Held:
    """A runner, and how often it began the run of a request."""

    runner: Runner
    begun: Callable[[Request], int]


@pytest.fixture(params=["inline", *(pytest.param(name, marks=LIVE) for name in ON_CLUSTER)])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    if request.param == "inline":
        yield inline()
        return
    needed({"kubernetes": "kubernetes", "argo": "workflows"}[request.param])
    place: Place = request.getfixturevalue("place")
    cluster: Cluster = request.getfixturevalue("kubernetes_cluster")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with cluster.machine.joined():
        if request.param == "kubernetes":
            yield Held(JobRunner(place), lambda one: len(pods_of(cluster, one, "kubernetes")))
            return
        request.getfixturevalue("workflows_controller")
        give_templates(cluster, place)
        yield Held(ArgoRunner(place), lambda one: sum(_pins(pod) for pod in pods_of(cluster, one, "argo")))


def _pins(pod: dict[str, Any]) -> bool:
    """Whether it is of the first step; each try is a pod of its own."""
    return ".pin" in pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"]


@pytest.fixture(scope="module")
def place(kubernetes_cluster: Cluster, product_image: str) -> Place:
    shell, small = ("sh", "-c", STEP, "drift"), {"cpu": "10m", "memory": "64Mi", "retries": 0}
    asks = {"kubeconfig": prepare(kubernetes_cluster), "timeout_seconds": 60}
    return Place.model_validate({"image": product_image, "namespace": NAMESPACE, "command": shell, **small, **asks})


def inline() -> Held:
    begun = list[str]()

    def train(asked: Request) -> bool:
        if asked.decision in begun:
            return False  # as the queue says of what is done
        begun.append(asked.decision)
        return asked.model == OK

    return Held(InlineRunner(train), lambda one: begun.count(one.decision))


def asked(model: str) -> Request:
    return Request(model, f"{model}-{uuid4().hex[:8]}")


def within(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, f"no {what}"
        time.sleep(0.2)


def over(held: Held, request: Request) -> Run:
    within(lambda: held.runner.status(request).state.over, f"end of {request}")
    return held.runner.status(request)


def test_nobody_knows_of_a_run_that_was_not_submitted(held: Held) -> None:
    request = asked(OK)
    assert held.runner.status(request) == Run(request.name, State.ABSENT)
    assert held.runner.cancel(request).state is State.ABSENT
    assert held.runner.logs(request) == ""


def test_a_decision_is_submitted_once_however_often(held: Held) -> None:
    request = asked(OK)
    names = {held.runner.submit(request).name for _ in range(3)}
    assert names == {request.name}
    assert over(held, request).state is State.SUCCEEDED
    assert held.runner.submit(request).state is State.SUCCEEDED
    assert held.begun(request) == 1


def test_another_decision_of_the_model_is_another_run(held: Held) -> None:
    first, second = asked(OK), asked(OK)
    held.runner.submit(first)
    assert held.runner.status(second).state is State.ABSENT


def test_a_run_whose_step_says_no_failed_and_is_not_begun_again(held: Held) -> None:
    request = asked(NO)
    held.runner.submit(request)
    run = over(held, request)
    assert (run.state, bool(run.reason)) == (State.FAILED, True)
    assert held.runner.submit(request).state is State.FAILED
    assert held.begun(request) == 1


def test_what_is_over_cannot_be_cancelled(held: Held) -> None:
    request = asked(OK)
    held.runner.submit(request)
    assert over(held, request) == held.runner.cancel(request)


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("held", ON_CLUSTER, indirect=True)
def test_of_those_who_submit_at_once_one_begins_the_run(held: Held) -> None:
    request = asked(OK)
    with ThreadPoolExecutor(8) as several:
        told = list(several.map(held.runner.submit, [request] * 8))
    assert {run.name for run in told} == {request.name}
    assert over(held, request).state is State.SUCCEEDED
    assert held.begun(request) == 1


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("held", ON_CLUSTER, indirect=True)
def test_what_runs_is_cancelled_and_stays_so(held: Held) -> None:
    request = asked(LONG)
    held.runner.submit(request)
    within(lambda: held.runner.status(request).state is State.RUNNING, "a run")
    assert held.runner.cancel(request).state is State.CANCELLED
    assert over(held, request).state is State.CANCELLED
    assert held.runner.submit(request).state is State.CANCELLED
    assert held.begun(request) <= 1  # a Job's pod is deleted with it


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("held", ON_CLUSTER, indirect=True)
def test_what_waits_is_cancelled_and_never_runs(held: Held) -> None:
    request = asked(OK)
    held.runner.submit(request)
    held.runner.cancel(request)
    assert over(held, request).state is State.CANCELLED
    assert held.runner.submit(request).state is State.CANCELLED


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("held", ON_CLUSTER, indirect=True)
def test_the_logs_are_those_of_every_step_in_order(held: Held) -> None:
    request = asked(OK)
    held.runner.submit(request)
    over(held, request)
    said = [line for line in held.runner.logs(request).splitlines() if line.startswith("step ")]
    assert said == [f"step {step} of {request.decision}" for step in STEPS_ONCE]


# an API that does not answer


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class OnePod(BaseHTTPRequestHandler):
    """An API with a pod whose every container said the same."""

    def do_GET(self) -> None:
        meta = {"name": "pod", "creationTimestamp": "2026-03-01T00:00:00Z"}
        pods = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{"metadata": meta}]}
        is_log = "/log?" in self.path
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if is_log else "application/json")
        self.end_headers()
        self.wfile.write("größer\n'b'".encode() + b"\xff\n" if is_log else json.dumps(pods).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize("kind", ON_CLUSTER)
def test_logs_are_what_the_process_wrote_and_what_is_no_text_is_marked(kind: str, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OnePod) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        lines = towards(kind, server.server_port, tmp_path).logs(asked(OK)).splitlines()
        server.shutdown()
    first = "pin" if kind == "kubernetes" else "main"
    assert lines[:3] == [f"--- pod {first}", "größer", "'b'\ufffd"]


PACKAGES = {"kubernetes": ("kubernetes",), "argo": ("kubernetes", "hera"), "kubeflow": ("kfp", "kfp_server_api")}


def towards(kind: str, port: int, folder: Path) -> Runner:
    """The runner of that kind, of an API on this port."""
    for name in PACKAGES[kind]:
        pytest.importorskip(name, reason=f"{name} is not installed: extra {kind}", exc_type=ImportError)
    if kind == "kubeflow":
        return KubeflowRunner(Place(image="drift:1", server=f"http://127.0.0.1:{port}", timeout_seconds=0.3))
    place = Place(image="drift:1", kubeconfig=kubeconfig(folder, port), timeout_seconds=0.3)
    return JobRunner(place) if kind == "kubernetes" else ArgoRunner(place)


@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize("how", ["deaf", "closed"])
def test_an_api_that_never_answers_is_unavailable_and_not_waited_for(
    kind: str, how: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    runner = towards(kind, request.getfixturevalue(how), tmp_path)
    for call in (runner.submit, runner.status, runner.cancel, runner.logs):
        with pytest.raises(UnavailableError, match="does not answer"):
            call(asked(OK))


class Silent(InlineRunner):
    """Lets who asks wait, and then says what the test wants."""

    def __init__(self, error: Exception) -> None:
        super().__init__(lambda _: True)
        self.error, self.now, self.waits, self.asked = error, 0.0, 3.0, 0

    def status(self, request: Request) -> Run:  # noqa: ARG002
        self.asked += 1
        self.now += self.waits
        raise self.error


@pytest.mark.parametrize("error", [UnavailableError("it does not answer"), ValueError("a client's own")])
def test_one_wait_in_vain_is_the_only_one_of_all_models_until_a_while_later(error: Exception) -> None:
    silent = Silent(error)
    runner = Breaker(silent, lambda: silent.now)
    for _ in range(50):
        with pytest.raises(UnavailableError, match=str(error)):
            runner.status(asked(OK))
    assert (silent.asked, silent.now) == (1, 3.0)
    silent.now += REST_S
    with pytest.raises(UnavailableError):
        runner.status(asked(OK))
    assert silent.asked == 2


def test_what_is_refused_at_once_closes_no_door_for_other_runs_and_bad_input_stays_what_it_is() -> None:
    silent = Silent(InputError("no such namespace"))
    runner = Breaker(silent, lambda: silent.now)
    for _ in range(2):
        with pytest.raises(InputError, match="no such namespace"):
            runner.status(asked(OK))
    silent.error, silent.waits = UnavailableError("403: quota"), 0.01
    for _ in range(2):
        with pytest.raises(UnavailableError, match="quota"):
            runner.status(asked(OK))
    assert silent.asked == 4


def kubeconfig(folder: Path, port: int) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path
