"""Every Runner keeps the same obligations: inline here and now, the others on a cluster that a test run names.

`DRIFT_TEST_RUNNER_FILE` is the DRIFT_RUNNER_FILE of such a cluster, whose image has a shell. Without one the runners
are held to their manifests (`training/test_runners.py`), and here to how they bear an API that does not answer.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from drift_pipeline.circuit import REST_S
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.training.runners import Request, Run, Runner, State
from drift_pipeline.training.runners.argo import GROUP, LANES, VERSION, ArgoRunner, template
from drift_pipeline.training.runners.breaker import Breaker
from drift_pipeline.training.runners.cluster import Cluster, ThereAlreadyError
from drift_pipeline.training.runners.declared import Place, read_place
from drift_pipeline.training.runners.inline import InlineRunner
from drift_pipeline.training.runners.kubeflow import KubeflowRunner
from drift_pipeline.training.runners.kubernetes import JobRunner

OK, NO, LONG = "contract_ok", "contract_no", "contract_long"  # models, by what comes of them
STEP = f'echo "step $2 of $5"; case $3 in {NO}) exit 1;; {LONG}) sleep 300;; esac'  # in the place of drift
WAIT_S = 120


@dataclass
class Held:
    """A runner, and how often it was made to begin a run (None: nobody counts)."""

    runner: Runner
    begun: Callable[[], int] | None


@pytest.fixture(
    params=["inline", *(pytest.param(name, marks=pytest.mark.live) for name in ("kubernetes", "argo"))],
)
def held(request: pytest.FixtureRequest) -> Held:
    if request.param == "inline":
        return inline()
    place = place_of_the_cluster()
    if request.param == "kubernetes":
        return Held(JobRunner(place), None)
    apply_templates(place)
    return Held(ArgoRunner(place), None)


def inline() -> Held:
    begun = list[str]()

    def train(asked: Request) -> bool:
        if asked.decision in begun:
            return False  # as the queue says of what is done
        begun.append(asked.decision)
        return asked.model == OK

    return Held(InlineRunner(train), lambda: len(begun))


def place_of_the_cluster() -> Place:
    named = os.environ.get("DRIFT_TEST_RUNNER_FILE")
    if not named:
        pytest.skip("DRIFT_TEST_RUNNER_FILE names no cluster")
    return read_place(Path(named)).model_copy(update={"command": ("sh", "-c", STEP, "drift"), "retries": 0})


def apply_templates(place: Place) -> None:
    at = Cluster(place)
    for lane in LANES:
        api, body = at.objects(), template(place, lane).to_dict()
        where = GROUP, VERSION, place.namespace, "workflowtemplates"
        try:
            at.ask("a template", api.create_namespaced_custom_object, *where, body)
        except ThereAlreadyError:
            at.ask("a template", api.patch_namespaced_custom_object, *where, body["metadata"]["name"], body)


def asked(model: str) -> Request:
    return Request(model, f"{model}-{uuid4().hex[:8]}")


def over(held: Held, request: Request) -> Run:
    until = time.monotonic() + WAIT_S
    while not (run := held.runner.status(request)).state.over:
        assert time.monotonic() < until, run
        time.sleep(0.2)
    return run


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
    assert held.begun is None or held.begun() == 1


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
    assert held.begun is None or held.begun() == 1


def test_what_is_over_cannot_be_cancelled(held: Held) -> None:
    request = asked(OK)
    held.runner.submit(request)
    assert over(held, request) == held.runner.cancel(request)


@pytest.mark.live
@pytest.mark.parametrize("held", ["kubernetes", "argo"], indirect=True)
def test_what_runs_is_cancelled_and_stays_so(held: Held) -> None:
    request = asked(LONG)
    held.runner.submit(request)
    assert held.runner.cancel(request).state is State.CANCELLED
    assert over(held, request).state is State.CANCELLED
    assert held.runner.submit(request).state is State.CANCELLED


@pytest.mark.live
@pytest.mark.parametrize("held", ["kubernetes", "argo"], indirect=True)
def test_the_logs_are_those_of_every_step_in_order(held: Held) -> None:
    request = asked(OK)
    held.runner.submit(request)
    over(held, request)
    said = [line for line in held.runner.logs(request).splitlines() if line.startswith("step ")]
    assert sorted(said) == sorted(f"step {step} of {request.decision}" for step in STEPS_ONCE)


STEPS_ONCE = ("pin", "search", "fit", "prove", "register")


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
