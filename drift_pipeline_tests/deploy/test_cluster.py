"""deploy/ on a real cluster: the image in a pod, each object before the API server, and an install of the chart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline import __version__
from drift_pipeline_tests.deploy.charts import CASES, CHART, NAMESPACE, RELEASE, Object, case, rendered
from drift_pipeline_tests.deploy.test_chart_values import merged
from drift_pipeline_tests.parts import postgres, s3
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.product import REPOSITORY
from drift_pipeline_tests.parts.server import Server

pytestmark = pytest.mark.live
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "Rollout"}  # kinds that are not Kubernetes' own
WARNED = {"pod-security.kubernetes.io/warn": "restricted"}
SMALL = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
ROOMY_S = 600.0  # two processors import Dagster in all its parts at once
USER = 10001


@pytest.fixture(scope="module")
def cluster(kubernetes_cluster: Cluster) -> Cluster:
    """With the namespace, where the API server warns of each pod that the restricted standard would refuse."""
    named = {"name": NAMESPACE, "labels": WARNED}
    kubernetes_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": named})
    return kubernetes_cluster


def test_a_pod_of_the_image_tells_its_version(cluster: Cluster, product_image: str) -> None:
    security = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
    container = {"name": "drift", "image": product_image, "args": ["--version"], "securityContext": security}
    spec = {"restartPolicy": "Never", "containers": [container]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "version"}, "spec": spec})

    def ended() -> bool:
        return cluster.ask("/api/v1/namespaces/default/pods/version")["status"]["phase"] in {"Succeeded", "Failed"}

    cluster.until("pod that has ended", ended)
    assert __version__ in cluster.kubectl("logs", "version")
    assert cluster.ask("/api/v1/namespaces/default/pods/version")["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("name", CASES)
def test_the_api_server_takes_each_object_without_a_warning(
    name: str, cluster: Cluster, helm_program: Path, tmp_path: Path
) -> None:
    objects = rendered(helm_program, case(name), tmp_path)
    own = [one for one in objects if one["kind"] not in FOREIGN]
    told = _tried(cluster, own)
    assert told.count("(server dry run)") == len(own)


def test_argo_rollouts_takes_a_gateway_of_its_kind(
    rollouts_controller: Server, cluster: Cluster, helm_program: Path, tmp_path: Path
) -> None:
    gateways = [one for one in rendered(helm_program, case("all"), tmp_path) if one["kind"] == "Rollout"]
    assert _tried(cluster, gateways).count("(server dry run)") == len(gateways) == 1


def test_the_api_server_warns_of_a_pod_that_is_not_restricted(
    cluster: Cluster, helm_program: Path, tmp_path: Path
) -> None:
    """So that what it says of ours means something."""
    objects = rendered(helm_program, case("least"), tmp_path)
    (code,) = (one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == f"{RELEASE}-code")
    unsafe = json.loads(json.dumps(code))
    del unsafe["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    with pytest.raises(RuntimeError, match="would violate PodSecurity"):
        _tried(cluster, [unsafe])


@pytest.fixture
def services(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Values that name a database and a bucket, both on the cluster's machine, and a claim for the home."""
    needed("postgres"), needed("s3")
    with cluster.machine.joined(), postgres.running() as database, s3.running() as store:
        bucket = store.bucket()
        dagster = database.of("dagster").replace("postgresql:", "postgresql+psycopg2:", 1)
        urls = {"DRIFT_DATABASE": database.url, "DRIFT_DAGSTER_DATABASE": dagster}
        given = dict(store.environment)
        keys = {name: given.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        cluster.apply(*_home(cluster), _secret("drift-database", urls), _secret("drift-store", keys))
        yield {"store": {"url": f"s3://{bucket}/live"}, "environment": given, "home": {"existingClaim": "home"}}


@pytest.mark.slow
def test_an_install_comes_to_a_code_location_that_is_ready(
    cluster: Cluster, product_image: str, services: dict[str, Any], helm_program: Path, tmp_path: Path
) -> None:
    small = {
        "image": {"repository": REPOSITORY, "tag": product_image.rpartition(":")[2]},
        "gateway": {"replicas": 1, "autoscaling": {"enabled": False}, **SMALL, "capture": SMALL},
        "exporter": SMALL,
        "dagster": {"code": SMALL, "daemon": SMALL, "webserver": SMALL, "runs": SMALL},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(merged(case("least"), merged(services, small))), encoding="utf-8")
    cluster.command([str(helm_program), "install", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(file)])
    try:
        code = f"deployment/{RELEASE}-code"
        waited = ("rollout", "status", code, f"--timeout={ROOMY_S:.0f}s")
        cluster.kubectl("-n", NAMESPACE, *waited, patience_s=ROOMY_S + 60)
        inside = ("-n", NAMESPACE, "exec", code, "-c", "code", "--")
        assert cluster.kubectl(*inside, "id", "-u").strip() == str(USER)
        assert __version__ in cluster.kubectl(*inside, "drift", "--version")
        with pytest.raises(RuntimeError, match="Read-only file system"):
            cluster.kubectl(*inside, "touch", "/opt/drift/written")
        assert (cluster.folder / "home" / "keys").is_dir()
    finally:
        cluster.command([str(helm_program), "uninstall", RELEASE, "-n", NAMESPACE])


def _tried(cluster: Cluster, objects: list[Object]) -> str:
    """What the API server says of objects that it is only shown. Raises RuntimeError where it warns of one, too."""
    told = yaml.safe_dump_all(objects)
    return cluster.kubectl("--warnings-as-errors", "apply", "--dry-run=server", "-n", NAMESPACE, "-f", "-", told=told)


def _home(cluster: Cluster) -> list[Object]:
    folder = cluster.folder / "home"
    folder.mkdir()
    folder.chmod(0o777)
    size = {"storage": "1Gi"}
    volume = {
        "capacity": size,
        "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": str(folder)},
        "claimRef": {"name": "home", "namespace": NAMESPACE},
    }
    claim = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": size},
        "storageClassName": "",
        "volumeName": "home",
    }
    named = {"name": "home", "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "home"}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": named, "spec": claim},
    ]


def _secret(name: str, keys: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": keys,
    }
