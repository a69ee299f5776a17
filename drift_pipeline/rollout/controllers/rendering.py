"""What Argo Rollouts and Istio are given of a model: the same text for the same version."""

import re
from typing import Any

from drift_pipeline.control.canonical import sha256
from drift_pipeline.rollout.controllers import Served, Wanted, istio
from drift_pipeline.rollout.controllers.declared import Analysis, Routing

GROUP, VERSION = "argoproj.io", "v1alpha1"
DIGEST, NAME, ROLLOUT = "drift/digest", "drift/version", "drift/rollout"  # annotations of a version's pods
LABEL = "drift/routed"
ABORT_SECONDS = 1  # with the default of 30 a canary is sent its share for 10 s after an abort; 0 would be never
_NO_LIMIT = 1_000_000  # what is not known aborts nothing: our deadline does


def name_of(model: str) -> str:
    """Of a model's objects: what Kubernetes takes, 52 letters at most, another one for each model."""
    plain = model.replace("_", "-")
    if len(plain) <= 40 and not plain.endswith("-"):
        return f"drift-{plain}"
    unique = sha256(model.encode()).removeprefix("sha256:")[:8]
    return f"drift-{plain[:37].strip('-')}-{unique}"


def rendered(routing: Routing, wanted: Wanted) -> list[dict[str, Any]]:
    """All objects, in the order in which they are created; the champion answers.

    Raises:
        InputError: a route that Istio would take, and that would not do.
    """
    made = [_service(routing, wanted.model, of) for of in ("stable", "canary")]
    name, namespace = name_of(wanted.model), routing.namespace
    rules = [
        istio.destination_rule(name, namespace, of, routing.tls, routing.sticky_header) for of in ("stable", "canary")
    ]
    made += [*(rule for rule in rules if rule), virtual_service(routing, wanted.model)]
    if routing.analysis is not None:
        made.append(analysis_template(routing, routing.analysis, wanted.model))
    return [*made, rollout(routing, wanted, wanted.champion)]


def virtual_service(routing: Routing, model: str) -> dict[str, Any]:
    """Raises InputError as `rendered`."""
    hosts, path = [host.replace("{model}", model) for host in routing.hosts], routing.path.replace("{model}", model)
    made = istio.virtual_service(name_of(model), routing.namespace, hosts, list(routing.gateways), path)
    istio.check(made)
    return made


def _service(routing: Routing, model: str, of: str) -> dict[str, Any]:
    name = name_of(model)
    ports = [{"name": "http", "port": 80, "targetPort": routing.port}]
    meta = {"name": f"{name}-{of}", "namespace": routing.namespace}
    spec = {"selector": {LABEL: name}, "ports": ports}  # Argo adds the hash of a version's pods
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def rollout(routing: Routing, wanted: Wanted, served: Served) -> dict[str, Any]:
    """With the pods of one version."""
    name = name_of(wanted.model)
    spec = {
        "replicas": routing.replicas,
        "revisionHistoryLimit": 5,
        "rollbackWindow": {"revisions": 3},  # back to a version of late skips the steps
        "progressDeadlineSeconds": routing.ready_seconds,
        "progressDeadlineAbort": True,
        "selector": {"matchLabels": {LABEL: name}},
        "template": _template(routing, wanted.model, served),
        "strategy": {"canary": strategy(routing, wanted)},
    }
    meta = {"name": name, "namespace": routing.namespace, "annotations": {"drift/model": wanted.model}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Rollout", "metadata": meta, "spec": spec}


def _template(routing: Routing, model: str, served: Served) -> dict[str, Any]:
    known = {DIGEST: served.digest, NAME: served.version, ROLLOUT: served.rollout_id}
    filled = {"model": model, "version": served.version, "digest": served.digest}
    return {
        "metadata": {"labels": {**routing.labels, LABEL: name_of(model)}, "annotations": known},
        "spec": _fill(routing.pod, filled),
    }


def _fill(part: Any, values: dict[str, str]) -> Any:
    """Every text of it with its {names} filled in; other braces stay."""
    if isinstance(part, dict):
        return {key: _fill(value, values) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_fill(value, values) for value in part]
    if isinstance(part, str):
        return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), part)
    return part


def strategy(routing: Routing, wanted: Wanted) -> dict[str, Any]:
    """Shadow, a pause until we say so, the canary's share, a pause until we say so."""
    name = name_of(wanted.model)
    shadow = {"name": istio.SHADOW, "percentage": 100, "match": [{"path": {"prefix": _path(routing, wanted.model)}}]}
    steps: list[dict[str, Any]] = [
        {"setCanaryScale": {"replicas": routing.replicas}},  # before the mirror, or nobody is there to mirror to
        {"setMirrorRoute": shadow},
        {"pause": {}},
        {"setMirrorRoute": {"name": istio.SHADOW}},
        _share(routing, wanted.canary_weight),
        {"pause": {}},
    ]
    managed = [{"name": istio.SHADOW}, *([{"name": istio.STICKY}] if routing.sticky_header else [])]
    analysed = {"templates": [{"templateName": name}], "startingStep": 5}
    return {
        "stableService": f"{name}-stable",
        "canaryService": f"{name}-canary",
        "abortScaleDownDelaySeconds": ABORT_SECONDS,
        "trafficRouting": {
            "managedRoutes": managed,
            "istio": {"virtualServices": [{"name": name, "routes": [istio.PRIMARY]}]},
        },
        "steps": steps,
        **({"analysis": analysed} if routing.analysis is not None else {}),
    }


def _path(routing: Routing, model: str) -> str:
    return routing.path.replace("{model}", model)


def _share(routing: Routing, percent: int) -> dict[str, Any]:
    if not routing.sticky_header:
        return {"setWeight": percent}
    matched = {"headerName": routing.sticky_header, "headerValue": {"regex": istio.buckets(percent)}}
    return {"setHeaderRoute": {"name": istio.STICKY, "match": [matched]}}


def analysis_template(routing: Routing, analysis: Analysis, model: str) -> dict[str, Any]:
    """Both conditions: what is neither, such as NaN or no samples, is Inconclusive, and nothing comes of that."""
    name = name_of(model)
    values = {
        "model": model,
        "canary": f"{name}-canary",
        "stable": f"{name}-stable",
        "namespace": routing.namespace,
        "window": analysis.window,
        "samples": str(analysis.samples),
    }
    metrics = [
        {
            "name": of,
            "interval": f"{analysis.every_seconds}s",
            "successCondition": f"len(result) == 1 && result[0] < {bound.limit:g}",
            "failureCondition": f"len(result) == 1 && result[0] >= {bound.limit:g}",
            "failureLimit": 0,
            "inconclusiveLimit": _NO_LIMIT,
            "consecutiveErrorLimit": _NO_LIMIT,
            "provider": {"prometheus": {"address": analysis.prometheus, "query": _fill(bound.query, values)}},
        }
        for of, bound in analysis.bounds.items()
    ]
    meta = {"name": name, "namespace": routing.namespace}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "AnalysisTemplate",
        "metadata": meta,
        "spec": {"metrics": metrics},
    }
