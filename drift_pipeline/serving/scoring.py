"""Scoring one row as cheaply as it gets, and equal to `training.trainers.score` to the bit.

A row through pandas and scikit-learn takes milliseconds, most of which go into checking and copying tables. Here a
pipeline is taken apart once: what each level, number and null becomes in a prepared row is asked of the pipeline
itself, and a row is then put together from that. A pipeline that cannot be taken apart, or whose parts say anything
else than the whole on a few hundred probing rows, is scored as a whole: slower, never different.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.errors import IntegrityError
from drift_pipeline.serving.trees import Floats, Trees
from drift_pipeline.spec import ColumnType
from drift_pipeline.training.graph import Graph
from drift_pipeline.training.trainers import one_thread, predicted, score, table

Cell = float | str | None
Row = Sequence[Cell]  # a cell a feature, in the order of the features; None = null
Score = Callable[[Sequence[Row]], Floats]

_PROBES, _PROBED_ALONE = 256, 16
_UNSEEN = "\x00 never seen in training"
_OF_ANOTHER_SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Scorer:
    """`score` of rows (n,) gives (n,); `taken_apart` tells the fast way from the slow one."""

    score: Score
    taken_apart: bool


def make_scorer(model: Any, features: Mapping[str, ColumnType]) -> Scorer:
    """Of a pipeline or a graph. Takes about a second, most of it once in a process; the first score is as fast as the
    next.

    Raises:
        IntegrityError: a graph takes a feature that there is not.
    """
    return _graph_scorer(model, features) if isinstance(model, Graph) else _pipeline_scorer(model, features)


def _graph_scorer(graph: Graph, features: Mapping[str, ColumnType]) -> Scorer:
    """Each step's scorer in turn, on all rows at once; a row grows by each output, and leaves below a threshold."""
    places = {name: place for place, name in enumerate(features)}
    steps = list[tuple[Score, list[int], float | None]]()
    whole = True
    for stage in graph.stages:
        if lacking := [name for name in stage.inputs if name not in places]:
            raise IntegrityError(f"its step {stage.name} takes {lacking[0]}, which is no feature of the spec")
        scorer = _pipeline_scorer(stage.pipeline, stage.inputs)
        steps.append((scorer.score, [places[name] for name in stage.inputs], stage.threshold))
        whole, places[stage.name] = whole and scorer.taken_apart, len(places)

    def run(rows: Sequence[Row]) -> Floats:
        answers, going, cells = np.zeros(len(rows)), np.arange(len(rows)), [list(row) for row in rows]
        for step, taken, threshold in steps:
            told = step([[row[place] for place in taken] for row in cells])
            for row, output in zip(cells, told.tolist(), strict=True):
                row.append(output)
            if threshold is not None:
                kept = np.flatnonzero(~(told < threshold))
                going, told, cells = going[kept], told[kept], [cells[place] for place in kept.tolist()]
            if not cells:
                return answers
        answers[going] = told
        return answers

    return Scorer(run, taken_apart=whole)


def _pipeline_scorer(pipeline: Any, features: Mapping[str, ColumnType]) -> Scorer:
    def whole(rows: Sequence[Row]) -> Floats:
        return score(pipeline, _frame(rows, features), features)

    try:
        parts = _take_apart(pipeline, features)
        probes = _probes(pipeline, features)
        alone = probes[:_PROBED_ALONE]
        same = np.array_equal(parts(probes), whole(probes), equal_nan=True) and all(
            np.array_equal(parts([row]), whole([row]), equal_nan=True) for row in alone
        )
    except _OF_ANOTHER_SHAPE:
        return Scorer(whole, taken_apart=False)
    return Scorer(parts, taken_apart=True) if same else Scorer(whole, taken_apart=False)


@dataclass(frozen=True)
class _Number:
    """A number's cell stands at `place`, as (value - mean) / scale; a null's `nulls` stand at `columns`."""

    place: int
    mean: float
    scale: float
    columns: tuple[int, ...]
    nulls: tuple[float, ...]

    def put(self, value: Any, row: list[float]) -> None:
        if value is not None and isfinite(value):
            row[self.place] = (value - self.mean) / self.scale
            return
        for column, cell in zip(self.columns, self.nulls, strict=True):
            row[column] = cell


@dataclass(frozen=True)
class _Levels:
    """What each level puts at `columns`."""

    columns: tuple[int, ...]
    known: Mapping[str, tuple[float, ...]]
    unseen: tuple[float, ...]

    def put(self, value: Any, row: list[float]) -> None:
        cells = self.known.get("" if value is None else value, self.unseen)
        for column, cell in zip(self.columns, cells, strict=True):
            row[column] = cell


def _take_apart(pipeline: Any, features: Mapping[str, ColumnType]) -> Score:
    parts = [_part(pipeline, features, name, kind) for name, kind in features.items()]
    empty = _prepared(pipeline, features, [[0.0 if kind == "numeric" else "" for kind in features.values()]])
    base = empty.ravel().tolist()
    predict = _predictor(pipeline, features)

    def run(rows: Sequence[Row]) -> Floats:
        prepared = []
        for row in rows:
            cells = base.copy()
            for part, value in zip(parts, row, strict=True):
                part.put(value, cells)
            prepared.append(cells)
        return predict(np.array(prepared, dtype=np.float64).reshape(len(rows), len(base)))

    return run


def _predictor(pipeline: Any, features: Mapping[str, ColumnType]) -> Callable[[Floats], Floats]:
    model = pipeline[-1]
    if hasattr(model, "_predictors"):
        return Trees.of(model).predict
    return partial(_interpolated, model) if hasattr(model, "X_thresholds_") else _linear(pipeline, features)


def _interpolated(model: Any, rows: Floats) -> Floats:
    """What an isotonic regression of one column says: between its thresholds a line, beyond them the last."""
    return np.asarray(np.interp(rows[:, 0], model.X_thresholds_, model.y_thresholds_), dtype=np.float64)


def _linear(pipeline: Any, features: Mapping[str, ColumnType]) -> Callable[[Floats], Floats]:
    """A linear model itself, on the matrix that the pipeline would give it: the order in memory changes its sums."""
    model = pipeline[-1]
    sample = pipeline[:-1].transform(table(_frame([[None] * len(features)] * 2, features), features))
    if not isinstance(sample, np.ndarray):
        as_given: Callable[[Floats], Any] = type(sample)
    else:
        as_given = np.ascontiguousarray if sample.flags.c_contiguous else np.asfortranarray

    def predict(rows: Floats) -> Floats:
        with one_thread():
            return predicted(model, as_given(rows))

    return predict


def _part(pipeline: Any, features: Mapping[str, ColumnType], name: str, kind: ColumnType) -> _Number | _Levels:
    """Found by varying one feature while the others stand still."""
    values: list[Cell] = [None, 0.0, 1.0] if kind == "numeric" else ["", _UNSEEN, *_seen(pipeline, name)]
    rows = [[value if other == name else None for other in features] for value in values]
    prepared = _prepared(pipeline, features, rows)
    columns = _moved(prepared, prepared[0])
    cells = [tuple(row) for row in prepared[:, columns].tolist()]
    if kind == "categorical":
        shared: dict[tuple[float, ...], tuple[float, ...]] = {}
        known = {str(level): shared.setdefault(cell, cell) for level, cell in zip(values, cells, strict=True)}
        return _Levels(columns, known, cells[1])
    (place,) = _moved(prepared[2:], prepared[1])
    _, numbers, names = next(part for part in pipeline[0].transformers_ if part[0] == "numbers")
    scaler = numbers[-1] if hasattr(numbers, "steps") else None
    at = list(names).index(name)
    mean, scale = (float(scaler.mean_[at]), float(scaler.scale_[at])) if scaler is not None else (0.0, 1.0)
    return _Number(place, mean, scale, columns, cells[0])


def _moved(rows: Floats, base: Floats) -> tuple[int, ...]:
    """The columns in which any of the rows is another than the base."""
    moved = (rows != base) & ~(np.isnan(rows) & np.isnan(base))
    return tuple(np.flatnonzero(moved.any(axis=0)).tolist())


def _seen(pipeline: Any, name: str) -> list[str]:
    """The levels of a categorical feature that training saw."""
    _, encoder, names = next(part for part in pipeline[0].transformers_ if part[0] == "levels")
    return [str(level) for level in encoder.categories_[list(names).index(name)]]


def _prepared(pipeline: Any, features: Mapping[str, ColumnType], rows: Sequence[Row]) -> Floats:
    """Rows as the last step's own arithmetic sees them (rows, columns)."""
    with one_thread():
        cells = pipeline[:-1].transform(table(_frame(rows, features), features))
        cells = cells.toarray() if hasattr(cells, "toarray") else cells
        model = pipeline[-1]
        cells = model._preprocess_X(cells, reset=False) if hasattr(model, "_preprocess_X") else cells
    return np.asarray(cells, dtype=np.float64)


def _frame(rows: Sequence[Row], features: Mapping[str, ColumnType]) -> pl.DataFrame:
    columns = zip(*rows, strict=True)
    types = {"numeric": pl.Float64, "categorical": pl.String}
    return pl.DataFrame(
        [
            pl.Series(name, list(column), dtype=types[kind])
            for (name, kind), column in zip(features.items(), columns, strict=True)
        ]
    )


def _probes(pipeline: Any, features: Mapping[str, ColumnType]) -> list[Row]:
    """Seen and unseen levels, nulls, and numbers at, beside and far from what the model compares them with."""
    random = np.random.default_rng(0)
    columns = [
        _numbers(pipeline, random) if kind == "numeric" else _texts(_seen(pipeline, name), random)
        for name, kind in features.items()
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _numbers(pipeline: Any, random: np.random.Generator) -> list[Cell]:
    model = pipeline[-1]
    cuts = np.array([0.0])
    if hasattr(model, "_predictors"):
        cuts = np.concatenate([tree.nodes["num_threshold"] for trees in model._predictors for tree in trees])
        cuts = cuts[np.isfinite(cuts)]
    elif hasattr(model, "X_thresholds_"):
        cuts = model.X_thresholds_
    drawn: npt.NDArray[np.float64] = random.choice(cuts, _PROBES)
    beside = (drawn, np.nextafter(drawn, np.inf), drawn + random.normal(size=_PROBES), 10 * random.normal(size=_PROBES))
    chosen = np.choose(random.integers(0, 4, _PROBES), beside)
    return [
        None if null else number for null, number in zip(random.random(_PROBES) < 0.1, chosen.tolist(), strict=True)
    ]


def _texts(seen: Sequence[str], random: np.random.Generator) -> list[Cell]:
    choices: list[Cell] = [*seen, None, _UNSEEN]
    return [choices[at] for at in random.integers(0, len(choices), _PROBES).tolist()]
