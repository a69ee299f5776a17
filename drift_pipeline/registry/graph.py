"""The graph in a bundle's manifest: its steps in the order in which they are computed, each with its file's sha256.

`manifest["graph"]` is a list of {name, inputs, threshold, trainer, sha256, version, ...}. The bundle's digest covers
it: the steps, what each takes, and their order. A bundle without it is one pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from drift_pipeline.errors import IntegrityError
from drift_pipeline.spec import ColumnType, Step, ordered

GRAPH, MODEL, SUFFIX = "graph", "model.skops", ".skops"


@dataclass(frozen=True)
class Listed:
    """A step as a manifest lists it; `facts` is its whole entry, which says where it came from."""

    name: str
    inputs: Mapping[str, ColumnType]  # names and kinds, in order
    threshold: float | None
    facts: Mapping[str, Any]

    @property
    def file(self) -> str:
        return file_of(self.name)


def file_of(step: str) -> str:
    return f"{step}{SUFFIX}"


def listed_steps(manifest: Mapping[str, Any]) -> tuple[Listed, ...]:
    """The steps of a bundle, in order; none of a bundle that is one pipeline.

    Raises:
        IntegrityError: its steps are no graph, or disagree with its files.
    """
    if (graph := manifest.get(GRAPH)) is None:
        return ()
    features = manifest.get("features")
    if not isinstance(graph, list) or not all(isinstance(entry, dict) for entry in graph):
        raise IntegrityError("the bundle's graph is no list of steps")
    if not isinstance(features, dict) or not all(kind in ("numeric", "categorical") for kind in features.values()):
        raise IntegrityError("the bundle's graph has no features to take")
    steps = _steps(graph)
    try:
        if [*ordered(steps, features)] != [*steps]:
            raise ValueError("a step comes before what it takes")
    except ValueError as error:
        raise IntegrityError(f"the bundle's steps are no graph: {error}") from error
    _require_files(graph, manifest)
    kinds: dict[str, ColumnType] = {**dict.fromkeys(steps, "numeric"), **features}
    return tuple(
        Listed(name, {one: kinds[one] for one in step.inputs}, step.threshold, entry)
        for (name, step), entry in zip(steps.items(), graph, strict=True)
    )


def _steps(graph: list[dict[str, Any]]) -> dict[str, Step]:
    steps = dict[str, Step]()
    for entry in graph:
        name, told = entry.get("name"), {key: entry[key] for key in Step.model_fields if key in entry}
        if not isinstance(name, str) or name in steps:
            raise IntegrityError(f"the bundle's graph has two steps {name!r:.80}, or one without a name")
        try:
            steps[name] = Step.model_validate(told)
        except ValidationError as error:
            raise IntegrityError(f"the bundle's step {name!r:.80} is none: {error.errors()[0]['msg']}") from error
    return steps


def _require_files(graph: list[dict[str, Any]], manifest: Mapping[str, Any]) -> None:
    models = {name: entry.get("sha256") for name, entry in manifest["files"].items() if name.endswith(SUFFIX)}
    wanted = {file_of(entry["name"]): entry.get("sha256") for entry in graph}
    for odd in sorted(models.keys() ^ wanted.keys()):
        told = "is missing from the bundle" if odd in wanted else "is the file of no step"
        raise IntegrityError(f"the bundle's graph and its files disagree: {odd} {told}")
    if odd := [name for name, digest in wanted.items() if models[name] != digest]:
        raise IntegrityError(f"the bundle's graph and its files disagree: {odd[0]} is another file than its step's")
