"""A model of several steps as it answers: each step's output is a column for the steps after it; the last one's is the
score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.registry.archive import MOST_BYTES, unpacked_bytes
from drift_pipeline.registry.bundle import Bundle, load_pipeline
from drift_pipeline.registry.graph import MODEL, SUFFIX, Listed, listed_steps
from drift_pipeline.spec import ColumnType
from drift_pipeline.training.trainers import predicted

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

Floats = npt.NDArray[np.float64]
Model: TypeAlias = "Pipeline | Graph"  # both are what `trainers.score` asks


@dataclass(frozen=True)
class Stage:
    """A step that was loaded. `inputs`: names and kinds, in the order of its pipeline's columns."""

    name: str
    inputs: Mapping[str, ColumnType]
    threshold: float | None
    pipeline: "Pipeline"


@dataclass(frozen=True)
class Graph:
    """`stages` in the order in which they are computed."""

    stages: tuple[Stage, ...]

    def predict(self, rows: "pd.DataFrame") -> Floats:
        """The last step's output (rows,), 0 where an earlier one is below its threshold; `rows` as `trainers.table`
        gives them.

        Raises:
            InputError: the rows lack a feature.
        """
        score, going = np.zeros(len(rows)), np.arange(len(rows))
        table = rows.reset_index(drop=True)
        for stage in self.stages:
            if lacking := [name for name in stage.inputs if name not in table.columns]:
                raise InputError(f"the step {stage.name} takes {lacking[0]}, which the rows do not have")
            told = predicted(stage.pipeline, table[[*stage.inputs]])
            table = table.assign(**{stage.name: as_input(told)})
            if stage.threshold is not None:
                kept = ~(told < stage.threshold)
                table, going, told = table[kept].reset_index(drop=True), going[kept], told[kept]
            if not len(going):
                return score
        score[going] = told
        return score


def as_input(output: Floats) -> Floats:
    """An output as a later step takes it: what is no number is missing, as in a feature."""
    return np.where(np.isfinite(output), output, np.nan)


def load_model(bundle: Bundle) -> Model:
    """The bundle's pipeline, or its graph.

    Raises:
        IntegrityError: a file makes types that are not allowed, cannot be read, or was fitted on other columns than its
            step takes; or the bundle holds a model that it does not name.
    """
    steps = listed_steps(bundle.manifest)
    if not steps:
        if odd := [name for name in bundle.files if name.endswith(SUFFIX) and name != MODEL]:
            raise IntegrityError(f"{odd[0]} is the file of no step: the bundle declares no graph")
        if MODEL not in bundle.files:
            raise IntegrityError(f"the bundle holds no {MODEL}")
        return load_pipeline(bundle.files[MODEL])
    _require_size(bundle, [step.file for step in steps])
    return Graph(tuple(Stage(s.name, s.inputs, s.threshold, load_step(bundle.files[s.file], s)) for s in steps))


def _require_size(bundle: Bundle, files: list[str]) -> None:
    """All steps together may take what one pipeline may."""
    try:
        size = sum(unpacked_bytes(bundle.files[file]) for file in files)
    except Exception as error:  # whatever zipfile raises on a stranger's bytes
        raise IntegrityError(f"a step's file is no archive: {type(error).__name__}: {error}"[:300]) from error
    if size > MOST_BYTES:
        raise IntegrityError(f"the steps' files take {size:,} bytes, more than {MOST_BYTES:,}")


def load_step(data: bytes, step: Listed) -> "Pipeline":
    """A step's pipeline; errors as of `load_model`."""
    try:
        pipeline = load_pipeline(data)
    except IntegrityError as error:
        raise IntegrityError(f"{step.file}: {error}") from error
    inputs = [*step.inputs]
    fitted_on = [str(name) for name in np.ravel(getattr(pipeline, "feature_names_in_", inputs))]
    if fitted_on != inputs:
        told = ", ".join(fitted_on)[:200]
        raise IntegrityError(f"{step.file}: was fitted on {told}, and its step takes {', '.join(inputs)}")
    return pipeline
