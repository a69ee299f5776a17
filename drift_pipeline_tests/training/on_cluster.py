"""A namespace for retrains on a real cluster: the accounts of runners/README.md, with the rights that it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline.training.runners import Request
from drift_pipeline.training.runners.argo import LANES, template
from drift_pipeline.training.runners.declared import Place
from drift_pipeline_tests.parts.kubernetes import Cluster

NAMESPACE = "drift"
TICKS, TRAINS = "drift-tick", "drift-train"  # accounts
CLASSES = {"drift-retrain": 1000, "drift-hotfix": 100_000}
RIGHTS = {
    TICKS: (
        ("batch", "jobs", ("create", "get", "patch")),
        ("argoproj.io", "workflows", ("create", "get", "patch")),
        ("", "pods", ("list",)),
        ("", "pods/log", ("get",)),
    ),
    TRAINS: (("argoproj.io", "workflowtaskresults", ("create", "patch")),),  # of Argo's executor
}
_RBAC = "rbac.authorization.k8s.io"


def prepare(cluster: Cluster) -> Path:
    """Make the namespace, its accounts and the priority classes; the kubeconfig of who ticks."""
    cluster.namespace(NAMESPACE)
    scheduling = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    classes = [{**scheduling, "metadata": {"name": name}, "value": value} for name, value in CLASSES.items()]
    cluster.apply(*classes, *(one for account in RIGHTS for one in _account(account)))
    return _kubeconfig(cluster)


def give_templates(cluster: Cluster, place: Place) -> None:
    """Apply those of Argo's that `drift train manifests` prints."""
    cluster.apply(*(template(place, lane).to_dict() for lane in LANES))


def pods_of(cluster: Cluster, request: Request, runner: str) -> list[dict[str, Any]]:
    """Those of a run that are there, in the order in which they were made."""
    label = {"kubernetes": "batch.kubernetes.io/job-name", "argo": "workflows.argoproj.io/workflow"}[runner]
    found = cluster.ask(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={label}%3D{request.name}")["items"]
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _account(name: str) -> list[Mapping[str, Any]]:
    meta = {"name": name, "namespace": NAMESPACE}
    rules = [{"apiGroups": [group], "resources": [kind], "verbs": list(verbs)} for group, kind, verbs in RIGHTS[name]]
    bound = {
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {"apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding", "metadata": meta, **bound},
    ]


def _kubeconfig(cluster: Cluster) -> Path:
    token = cluster.kubectl("create", "token", TICKS, "-n", NAMESPACE, "--duration=8h").strip()
    told = yaml.safe_load(Path(cluster.url).read_text(encoding="utf-8"))
    told["users"][0]["user"] = {"token": token}
    path = cluster.folder / f"{TICKS}.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path
