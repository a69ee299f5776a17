"""The chart's dagster.yaml, read by Dagster and dagster-k8s themselves: the Job that a run becomes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from drift_pipeline.components.lanes import FAST, retrain_tags
from drift_pipeline.components.pods import CONFIG
from drift_pipeline.definitions import models_of
from drift_pipeline.loop.home import models_of as specs_of
from drift_pipeline.settings import Settings
from drift_pipeline_tests.components.daemon import FROM_A_FOLDER
from drift_pipeline_tests.components.test_isolation import KUBECONFIG, step_job
from drift_pipeline_tests.components.test_lanes import submitted
from drift_pipeline_tests.components.worlds import write_model
from drift_pipeline_tests.deploy.charts import case, dagster_config, rendered

pytestmark = [pytest.mark.live, *FROM_A_FOLDER]


@pytest.fixture(scope="module")
def instance(helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """Of the case in which everything is switched on; it speaks to no cluster, and its storage is a folder's."""
    folder = tmp_path_factory.mktemp("dagster")
    told = dagster_config(rendered(helm_program, case("all"), folder))
    del told["storage"]
    (folder / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG), encoding="utf-8")
    told["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(folder / "kubeconfig")}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(folder)) as opened:
        yield opened


def test_who_has_no_token_reads_the_same_file_and_queues_runs(
    helm_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code location and a run itself: the launcher, which wants a token, is nothing that they use."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    told = dagster_config(rendered(helm_program, case("all"), tmp_path))
    del told["storage"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert submitted(instance, {}).status is dg.DagsterRunStatus.QUEUED
        with pytest.raises(Exception, match="Service host/port is not set"):
            _ = instance.run_launcher


def pod_of(instance: dg.DagsterInstance, tags: dict[str, str]) -> Any:
    """The specification of the pod that dagster-k8s would make for a run, after it was queued."""
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.job import construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    run, launcher = submitted(instance, tags), instance.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    context = launcher.get_container_context_for_run(run)
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(None, launcher),
        args=["dagster", "api", "execute_run"],
        job_name="run",
        pod_name="run",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    told = ApiClient().sanitize_for_serialization(job)
    assert (told["spec"]["backoffLimit"], told["spec"]["ttlSecondsAfterFinished"]) == (0, 86400)
    return told["spec"]["template"]


@pytest.mark.parametrize("step", ["", "candidate_model"])
def test_a_run_and_a_step_are_pods_of_the_restricted_standard_with_the_home_and_a_step_has_no_token(
    instance: dg.DagsterInstance, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_EXECUTOR", "k8s_job")
    made = step_job(instance, step, "normal", None)["spec"]["template"] if step else None
    template = made or pod_of(instance, {})
    pod, (main,) = template["spec"], template["spec"]["containers"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "run"
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (not step, False)
    assert (main["command"], main["args"][0]) == (["env"], "dagster")  # the image's own entrypoint is drift
    assert pod["serviceAccountName"] == "shop-run"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in (main, *pod["initContainers"]):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert main["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
    mounts = {mount["mountPath"]: mount["name"] for mount in main["volumeMounts"]}
    assert {"/opt/dagster", "/var/lib/drift", "/models", "/tmp"} <= mounts.keys()
    assert set(mounts.values()) <= {volume["name"] for volume in pod["volumes"]}
    sources = [source.get("secretRef", source.get("configMapRef"))["name"] for source in main["envFrom"]]
    assert sorted(sources) == ["drift-database", "drift-secrets", "shop-environment"]


@pytest.mark.parametrize(
    ("step", "lane", "capacity"), [("candidate_model", "normal", "spot"), ("evaluation", "hotfix", "on_demand")]
)
def test_lane_and_capacity_place_a_step(
    instance: dg.DagsterInstance, step: str, lane: str, capacity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_EXECUTOR", "k8s_job")
    job = step_job(instance, step, lane, capacity)
    pod = job["spec"]["template"]["spec"]
    spot = capacity == "spot"
    assert pod["nodeSelector"] == {"pool": "spot" if spot else "on-demand"}
    assert ("tolerations" in pod, pod.get("priorityClassName")) == (spot, None if spot else "drift-urgent")
    limits = {"memory": "4Gi", **({"nvidia.com/gpu": "1"} if spot else {})}
    assert pod["containers"][0]["resources"]["limits"] == limits
    assert (job["spec"]["backoffLimit"], job["spec"]["podReplacementPolicy"]) == (0, "Failed")
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400


def test_lane_and_capacity_place_it(instance: dg.DagsterInstance) -> None:
    spot = pod_of(instance, retrain_tags("m", "d1", "normal", "spot"))["spec"]
    assert spot["nodeSelector"] == {"pool": "spot"}
    assert spot["tolerations"] == [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]
    assert spot["containers"][0]["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}
    hotfix = pod_of(instance, retrain_tags("m", "d2", "hotfix", "on_demand"))["spec"]
    assert (hotfix["priorityClassName"], hotfix["nodeSelector"]) == ("drift-urgent", {"pool": "on-demand"})
    fast = pod_of(instance, FAST)["spec"]
    assert fast["containers"][0]["resources"]["requests"] == {"cpu": "250m", "memory": "1Gi"}


@pytest.mark.parametrize(
    "asked",
    [
        {"pod_spec_config": {"host_network": True}},
        {"pod_spec_config": {"service_account_name": "shop-daemon"}},
        {"container_config": {"security_context": {"privileged": True}}},
        {"container_config": {"image": "other"}},
    ],
    ids=str,
)
def test_who_launches_a_run_cannot_ask_for_more(instance: dg.DagsterInstance, asked: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="violated the allowed list"):
        pod_of(instance, {CONFIG: json.dumps(asked)})


def test_the_folder_of_the_moment_in_a_config_maps_volume_is_a_folder_of_models(tmp_path: Path) -> None:
    text = case("least")["models"]["inline"]["recommendation_v3"]["defs.yaml"]
    for moment in ("..2026_11_30_10_00_00.1", "..2026_11_30_11_00_00.2"):
        (tmp_path / moment / "recommendation_v3").mkdir(parents=True)
        (tmp_path / moment / "recommendation_v3" / "defs.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "..data").symlink_to(moment)
    (tmp_path / "recommendation_v3").symlink_to("..data/recommendation_v3")
    found = models_of(tmp_path / "..data").resolve_asset_graph().get_all_asset_keys()
    assert {key.path[0] for key in found} == {"recommendation_v3"}
    assert list(specs_of(Settings(models=tmp_path / "..data"))) == ["recommendation_v3"]
