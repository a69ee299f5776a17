"""What a controller is told next, and what Argo Rollouts and Istio are given, which is what it has to be."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from drift_pipeline.cli import drift
from drift_pipeline.errors import InputError
from drift_pipeline.rollout import controllers
from drift_pipeline.rollout.controllers import Act, Seen, Served, State, Wanted, controller_of, istio, manifests
from drift_pipeline.rollout.controllers.argo import seen_of
from drift_pipeline.rollout.controllers.declared import Routing, read_routing
from drift_pipeline.rollout.controllers.reconciling import next_step
from drift_pipeline.rollout.controllers.rendering import name_of, rendered, strategy
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.settings import Settings

POD = {"containers": [{"name": "server", "image": "reco:1", "args": ["--digest", "{digest}", "--json", "{}"]}]}
ROUTING = Routing(pod=POD, hosts=("{model}.example.com",), gateways=("edge",), analysis={"prometheus": "http://p:9090"})  # type: ignore[arg-type]
OLD, NEW = Served("sha256:old", "v1"), Served("sha256:new", "v2", "fraud-v2")
IDLE = Wanted("fraud", OLD, None, None, "", 10)
SHADOW = replace(IDLE, candidate=NEW, phase=Phase.SHADOW, rollout_id="fraud-v2")
WAITS, CANARY = replace(SHADOW, phase=Phase.AWAITING_APPROVAL), replace(SHADOW, phase=Phase.CANARY)
FULL = replace(IDLE, champion=NEW, phase=Phase.FULL, rollout_id="fraud-v2")
BACK = replace(IDLE, phase=Phase.ROLLED_BACK, rollout_id="fraud-v2")

SETTLED = Seen(State.SETTLED, OLD, OLD.digest)
IN_SHADOW = Seen(State.SHADOW, NEW, OLD.digest)
IN_CANARY = Seen(State.CANARY, NEW, OLD.digest, share=10)
MOVING = Seen(State.MOVING, NEW, OLD.digest)
ABORTED = Seen(State.ABORTED, NEW, OLD.digest, asked=Act.ABORT, reason="Metric errors assessed Failed")


@pytest.mark.parametrize(
    ("wanted", "seen", "act"),
    [
        (IDLE, Seen(State.ABSENT), Act.CREATE),
        (CANARY, Seen(State.ABSENT), Act.CREATE),
        (IDLE, SETTLED, None),
        (SHADOW, SETTLED, Act.BEGIN),
        (CANARY, SETTLED, Act.BEGIN),  # somebody deleted it there
        (SHADOW, MOVING, None),
        (SHADOW, IN_SHADOW, None),
        (WAITS, IN_SHADOW, None),
        (CANARY, IN_SHADOW, Act.PROMOTE),
        (CANARY, IN_CANARY, None),
        (FULL, IN_CANARY, Act.COMPLETE),
        (FULL, IN_SHADOW, Act.COMPLETE),  # it was silent all through the canary
        (FULL, replace(IN_CANARY, state=State.MOVING, asked=Act.COMPLETE), None),
        (FULL, Seen(State.SETTLED, NEW, NEW.digest), None),
        (BACK, IN_CANARY, Act.ABORT),
        (BACK, MOVING, Act.ABORT),
        (BACK, replace(MOVING, asked=Act.ABORT), None),
        (BACK, ABORTED, Act.RESTORE),
        (BACK, Seen(State.SETTLED, NEW, NEW.digest), Act.RESTORE),  # back from the champion that it had become
        (BACK, Seen(State.MOVING, OLD, NEW.digest), Act.COMPLETE),
        (BACK, SETTLED, None),
        (replace(SHADOW, candidate=Served("sha256:3", "v3", "fraud-v3"), rollout_id="fraud-v3"), ABORTED, Act.RESTORE),
    ],
)
def test_it_is_brought_to_where_the_control_store_says_and_then_left_alone(
    wanted: Wanted, seen: Seen, act: Act | None
) -> None:
    step = next_step(wanted, seen)
    assert (step.act, step.stopped, step.differs) == (act, "", "")


@pytest.mark.parametrize(
    ("wanted", "seen", "why"),
    [
        (SHADOW, ABORTED, "Metric errors assessed Failed"),
        (CANARY, ABORTED, "Metric errors assessed Failed"),
        (FULL, ABORTED, "Metric errors assessed Failed"),
        (WAITS, IN_CANARY, "it was sent 10 % of the traffic there in awaiting_approval, which nobody approved here"),
        (SHADOW, replace(MOVING, share=3), "it was sent 3 %"),
        (CANARY, Seen(State.SETTLED, NEW, NEW.digest), "it was sent 100 %"),
        (CANARY, replace(IN_CANARY, state=State.MOVING, asked=Act.COMPLETE), "it was sent 100 %"),
    ],
)
def test_what_it_did_of_its_own_ends_the_rollout_here(wanted: Wanted, seen: Seen, why: str) -> None:
    step = next_step(wanted, seen)
    assert (step.act, why in step.stopped) == (None, True), step


@pytest.mark.parametrize(
    ("wanted", "seen", "act", "told"),
    [
        (CANARY, replace(IN_CANARY, share=50), None, "is sent 50 % of the traffic, not 10"),
        (IDLE, IN_CANARY, Act.ABORT, "v2 is rolled out there, which the control store knows nothing of"),
        (IDLE, Seen(State.SETTLED, NEW, NEW.digest), Act.RESTORE, "v2 is rolled out there"),
        (IDLE, Seen(State.SETTLED, Served("", ""), ""), Act.RESTORE, "a version without a digest"),
        (IDLE, Seen(State.ABORTED, OLD, NEW.digest), Act.COMPLETE, "v1, which is to answer, was aborted there"),
    ],
)
def test_drift_between_both_is_told(wanted: Wanted, seen: Seen, act: Act | None, told: str) -> None:
    step = next_step(wanted, seen)
    assert (step.act, step.stopped, told in step.differs) == (act, "", True), step


def test_the_same_version_rolled_out_again_is_not_stopped_by_its_last_abort() -> None:
    again = replace(SHADOW, candidate=replace(NEW, rollout_id="fraud-v2.2"), rollout_id="fraud-v2.2")
    assert next_step(again, ABORTED).act is Act.RESTORE
    assert not next_step(again, ABORTED).stopped


# what is rendered


def by_kind(routing: Routing = ROUTING, wanted: Wanted = IDLE) -> dict[str, dict[str, Any]]:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in rendered(routing, wanted)}


def test_the_same_model_gives_the_same_objects() -> None:
    assert rendered(ROUTING, IDLE) == rendered(ROUTING, IDLE)
    assert list(by_kind()) == [
        "Service/drift-fraud-stable",
        "Service/drift-fraud-canary",
        "VirtualService/drift-fraud",
        "AnalysisTemplate/drift-fraud",
        "Rollout/drift-fraud",
    ]


def test_a_rollout_mirrors_waits_sends_the_share_and_waits_and_carries_the_cure_of_late_traffic() -> None:
    spec = by_kind()["Rollout/drift-fraud"]["spec"]
    canary = spec["strategy"]["canary"]
    assert [next(iter(step)) for step in canary["steps"]] == [
        "setCanaryScale",
        "setMirrorRoute",
        "pause",
        "setMirrorRoute",
        "setWeight",
        "pause",
    ]
    assert canary["steps"][1]["setMirrorRoute"]["match"] == [{"path": {"prefix": "/"}}]
    assert canary["steps"][3]["setMirrorRoute"] == {"name": "shadow"}, "without a match it is taken away"
    assert canary["steps"][4] == {"setWeight": 10}
    assert canary["abortScaleDownDelaySeconds"] == 1
    assert canary["trafficRouting"]["managedRoutes"] == [{"name": "shadow"}]
    assert canary["steps"][canary["analysis"]["startingStep"]] == {"pause": {}}
    assert spec["progressDeadlineAbort"] is True


def test_a_versions_pods_are_told_apart_and_other_braces_stay() -> None:
    template = by_kind(wanted=replace(IDLE, champion=NEW))["Rollout/drift-fraud"]["spec"]["template"]
    assert template["spec"]["containers"][0]["args"] == ["--digest", "sha256:new", "--json", "{}"]
    noted = {"drift/digest": "sha256:new", "drift/version": "v2", "drift/rollout": "fraud-v2"}
    assert template["metadata"]["annotations"] == noted


def test_the_readmes_file_can_be_used_and_its_pods_are_pinned_by_words_that_serve_takes(tmp_path: Path) -> None:
    readme = Path(controllers.__file__).with_name("README.md").read_text(encoding="utf-8")
    (file,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "routing.yaml").write_text(file, encoding="utf-8")
    made = rendered(read_routing(tmp_path / "routing.yaml"), IDLE)
    (pod,) = (one["spec"]["template"]["spec"] for one in made if one["kind"] == "Rollout")
    word, *words = pod["containers"][0]["args"]
    command = drift.get_command(click.Context(drift), word)
    assert command is not None
    command.parse_args(context := click.Context(command), words)
    assert context.params["pin"] == ("fraud", OLD.digest)


def test_labels_of_the_file_are_the_pods_and_not_what_tells_them_apart() -> None:
    routing = ROUTING.model_copy(update={"labels": {"team": "ml", "drift/routed": "another"}})
    (made,) = (one for one in rendered(routing, IDLE) if one["kind"] == "Rollout")
    assert made["spec"]["template"]["metadata"]["labels"] == {"team": "ml", "drift/routed": "drift-fraud"}
    assert made["spec"]["selector"]["matchLabels"] == {"drift/routed": "drift-fraud"}


def test_nan_and_too_few_samples_are_neither_success_nor_failure() -> None:
    for metric in by_kind()["AnalysisTemplate/drift-fraud"]["spec"]["metrics"]:
        conditions = metric["successCondition"], metric["failureCondition"]
        for result, said in (([], []), ([float("nan")], []), ([0.001], [0]), ([1e6], [1]), ([0.001, 1e6], [])):
            met = [number for number, text in enumerate(conditions) if holds(text, result)]
            assert met == said, (metric["name"], result)
        assert metric["failureLimit"] == 0
        assert min(metric["inconclusiveLimit"], metric["consecutiveErrorLimit"]) > 86400
        query = metric["provider"]["prometheus"]["query"]
        assert 'destination_service_name="drift-fraud-canary",destination_service_namespace="drift"' in query
        assert ">= 50" in query


def holds(condition: str, result: list[float]) -> bool:
    """These conditions mean in Python what they mean in Argo's language."""
    return bool(eval(condition.replace("&&", "and"), {"len": len, "result": result}))


def test_a_canary_by_buckets_is_sent_nobody_else_and_a_bucket_goes_to_one_pod() -> None:
    sticky = ROUTING.model_copy(update={"sticky_header": "x-bucket", "tls": "ISTIO_MUTUAL"})
    canary = strategy(sticky, IDLE)
    (match,) = canary["steps"][4]["setHeaderRoute"]["match"]
    regex = "|".join(f"0{number}" for number in range(10))
    assert match == {"headerName": "x-bucket", "headerValue": {"regex": regex}}
    assert canary["trafficRouting"]["managedRoutes"] == [{"name": "shadow"}, {"name": "sticky"}]
    made = by_kind(sticky)
    for of in ("stable", "canary"):
        policy = made[f"DestinationRule/drift-fraud-{of}"]["spec"]["trafficPolicy"]
        assert policy["loadBalancer"] == {"consistentHash": {"httpHeaderName": "x-bucket"}}
        assert policy["tls"] == {"mode": "ISTIO_MUTUAL"}
    virtual = made["VirtualService/drift-fraud"]
    assert istio.share_of(virtual, istio.host_of("drift-fraud", "drift", "canary"), "x-bucket") == 0
    virtual["spec"]["http"].insert(0, {"name": "sticky", "match": [{"headers": {"x-bucket": {"regex": regex}}}]})
    assert istio.share_of(virtual, istio.host_of("drift-fraud", "drift", "canary"), "x-bucket") == 10


def test_a_path_keeps_models_of_one_host_apart_in_the_mirror_too() -> None:
    shared = ROUTING.model_copy(update={"hosts": ("api.example.com",), "path": "/v2/models/{model}/"})
    (route,) = by_kind(shared)["VirtualService/drift-fraud"]["spec"]["http"]
    assert route["match"] == [{"uri": {"prefix": "/v2/models/fraud/"}}]
    mirrored = strategy(shared, IDLE)["steps"][1]["setMirrorRoute"]
    assert mirrored["match"] == [{"path": {"prefix": "/v2/models/fraud/"}}]


def virtual(http: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    made = {"hosts": ["a"], "gateways": ["g"], "http": http, **spec}
    return {"metadata": {"name": "a"}, "spec": made}


def to(*weights: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"name": "primary", "route": [{"destination": {"host": f"h{w}"}, "weight": w} for w in weights], **more},
    ]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (virtual(to(90, 20)), "sum to 110, not 100"),
        (virtual(to(0, 0)), "sum to 0, not 100"),
        (virtual(to(-1, 101)), "whole numbers from 0 to 100"),
        (virtual(to(True, 99)), "whole numbers from 0 to 100"),
        (virtual(to(99.5, 0.5)), "whole numbers from 0 to 100"),
        (virtual(to(100), hosts=[]), "hosts names none"),
        (virtual(to(100), gateways=[]), "gateways names none"),
        (virtual([]), "no route 'primary'"),
        (virtual([{"name": "primary", "route": []}]), "it leads nowhere"),
        (virtual([{"name": "primary", "route": [{"destination": {}}]}]), "a destination has no host"),
        (virtual(to(100, mirror={"host": "c"}, mirrorPercentage={"value": 150})), "it mirrors [150] %"),
        (virtual(to(100, mirror={"host": "c"}, mirrors=[{"percentage": {"value": 5}}])), "mirror and mirrors"),
        (virtual(to(100, mirrors=[{"percentage": {"value": -5}}])), "it mirrors [-5] %"),
        (virtual([*to(100), {"name": "shadow", "route": [{"destination": {"host": "h"}, "weight": 10}]}]), "sum to 10"),
    ],
)
def test_a_route_that_istio_would_take_and_that_would_not_do_is_refused(made: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        istio.check(made)
    assert told in str(refused.value)


def test_a_route_as_argo_writes_it_is_taken() -> None:
    shadow = {"name": "shadow", "route": to(100, 0)[0]["route"], "mirror": {"host": "c"}}
    istio.check(virtual([{**shadow, "mirrorPercentage": {"value": 100}}, *to(90, 10)]))


@pytest.mark.parametrize(
    ("routes", "share"),
    [
        (to(90, 10), 10),
        ([{"name": "shadow", "route": to(60, 40)[0]["route"]}, *to(100, 0)], 40),
        ([{"name": "somebodys", "route": [{"destination": {"host": "canary"}}]}, *to(100, 0)], 100),
        ([{"name": "sticky", "match": [{"headers": {"x-b": {"regex": "00|01"}}}]}, *to(100, 0)], 2),
        ([{"name": "sticky", "match": [{"headers": {"x-b": {"regex": "("}}}]}, *to(100, 0)], 100),
        ([{"name": "sticky", "match": [{"headers": {"x-c": {"exact": "1"}}}]}, *to(100, 0)], 100),
        ([], 0),
    ],
)
def test_the_share_is_that_of_the_route_that_sends_the_canary_most(routes: list[dict[str, Any]], share: int) -> None:
    for route in routes:  # of two destinations the second one is the canary
        for one in route.get("route", [])[1:]:
            one["destination"]["host"] = "canary"
    assert istio.share_of(virtual(routes), "canary", "x-b") == share


@pytest.mark.parametrize("host", ["c", "c.ns", "c.ns.svc", "c.ns.svc.cluster.local"])
def test_a_service_is_the_same_one_by_each_of_its_names(host: str) -> None:
    """Argo's own routes have the short one."""
    route = {"name": "somebodys", "route": [{"destination": {"host": host}}]}
    assert istio.share_of(virtual([route, *to(100, 0)]), "c.ns.svc.cluster.local", "") == 100


@pytest.mark.parametrize("model", ["fraud", "a__b", "a_", "x" * 60, "x" * 60 + "y"])
def test_objects_have_names_that_kubernetes_takes_and_no_other_model_has(model: str) -> None:
    name = name_of(model)
    assert len(f"{name}-stable") <= 63
    assert Routing(pod=POD, hosts=("{model}",), namespace=name).namespace == name
    assert name not in {name_of(other) for other in ("a_b", "a", "x" * 59, "xx")}


# how a Rollout stands, by statuses as Argo Rollouts 1.10.1 wrote them


def live(**status: Any) -> dict[str, Any]:
    made = by_kind(wanted=replace(IDLE, champion=NEW))["Rollout/drift-fraud"]
    made["metadata"] |= {"generation": 3, "resourceVersion": "77"}
    status = {"observedGeneration": "3", "currentPodHash": "n", "stableRS": "o", "phase": "Paused", **status}
    return {**made, "status": status}


PAUSED = [{"reason": "CanaryPauseStep", "startTime": "2026-11-28T10:00:00Z"}]


@pytest.mark.parametrize(
    ("status", "share", "state", "asked"),
    [
        ({"currentStepIndex": 2, "pauseConditions": PAUSED}, 0, State.SHADOW, None),
        ({"currentStepIndex": 5, "pauseConditions": PAUSED}, 10, State.CANARY, None),
        ({"currentStepIndex": 3, "phase": "Progressing"}, 0, State.MOVING, None),
        ({"currentStepIndex": 2, "pauseConditions": PAUSED, "observedGeneration": "2"}, 0, State.MOVING, None),
        ({"stableRS": "n", "phase": "Healthy"}, 0, State.SETTLED, None),
        ({"stableRS": "n", "phase": "Progressing"}, 0, State.MOVING, None),
        ({"abort": True, "phase": "Degraded", "message": "RolloutAborted: bad"}, 0, State.ABORTED, Act.ABORT),
        ({"abort": True, "phase": "Degraded"}, 10, State.MOVING, Act.ABORT),
        ({"abort": True, "phase": "Progressing"}, 0, State.MOVING, Act.ABORT),
        ({"promoteFull": True, "phase": "Progressing"}, 10, State.MOVING, Act.COMPLETE),
    ],
)
def test_a_rollout_stands_as_its_status_says(
    status: dict[str, Any], share: int, state: State, asked: Act | None
) -> None:
    seen = seen_of(live(**status), NEW, OLD.digest, share)
    assert (seen.state, seen.asked, seen.newest, seen.stable) == (state, asked, NEW, OLD.digest)
    assert (seen.share, seen.revision, seen.reason) == (share, "77", status.get("message", ""))


def test_a_rollout_that_nobody_has_read_yet_or_that_is_not_ours_is_on_its_way() -> None:
    fresh = {"metadata": {"generation": 1}, "spec": {"template": {}}}
    assert seen_of(fresh, Served("", ""), "", 0) == Seen(State.MOVING)


# the file and the settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hosts: ['{model}']", "pod: required, and missing"),
        ("pod: {containers: []}\nhosts: ['{model}']", "pod: wants containers"),
        ("pod: {containers: [{image: i}]}\nhosts: ['{model}']", "names {digest} nowhere"),
        ("pod: {containers: [{image: '{digest}'}]}\nhosts: [a.example.com]", "two models would share one route"),
        (
            "pod: {containers: [{image: '{digest}'}]}\nhosts: [a]\npath: '/{model}'\nsticky_header: x-b",
            "sticky_header: wants {model} in each of hosts",
        ),
        ("pod: {containers: [{image: '{digest}'}]}\nhosts: ['{model}']\nreplica: 2", "did you mean 'replicas'"),
        ("pod: {containers: [{image: '{digest}'}]}\nhosts: ['{model}']\nanalysis: {prometheus: p}", "prometheus"),
        ("pod: {containers: [{image: '{digest}'}]}\nhosts: []", "hosts"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "routing.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_routing(path)
    assert (str(path) in str(refused.value), told in str(refused.value)) == (True, True), refused.value


def test_argo_wants_a_file_and_the_gateway_none(tmp_path: Path) -> None:
    assert controller_of(Settings()) is None
    with pytest.raises(InputError, match="DRIFT_CONTROLLER_FILE: is not set"):
        controller_of(Settings(controller="argo"))
    path = tmp_path / "routing.yaml"
    path.write_text("pod: {containers: [{image: '{digest}'}]}\nhosts: ['{model}']")
    settings = Settings(controller="argo", controller_file=path)
    made = controller_of(settings)
    assert made is not None
    assert made.kind == "argo"
    text = manifests(settings, IDLE)
    assert text == manifests(settings, IDLE)
    assert [one["kind"] for one in yaml.safe_load_all(text)] == ["Service", "Service", "VirtualService", "Rollout"]
