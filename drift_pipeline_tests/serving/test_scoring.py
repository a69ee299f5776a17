"""The fast way of scoring is the slow way's, to the bit."""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.registry.bundle import dump_pipeline, load_pipeline
from drift_pipeline.serving.scoring import make_scorer
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.trainers import TRAINERS, fit, score

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FEATURES = {"amount": "numeric", "device": "categorical", "age": "numeric", "shop": "categorical", "void": "numeric"}
CASES = [
    ("binary_classification", "gradient_boosting"),
    ("binary_classification", "logistic_regression"),
    ("regression", "gradient_boosting"),
    ("regression", "ridge"),
]


def spec(task: str, trainer: str, features: dict[str, str]) -> ModelSpec:
    document = {"name": "m", "owner": "o", "task": task, "features": features, "outcome": {"column": "label"}}
    return ModelSpec.model_validate({**document, "retrain": {"trainer": trainer}})


def rows(n: int, seed: int, *, nulls: bool = True) -> pl.DataFrame:
    """300 shops, of which a model keeps 200; later rows also have levels that training has not seen."""
    random = np.random.default_rng(seed)
    missing = random.random((3, n)) < (0.1 if nulls else 0.0)
    amount, age = 10.0 ** random.integers(-3, 4, n) * random.normal(size=n), random.normal(size=n)
    device = random.choice(["phone", "tv", "web", f"new {seed}"], n)
    return pl.DataFrame(
        {
            "amount": pl.Series(
                [None if gone else x for gone, x in zip(missing[0], amount, strict=True)], dtype=pl.Float64
            ),
            "device": pl.Series(
                [None if gone else x for gone, x in zip(missing[1], device, strict=True)], dtype=pl.String
            ),
            "age": pl.Series([None if gone else x for gone, x in zip(missing[2], age, strict=True)], dtype=pl.Float64),
            "shop": [f"shop {k}" for k in np.minimum(random.geometric(0.02, n), 300)],
            "void": pl.Series([None] * n, dtype=pl.Float64),
            "_label": (amount + random.normal(size=n) > 0).astype(np.float64),
        }
    )


@cache
def trained(task: str, trainer: str, names: tuple[str, ...] = tuple(FEATURES), nulls: bool = True) -> "Pipeline":
    features = {name: FEATURES[name] for name in names}
    params: dict[str, Any] = {"max_iter": 60} if trainer == "gradient_boosting" else {}
    pipeline = TRAINERS[trainer].build(params, spec(task, trainer, features), 0)
    fitted = fit(pipeline, rows(3000, 0, nulls=nulls), spec(task, trainer, features).features)
    return load_pipeline(dump_pipeline(fitted))


@pytest.mark.parametrize(("task", "trainer"), CASES)
@pytest.mark.parametrize("names", [tuple(FEATURES), ("amount", "age"), ("shop", "device")])
@pytest.mark.parametrize("nulls", [True, False], ids=["nulls", "complete"])
def test_a_pipeline_taken_apart_scores_every_row_as_the_whole_does(
    task: str, trainer: str, names: tuple[str, ...], nulls: bool
) -> None:
    """Together and one by one, with nulls, unseen levels and infinities."""
    pipeline, features = (
        trained(task, trainer, names, nulls),
        spec(task, trainer, {n: FEATURES[n] for n in names}).features,
    )
    scorer = make_scorer(pipeline, features)
    frame = rows(400, 1).select(names)
    told = [list(row) for row in frame.iter_rows()]
    assert scorer.taken_apart
    assert np.array_equal(scorer.score(told), score(pipeline, frame, features))
    for place in range(0, 400, 40):
        assert scorer.score([told[place]])[0] == score(pipeline, frame[place], features)[0]


def test_an_infinity_is_a_null() -> None:
    pipeline = trained("binary_classification", "gradient_boosting", ("amount", "age"))
    features = spec("binary_classification", "gradient_boosting", {"amount": "numeric", "age": "numeric"}).features
    found = make_scorer(pipeline, features).score([[float("inf"), 1.0], [None, 1.0]])
    assert found[0] == found[1]


def test_a_pipeline_of_another_shape_is_scored_as_a_whole() -> None:
    from sklearn.pipeline import Pipeline

    features = spec("binary_classification", "logistic_regression", FEATURES).features
    known = trained("binary_classification", "logistic_regression")
    nested = Pipeline([("first", "passthrough"), *known.steps])
    frame = rows(5, 1)
    scorer = make_scorer(nested, features)
    assert not scorer.taken_apart
    told = [list(row) for row in frame.select(*FEATURES).iter_rows()]
    assert np.array_equal(scorer.score(told), score(known, frame, features))


def test_parts_that_say_something_else_are_not_used() -> None:
    """A last step that answers otherwise than its trees add up to."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    class Rounded(HistGradientBoostingClassifier):  # type: ignore[misc]
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X).round(3)

    pipeline = trained("binary_classification", "gradient_boosting")
    features = spec("binary_classification", "gradient_boosting", FEATURES).features
    pipeline[-1].__class__ = Rounded
    scorer = make_scorer(pipeline, features)
    trained.cache_clear()
    assert not scorer.taken_apart
    assert scorer.score([[0.3, "tv", 0.1, "shop 1", None]])[0] * 1000 % 1 == pytest.approx(0, abs=1e-9)
