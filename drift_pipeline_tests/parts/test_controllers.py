"""Argo's controllers and Istio beside a cluster do what they are for; images are those that the node has anyway."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.request import urlopen

import pytest

from drift_pipeline_tests.parts.containerd import PAUSE
from drift_pipeline_tests.parts.istio import start_gateway
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.server import Server
from drift_pipeline_tests.parts.workflows import EXECUTOR

pytestmark = [pytest.mark.live, pytest.mark.slow]
ROUTED = 19080
REQUESTS = 1000
ENDED = {"Succeeded", "Failed", "Error"}
SAYS = """import http.server, sys
class Says(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *told):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Says).serve_forever()
"""


def made(kind: str, name: str, spec: Mapping[str, Any], api: str) -> dict[str, Any]:
    named = {"name": name, "namespace": "default"}
    return {"apiVersion": api, "kind": kind, "metadata": named, "spec": dict(spec)}


def test_a_pod_that_waits_is_run_and_ended(kubernetes_cluster: Cluster) -> None:
    spec = {"containers": [{"name": "waits", "image": PAUSE}], "terminationGracePeriodSeconds": 2}
    kubernetes_cluster.apply(made("Pod", "waits", spec, "v1"))
    kubernetes_cluster.kubectl("wait", "--for=condition=Ready", "pod/waits", "--timeout=250s")
    kubernetes_cluster.kubectl("delete", "pod", "waits")
    left = kubernetes_cluster.ask("/api/v1/namespaces/default/pods")["items"]
    assert [pod for pod in left if pod["metadata"]["name"] == "waits"] == []


def test_a_cluster_goes_on_when_its_api_server_was_killed(kubernetes_cluster: Cluster) -> None:
    server = kubernetes_cluster.servers["apiserver"]
    server.kill()
    with pytest.raises(OSError, match="refused"):
        kubernetes_cluster.ask("/api/v1/nodes")
    server.start()
    spec = {"containers": [{"name": "waits", "image": PAUSE}], "terminationGracePeriodSeconds": 2}
    kubernetes_cluster.apply(made("Pod", "after", spec, "v1"))
    kubernetes_cluster.kubectl("wait", "--for=condition=Ready", "pod/after", "--timeout=250s")


def test_rollouts_brings_a_rollout_to_health(rollouts_controller: Server, kubernetes_cluster: Cluster) -> None:
    labels = {"app": "rolled"}
    pod = {"containers": [{"name": "waits", "image": PAUSE}], "terminationGracePeriodSeconds": 2}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
    }
    kubernetes_cluster.apply(made("Rollout", "rolled", spec, "argoproj.io/v1alpha1"))
    path = "/apis/argoproj.io/v1alpha1/namespaces/default/rollouts/rolled"
    kubernetes_cluster.until("healthy rollout", lambda: _phase(kubernetes_cluster, path) == "Healthy")


def test_workflows_runs_a_step_and_reports_what_it_wrote(
    workflows_controller: Server, kubernetes_cluster: Cluster
) -> None:
    rules = [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
    role, api = {"name": "executor", "namespace": "default"}, "rbac.authorization.k8s.io"
    user = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    bound = {"roleRef": {"apiGroup": api, "kind": "Role", "name": "executor"}, "subjects": [user]}
    kubernetes_cluster.apply(
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": role, "rules": rules},
        {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": role, **bound},
    )
    step = {"name": "tells", "container": {"image": EXECUTOR, "command": ["argoexec", "version"]}}
    spec = {"entrypoint": "tells", "templates": [step]}
    kubernetes_cluster.apply(made("Workflow", "told", spec, "argoproj.io/v1alpha1"))
    path = "/apis/argoproj.io/v1alpha1/namespaces/default/workflows/told"
    kubernetes_cluster.until("workflow that has ended", lambda: _phase(kubernetes_cluster, path) in ENDED)
    status = kubernetes_cluster.ask(path)["status"]
    assert status["phase"] == "Succeeded", status


@pytest.fixture(scope="module")
def route(istiod: Server, kubernetes_cluster: Cluster) -> Cluster:
    """Envoy sends a tenth of what comes on ROUTED to the second of two servers."""
    ports = {"stable": 19101, "canary": 19102}
    for name, port in ports.items():
        command = [sys.executable, "-c", SAYS, name, str(port)]
        kubernetes_cluster.add(name, command, f"http://127.0.0.1:{port}/")
    api = "networking.istio.io/v1"
    listen = {"port": {"number": ROUTED, "name": "http", "protocol": "HTTP"}, "hosts": ["*"], "bind": "127.0.0.1"}
    gateway = made("Gateway", "front", {"selector": {"istio": "front"}, "servers": [listen]}, api)
    entries = [made("ServiceEntry", name, _entry(name, port), api) for name, port in ports.items()]
    kubernetes_cluster.apply(gateway, *entries, made("VirtualService", "front", _split(90, 10), api))
    start_gateway(kubernetes_cluster, "front", "default")
    kubernetes_cluster.until("route", lambda: kubernetes_cluster.machine.answers(f"http://127.0.0.1:{ROUTED}/"))
    return kubernetes_cluster


def test_envoy_splits_as_the_virtual_service_says(route: Cluster) -> None:
    told = Counter[bytes]()
    with route.machine.joined():
        for _ in range(REQUESTS):
            with urlopen(f"http://127.0.0.1:{ROUTED}/", timeout=20) as answer:
                told[answer.read()] += 1
    assert set(told) == {b"stable", b"canary"}
    assert 50 < told[b"canary"] < 150  # 5.3 standard deviations of a binomial to each side


def test_a_route_that_cannot_be_is_refused(route: Cluster) -> None:
    api = "networking.istio.io/v1"
    with pytest.raises(RuntimeError, match=r"validation\.istio\.io"):
        route.apply(made("VirtualService", "bad", _split(-1, 101), api), options=("--dry-run=server",))


def _phase(cluster: Cluster, path: str) -> str:
    return str(cluster.ask(path).get("status", {}).get("phase", ""))


def _entry(name: str, port: int) -> dict[str, Any]:
    listens = {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": port}
    where = {"location": "MESH_INTERNAL", "resolution": "STATIC", "endpoints": [{"address": "127.0.0.1"}]}
    return {"hosts": [f"{name}.test"], "ports": [listens], **where}


def _split(stable: int, canary: int) -> dict[str, Any]:
    shares = {"stable": stable, "canary": canary}
    route = [{"destination": {"host": f"{name}.test"}, "weight": weight} for name, weight in shares.items()]
    return {"gateways": ["front"], "hosts": ["*"], "http": [{"name": "primary", "route": route}]}
