"""Given: pipelines that were trained elsewhere, as files that `drift adopt --bundle` names, held against the spec."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.registry.graph import MODEL, Listed, file_of
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.graph import load_step
from drift_pipeline.training.trainers import categories_of


def read_given(bundle: Path, spec: ModelSpec, frame: pl.DataFrame) -> dict[str, bytes]:
    """By the name that a bundle has of each: one pipeline's file, or of a graph the folder with a file a step.

    Raises:
        InputError: a file cannot be read, is missing or is no step's, holds what a registry does not load, was fitted
            on other columns, or knows none of a column's levels.
    """
    if not spec.graph:
        return {MODEL: _read(bundle, None, spec, frame)}
    found, wanted = _names(bundle), {file_of(name): name for name in spec.steps}
    if odd := sorted({*found} ^ {*wanted}):
        told = "is missing" if odd[0] in wanted else "is the file of no step of the spec's graph"
        raise InputError(f"{bundle}: {odd[0]} {told}; a graph is given as a folder that holds {', '.join(wanted)}")
    steps = {file: Listed(name, spec.of_step(name).features, None, {}) for file, name in wanted.items()}
    return {file: _read(bundle / file, step, spec, frame) for file, step in steps.items()}


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        told = f"the spec declares a graph, which is given as a folder of its steps: {error.strerror}"
        raise InputError(f"{folder}: {told}") from error


def _read(path: Path, step: Listed | None, spec: ModelSpec, frame: pl.DataFrame) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        pipeline = load_step(data, step) if step else load_pipeline(data)
    except IntegrityError as error:
        raise InputError(f"{path}: {error}; write it with skops.io.dump") from error
    for name, categories in categories_of(pipeline).items():
        if name in spec.forms and not _knows_any(categories, known := frame[name].unique().drop_nulls().sort()):
            raise InputError(
                f"{path}: knows none of the levels of {name}: it was trained on {_shown(categories)}, and is asked "
                f"for {_shown(known)}, the texts of the form {spec.forms[name]}; train it on these"
                + (
                    ""
                    if spec.forms[name] == "text"
                    else f", or declare forms: {{{name}: text}} if its texts are the raw ones"
                )
            )
    return data


def _knows_any(categories: Sequence[object], known: pl.Series) -> bool:
    """A number is no text: an encoder that learnt 1 does not know "1"."""
    texts = {str(category) for category in categories if isinstance(category, str)}
    return known.is_empty() or bool(texts & {*known})


def _shown(values: Sequence[object] | pl.Series) -> str:
    return ", ".join(repr(value.item() if hasattr(value, "item") else value) for value in [*values][:3])
