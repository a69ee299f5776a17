"""A regression is searched, trained and proven as a classification is, by its MAE."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from drift_pipeline.detection.judging.performance import PERFORMANCE
from drift_pipeline.registry.bundle import dump_pipeline, load_pipeline
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.gates import Outcome, performance_gate, poison_floor, prove
from drift_pipeline.training.search import start_row, train
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.training import worlds

Values = npt.NDArray[np.float64]
MAE = PERFORMANCE["regression"]
PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN
NAMES = ("gradient_boosting", "ridge")


def spec(**retrain: object) -> ModelSpec:
    document = worlds.spec().model_dump(mode="json")
    own: dict[str, object] = {"task": "regression", "prediction": {}, "outcome": {"column": "label"}}
    own["kpis"] = {"latency_p95_ms": {"threshold": 2000}}  # this machine may be busy
    return ModelSpec.model_validate({**document, **own, "retrain": {"trials": 2, **retrain}})


def history(rows: int, *, seed: int = 0, flipped_from: int | None = None) -> pl.DataFrame:
    """As the classification's, with a label in units of 10: the same odds and noise of sd 1."""
    frame = worlds.history(rows, seed=seed, flipped_from=flipped_from)
    turn = pl.when(pl.int_range(pl.len()) < (rows if flipped_from is None else flipped_from)).then(1.0).otherwise(-1.0)
    noise = pl.Series(np.random.default_rng(seed + 1).normal(size=rows))
    odds = 1.5 * turn * pl.col("amount") + (pl.col("device") == "tv").cast(pl.Float64) + noise
    return frame.with_columns(_label=100 + 10 * odds)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_numbers_and_levels_and_survives_the_registry(name: str) -> None:
    rows, new = history(3000), history(1000, seed=5)
    pipeline = fit(TRAINERS[name].build({}, spec(), seed=0), rows, spec().features)
    told = score(pipeline, new, spec().features)
    assert MAE.of(new["_label"], told) == pytest.approx(8, rel=0.15)  # nobody errs less than sqrt(2 / pi) sd
    again = load_pipeline(dump_pipeline(pipeline))
    assert (score(again, new, spec().features) == told).all()
    odd = new.head(3).with_columns(amount=pl.lit(None, pl.Float64), device=pl.lit("fridge"))
    assert np.isfinite(score(pipeline, odd, spec().features)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_search_tells_its_mae_and_more_trials_are_no_worse(name: str) -> None:
    rows = history(1500)
    found = [train(rows, spec(trainer=name, trials=trials), seed=3).validation for trials in (1, 3)]
    assert found[1] <= found[0]
    assert 7 < found[1] < 11
    assert train(rows, spec(trainer=name, trials=3), seed=3).validation == found[1]


def test_only_a_concept_that_was_turned_round_is_forgotten() -> None:
    params = {"max_iter": 50, "max_leaf_nodes": 3, "learning_rate": 0.1}
    turned = history(8000, flipped_from=6000)
    assert start_row(history(8000), params, spec(), 0) == 0
    assert start_row(turned, params, spec(), 0, fresh=2000) >= 6000


def _block(rows: int = 1500, seed: int = 0) -> tuple[Values, Callable[[float], Values]]:
    random = np.random.default_rng(seed)
    labels = 50 + 10 * random.normal(size=rows)
    return labels, lambda width: labels + width * random.normal(size=rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("candidate", "champion", "scheduled", "after_a_fall"),
    [(2.0, 4.0, PASS, PASS), (4.0, 2.0, FAIL, FAIL), (2.0, 2.1, PASS, PASS)],
)
def test_a_model_that_errs_less_passes_and_one_that_errs_more_fails(
    candidate: float, champion: float, scheduled: Outcome, after_a_fall: Outcome, seed: int
) -> None:
    labels, model = _block(rows=40_000, seed=seed)
    sides = model(candidate), model(champion)
    assert performance_gate(MAE, labels, *sides, cause_is_performance=False).outcome is scheduled
    found = performance_gate(MAE, labels, *sides, cause_is_performance=True)
    assert (found.name, found.outcome) == ("mae", after_a_fall)
    assert found.value == pytest.approx(1 - candidate / champion, abs=0.03)


def test_the_same_model_does_no_harm_and_no_good() -> None:
    labels, model = _block()
    same = model(3.0)
    assert performance_gate(MAE, labels, same, same, cause_is_performance=False).outcome is PASS
    assert performance_gate(MAE, labels, same, same, cause_is_performance=True).outcome is FAIL


def test_a_first_model_is_better_than_a_constant_or_fails() -> None:
    labels, model = _block()
    assert performance_gate(MAE, labels, model(5.0), None, cause_is_performance=False).outcome is PASS
    constant = np.full(labels.shape, np.median(labels))
    assert performance_gate(MAE, labels, constant, None, cause_is_performance=False).outcome is FAIL


def test_too_few_labels_and_predictions_that_are_missing_are_unknown() -> None:
    labels, model = _block()
    told = model(1.0)
    few = performance_gate(MAE, labels[:99], told[:99], told[:99], cause_is_performance=False)
    assert (few.outcome, few.reason) == (UNKNOWN, "99 labels are too few to tell")
    gap = np.where(np.arange(1500) == 7, np.nan, told)
    assert performance_gate(MAE, labels, gap, told, cause_is_performance=False).outcome is UNKNOWN


def test_a_level_or_a_scale_that_moved_is_no_poison_and_noise_or_a_turn_is() -> None:
    labels, model = _block()
    told = model(5.0)
    assert poison_floor(labels, told).outcome is PASS
    assert poison_floor(labels, 3 * told + 1000).outcome is PASS
    for poisoned in (100 - told, np.random.default_rng(9).normal(size=1500), np.full(1500, 50.0)):
        found = poison_floor(labels, poisoned)
        assert found.outcome is FAIL
        assert "concordance" in found.reason
    assert poison_floor(np.full(1500, 1.0), told).outcome is UNKNOWN


def test_the_gates_of_a_regression_have_no_parity_for_it_decides_nothing() -> None:
    model = spec(trainer="ridge")
    pipeline = train(history(3000), model, 0).pipeline
    block = history(1000, seed=5).with_columns(_champion=pl.lit(100.0))
    gates = prove(pipeline, block, block, history(800, seed=7), model, performance_fell=True)
    assert [gate.name for gate in gates.results] == ["mae", "latency", "poison_floor"]
    assert gates.passed
