"""Our controller `argo` on Argo Rollouts' real one and a real API server, with no more rights than the chart gives.

There is no Istio here: weights and mirrors are read where Argo writes them, and no request is routed.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drift_pipeline.clock import HOUR
from drift_pipeline.errors import ConflictError, UnavailableError
from drift_pipeline.loop import operating
from drift_pipeline.loop.steering import DIFFERS, SILENT
from drift_pipeline.rollout.controllers import Act, Served, State, Wanted
from drift_pipeline.rollout.controllers.reconciling import Step, next_step
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.contracts.test_controller import (
    BACK,
    CANARY,
    IDLE,
    MODEL,
    NEW,
    OLD,
    SHADOW,
    Real,
    test_an_act_on_an_older_look_is_refused_and_changes_nothing,
    test_what_is_created_is_created_once_and_the_champion_answers,
)
from drift_pipeline_tests.deploy.charts import case, rendered
from drift_pipeline_tests.deploy.rolled import WAITS, Argo, Place, asking, is_back, istiod, ship, steered, tick, told
from drift_pipeline_tests.parts.containerd import PAUSE
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.server import Server
from drift_pipeline_tests.test_loop import World, phase

__all__ = [
    "test_an_act_on_an_older_look_is_refused_and_changes_nothing",
    "test_what_is_created_is_created_once_and_the_champion_answers",
]
pytestmark = [pytest.mark.live, pytest.mark.slow]
FULL = replace(IDLE, champion=NEW, phase=Phase.FULL, rollout_id=NEW.rollout_id)


@pytest.fixture(scope="module")
def argo(
    rollouts_controller: Server,  # runs
    kubernetes_cluster: Cluster,
    helm_program: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Argo:
    needed("prometheus")
    folder = tmp_path_factory.mktemp("argo")
    objects = rendered(helm_program, case("all"), folder)
    (role,) = (one for one in objects if one["kind"] == "Role" and one["metadata"]["name"].endswith("-code"))
    return Argo(kubernetes_cluster, folder, role["rules"])


@pytest.fixture(autouse=True)
def inside(argo: Argo) -> Iterator[None]:
    """The test is in the cluster's network, as the code location is."""
    with argo.cluster.machine.joined():
        yield


@pytest.fixture
def place(argo: Argo) -> Place:
    return argo.place(MODEL)


@pytest.fixture
def held(place: Place) -> Real:
    """Of the contract's own tests."""
    return Real(place.controller)


def acts(steps: list[Step]) -> list[Act | None]:
    return [step.act for step in steps]


def test_the_plan_is_a_rollout_that_mirrors_waits_sends_the_share_waits_and_ends(place: Place) -> None:
    assert acts(place.brought(IDLE, State.SETTLED)) == [Act.CREATE]
    assert acts(place.brought(SHADOW, State.SHADOW)) == [Act.BEGIN]
    shadow, _ = place.routes
    assert (shadow["name"], shadow["mirrorPercentage"]["value"], place.weights) == ("shadow", 100, (100, 0))
    assert shadow["mirror"]["host"] == f"{place.name}-canary"
    assert acts(place.brought(CANARY, State.CANARY)) == [Act.PROMOTE]
    assert ([route["name"] for route in place.routes], place.weights) == (["primary"], (90, 10))
    assert place.controller.observe(CANARY).odd == ()
    assert acts(place.brought(FULL, State.SETTLED)) == [Act.COMPLETE]
    seen = place.controller.observe(FULL)
    assert (seen.newest, seen.stable, seen.share, seen.odd, place.weights) == (NEW, NEW.digest, 0, (), (100, 0))
    back = replace(BACK, champion=OLD)
    assert acts(place.brought(back, State.SETTLED))[0] is Act.RESTORE
    seen = place.controller.observe(back)
    assert (seen.newest.digest, seen.stable, seen.odd) == (OLD.digest, OLD.digest, ())


def test_an_abort_of_ours_sends_the_canary_nothing_and_the_champions_pods_are_the_same_ones(place: Place) -> None:
    place.brought(IDLE, State.SETTLED)
    before = place.get()["status"]["stableRS"]
    place.brought(CANARY, State.CANARY)
    assert acts(place.brought(BACK, State.SETTLED)) == [Act.ABORT, Act.RESTORE]
    assert (place.get()["status"]["stableRS"], place.weights) == (before, (100, 0))
    assert place.controller.observe(BACK).odd == ()


@pytest.mark.parametrize(("wanted", "state"), [(SHADOW, State.SHADOW), (CANARY, State.CANARY)])
def test_an_abort_by_hand_there_stops_the_rollout_here(place: Place, wanted: Wanted, state: State) -> None:
    place.brought(IDLE, State.SETTLED)
    place.brought(wanted, state)
    place.patch({"status": {"abort": True}}, "rollout", "--subresource=status")
    seen = place.sees(wanted, State.ABORTED)
    assert "aborted" in next_step(wanted, seen).stopped.lower()
    assert acts(place.brought(BACK, State.SETTLED)) == [Act.RESTORE]


def test_what_argo_measures_and_finds_bad_is_aborted_by_itself(argo: Argo) -> None:
    place = argo.place(MODEL, analysis=asking("vector(0.9)"))
    place.brought(IDLE, State.SETTLED)
    place.brought(SHADOW, State.SHADOW)
    assert place.analyses() == [], "it measures from the canary on"
    place.controller.do(Act.PROMOTE, CANARY, place.controller.observe(CANARY))
    seen = place.sees(CANARY, State.ABORTED)
    assert "errors" in next_step(CANARY, seen).stopped
    assert ([one["phase"] for one in place.analyses()], place.weights) == (["Failed"], (100, 0))
    assert acts(place.brought(BACK, State.SETTLED)) == [Act.RESTORE]


@pytest.mark.parametrize("query", ["vector(0) / vector(0)", "vector(0) > 1", "nonsense("], ids=["NaN", "none", "error"])
def test_what_argo_cannot_tell_aborts_nothing_and_passes_nothing(argo: Argo, query: str) -> None:
    place = argo.place(MODEL, analysis=asking(query))
    place.brought(IDLE, State.SETTLED)
    place.brought(CANARY, State.CANARY)

    def measured() -> int:
        (run,) = place.analyses()
        (metric,) = run.get("metricResults") or [{}]
        assert not metric.get("successful")
        assert not metric.get("failed")
        return int(metric.get("inconclusive", 0)) + int(metric.get("error", 0))

    place.until("6 measurements", lambda: measured() >= 6)
    seen = place.controller.observe(CANARY)
    assert (seen.state, seen.share, seen.odd, next_step(CANARY, seen)) == (State.CANARY, 10, (), Step())
    place.brought(FULL, State.SETTLED)


def test_a_good_measure_lets_the_canary_wait_for_us(argo: Argo) -> None:
    place = argo.place(MODEL, analysis=asking("vector(0)"))
    place.brought(IDLE, State.SETTLED)
    place.brought(CANARY, State.CANARY)
    place.until("4 measurements", lambda: place.analyses()[0]["metricResults"][0].get("successful", 0) >= 4)
    assert place.controller.observe(CANARY).state is State.CANARY
    place.brought(FULL, State.SETTLED)
    place.until("end of the analysis", lambda: place.analyses()[0]["phase"] == "Successful")


def test_a_controller_that_is_killed_in_any_phase_goes_on_from_where_the_store_is(
    place: Place, rollouts_controller: Server
) -> None:
    at = place.controller
    place.brought(IDLE, State.SETTLED)
    for wanted, state, act in (
        (SHADOW, State.SHADOW, Act.BEGIN),
        (CANARY, State.CANARY, Act.PROMOTE),
        (BACK, State.SETTLED, Act.ABORT),
        (SHADOW, State.SHADOW, Act.BEGIN),
        (CANARY, State.CANARY, Act.PROMOTE),
        (FULL, State.SETTLED, Act.COMPLETE),
    ):
        rollouts_controller.kill()
        seen = at.observe(wanted)
        assert next_step(wanted, seen) == Step(act)
        at.do(act, wanted, seen)
        assert next_step(wanted, at.observe(wanted)) == Step(), "told once, and nobody heard it yet"
        rollouts_controller.start()
        assert [step for step in place.brought(wanted, state) if step.differs or step.stopped] == []
    assert (at.observe(FULL).stable, place.weights) == (NEW.digest, (100, 0))


def test_pods_that_never_come_up_are_aborted_by_argo_in_time(argo: Argo) -> None:
    """Their image is nowhere."""
    pod = {"containers": [{**WAITS, "image": "{version}"}], "terminationGracePeriodSeconds": 1}
    place = argo.place(MODEL, pod=pod, ready_seconds=20)
    old, new = replace(OLD, version=PAUSE), Served("sha256:none", "localhost/none:1", "contract_model-v2")
    idle = replace(IDLE, champion=old)
    place.brought(idle, State.SETTLED)
    shadow = replace(SHADOW, champion=old, candidate=new)
    place.controller.do(Act.BEGIN, shadow, place.controller.observe(shadow))
    seen = place.sees(shadow, State.ABORTED)
    assert "progress" in next_step(shadow, seen).stopped.lower()
    assert acts(place.brought(replace(BACK, champion=old), State.SETTLED)) == [Act.RESTORE]


def test_a_change_that_came_in_between_is_looked_at_first(place: Place) -> None:
    place.brought(IDLE, State.SETTLED)
    seen = place.controller.observe(SHADOW)
    place.patch({"metadata": {"labels": {"by": "somebody"}}})
    with pytest.raises(ConflictError, match="moved on since"):
        place.controller.do(Act.BEGIN, SHADOW, seen)
    place.brought(CANARY, State.CANARY)
    seen = place.controller.observe(BACK)
    place.patch({"spec": {"replicas": 2}})
    with pytest.raises(ConflictError, match="moved on since"):
        place.controller.do(Act.ABORT, BACK, seen)
    assert place.get()["status"].get("abort") is not True
    assert acts(place.brought(BACK, State.SETTLED)) == [Act.ABORT, Act.RESTORE]
    assert place.get()["spec"]["replicas"] == 2, "an autoscaler may have them"


def test_buckets_and_several_pods(argo: Argo) -> None:
    place = argo.place(MODEL, sticky_header="x-bucket", tls="ISTIO_MUTUAL", replicas=2)
    place.brought(IDLE, State.SETTLED)
    place.brought(CANARY, State.CANARY)
    (sticky,) = (route for route in place.routes if route["name"] == "sticky")
    assert sticky["match"] == [{"headers": {"x-bucket": {"regex": "|".join(f"0{number}" for number in range(10))}}}]
    seen = place.controller.observe(CANARY)
    assert (seen.share, seen.odd, place.weights) == (10, (), (100, 0))
    assert place.get()["status"]["availableReplicas"] >= 2
    rule = place.get("destinationrules", "networking.istio.io/v1", f"{place.name}-canary")["spec"]
    assert rule["trafficPolicy"]["tls"] == {"mode": "ISTIO_MUTUAL"}
    assert acts(place.brought(BACK, State.SETTLED)) == [Act.ABORT, Act.RESTORE]
    assert [route["name"] for route in place.routes] == ["primary"]


def test_an_api_server_that_hangs_is_waited_for_once_and_left_alone(argo: Argo) -> None:
    place = argo.place(MODEL)
    place.brought(IDLE, State.SETTLED)
    hasty = argo.at(place.namespace, MODEL, timeout_seconds=2).controller
    argo.cluster.server.freeze(True)
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            hasty.observe(IDLE)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            hasty.observe(IDLE)
        assert time.monotonic() - began < 2, "it is not asked"
    finally:
        argo.cluster.server.freeze(False)
    place.sees(IDLE, State.SETTLED)


def test_an_istiod_that_waits_for_quiet_too_long_is_told(argo: Argo) -> None:
    argo.cluster.namespace("istio-system")
    place = argo.place(MODEL, istiod="istio-system/istiod")
    place.brought(IDLE, State.SETTLED)
    assert "cannot be seen: istiod istio-system/istiod: Kubernetes answers 403" in place.controller.observe(IDLE).odd[0]
    argo.lets("istio-system", [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}])
    assert "is not there" in place.controller.observe(IDLE).odd[0]
    argo.cluster.apply(istiod([]))
    assert "is 10 s, more than 1" in place.controller.observe(IDLE).odd[0]
    argo.cluster.apply(istiod([{"name": "PILOT_DEBOUNCE_MAX", "value": "1s"}]))
    assert place.controller.observe(IDLE).odd == ()


# the whole loop over it


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A model that is trained and answers."""
    made = World(tmp_path, recorded=False)
    yield made
    made.store.close()


def test_the_loop_ships_a_version_through_argo_and_takes_it_back(world: World, argo: Argo) -> None:
    place, before = steered(world, argo)
    new = ship(world, place, Phase.FULL)
    seen = place.controller.observe(world.loop.steering.wanted())  # type: ignore[arg-type]
    assert (seen.newest.digest, seen.stable, seen.odd) == (new, new, ())
    operating.roll_back(world.loop, "ada", "complaints")
    is_back(world, place, before, "ada")
    assert told(world, "controller") == []


def test_a_verdict_of_ours_ends_a_canary_of_argos(world: World, argo: Argo) -> None:
    place, before = steered(world, argo)
    ship(world, place, Phase.CANARY)
    tick(world, place, State.CANARY)
    assert place.weights == (90, 10)
    for _ in range(5):
        world.day("turned")
        world.loop.advance()
        if phase(world) is Phase.ROLLED_BACK:
            break
    is_back(world, place, before, "loop")
    assert told(world, "controller") == []


def test_what_argo_measures_ends_the_rollout_here_at_the_next_tick(world: World, argo: Argo) -> None:
    place, before = steered(world, argo, analysis=asking("vector(0.9)"))
    ship(world, place, Phase.CANARY)
    place.until("abort by Argo", lambda: place.get()["status"].get("abort") is True)
    place.until("end of the canary's share", lambda: place.weights == (100, 0))
    assert phase(world) is Phase.CANARY
    assert world.loop.advance() is not None
    is_back(world, place, before, "argo")
    assert "errors" in world.loop.rollouts.status.reason  # type: ignore[union-attr]


def test_an_api_server_that_is_gone_holds_no_rollback_here(world: World, argo: Argo) -> None:
    place, before = steered(world, argo)
    ship(world, place, Phase.CANARY)
    tick(world, place, State.CANARY)
    server = argo.cluster.server
    server.kill()
    operating.roll_back(world.loop, "ada", "complaints")
    assert (phase(world), told(world, "controller")) == (Phase.ROLLED_BACK, [SILENT])
    server.start()
    is_back(world, place, before, "ada")
    assert told(world, "controller") == [SILENT]


def test_who_promotes_past_our_approvals_is_aborted_and_rolled_back(world: World, argo: Argo) -> None:
    place, before = steered(world, argo)
    ship(world, place, Phase.AWAITING_APPROVAL)
    place.patch({"status": {"pauseConditions": None}}, "rollout", "--subresource=status")
    place.until("share of the canary", lambda: place.weights == (90, 10))
    world.loop.advance()
    is_back(world, place, before, "argo")
    assert "nobody approved here" in world.loop.rollouts.status.reason  # type: ignore[union-attr]


def test_what_a_stranger_changes_is_told_and_what_he_deletes_is_made_again(world: World, argo: Argo) -> None:
    place, before = steered(world, argo)
    ship(world, place, Phase.CANARY)
    tick(world, place, State.CANARY)
    place.patch({"spec": {"strategy": {"canary": {"abortScaleDownDelaySeconds": 30}}}})
    tick(world, place, State.CANARY)
    assert told(world, "controller") == [DIFFERS]
    world.clock.advance_to(world.clock.now() + HOUR)
    image = {"name": WAITS["name"], "image": "localhost/somebodys:1"}
    place.patch({"spec": {"template": {"spec": {"containers": [image]}}}})
    place.until(
        "Argo's look at other pods",
        lambda: place.controller.observe(replace(IDLE, model=world.spec.name)).newest.version == "another v2",
    )
    tick(world, place, State.CANARY)
    assert told(world, "controller") == [DIFFERS, DIFFERS]
    assert place.get()["spec"]["template"]["spec"]["containers"][0]["image"] == WAITS["image"]
    argo.cluster.kubectl("delete", "rollout,virtualservice", place.name, "-n", place.namespace)
    tick(world, place, State.CANARY)
    assert (place.weights, place.controller.observe(world.loop.steering.wanted()).odd) == ((90, 10), ())  # type: ignore[arg-type]
    operating.roll_back(world.loop, "ada", "complaints")
    is_back(world, place, before, "ada")
