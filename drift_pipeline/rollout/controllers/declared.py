"""How models are served and routed on a cluster: the YAML of DRIFT_CONTROLLER_FILE."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from drift_pipeline.errors import InputError
from drift_pipeline.spec.parts import Part
from drift_pipeline.spec.reading import read_part
from drift_pipeline.spec.values import Text
from drift_pipeline.training.runners.declared import DNS

_OF = 'destination_service_name="{canary}",destination_service_namespace="{namespace}"'
_ENOUGH = f"(sum(increase(istio_requests_total{{{_OF}}}[{{window}}])) >= {{samples}})"
ERRORS = f'(sum(increase(istio_requests_total{{{_OF},response_code=~"5.."}}[{{window}}])) or vector(0)) / {_ENOUGH}'
LATENCY = (
    "histogram_quantile(0.95, sum by (le) "
    f"(increase(istio_request_duration_milliseconds_bucket{{{_OF}}}[{{window}}]))) and {_ENOUGH}"
)


class Bound(Part):
    """A query that gives one number, and nothing while there are too few samples; the candidate is aborted from `limit`
    on. {model}, {canary} and {stable} (its Services), {namespace}, {window} and {samples} are filled in."""

    query: Text
    limit: float = Field(gt=0)


class Analysis(Part):
    """What Argo asks Prometheus by itself while there is a canary; by default of Istio's metrics."""

    prometheus: str = Field(pattern=r"^https?://[^@\s]+$")
    every_seconds: int = Field(default=5, ge=1, le=600)
    window: str = Field(default="1m", pattern=r"^[1-9][0-9]*[smh]$")
    samples: int = Field(default=50, ge=1)
    errors: Bound | None = Bound(query=ERRORS, limit=0.05)
    latency: Bound | None = Bound(query=LATENCY, limit=500)

    @property
    def bounds(self) -> dict[str, Bound]:
        both = {"errors": self.errors, "latency": self.latency}
        return {name: bound for name, bound in both.items() if bound is not None}


class Routing(Part):
    """The pods that serve one version, and the hosts, gateways and path that lead to them.

    `pod` is a PodSpec; in its texts, as in `hosts` and `path`, {model}, {version} and {digest} are filled in. `labels`
    are further ones of the pods, such as a network policy asks for.
    `sticky_header`: carries a bucket, 00 to 99, that whoever is before the mesh took of the caller; the canary is sent
    the buckets below its weight, and nobody else. `tls` towards the pods, "" = as the mesh does. `istiod`:
    NAMESPACE/NAME of its Deployment, at whose PILOT_DEBOUNCE_MAX is looked; "" = at nobody's.
    """

    pod: dict[str, Any]
    labels: dict[Text, str] = Field(default_factory=dict)
    hosts: tuple[Text, ...] = Field(min_length=1)
    gateways: tuple[Text, ...] = Field(default=("mesh",), min_length=1)
    path: str = Field(default="/", pattern=r"^/\S*$")
    port: int = Field(default=8080, ge=1, le=65535)
    replicas: int = Field(default=2, ge=1, le=1000)
    ready_seconds: int = Field(default=600, ge=10, le=86400)
    sticky_header: str = Field(default="", pattern=r"^([a-z0-9][-a-z0-9]*)?$")
    tls: Literal["", "DISABLE", "ISTIO_MUTUAL"] = ""
    istiod: str = Field(default="", pattern=r"^([a-z0-9][-a-z0-9]*/[a-z0-9][-.a-z0-9]*)?$")
    analysis: Analysis | None = None
    namespace: str = Field(default="drift", pattern=DNS)
    kubeconfig: Path | None = None
    timeout_seconds: float = Field(default=3, gt=0, le=60)

    @model_validator(mode="after")
    def _tells_apart(self) -> Self:
        containers = self.pod.get("containers")
        if not isinstance(containers, list) or not containers:
            raise ValueError("pod: wants containers, as a PodSpec has them")
        if "{digest}" not in json.dumps(self.pod):
            raise ValueError("pod: names {digest} nowhere, so that each version would be the same pod")
        by_host = all("{model}" in host for host in self.hosts)
        if not by_host and "{model}" not in self.path:
            raise ValueError("hosts: names {model} in each, or path does, or two models would share one route")
        if self.sticky_header and not by_host:
            raise ValueError("sticky_header: wants {model} in each of hosts: a header's route has no path")
        return self


def read_routing(path: Path | None) -> Routing:
    """Raises InputError, which names the file, the line and the key."""
    if path is None:
        raise InputError("DRIFT_CONTROLLER_FILE: is not set; argo wants a YAML with at least a pod and hosts")
    return read_part(path, Routing)
