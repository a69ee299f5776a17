"""What the runners write: manifests that Kubernetes' and Argo's own models take whole, and steps that `drift` takes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from drift_pipeline.cli import drift
from drift_pipeline.errors import InputError, NothingToDoError
from drift_pipeline.settings import Settings
from drift_pipeline.training.runners import STEPS, Request, State, argo, kubernetes, manifests, outside
from drift_pipeline.training.runners.declared import Place, read_place
from drift_pipeline_tests.training.worlds import spec

client = pytest.importorskip("kubernetes.client", reason="kubernetes is not installed: extra kubernetes")
argo_models = pytest.importorskip("hera.workflows.models", reason="hera is not installed: extra argo")

PLACE = Place(
    image="registry.example.com/drift:1",
    search_workers=3,
    config_maps=("drift-env",),
    secrets=("drift-secrets",),
    volumes=({"name": "home", "mount": "/home/drift", "source": {"persistentVolumeClaim": {"claimName": "home"}}},),  # type: ignore[arg-type]
    nodes={"spot": {"node_selector": {"pool": "spot"}, "tolerations": [{"key": "spot", "operator": "Exists"}]}},  # type: ignore[dict-item]
)
NORMAL = Request("fraud", "fraud-7", gpus=2)
HOTFIX = Request("fraud", "fraud-8", lane="hotfix")


@pytest.mark.parametrize("request_", [NORMAL, HOTFIX], ids=["normal", "hotfix"])
def test_a_job_is_one_that_the_clients_models_know_whole(request_: Request) -> None:
    job = kubernetes.job_of(PLACE, request_)
    api = client.ApiClient()
    made = api._ApiClient__deserialize(json.loads(json.dumps(job)), "V1Job")
    assert api.sanitize_for_serialization(made) == job


def test_a_job_takes_the_steps_in_order_once_and_gives_up_on_a_definite_no_alone() -> None:
    job = kubernetes.job_of(PLACE, NORMAL)
    pod = job["spec"]["template"]["spec"]
    made = [*pod["initContainers"], *pod["containers"]]
    assert [one["args"] for one in made] == [["train", step, "fraud", "--decision", "fraud-7"] for step in STEPS]
    assert [PLACE.gpu in one["resources"]["limits"] for one in made] == [False, True, True, False, False]
    assert job["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}},
    ]
    assert (pod["restartPolicy"], pod["nodeSelector"], pod["priorityClassName"]) == (
        "Never",
        {"pool": "spot"},
        "drift-retrain",
    )


def test_a_hotfix_has_a_priority_class_a_deadline_and_no_spot_node() -> None:
    job = kubernetes.job_of(PLACE, HOTFIX)["spec"]
    assert (job["template"]["spec"]["priorityClassName"], job["activeDeadlineSeconds"]) == ("drift-hotfix", 7200)
    assert "nodeSelector" not in job["template"]["spec"]


def test_a_step_cannot_write_or_become_more_than_it_is() -> None:
    pod = kubernetes.job_of(PLACE, NORMAL)["spec"]["template"]["spec"]
    ids = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 10001)
    assert pod["securityContext"] == {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}
    for one in (*pod["initContainers"], *pod["containers"]):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert [mount["mountPath"] for mount in one["volumeMounts"]] == ["/tmp", "/home/drift"]


def test_a_step_submits_nothing_and_the_calendar_does() -> None:
    pod = kubernetes.job_of(PLACE, NORMAL)["spec"]["template"]["spec"]
    inline = [{"name": "DRIFT_RUNNER", "value": "inline"}]
    assert [one["env"] for one in (*pod["initContainers"], *pod["containers"])] == [inline] * len(STEPS)
    (tick,) = argo.calendar(PLACE, spec()).to_dict()["spec"]["workflowSpec"]["templates"]
    assert "env" not in tick["container"]


# argo


@pytest.mark.parametrize("lane", argo.LANES)
def test_a_template_is_one_that_argos_models_know_whole(lane: str) -> None:
    document = argo.template(PLACE, lane).to_dict()
    made = argo_models.WorkflowTemplate.model_validate(document)
    assert json.loads(made.model_dump_json(by_alias=True, exclude_none=True)) == document


def test_the_steps_of_a_template_follow_one_another_and_trials_are_searched_at_once() -> None:
    document = argo.template(PLACE, "normal").to_dict()["spec"]
    by_name = {one["name"]: one for one in document["templates"]}
    tasks = by_name["main"]["dag"]["tasks"]
    assert [(task["name"], task.get("depends"), task["template"]) for task in tasks] == [
        ("pin", None, "pin"),
        ("search", "pin", "search"),
        ("fit", "search", "fit"),
        ("gates", "fit", "prove"),
        ("register", "gates", "register"),
    ]
    assert tasks[1]["withSequence"] == {"count": "3"}
    assert by_name["search"]["container"]["args"][-2:] == ["--worker", "{{inputs.parameters.worker}}"]
    for name in ("search", "fit"):
        patch = json.loads(by_name[name]["podSpecPatch"].replace("{{workflow.parameters.gpus}}", "2"))
        assert patch["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert {one["retryStrategy"]["expression"] for one in document["templates"] if "container" in one} == {
        "asInt(lastRetry.exitCode) not in [1, 2]"
    }


def test_a_hotfix_waits_for_no_retrain_and_no_model_trains_twice_at_once() -> None:
    normal, hotfix = (argo.template(PLACE, lane).to_dict()["spec"] for lane in argo.LANES)
    locks = [one["synchronization"]["mutexes"][0]["name"] for one in (normal, hotfix)]
    assert locks == ["drift-retrain-{{workflow.parameters.model}}", "drift-hotfix-{{workflow.parameters.model}}"]
    assert [one["podPriorityClassName"] for one in (normal, hotfix)] == ["drift-retrain", "drift-hotfix"]
    assert normal["priority"] < hotfix["priority"]
    assert [one["activeDeadlineSeconds"] for one in (normal, hotfix)] == [6 * 3600, 2 * 3600]


@pytest.mark.parametrize("request_", [NORMAL, HOTFIX], ids=["normal", "hotfix"])
def test_a_workflow_names_its_template_its_decision_and_its_nodes(request_: Request) -> None:
    document = argo.workflow(PLACE, request_).to_dict()
    made = argo_models.Workflow.model_validate(document)
    assert json.loads(made.model_dump_json(by_alias=True, exclude_none=True)) == document
    given = {one["name"]: one["value"] for one in document["spec"]["arguments"]["parameters"]}
    assert given == {"model": "fraud", "decision": request_.decision, "gpus": str(request_.gpus)}
    assert document["spec"]["workflowTemplateRef"]["name"] == argo.template_name(request_.lane)
    assert document["spec"].get("nodeSelector") == ({"pool": "spot"} if request_ is NORMAL else None)


def test_the_calendar_is_the_specs_in_utc_and_never_two_at_once() -> None:
    of = spec()
    document = argo.calendar(PLACE, of).to_dict()
    made = argo_models.CronWorkflow.model_validate(document)
    assert json.loads(made.model_dump_json(by_alias=True, exclude_none=True)) == document
    said = document["spec"]
    assert (said["schedules"], said["timezone"], said["concurrencyPolicy"]) == ([of.retrain.cron], "UTC", "Forbid")
    assert said["workflowSpec"]["templates"][0]["container"]["args"] == ["tick", of.name]


def given(manifest: Any) -> list[list[str]]:
    """The arguments of every container anywhere in a manifest."""
    if isinstance(manifest, dict):
        own = [manifest["args"]] if "args" in manifest and "image" in manifest else []
        return own + [args for value in manifest.values() for args in given(value)]
    return [args for value in manifest for args in given(value)] if isinstance(manifest, list) else []


def test_each_container_runs_what_drift_takes() -> None:
    made = [kubernetes.job_of(PLACE, NORMAL), *(argo.template(PLACE, lane).to_dict() for lane in argo.LANES)]
    lines = given([*made, argo.calendar(PLACE, spec()).to_dict()])
    assert len(lines) == 3 * len(STEPS) + 1
    for words in lines:
        filled = [word.replace("{{inputs.parameters.worker}}", "2") for word in words]
        command: click.Command = drift
        while isinstance(command, click.Group):
            known = command.get_command(click.Context(command), filled.pop(0))
            assert known is not None, words
            command = known
        command.parse_args(click.Context(command), filled)


@pytest.mark.parametrize(
    ("status", "spec_", "state"),
    [
        (None, {}, State.PENDING),
        ({"phase": "Pending"}, {}, State.PENDING),
        ({"phase": "Running"}, {}, State.RUNNING),
        ({"phase": "Succeeded"}, {}, State.SUCCEEDED),
        ({"phase": "Failed", "message": "child failed"}, {}, State.FAILED),
        ({"phase": "Error"}, {}, State.FAILED),
        ({"phase": "Running"}, {"shutdown": "Terminate"}, State.CANCELLED),
        ({"phase": "Failed"}, {"shutdown": "Terminate"}, State.CANCELLED),
        ({"phase": "Succeeded"}, {"shutdown": "Terminate"}, State.SUCCEEDED),
    ],
)
def test_a_workflow_stands_as_its_phase_says(
    status: dict[str, Any] | None, spec_: dict[str, Any], state: State
) -> None:
    assert argo.state_of({"spec": spec_, **({"status": status} if status else {})})[0] is state


def test_a_failed_workflow_says_which_step_and_its_gpus_are_counted_by_argo() -> None:
    node = {"type": "Pod", "phase": "Failed", "displayName": "gates", "message": "Error (exit code 1)"}
    found = {
        "status": {"phase": "Failed", "nodes": {"a": node}, "resourcesDuration": {"cpu": 9, "nvidia.com/gpu": 5400}}
    }
    assert argo.state_of(found) == (State.FAILED, "gates: Error (exit code 1)")
    assert argo.gpu_hours(found, "nvidia.com/gpu") == 1.5
    assert argo.gpu_hours({"status": {}}, "nvidia.com/gpu") is None


# jobs as Kubernetes tells of them


def job(conditions: dict[str, str], active: int = 0, **annotations: str) -> Any:
    told = [
        client.V1JobCondition(type=kind, status="True", reason=reason, message="m")
        for kind, reason in conditions.items()
    ]
    meta = client.V1ObjectMeta(annotations=annotations or None)
    return client.V1Job(metadata=meta, status=client.V1JobStatus(conditions=told, active=active))


def test_a_job_stands_as_its_conditions_say() -> None:
    cancelled = client.V1Job(metadata=client.V1ObjectMeta(annotations={kubernetes.CANCELLED: "true"}))
    made = [job({}), job({}, active=1), job({"Complete": ""}), job({"Failed": "PodFailurePolicy"}), cancelled]
    states = [State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED]
    assert [kubernetes.state_of(one)[0] for one in made] == states
    assert kubernetes.state_of(job({"Failed": "PodFailurePolicy"}))[1] == "PodFailurePolicy: m"


def test_hours_are_those_that_every_pod_held_its_node_preempted_ones_too() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)

    def pod(hours: float | None) -> Any:
        end = client.V1ContainerStateTerminated(exit_code=137, finished_at=start + timedelta(hours=hours or 0))
        state = client.V1ContainerState(terminated=end if hours is not None else None)
        status = client.V1ContainerStatus(
            name="fit", image="i", image_id="i", ready=False, restart_count=0, state=state
        )
        return client.V1Pod(status=client.V1PodStatus(start_time=start, container_statuses=[status]))

    assert kubernetes.hours_of([pod(1.5), pod(0.5), pod(None)]) == 2.0
    assert kubernetes.hours_of([]) == 0


# names and the file


@pytest.mark.parametrize("decision", ["fraud-7", "Fraud_v2-" + "x" * 200, "ümlaut / 7", "-", "7"])
def test_a_run_has_a_name_that_kubernetes_takes_and_no_other_decision_has(decision: str) -> None:
    name, others = (
        Request("fraud", decision).name,
        [Request("fraud2", decision).name, Request("fraud", decision + "1").name],
    )
    assert name not in others
    assert len(name) <= 52
    assert Place(image="i", namespace=name).namespace == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image: [", "not valid YAML"),
        ("- image", "is no YAML mapping"),
        ("namespace: drift", "image: required, and missing"),
        ("image: i\nnamespace: Drift_1", "namespace: "),
        ("image: i\nserach_workers: 3", "serach_workers: unknown key; did you mean 'search_workers'"),
        ("image: i\nsearch_workers: 0", "search_workers: "),
        ("image: i\nhotfix: {deadline: 0s}", "hotfix.deadline: "),
        ("image: i\nnodes: {spto: {}}", "nodes.spto"),
        ("image: 2026-02-31", "not valid YAML"),
        ("image: i\nimage: j", "stands twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_place(path)
    assert (str(path) in str(refused.value), told in str(refused.value)) == (True, True), refused.value


def test_what_argos_models_do_not_take_is_the_files_fault() -> None:
    odd = Place(image="i", volumes=({"name": "home", "mount": "/h", "source": {"persistentVolumeClaim": "home"}},))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="DRIFT_RUNNER_FILE: Argo has no such Volume: persistentVolumeClaim"):
        argo.template(odd, "normal")


def test_an_outside_runner_wants_a_file_and_inline_none() -> None:
    assert outside(Settings()) is None
    with pytest.raises(InputError, match="DRIFT_RUNNER_FILE: is not set"):
        outside(Settings(runner="argo"))


def test_what_argo_wants_applied_is_printed_and_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text("image: drift:1")
    settings = Settings(runner="argo", runner_file=path)
    text = manifests(settings, [spec()])
    assert text == manifests(settings, [spec()])
    kinds = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(text)]
    assert kinds[:2] == [("WorkflowTemplate", "drift-retrain"), ("WorkflowTemplate", "drift-hotfix")]
    assert [kind for kind, _ in kinds[2:]] == ["CronWorkflow"]
    with pytest.raises(NothingToDoError):
        manifests(Settings())


@pytest.mark.parametrize("kind", ["kubernetes", "argo"])
def test_the_setting_picks_the_runner(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text("image: drift:1\nlink: https://argo.example.com/{namespace}/{name}\n")
    made = outside(Settings(runner=kind, runner_file=path))
    assert made is not None
    assert made.kind == kind
    assert read_place(path).link_of("drift-a") == "https://argo.example.com/drift/drift-a"
