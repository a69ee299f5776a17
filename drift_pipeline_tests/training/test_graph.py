"""Steps are trained one after the other, none of them on the overfitted answers of an earlier one; what is not
retrained is taken from the champion as it is."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.registry.bundle import Bundle, make_bundle
from drift_pipeline.registry.graph import GRAPH, listed_steps
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.behaviour import behavioural_gates
from drift_pipeline.training.graph import Graph, load_model
from drift_pipeline.training.own import digest_of, sources_of
from drift_pipeline.training.results import Outcome
from drift_pipeline.training.scan import allowed_types_gate, secrets_gate
from drift_pipeline.training.search import start_row
from drift_pipeline.training.steps import Plan, TrainedGraph, train_graph, unseen_scores
from drift_pipeline.training.trainers import TRAINERS, fit, predicted, score, table
from drift_pipeline_tests.training.worlds import FILTERED, graph_spec, history, spec
from drift_pipeline_tests.training.worlds import GRAPH as TWO

ROWS = 2500


@cache
def made(filtered: bool = False) -> TrainedGraph:
    return train_graph(history(ROWS), graph_spec(FILTERED if filtered else TWO, trials=1), 0, "v1")


def bundle_of(trained: TrainedGraph, own: ModelSpec, version: str = "v1") -> Bundle:
    files = {f"{step.facts['name']}.skops": step.model for step in trained.steps}
    graph = [dict(step.facts) for step in trained.steps]
    return make_bundle({"version": version, "features": dict(own.features), GRAPH: graph}, files)


def by_hand(graph: Graph, rows: pl.DataFrame, own: ModelSpec) -> np.ndarray:
    """What the steps' pipelines say, called as scikit-learn has them, row by row of the spec."""
    frame, score_of = table(rows, own.features), np.zeros(rows.height)
    alive = np.ones(rows.height, dtype=bool)
    for stage in graph.stages:
        told = np.full(rows.height, np.nan)
        told[alive] = predicted(stage.pipeline, frame.loc[alive, [*stage.inputs]])
        frame[stage.name] = told
        if stage.threshold is not None:
            alive &= ~(told < stage.threshold)
    score_of[alive] = told[alive]
    return score_of


@pytest.mark.parametrize("filtered", [False, True])
def test_a_graph_scores_as_its_pipelines_do_by_hand_and_reads_back(filtered: bool) -> None:
    own, trained, rows = graph_spec(FILTERED if filtered else TWO), made(filtered), history(400, seed=9)
    wanted = by_hand(trained.pipeline, rows, own)
    assert np.array_equal(score(trained.pipeline, rows, own.features), wanted)
    assert np.array_equal(score(load_model(bundle_of(trained, own)), rows, own.features), wanted)
    assert (wanted == 0).any() == filtered
    assert len(np.unique(wanted)) > 10


def test_the_same_seed_and_rows_give_the_same_graph() -> None:
    again = train_graph(history(ROWS), graph_spec(trials=1), 0, "v1")
    rows = history(100, seed=3)
    first, second = (score(one.pipeline, rows, graph_spec().features) for one in (made(), again))
    assert np.array_equal(first, second)


def test_what_a_bundle_says_of_a_step_is_how_it_was_trained() -> None:
    first, second = made().steps
    assert [first.facts["name"], second.facts["name"]] == ["retrieval", "ranking"]
    assert second.facts["inputs"] == ["retrieval", "age", "device"]
    assert second.facts["sha256"] == sha256(second.model)
    assert (second.facts["version"], second.facts["trainer"]) == ("v1", "gradient_boosting")
    assert {*made().params} == {"retrieval.C", *(f"ranking.{name}" for name in second.facts["params"])}


# not on what it was fitted on


def memory() -> Any:
    """A step that knows its rows by heart: of them it says their label, of others nothing."""
    from sklearn.compose import ColumnTransformer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import Pipeline

    columns = ColumnTransformer([("numbers", "passthrough", ["amount", "age"])])
    return Pipeline([("columns", columns), ("model", KNeighborsClassifier(1))])


NOISE = history(1500).with_columns(_label=pl.Series(np.random.default_rng(4).integers(0, 2, 1500)).cast(pl.Int8))
OWN = graph_spec().of_step("retrieval")


@pytest.mark.parametrize("seen_from", [0, 500])
def test_a_later_step_never_sees_what_a_step_says_of_its_own_rows(seen_from: int) -> None:
    """Labels are noise: by heart they are known, of unseen rows they cannot be."""
    step = fit(memory(), NOISE[seen_from:], OWN.features)
    told, known = unseen_scores(step, NOISE, OWN, np.arange(1500) >= seen_from)
    right = told == NOISE["_label"].to_numpy()
    assert known.all()
    assert np.array_equal(score(step, NOISE[seen_from:], OWN.features), NOISE["_label"][seen_from:].to_numpy())
    assert right[seen_from:].mean() == pytest.approx(0.5, abs=0.06)


def test_rows_that_a_step_was_not_trained_on_are_asked_of_itself() -> None:
    step = fit(memory(), NOISE[:1000], OWN.features)
    told, _ = unseen_scores(step, NOISE, OWN, np.arange(1500) < 1000)
    assert np.array_equal(told[1000:], score(step, NOISE[1000:], OWN.features))


def test_a_fifth_whose_other_rows_have_one_label_is_not_known() -> None:
    rows = NOISE.with_columns(_label=pl.when(pl.int_range(pl.len()) == 0).then(1).otherwise(0).cast(pl.Int8))
    step = fit(memory(), rows, OWN.features)
    _, known = unseen_scores(step, rows, OWN, np.ones(1500, dtype=bool))
    assert np.flatnonzero(~known).tolist() == [*range(0, 1500, 5)]


def test_each_fifth_is_spread_over_all_times_so_that_the_newest_world_is_known() -> None:
    """Where the concept turned, a copy without the newest rows would say the opposite of what the step says."""
    rows = history(4000, flipped_from=3000)
    step = fit(TRAINERS["logistic_regression"].build({}, OWN, 0), rows[3000:], OWN.features)
    told, _ = unseen_scores(step, rows, OWN, np.arange(4000) >= 3000)
    assert np.corrcoef(told[3000:], score(step, rows[3000:], OWN.features))[0, 1] > 0.99


def test_rows_below_a_threshold_train_no_later_step() -> None:
    first, second, last = made(filtered=True).steps
    assert first.facts["rows"] == ROWS > second.facts["rows"] == last.facts["rows"]
    assert made(filtered=True).used.height == made(filtered=True).rows == ROWS


def test_a_filter_that_leaves_too_few_rows_is_told() -> None:
    strict = {**FILTERED, "prefilter": {**FILTERED["prefilter"], "threshold": 0.999}}
    with pytest.raises(InputError, match="rows hold no fold"):
        train_graph(history(1000), graph_spec(strict, trials=1), 0, "v1")


def test_a_calibration_makes_a_score_of_another_scale_a_probability() -> None:
    graph = made(filtered=True).pipeline
    rows = history(4000, seed=8)
    told = score(graph, rows, graph_spec(FILTERED).features)
    high = told > 0.7
    assert rows["_label"].to_numpy()[high].mean() == pytest.approx(told[high].mean(), abs=0.06)


def test_a_regression_is_a_graph_of_numbers() -> None:
    document = {**graph_spec().model_dump(mode="json"), "task": "regression"}
    document = {key: document[key] for key in ("name", "owner", "task", "features")}
    graph = {"first": {"inputs": ["amount"], "trainer": "ridge"}, "last": {"inputs": ["first", "age", "device"]}}
    more = {"outcome": {"column": "label"}, "graph": graph, "retrain": {"trials": 1}}
    own = ModelSpec.model_validate({**document, **more})
    rows = history(1500).with_columns(_label=3 * pl.col("amount") + pl.col("age"))
    trained = train_graph(rows, own, 0, "v1")
    told = score(trained.pipeline, rows, own.features)
    assert np.corrcoef(told, rows["_label"].to_numpy())[0, 1] > 0.9
    assert np.array_equal(told, by_hand(trained.pipeline, rows, own))


# one step alone


def test_a_step_that_is_not_retrained_keeps_its_bytes_and_says_where_it_came_from() -> None:
    own, older = graph_spec(trials=1), history(ROWS)
    champion = bundle_of(made(), own)
    newer = pl.concat(
        [older, history(1000, seed=7).with_columns(pl.col("_time") + (older["_time"][-1] - older["_time"][0]))]
    )
    again = train_graph(newer, own, 1, "v2", Plan(("ranking",), champion))
    kept, trained = again.steps
    assert kept.model == champion.files["retrieval.skops"]
    assert kept.facts == made().steps[0].facts
    assert (kept.facts["version"], trained.facts["version"]) == ("v1", "v2")
    assert trained.facts["sha256"] != champion.manifest["graph"][1]["sha256"]
    assert again.oldest == older["_time"][0]
    listed = listed_steps(bundle_of(again, own, "v2").manifest)
    assert [step.facts["version"] for step in listed] == ["v1", "v2"]


def test_the_step_before_alone_leaves_the_later_one_as_it_is() -> None:
    own = graph_spec(trials=1)
    again = train_graph(history(ROWS, seed=2), own, 1, "v2", Plan(("retrieval",), bundle_of(made(), own)))
    assert [step.facts["version"] for step in again.steps] == ["v2", "v1"]
    assert again.steps[1].model == made().steps[1].model


def other_edges() -> ModelSpec:
    return graph_spec({**TWO, "retrieval": {**TWO["retrieval"], "inputs": ["age", "amount"]}})


def other_threshold() -> ModelSpec:
    return graph_spec({**TWO, "retrieval": {**TWO["retrieval"], "threshold": 0.1}})


@pytest.mark.parametrize("wanted", [other_edges, other_threshold])
def test_a_champion_whose_step_is_another_one_by_now_is_not_taken_from(wanted: Any) -> None:
    champion = bundle_of(made(), graph_spec())
    with pytest.raises(SpecError, match="ranking cannot be trained alone: the champion has no step retrieval as"):
        Plan(("ranking",), champion).taken(wanted())


@pytest.mark.parametrize("champion", [None, make_bundle({"model": "fraud"}, {"model.skops": b"x"})])
def test_without_a_graph_to_take_from_all_steps_are_trained_or_none(champion: Bundle | None) -> None:
    with pytest.raises(SpecError, match="the champion has no step retrieval as the spec declares it; train that one"):
        Plan(("ranking",), champion).taken(graph_spec())
    assert Plan(("ranking", "retrieval"), champion).taken(graph_spec()) == {}
    with pytest.raises(SpecError, match="the graph has no step gone any more"):
        Plan(("gone",), champion).taken(graph_spec())


# own trainers, gates


TRAINER = """
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline


def build(trial, spec):
    columns = ColumnTransformer([("n", "passthrough", [*spec.features])])
    return Pipeline([("columns", columns), ("model", LogisticRegression(C=trial.suggest_float("C", 0.1, 1)))])
"""


def test_a_step_has_a_trainer_of_its_own_that_is_stored_and_pinned_with_it(tmp_path: Path) -> None:
    (tmp_path / "retrieval.py").write_text(dedent(TRAINER))
    own = graph_spec({**TWO, "retrieval": {**TWO["retrieval"], "trainer": "./retrieval.py"}}, trials=1).placed(tmp_path)
    sources = sources_of(own)
    trained = train_graph(history(1500), own, 0, "v1", sources=sources)
    assert [step.source for step in trained.steps] == [(tmp_path / "retrieval.py").read_bytes(), None]
    assert trained.trainer_source == digest_of(sources) is not None
    assert sources_of(own, ["ranking"]) == {}
    (tmp_path / "retrieval.py").write_text("def build(trial, spec): raise ValueError('no luck')")
    with pytest.raises(SpecError, match=r"retrieval\.py: build failed: ValueError: no luck"):
        train_graph(history(1500), own, 0, "v1")


def test_gates_ask_every_step_and_the_whole() -> None:
    trained = made()
    files = {f"{step.facts['name']}.skops": step.model for step in trained.steps}
    assert allowed_types_gate(files).outcome is Outcome.PASS
    assert "TreePredictor" in str(allowed_types_gate(files).facts)
    assert secrets_gate(files).facts["files"] == ["ranking.skops", "retrieval.skops"]
    told = graph_spec().model_copy(update={"gates": spec().gates.model_copy(update={"direction": {"amount": "up"}})})
    (found,) = behavioural_gates(trained.pipeline, history(1000, seed=6), told)
    assert (found.name, found.outcome) == ("direction:amount", Outcome.PASS)


def test_rows_that_lack_a_feature_are_told() -> None:
    with pytest.raises(InputError, match="no column device"):
        score(made().pipeline, history(5).drop("device"), graph_spec().features)
    with pytest.raises(InputError, match="the step retrieval takes amount, which the rows do not have"):
        made().pipeline.predict(table(history(5), {"age": "numeric", "device": "categorical"}))


def test_start_rows_stay_a_step_s_own() -> None:
    """A step whose world turned round trains on the new one alone; the step before it may know more."""
    rows = history(6000, flipped_from=4000)
    trained = train_graph(rows, graph_spec(trials=1), 0, "v1", fresh=2000)
    assert start_row(rows, {}, OWN, 0, 2000) > 0
    assert trained.steps[0].facts["rows"] < 6000
    assert replace(trained, rows=0).used.height == trained.rows
