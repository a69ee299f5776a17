"""A graph is served as one pipeline is: its steps in order, each the fast way, equal to calling them by hand."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import IntegrityError
from drift_pipeline.registry.graph import GRAPH
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.scoring import Row, make_scorer
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.training.graph import Graph, Stage
from drift_pipeline.training.steps import TrainedGraph, train_graph
from drift_pipeline.training.trainers import score
from drift_pipeline_tests.serving.worlds import AT, SPECS, Home, heard, infer, listening, until
from drift_pipeline_tests.training.worlds import FILTERED, graph_spec, history
from drift_pipeline_tests.training.worlds import GRAPH as TWO

FEATURES = SPECS["fraud"].features
LINEAR = {name: {**step, "trainer": "logistic_regression"} for name, step in TWO.items()}


@cache
def trained(name: str) -> TrainedGraph:
    graph = {"two": TWO, "filtered": FILTERED, "linear": LINEAR}[name]
    return train_graph(history(1500), graph_spec(graph, trials=1), 0, "v1")


def rows(n: int, seed: int) -> Sequence[Row]:
    """With nulls, infinities and levels that training has not seen."""
    random = np.random.default_rng(seed)
    frame = history(n, seed=seed).select(*FEATURES)
    odd: tuple[Any, ...] = (None, float("inf"), -float("inf"), float("nan"), 12.0)
    told = [list(row) for row in frame.iter_rows()]
    for row in told:
        for place in range(2):
            if random.random() < 0.15:
                row[place] = odd[random.integers(len(odd))]
        if random.random() < 0.2:
            row[2] = (None, "", "a level that nobody saw")[random.integers(3)]
    return told


def frame_of(told: Sequence[Row]) -> pl.DataFrame:
    types = {"numeric": pl.Float64, "categorical": pl.String}
    return pl.DataFrame(
        [list(row) for row in told], schema={name: types[kind] for name, kind in FEATURES.items()}, orient="row"
    )


@pytest.mark.parametrize("name", ["two", "filtered", "linear"])
def test_each_row_is_scored_as_the_pipelines_do_together_and_alone(name: str) -> None:
    graph, told = trained(name).pipeline, rows(300, 1)
    scorer = make_scorer(graph, FEATURES)
    assert scorer.taken_apart
    wanted = score(graph, frame_of(told), FEATURES)
    assert np.array_equal(scorer.score(told), wanted)
    for place in range(0, 300, 15):
        assert scorer.score([told[place]])[0] == score(graph, frame_of(told[place : place + 1]), FEATURES)[0]
    assert (wanted == 0).any() == (name == "filtered")


def test_a_step_that_cannot_be_taken_apart_is_scored_as_a_whole_and_the_others_are_not() -> None:
    from sklearn.pipeline import Pipeline

    first, second = trained("two").pipeline.stages
    nested = Stage(second.name, second.inputs, None, Pipeline([("first", "passthrough"), *second.pipeline.steps]))
    scorer, told = make_scorer(Graph((first, nested)), FEATURES), rows(40, 2)
    assert not scorer.taken_apart
    assert np.array_equal(scorer.score(told), score(trained("two").pipeline, frame_of(told), FEATURES))


def test_rows_that_are_all_below_the_threshold_are_scored_by_nobody_else() -> None:
    first, *later = trained("filtered").pipeline.stages
    strict = Graph((Stage(first.name, first.inputs, 0.9999, first.pipeline), *later))
    scorer = make_scorer(strict, FEATURES)
    assert scorer.score(rows(20, 3)).tolist() == [0.0] * 20
    assert score(strict, history(20), FEATURES).tolist() == [0.0] * 20


def test_a_graph_whose_feature_the_spec_does_not_have_any_more_is_not_loaded() -> None:
    with pytest.raises(IntegrityError, match="its step retrieval takes amount, which is no feature of the spec"):
        make_scorer(trained("two").pipeline, {"age": "numeric", "device": "categorical"})


# over HTTP


def put(home: Home, name: str) -> dict[str, Any]:
    made = trained(name)
    fields = {"version": "v1", "features": dict(FEATURES), GRAPH: [dict(step.facts) for step in made.steps]}
    bundle = home.registry.put(fields, {f"{step.facts['name']}.skops": step.model for step in made.steps})
    times = {"trained_from": AT.isoformat(), "unseen_from": AT.isoformat()}
    return {"digest": bundle.digest, "version": "v1", **times}


def test_a_gateway_answers_with_a_graph_and_goes_on_where_a_byte_of_the_next_one_s_step_differs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    version = put(home, "filtered")
    home.champion(version)
    asked = [(0.5, 1.0, "tv"), (-3.0, 0.0, "phone"), (None, None, "a level that nobody saw"), (2.0, None, None)]
    app = make_app(home.settings, SPECS, SpoolWriter(tmp_path / "spool"), SystemClock())
    with listening(app) as address, httpx.Client(base_url=address, timeout=30) as asks:
        asks.headers["X-API-Key"] = home.producer()
        heard(asks)
        told = asks.post("/v2/models/fraud/infer", json=infer(asked)).json()
        said = next(tensor["data"] for tensor in told["outputs"] if tensor["name"] == "score")
        assert said == score(trained("filtered").pipeline, frame_of(asked), FEATURES).tolist()
        assert said[1] == 0
        other = put(home, "two")
        (path,) = home.settings.registry.rglob(f"{str(other['digest'])[7:]}/ranking.skops")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        home.champion(other)
        until(asks, "a version cannot be loaded", "/v2/health/ready")
        again = asks.post("/v2/models/fraud/infer", json=infer(asked)).json()
        assert again["outputs"] == told["outputs"]
    home.store.close()
