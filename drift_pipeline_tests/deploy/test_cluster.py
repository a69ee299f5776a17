"""deploy/ on a real cluster: the image in a pod, and each object before the API server."""

import json
import re
from pathlib import Path

import pytest
import yaml

from drift_pipeline import __version__
from drift_pipeline_tests.deploy.charts import CASES, NAMESPACE, RELEASE, Object, case, rendered
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.server import Server

pytestmark = pytest.mark.live
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "Rollout"}  # kinds that are not Kubernetes' own
_TMP = {"name": "tmp", "mountPath": "/tmp"}
WARNED = {"pod-security.kubernetes.io/warn": "restricted"}


@pytest.fixture(scope="module")
def cluster(kubernetes_cluster: Cluster) -> Cluster:
    """With the namespace, where the API server warns of each pod that the restricted standard would refuse."""
    named = {"name": NAMESPACE, "labels": WARNED}
    kubernetes_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": named})
    return kubernetes_cluster


def test_a_pod_of_the_image_tells_its_version(cluster: Cluster, product_image: str) -> None:
    assert __version__ in _said(cluster, "version", {"image": product_image, "args": ["--version"]})


def test_a_pod_of_the_image_answers_by_the_packaged_rules(cluster: Cluster, product_image: str) -> None:
    """Its engine is a shared library, which wants others of the image."""
    script = """drift policy test "$(python3 -c 'import drift_pipeline as at; print(at.__path__[0])')/policy/bundle" """
    said = _said(cluster, "rules", {"image": product_image, "command": ["sh", "-c", script]})
    assert re.search(r"([1-9]\d*) of \1 cases hold", said), said


def _said(cluster: Cluster, name: str, container: Object) -> str:
    """By a pod that ended well."""
    security = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
    one = {"name": "drift", "securityContext": security, **container}
    tmp = {"volumes": [{"name": "tmp", "emptyDir": {}}]}
    spec = {"restartPolicy": "Never", **tmp, "containers": [{**one, "volumeMounts": [_TMP]}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def phase() -> str:
        return str(cluster.ask(f"/api/v1/namespaces/default/pods/{name}")["status"]["phase"])

    cluster.until("pod that has ended", lambda: phase() in {"Succeeded", "Failed"})
    said = cluster.kubectl("logs", name)
    assert phase() == "Succeeded", said
    return said


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


def _tried(cluster: Cluster, objects: list[Object]) -> str:
    """What the API server says of objects that it is only shown. Raises RuntimeError where it warns of one, too."""
    told = yaml.safe_dump_all(objects)
    return cluster.kubectl("--warnings-as-errors", "apply", "--dry-run=server", "-n", NAMESPACE, "-f", "-", told=told)
