"""The fields of Kubernetes' API, as its Python client has them: what a server's strict dry run would refuse."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from kubernetes import client

from drift_pipeline_tests.deploy.charts import Object

_OTHERS = {"HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler", "Rollout": "V1Deployment"}
_CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}  # whose types the client has not
_NOT_OF_A_DEPLOYMENT = {".spec.strategy.canary"}  # a Rollout is a Deployment but for its strategy


def wrong_fields(one: Object) -> list[str]:
    """Paths of an object that the API does not have, or not with such a value.

    Raises ValueError where it lacks what the API requires.
    """
    if one["kind"] in _CUSTOM:
        return []
    model = _OTHERS.get(one["kind"], f"V1{one['kind']}")
    client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(one)), model)
    return [path for path in _unknown(one, model, "") if path not in _NOT_OF_A_DEPLOYMENT]


def _unknown(value: Any, kind: str, at: str) -> Iterator[str]:
    if kind.startswith("list["):
        for index, below in enumerate(value):
            yield from _unknown(below, kind[5:-1], f"{at}[{index}]")
    elif kind.startswith("dict["):
        of = kind.partition(", ")[2][:-1]
        for name, below in value.items():
            yield from _unknown(below, of, f"{at}.{name}")
    elif kind in ("str", "int", "bool"):
        if type(value).__name__ != kind:
            yield f"{at}: {value!r} is no {kind}"
    elif hasattr(client, kind):
        model = getattr(client, kind)
        fields = {spelt: name for name, spelt in model.attribute_map.items()}
        for name, below in value.items():
            if name not in fields:
                yield f"{at}.{name}"
            else:
                yield from _unknown(below, model.openapi_types[fields[name]], f"{at}.{name}")
