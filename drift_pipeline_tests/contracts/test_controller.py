"""Every Controller keeps the same obligations: Argo's against Kubernetes' REST, and on a cluster that a test run names.

`DRIFT_TEST_CONTROLLER_FILE` is the DRIFT_CONTROLLER_FILE of a cluster with Argo Rollouts and Istio. Without one there
is a stand-in for the API alone (`fakes/kubernetes_api.py`): statuses are written as Argo Rollouts 1.10.1 was seen to
write them, and nothing is shown of what Argo makes of ours. That is in `deploy/test_rollouts_cluster.py`.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline.rollout.controllers import Act, Controller, Seen, Served, State, Wanted
from drift_pipeline.rollout.controllers.argo import HASH, ArgoController
from drift_pipeline.rollout.controllers.declared import Routing, read_routing
from drift_pipeline.rollout.controllers.reconciling import Step, next_step
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.contracts.test_runner import kubeconfig
from drift_pipeline_tests.fakes.kubernetes_api import Api, Object, serving

pytest.importorskip("kubernetes.client", reason="kubernetes is not installed: extra kubernetes")

MODEL, WAIT_S = "contract_model", 120
OLD, NEW = Served("sha256:old", "v1"), Served("sha256:new", "v2", "contract_model-v2")
IDLE = Wanted(MODEL, OLD, None, None, "", 10)
SHADOW = replace(IDLE, candidate=NEW, phase=Phase.SHADOW, rollout_id=NEW.rollout_id)
CANARY, BACK = replace(SHADOW, phase=Phase.CANARY), replace(SHADOW, candidate=None, phase=Phase.ROLLED_BACK)
POD: dict[str, Any] = {"containers": [{"name": "server", "image": "reco:1", "args": ["{digest}"]}]}
NAMESPACE = "/namespaces/drift"
ROLLOUTS = f"/apis/argoproj.io/v1alpha1{NAMESPACE}/rollouts"
ROLLOUT = f"{ROLLOUTS}/drift-contract-model"
VIRTUAL = f"/apis/networking.istio.io/v1{NAMESPACE}/virtualservices/drift-contract-model"
PAUSED = [{"reason": "CanaryPauseStep"}]


class Rest:
    """Argo's controller on the stand-in; `settle` and the others write what it was seen to write."""

    def __init__(self, api: Api, controller: Controller) -> None:
        self.api, self.controller = api, controller

    def settle(self) -> None:
        self._replica_set("o")
        self.api.write_status(ROLLOUT, currentPodHash="o", stableRS="o", phase="Healthy")

    def pause(self, index: int, share: int) -> None:
        self._replica_set("n")
        self.weigh(share)
        told = {"currentPodHash": "n", "stableRS": "o", "phase": "Paused", "currentStepIndex": index}
        self.api.write_status(ROLLOUT, pauseConditions=PAUSED, **told)

    def weigh(self, share: int) -> None:
        virtual = self.api.objects[VIRTUAL]
        both = virtual["spec"]["http"][0]["route"]
        routes = [{**one, "weight": weight} for one, weight in zip(both, (100 - share, share), strict=True)]
        spec = {**virtual["spec"], "http": [{**virtual["spec"]["http"][0], "route": routes}]}
        self.api.add(VIRTUAL, {**virtual, "spec": spec})

    def _replica_set(self, hashed: str) -> None:
        template = self.api.objects[ROLLOUT]["spec"]["template"]
        labels = {**template["metadata"]["labels"], HASH: hashed}
        template = {**template, "metadata": {**template["metadata"], "labels": labels}}
        owner = {"uid": self.api.objects[ROLLOUT]["metadata"]["uid"]}
        meta = {"name": hashed, "labels": labels, "creationTimestamp": "2026-11-28T10:00:00Z"}
        meta["ownerReferences"] = [owner]
        path = f"/apis/apps/v1{NAMESPACE}/replicasets/{hashed}"
        if path not in self.api.objects:
            self.api.add(path, {"metadata": meta, "spec": {"template": template}})


class Real:
    """On the cluster that is named; what was made stays, for the next run finds it settled."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def settle(self) -> None:
        until(lambda: self.controller.observe(IDLE).state is State.SETTLED)


def until(so: Callable[[], bool]) -> None:
    ended = time.monotonic() + WAIT_S
    while not so():
        assert time.monotonic() < ended
        time.sleep(0.2)


@contextmanager
def rest(folder: Path) -> Iterator[Rest]:
    api = Api()
    with serving(api) as port:
        yield Rest(api, ArgoController(routing(folder, port)))


def routing(folder: Path, port: int, seconds: float = 5) -> Routing:
    return Routing(pod=POD, hosts=("{model}",), kubeconfig=kubeconfig(folder, port), timeout_seconds=seconds)


@pytest.fixture(params=["rest", pytest.param("cluster", marks=pytest.mark.live)])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rest | Real]:
    if request.param == "rest":
        with rest(tmp_path) as made:
            yield made
        return
    named = os.environ.get("DRIFT_TEST_CONTROLLER_FILE")
    if not named:
        pytest.skip("DRIFT_TEST_CONTROLLER_FILE names no cluster")
    yield Real(ArgoController(read_routing(Path(named))))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Rest]:
    """A model whose champion answers, on the stand-in."""
    with rest(tmp_path) as made:
        made.controller.do(Act.CREATE, IDLE, made.controller.observe(IDLE))
        made.settle()
        yield made


def test_what_is_created_is_created_once_and_the_champion_answers(held: Rest | Real) -> None:
    for _ in range(2):
        held.controller.do(Act.CREATE, IDLE, held.controller.observe(IDLE))
    held.settle()
    seen = held.controller.observe(IDLE)
    assert (seen.state, seen.newest.digest, seen.stable, seen.share) == (State.SETTLED, OLD.digest, OLD.digest, 0)
    assert seen.odd == ()
    assert held.controller.observe(IDLE) == seen, "to look changes nothing"


def test_an_act_on_an_older_look_is_refused_and_changes_nothing(held: Rest | Real) -> None:
    held.controller.do(Act.CREATE, IDLE, held.controller.observe(IDLE))
    held.settle()
    seen = held.controller.observe(IDLE)
    stale = replace(seen, revision="1")
    for act in (Act.BEGIN, Act.PROMOTE, Act.COMPLETE, Act.ABORT, Act.RESTORE):
        with pytest.raises(ConflictError, match="moved on since"):
            held.controller.do(act, SHADOW, stale)
    assert held.controller.observe(IDLE) == seen


# of Argo's, on the stand-in


def test_nobody_knows_of_a_model_that_was_not_created_and_one_that_lost_its_route_is_created_again(fresh: Rest) -> None:
    assert fresh.controller.observe(replace(IDLE, model="another")) == Seen(State.ABSENT)
    rollout = fresh.api.objects[ROLLOUT]
    del fresh.api.objects[VIRTUAL]
    assert fresh.controller.observe(IDLE).state is State.ABSENT
    fresh.controller.do(Act.CREATE, IDLE, fresh.controller.observe(IDLE))
    assert fresh.controller.observe(IDLE).state is State.SETTLED
    assert fresh.api.objects[ROLLOUT] == rollout, "what is there is kept"


def test_the_way_through_by_what_the_api_is_sent(fresh: Rest) -> None:
    at = fresh.controller
    at.do(Act.BEGIN, SHADOW, at.observe(SHADOW))
    assert at.observe(SHADOW).state is State.MOVING, "its generation was not read yet"
    fresh.pause(2, 0)
    seen = at.observe(SHADOW)
    assert (seen.state, seen.newest, seen.stable, seen.odd) == (State.SHADOW, NEW, OLD.digest, ())
    at.do(Act.PROMOTE, CANARY, seen)
    assert "pauseConditions" not in fresh.api.objects[ROLLOUT]["status"]
    assert at.observe(CANARY).state is State.MOVING
    fresh.pause(5, 10)
    seen = at.observe(CANARY)
    assert (seen.state, seen.share) == (State.CANARY, 10)
    at.do(Act.COMPLETE, replace(IDLE, champion=NEW), seen)
    assert fresh.api.objects[ROLLOUT]["status"]["promoteFull"] is True
    assert at.observe(IDLE).asked is Act.COMPLETE


def test_after_an_abort_the_pods_of_before_are_restored_to_the_letter(fresh: Rest, tmp_path: Path) -> None:
    at, before = fresh.controller, fresh.api.objects[ROLLOUT]["spec"]["template"]
    fresh.api.add(ROLLOUT, merged_replicas(fresh.api.objects[ROLLOUT], 7))  # an autoscaler's
    at.do(Act.BEGIN, SHADOW, at.observe(SHADOW))
    fresh.pause(5, 10)
    at.do(Act.ABORT, BACK, at.observe(BACK))
    assert at.observe(BACK).state is State.MOVING, "it is sent its share until Argo has read it"
    fresh.weigh(0)
    fresh.api.write_status(ROLLOUT, phase="Degraded", message="RolloutAborted")
    seen = at.observe(BACK)
    assert (seen.state, seen.reason) == (State.ABORTED, "RolloutAborted")
    other = ArgoController(routing(tmp_path, port_of(tmp_path)).model_copy(update={"pod": {**POD, "hostIPC": False}}))
    other.do(Act.RESTORE, BACK, seen)
    spec = fresh.api.objects[ROLLOUT]["spec"]
    assert (spec["template"], spec["replicas"]) == (before, 7), "the file's pods are another's by now"


def merged_replicas(rollout: Object, replicas: int) -> Object:
    return {**rollout, "spec": {**rollout["spec"], "replicas": replicas}}


def port_of(folder: Path) -> int:
    return int((folder / "kubeconfig").read_text().split("127.0.0.1:")[1].split("\n")[0].strip("'\" "))


def test_a_route_or_a_strategy_that_somebody_changed_is_odd(fresh: Rest) -> None:
    at = fresh.controller
    at.do(Act.BEGIN, SHADOW, at.observe(SHADOW))
    fresh.pause(2, 0)
    rollout = fresh.api.objects[ROLLOUT]
    canary = {**rollout["spec"]["strategy"]["canary"], "abortScaleDownDelaySeconds": 30}
    fresh.api.add(ROLLOUT, {**rollout, "spec": {**rollout["spec"], "strategy": {"canary": canary}}})
    (odd,) = at.observe(SHADOW).odd
    assert "its Rollout's strategy is not the one" in odd
    virtual = fresh.api.objects[VIRTUAL]
    fresh.api.add(VIRTUAL, {**virtual, "spec": {**virtual["spec"], "hosts": []}})
    assert "its VirtualService: hosts names none" in at.observe(SHADOW).odd
    rollout = fresh.api.objects[ROLLOUT]
    fresh.api.add(ROLLOUT, {**rollout, "spec": {**rollout["spec"], "paused": True}})
    fresh.api.write_status(ROLLOUT, phase="Degraded", message="its pods crash")
    told = at.observe(SHADOW).odd
    assert "its Rollout is degraded: its pods crash" in told
    assert any("paused by hand" in one for one in told)


@pytest.mark.parametrize(("wanted", "of"), [(IDLE, "v1"), (CANARY, "v2")])
def test_pods_that_somebody_changed_are_nobodys_and_ours_come_back(fresh: Rest, wanted: Wanted, of: str) -> None:
    at = fresh.controller
    if wanted is CANARY:
        at.do(Act.BEGIN, SHADOW, at.observe(SHADOW))
        fresh.pause(2, 0)
    rollout = fresh.api.objects[ROLLOUT]
    before, template = rollout["spec"]["template"], rollout["spec"]["template"]
    changed = {**template, "spec": {"containers": [{**POD["containers"][0], "image": "somebodys:1"}]}}
    fresh.api.add(ROLLOUT, {**rollout, "spec": {**rollout["spec"], "template": changed}})
    fresh._replica_set("s")
    told = {"currentPodHash": "s", "stableRS": "o", "phase": "Paused", "currentStepIndex": 2}
    fresh.api.write_status(ROLLOUT, pauseConditions=PAUSED, **told)
    seen = at.observe(wanted)
    assert (seen.newest, seen.stable, next_step(wanted, seen).act) == (
        Served("", f"another {of}"),
        "sha256:old",
        Act.ABORT,
    )
    assert f"another {of} is rolled out there" in next_step(wanted, seen).differs
    fresh.api.write_status(ROLLOUT, abort=True, phase="Degraded")
    seen = at.observe(wanted)
    assert (seen.state, next_step(wanted, seen)) == (State.ABORTED, Step(Act.RESTORE))
    at.do(Act.RESTORE, wanted, seen)
    spec = fresh.api.objects[ROLLOUT]["spec"]["template"]
    assert spec["metadata"]["annotations"]["drift/version"] == "v1"
    assert spec["spec"] == {"containers": [{**POD["containers"][0], "args": ["sha256:old"]}]}
    if wanted is IDLE:
        assert spec == before


ISTIOD = "/apis/apps/v1/namespaces/istio-system/deployments/istiod"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (None, "istiod istio-system/istiod, which DRIFT_CONTROLLER_FILE names, is not there"),
        ([], "is 10 s, more than 1: so long an aborted canary may be sent its share"),
        ([{"name": "PILOT_DEBOUNCE_MAX", "value": "2s"}], "is 2 s, more than 1"),
        ([{"name": "PILOT_DEBOUNCE_MAX", "value": "soon"}], "is nan s, more than 1"),
        ([{"name": "PILOT_DEBOUNCE_MAX", "valueFrom": {}}], "is nan s, more than 1"),
        ([{"name": "PILOT_DEBOUNCE_MAX", "value": "500ms"}], ""),
        ([{"name": "PILOT_DEBOUNCE_MAX", "value": "1s"}], ""),
    ],
)
def test_an_istiod_that_lets_an_aborted_canary_be_served_is_odd(
    fresh: Rest, tmp_path: Path, env: list[Object] | None, told: str
) -> None:
    named = routing(tmp_path, port_of(tmp_path)).model_copy(update={"istiod": "istio-system/istiod"})
    if env is not None:
        pod = {"containers": [{"name": "discovery", "env": env}, {"name": "another"}]}
        fresh.api.add(ISTIOD, {"metadata": {"name": "istiod"}, "spec": {"template": {"spec": pod}}})
    assert fresh.controller.observe(IDLE).odd == (), "who names no istiod is not told of it"
    seen = ArgoController(named).observe(IDLE)
    assert seen.state is State.SETTLED
    assert [told in one for one in seen.odd] == ([True] if told else []), seen.odd


def test_pods_of_a_rollout_that_was_deleted_are_not_of_the_one_that_was_made_instead(fresh: Rest) -> None:
    del fresh.api.objects[ROLLOUT]
    fresh.controller.do(Act.CREATE, IDLE, fresh.controller.observe(IDLE))
    fresh._replica_set("o2")
    fresh.api.write_status(ROLLOUT, currentPodHash="o2", stableRS="o2", phase="Healthy")
    seen = fresh.controller.observe(IDLE)
    assert (seen.state, seen.newest, next_step(IDLE, seen)) == (State.SETTLED, replace(OLD, rollout_id=""), Step())


def test_a_model_whose_first_pods_are_not_up_is_left_alone(tmp_path: Path) -> None:
    with rest(tmp_path) as made:
        made.controller.do(Act.CREATE, IDLE, made.controller.observe(IDLE))
        assert made.controller.observe(IDLE).state is State.MOVING
        made.api.write_status(ROLLOUT, currentPodHash="o", phase="Progressing")
        seen = made.controller.observe(IDLE)
        assert (seen.state, next_step(IDLE, seen)) == (State.MOVING, Step())


def test_a_cluster_without_argo_says_what_to_install(tmp_path: Path) -> None:
    class Bare(Api):
        def answer(self, method: str, path: str, *more: Any) -> Object:
            from drift_pipeline_tests.fakes.kubernetes_api import Refused

            if "argoproj.io" in path or "istio.io" in path:
                raise Refused(404)
            return super().answer(method, path, *more)

    with serving(Bare()) as port:
        at = ArgoController(routing(tmp_path, port))
        with pytest.raises(InputError, match="install Argo Rollouts and Istio"):
            at.do(Act.CREATE, IDLE, at.observe(IDLE))


@pytest.mark.parametrize("how", ["deaf", "closed"])
def test_an_api_that_never_answers_is_unavailable_and_not_waited_for(how: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if how == "closed":
            server.close()
        at = ArgoController(routing(tmp_path, port, 0.1))
        with pytest.raises(UnavailableError, match="does not answer"):
            at.observe(IDLE)
        for act in Act:
            with pytest.raises(UnavailableError, match="does not answer"):
                at.do(act, SHADOW, Seen(State.MOVING, revision="1"))
