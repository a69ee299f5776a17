"""Pods: where a run goes on a Kubernetes cluster, by its lane and by the capacity that the policy wants for it.

```yaml
run_coordinator:
  module: drift_pipeline.components.lanes
  class: LanedRunCoordinator
  config:
    pods:
      lanes: {hotfix: {priority_class: urgent, resources: {requests: {cpu: "2"}}}}
      capacities: {spot: {node_selector: {pool: spot}, tolerations: [{key: spot, operator: Exists}]}}
```

A run is tagged with the sum of the two as `dagster-k8s/config`, which dagster-k8s reads when it makes the run's Job.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drift_pipeline.errors import InputError

CONFIG = "dagster-k8s/config"
Lane = Literal["normal", "submit", "hotfix", "fast"]
Capacity = Literal["spot", "on_demand"]
Quantity = str | int | float


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Given):
    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class Pod(_Given):
    """What a lane or a capacity asks of the nodes; what it does not name is as the launcher says."""

    resources: Resources = Resources()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    priority_class: str = ""

    def over(self, other: "Pod") -> "Pod":
        """Both; what both name is as this one says, and a pod tolerates what either does."""
        return Pod(
            resources=Resources(
                requests=other.resources.requests | self.resources.requests,
                limits=other.resources.limits | self.resources.limits,
            ),
            node_selector=other.node_selector | self.node_selector,
            tolerations=[*other.tolerations, *(one for one in self.tolerations if one not in other.tolerations)],
            priority_class=self.priority_class or other.priority_class,
        )

    def config(self) -> dict[str, Any]:
        """As dagster-k8s takes it; {} where it asks for nothing."""
        resources = {name: given for name, given in self.resources.model_dump().items() if given}
        spec = {
            "node_selector": self.node_selector,
            "tolerations": self.tolerations,
            "priority_class_name": self.priority_class,
        }
        told = {
            "container_config": {"resources": resources} if resources else {},
            "pod_spec_config": {name: given for name, given in spec.items() if given},
        }
        return {name: given for name, given in told.items() if given}


class Pods(_Given):
    """Of the instance: what each lane asks for, and what a capacity asks for over it."""

    lanes: dict[Lane, Pod] = Field(default_factory=dict)
    capacities: dict[Capacity, Pod] = Field(default_factory=dict)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Of dagster.yaml. Raises InputError, which names the key."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise InputError(f"dagster.yaml, run_coordinator.config.pods: {'; '.join(wrong)}") from error

    def of(self, lane: str, capacity: str = "") -> Pod:
        """Both together."""
        of_lane = self.lanes.get(cast("Lane", lane), Pod())
        return self.capacities.get(cast("Capacity", capacity), Pod()).over(of_lane)

    def tags(self, lane: str, capacity: str = "", *, waits: bool = False) -> dict[str, str]:
        """What a run is tagged with; none where nothing is asked for it.

        Args:
            waits: its steps are pods of their own, and its own one needs neither the capacity nor what they need.
        """
        pod = self.of(lane).model_copy(update={"resources": Resources()}) if waits else self.of(lane, capacity)
        asked = pod.config()
        return {CONFIG: json.dumps(asked, sort_keys=True)} if asked else {}
