"""The chart as Helm renders it, and what its objects name."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "drift-pipeline"
CASES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
NAMESPACE, RELEASE = "ml", "shop"
Object = Mapping[str, Any]


@dataclass
class Refused(Exception):  # noqa: N818  # it is an answer of Helm's
    told: str = field(default="")


def case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def rendered(helm: Path, values: Mapping[str, Any], folder: Path) -> list[Object]:
    """Raises Refused with what Helm says."""
    file = folder / "values.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    command = [str(helm), "template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if ended.returncode:
        raise Refused(ended.stderr)
    return [one for one in yaml.safe_load_all(ended.stdout) if one]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """(name of the object, specification of its pods), of all that make pods, and of what the controller is given."""
    for one in objects:
        template = one.get("spec", {}).get("template")
        if template:
            yield one["metadata"]["name"], template["spec"]
    for file in routing_files(objects):
        yield f"{RELEASE}-pinned", yaml.safe_load(file)["pod"]


def routing_files(objects: list[Object]) -> list[str]:
    return [one["data"]["routing.yaml"] for one in objects if "routing.yaml" in one.get("data", {})]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def dagster_config(objects: list[Object]) -> Any:
    """What stands in the ConfigMap as dagster.yaml."""
    (one,) = (one for one in objects if "dagster.yaml" in one.get("data", {}))
    return yaml.safe_load(one["data"]["dagster.yaml"])


def config_maps(pod: Object) -> set[str]:
    volumes = {one["configMap"]["name"] for one in pod.get("volumes", ()) if "configMap" in one}
    return volumes | {one["configMapRef"]["name"] for one in _sources(pod) if "configMapRef" in one}


def secrets(pod: Object) -> set[str]:
    whole = {one["secretRef"]["name"] for one in _sources(pod) if "secretRef" in one}
    parts = {key["name"] for one in containers(pod) for key in _keys(one)}
    return whole | parts | {one["name"] for one in pod.get("imagePullSecrets", ())}


def databases(container: Object) -> set[str]:
    """The keys of the database's Secret that a container is told."""
    return {key["key"] for key in _keys(container)}


def claims(pod: Object) -> set[str]:
    return {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one}


def _keys(container: Object) -> list[Object]:
    return [one["valueFrom"]["secretKeyRef"] for one in container.get("env", ()) if "valueFrom" in one]


def _sources(pod: Object) -> list[Object]:
    return [source for one in containers(pod) for source in one.get("envFrom", ())]
