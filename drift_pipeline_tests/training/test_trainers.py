"""Every trainer learns, and scores whatever comes."""

import numpy as np
import polars as pl
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.registry.bundle import dump_pipeline, load_pipeline
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.training.worlds import history, spec

pytestmark = pytest.mark.parametrize("name", TRAINERS)

ODD = pl.DataFrame(
    {
        "amount": [None, float("nan"), float("inf"), 2.0],
        "age": [None, 1.0, -float("inf"), 2.0],
        "device": [None, "fridge", "tv", ""],
    },
    schema={"amount": pl.Float64, "age": pl.Float64, "device": pl.String},
)


def _auroc(labels: pl.Series, scores: object) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels.to_numpy(), scores))


def test_it_learns_numbers_and_levels(name: str) -> None:
    train, new = history(3000), history(2000, seed=1)
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    scores = score(pipeline, new, spec().features)
    assert _auroc(new["_label"], scores) > 0.78
    by_device = {device: scores[(new["device"] == device).to_numpy()].mean() for device in ("phone", "tv", "web")}
    assert by_device["tv"] > max(by_device["phone"], by_device["web"]) + 0.1


def test_nulls_infinities_and_unseen_levels_are_scored(name: str) -> None:
    train = history(500)
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    scores = score(pipeline, ODD, spec().features)
    assert ((scores > 0) & (scores < 1)).all()
    assert score(pipeline, ODD[:0], spec().features).shape == (0,)


@pytest.mark.parametrize("gap", ["null", "constant"])
def test_columns_that_say_nothing_do_no_harm(name: str, gap: str) -> None:
    train, new = (
        frame.with_columns(
            age=pl.lit(None if gap == "null" else 1.0, dtype=pl.Float64),
            device=pl.lit(None if gap == "null" else "tv", dtype=pl.String),
        )
        for frame in (history(2000), history(1000, seed=1))
    )
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    assert _auroc(new["_label"], score(pipeline, new, spec().features)) > 0.75


def test_a_thousand_levels_are_taken(name: str) -> None:
    random = np.random.default_rng(0)
    train = history(3000).with_columns(device=pl.Series([f"d{level}" for level in random.integers(0, 1000, 3000)]))
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    assert np.isfinite(score(pipeline, ODD, spec().features)).all()


def test_a_level_is_known_by_its_name_and_other_columns_are_not_looked_at(name: str) -> None:
    train, new = history(1000), history(200, seed=1)
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    shuffled = new.select(reversed(new.columns)).with_columns(stranger=pl.lit(1))
    assert (score(pipeline, new, spec().features) == score(pipeline, shuffled, spec().features)).all()
    with pytest.raises(InputError, match="no column age"):
        score(pipeline, new.drop("age"), spec().features)


def test_the_registry_gives_back_the_same_model(name: str) -> None:
    train = history(1000).with_columns(age=pl.when(pl.col("amount") > 0).then("age"))
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), train, spec().features)
    loaded = load_pipeline(dump_pipeline(pipeline))
    for frame in (train, ODD):
        assert (score(loaded, frame, spec().features) == score(pipeline, frame, spec().features)).all()
