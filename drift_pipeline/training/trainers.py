"""Trainers by name: each suggests hyperparameters and builds an unfitted scikit-learn pipeline for them.

A trainer's fields are its search space, so that a document can state the bounds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType, ModelSpec
from drift_pipeline.training.own import OwnTrainer, Source, source_of

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Trial
    from sklearn.base import TransformerMixin
    from sklearn.pipeline import Pipeline
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # ships no types

    from drift_pipeline.training.graph import Model

Params = dict[str, Any]
Bounds = tuple[float, float]
_MOST_LEVELS = 200  # of a categorical feature; rarer ones count as one level. HistGradientBoosting takes 255


class Trainer(Protocol):
    """Obligations: `suggest` draws only from `trial`; `build` takes any part of what was suggested, the rest being
    scikit-learn's defaults, and where `shares_columns` all steps but the last are the same for all params: a fold is
    prepared once. The same seed and rows give the same scores. Nulls and unseen levels are scored, not refused.
    """

    @property
    def shares_columns(self) -> bool: ...

    def suggest(self, trial: "Trial") -> Params: ...

    def build(self, params: Params, spec: ModelSpec, seed: int) -> "Pipeline": ...


class _Packaged:
    shares_columns: ClassVar[bool] = True


@dataclass(frozen=True)
class GradientBoosting(_Packaged):
    """Histogram gradient boosting of small trees. Small on purpose: on drifting data larger ones learnt the past.

    A regression minimises the absolute error, which is what it is judged by.
    """

    max_leaf_nodes: tuple[int, int] = (2, 8)
    learning_rate: Bounds = (0.03, 0.1)
    max_iter: tuple[int, int] = (50, 150)
    min_samples_leaf: tuple[int, int] = (20, 200)
    l2_regularization: Bounds = (0.01, 10)

    def suggest(self, trial: "Trial") -> Params:
        return {
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", *self.max_leaf_nodes),
            "learning_rate": trial.suggest_float("learning_rate", *self.learning_rate, log=True),
            "max_iter": trial.suggest_int("max_iter", *self.max_iter, step=25),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", *self.min_samples_leaf, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", *self.l2_regularization, log=True),
        }

    def build(self, params: Params, spec: ModelSpec, seed: int) -> "Pipeline":
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from sklearn.preprocessing import OrdinalEncoder

        numeric, categorical = _by_kind(spec.features)
        levels = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=_MOST_LEVELS)
        fixed = {
            "categorical_features": list(range(len(categorical))) or None,  # the levels come first
            "early_stopping": False,
            "random_state": seed,
        }
        regression = spec.task == "regression"
        model = (
            HistGradientBoostingRegressor(loss="absolute_error", **params, **fixed)
            if regression
            else HistGradientBoostingClassifier(**params, **fixed)
        )
        return _pipeline([("levels", levels, categorical), ("numbers", _imputer(), numeric)], model)


@dataclass(frozen=True)
class LogisticRegression(_Packaged):
    """Linear in scaled numbers and in levels; levels with fewer than `least_level_rows` rows count as one."""

    C: Bounds = (0.001, 10)
    least_level_rows: int = 20

    def suggest(self, trial: "Trial") -> Params:
        return {"C": trial.suggest_float("C", *self.C, log=True)}

    def build(self, params: Params, spec: ModelSpec, seed: int) -> "Pipeline":
        from sklearn import linear_model

        model = linear_model.LogisticRegression(**params, max_iter=1000, random_state=seed)
        return _pipeline(_scaled(spec, self.least_level_rows), model)


@dataclass(frozen=True)
class Ridge(_Packaged):
    """The regression's counterpart of `LogisticRegression`: least squares with the same columns."""

    alpha: Bounds = (0.01, 1000)
    least_level_rows: int = 20

    def suggest(self, trial: "Trial") -> Params:
        return {"alpha": trial.suggest_float("alpha", *self.alpha, log=True)}

    def build(self, params: Params, spec: ModelSpec, seed: int) -> "Pipeline":
        from sklearn import linear_model

        return _pipeline(_scaled(spec, self.least_level_rows), linear_model.Ridge(**params, random_state=seed))


@dataclass(frozen=True)
class Isotonic(_Packaged):
    """The last step of a graph that calibrates one number: monotone, and as steep as the labels say.

    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
    """

    def suggest(self, trial: "Trial") -> Params:  # noqa: ARG002
        return {}

    def build(self, params: Params, spec: ModelSpec, seed: int) -> "Pipeline":  # noqa: ARG002
        from sklearn.impute import SimpleImputer
        from sklearn.isotonic import IsotonicRegression

        numbers = SimpleImputer(strategy="median", keep_empty_features=True)
        return _pipeline([("numbers", numbers, [*spec.features])], IsotonicRegression(out_of_bounds="clip", **params))


TRAINERS: Mapping[str, Trainer] = {
    "gradient_boosting": GradientBoosting(),
    "logistic_regression": LogisticRegression(),
    "ridge": Ridge(),
}
CALIBRATORS: Mapping[str, Trainer] = {"isotonic": Isotonic()}  # of a step of a graph alone


def trainer_of(spec: ModelSpec, source: Source | None = None) -> Trainer:
    """The packaged trainer of the spec's name, or its own, of which `source` is the file as it was read.

    Raises:
        InputError: no trainer has the name; SpecError, where its own cannot be run.
    """
    if (own := source or source_of(spec)) is not None:
        return OwnTrainer(own, spec)
    name, known = spec.retrain.trainer, {**TRAINERS, **CALIBRATORS}
    if name not in known:
        raise InputError(f"there is no trainer {name!r}; there are: {', '.join(known)}")
    return known[name]


def table(frame: pl.DataFrame, features: Mapping[str, ColumnType]) -> "pd.DataFrame":
    """The features alone, in their order, as scikit-learn takes them: numbers with NaN for null and for infinities,
    levels as strings with "" for null (which no history has as a level: it reads "" as null).

    Raises:
        InputError: the frame lacks a feature.
    """
    import pandas as pd

    if missing := [name for name in features if name not in frame.columns]:
        raise InputError(f"no column {', '.join(missing)}: the model was built for the features {', '.join(features)}")
    return pd.DataFrame({name: _column(frame[name], kind) for name, kind in features.items()})


def fit(pipeline: "Pipeline", frame: pl.DataFrame, features: Mapping[str, ColumnType]) -> "Pipeline":
    """Fit on the features and `_label` of a frame."""
    rows = table(frame, features)
    with one_thread():
        return pipeline.fit(rows, frame["_label"].to_numpy())


def score(pipeline: "Model", frame: pl.DataFrame, features: Mapping[str, ColumnType]) -> npt.NDArray[np.float64]:
    """Probability of class 1, or a regression's value, for each row (rows,), also with nulls and levels that training
    has not seen."""
    if frame.is_empty():
        return np.empty(0)
    rows = table(frame, features)
    with one_thread():
        return predicted(pipeline, rows)


def categories_of(pipeline: "Pipeline") -> dict[str, list[object]]:
    """What the encoders of a fitted pipeline learnt of each column that a ColumnTransformer gives them, by name."""
    found: dict[str, list[object]] = {}
    for _, encoder, names in getattr(pipeline[0], "transformers_", ()):
        steps = [step for _, step in encoder.steps] if hasattr(encoder, "steps") else [encoder]
        learnt = next((step.categories_ for step in steps if hasattr(step, "categories_")), None)
        if learnt is not None and len(learnt) == len(names):
            found |= {name: [*categories] for name, categories in zip(names, learnt, strict=True)}
    return found


def predicted(model: Any, rows: Any) -> npt.NDArray[np.float64]:
    """What a fitted classifier or regressor says of prepared rows (rows,)."""
    told = model.predict_proba(rows)[:, 1] if hasattr(model, "predict_proba") else model.predict(rows)
    return np.asarray(told, dtype=np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep scikit-learn's OpenMP to one thread, to fit and to score.

    On 17,000 x 6 rows a second thread takes half as much CPU again and saves no time. On shared cores threads that
    wait for each other spin: beside two busy processes one row took 206 ms (p95 1,442) with two threads, 25 ms (p95 42)
    with one.
    """
    with _thread_pools().limit(limits=1):
        yield


@cache
def _thread_pools() -> "ThreadpoolController":
    """Looks through the loaded libraries, once: that takes too long for every row."""
    import sklearn.ensemble  # noqa: F401  # else there was nothing to find yet
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _column(column: pl.Series, kind: ColumnType) -> "pd.Series[float] | pd.Series[str]":
    import pandas as pd

    if kind == "categorical":
        return pd.Series(column.cast(pl.String).fill_null("").to_numpy(), dtype=object)
    numbers = column.cast(pl.Float64).to_numpy()
    return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan))


def _by_kind(features: Mapping[str, ColumnType]) -> tuple[list[str], list[str]]:
    numeric = [name for name, kind in features.items() if kind == "numeric"]
    return numeric, [name for name in features if name not in numeric]


def _scaled(spec: ModelSpec, least_level_rows: int) -> list[tuple[str, object, list[str]]]:
    """Columns for a linear model: a column a level, and scaled numbers."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric, categorical = _by_kind(spec.features)
    levels = OneHotEncoder(handle_unknown="ignore", min_frequency=least_level_rows, max_categories=_MOST_LEVELS)
    return [("levels", levels, categorical), ("numbers", make_pipeline(_imputer(), StandardScaler()), numeric)]


def _imputer() -> "TransformerMixin":
    """The median and a column that says where it was put in. Boosting takes NaN itself, but not a column of nothing
    else, which an outage of a source longer than the window makes."""
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)


def _pipeline(columns: list[tuple[str, object, list[str]]], model: object) -> "Pipeline":
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    return Pipeline([("columns", ColumnTransformer(columns)), ("model", model)])
