"""Where an outside runner runs the steps: the YAML of DRIFT_RUNNER_FILE."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from drift_pipeline.clock import HOUR
from drift_pipeline.errors import InputError
from drift_pipeline.spec.parts import Part
from drift_pipeline.spec.reading import read_part
from drift_pipeline.spec.values import Duration, Text
from drift_pipeline.training.runners import HOTFIX, Request

DNS = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_LONGEST = 7 * 24 * HOUR


def _lasting(value: timedelta) -> timedelta:
    if not timedelta(minutes=1) <= value <= _LONGEST:
        raise ValueError("is from 1m to 7d")
    return value


Lasting = Annotated[Duration, AfterValidator(_lasting)]


class Nodes(Part):
    """Which nodes: as a pod's fields of these names."""

    node_selector: Mapping[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


class Volume(Part):
    """Mounted into every step; `source` as Kubernetes writes it, such as {persistentVolumeClaim: {claimName: home}}."""

    name: str = Field(pattern=DNS)
    mount: str = Field(pattern=r"^/")
    source: dict[str, Any]
    read_only: bool = False


class Lane(Part):
    """`priority_class` decides which pod gives way; `deadline` is how long all steps together may take."""

    priority_class: str = ""
    priority: int = 0
    deadline: Lasting = 6 * HOUR


class Place(Part):
    """Image, namespace and limits of the steps, the number of the `user` that they are; `retries` of one whose process
    was preempted or got no answer.

    `nodes` by what the policy wants a run on. `link` is where people look at a run, with {namespace} and {name}.
    `server` and `experiment` are Kubeflow's.
    """

    image: str = Field(min_length=1)
    namespace: str = Field(default="drift", pattern=DNS)
    service_account: str = Field(default="drift-train", pattern=DNS)
    command: tuple[str, ...] = Field(default=("drift",), min_length=1)
    config_maps: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    user: int = Field(default=10001, ge=1, lt=2**31)
    cpu: Text = "1"
    memory: Text = "2Gi"
    gpu: str = "nvidia.com/gpu"
    search_workers: int = Field(default=1, ge=1, le=50)
    retries: int = Field(default=3, ge=0, le=20)
    normal: Lane = Lane(priority_class="drift-retrain")
    hotfix: Lane = Lane(priority_class="drift-hotfix", priority=10, deadline=2 * HOUR)
    nodes: Mapping[Literal["spot", "on_demand"], Nodes] = {}
    kubeconfig: Path | None = None
    timeout_seconds: float = Field(default=3, gt=0, le=60)
    link: str = ""
    server: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")
    experiment: str = "drift"

    def lane(self, name: str) -> Lane:
        return self.hotfix if name == HOTFIX else self.normal

    def nodes_of(self, request: Request) -> Nodes:
        """A hotfix goes where nobody takes its node away, unless the policy says otherwise."""
        wanted = request.capacity or ("on_demand" if request.lane == HOTFIX else "spot")
        return {str(name): nodes for name, nodes in self.nodes.items()}.get(wanted, Nodes())

    def link_of(self, name: str) -> str:
        return self.link.replace("{namespace}", self.namespace).replace("{name}", name)

    def environment(self) -> list[dict[str, Any]]:
        """`envFrom` of each container."""
        named = [{"configMapRef": {"name": name}} for name in self.config_maps]
        return [*named, *({"secretRef": {"name": name}} for name in self.secrets)]


def read_place(path: Path | None) -> Place:
    """Raises InputError, which names the file, the line and the key."""
    if path is None:
        raise InputError("DRIFT_RUNNER_FILE: is not set; an outside runner wants a YAML with at least an image")
    return read_part(path, Place)
