"""What pods of steps have in common, as Kubernetes writes it: restricted; they write to their volumes alone."""

from typing import Any

from drift_pipeline.training.runners import Request
from drift_pipeline.training.runners.declared import Place

GPU_STEPS = ("search", "fit")
DEFINITE = (1, 2)  # exit codes that stay what they are however often it is tried
LABELS = {"app.kubernetes.io/name": "drift-train", "app.kubernetes.io/part-of": "drift-pipeline"}


def arguments(step: str, model: str, decision: str, worker: str = "") -> list[str]:
    """Of `drift`."""
    return ["train", step, model, "--decision", decision, *(["--worker", worker] if worker else [])]


def container(place: Place, name: str, given: list[str], gpus: int = 0) -> dict[str, Any]:
    """One step's; its working copies go to /tmp. A step submits nothing, whatever DRIFT_RUNNER its config map names."""
    limits = {"cpu": place.cpu, "memory": place.memory, **({place.gpu: str(gpus)} if gpus else {})}
    mounts = [{"name": one.name, "mountPath": one.mount, "readOnly": one.read_only} for one in place.volumes]
    return {
        "name": name,
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(place.command),
        "args": given,
        "env": [{"name": "DRIFT_RUNNER", "value": "inline"}],
        "envFrom": place.environment(),
        "resources": {"requests": limits, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],
    }


def volumes(place: Place) -> list[dict[str, Any]]:
    return [{"name": "tmp", "emptyDir": {}}, *({"name": one.name, **one.source} for one in place.volumes)]


def pod_security(place: Place) -> dict[str, Any]:
    """Its volumes are the user's own."""
    ids = {"runAsUser": place.user, "runAsGroup": place.user, "fsGroup": place.user}
    return {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}


def labels(request: Request) -> dict[str, str]:
    return {**LABELS, "drift/lane": request.lane, "drift/model": request.model[:63].rstrip("_")}


def annotations(request: Request) -> dict[str, str]:
    """Whole, as labels cannot be."""
    return {"drift/model": request.model, "drift/decision": request.decision}
