"""Behavioural tests: each passes for a model that behaves, fails for one that does not, or says it cannot tell."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.behaviour import direction, invariance, minimum_slice
from drift_pipeline.training.gates import prove
from drift_pipeline.training.results import Outcome
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.training.worlds import history, spec

PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN
ROWS = history(2000)


def logit(odds: pl.Expr) -> Any:
    """Scores of a made-up model that knows its odds."""
    return lambda rows: rows.select(1 / (1 + (-odds).exp())).to_series().to_numpy()


AMOUNT, TV = 1.5 * pl.col("amount"), pl.col("device") == "tv"
FAIR, UNFAIR = logit(AMOUNT), logit(AMOUNT + 4 * TV)


def declared(**gates: Any) -> ModelSpec:
    return ModelSpec.model_validate({**spec().model_dump(mode="json"), "gates": gates})


def regression() -> ModelSpec:
    document = spec().model_dump(mode="json", exclude={"kpis", "prediction", "outcome", "protected"})
    return ModelSpec.model_validate({**document, "task": "regression", "outcome": {"column": "label"}})


# invariance


@pytest.mark.parametrize(
    ("scores", "column", "at_most", "outcome"),
    [
        (FAIR, "device", 0.0, PASS),
        (UNFAIR, "device", 0.05, FAIL),
        (UNFAIR, "device", 1.0, PASS),
        (UNFAIR, "region", 0.0, PASS),  # protected, and no feature
        (FAIR, "amount", 0.01, FAIL),
    ],
)
def test_another_value_changes_at_most_this_share_of_decisions(
    scores: Any, column: str, at_most: float, outcome: Outcome
) -> None:
    found = invariance(scores, ROWS, spec(), column, at_most)
    assert (found.name, found.outcome, found.limit) == (f"invariance:{column}", outcome, at_most)


def test_the_share_is_that_of_rows_whose_decision_any_other_value_changes() -> None:
    found = invariance(UNFAIR, ROWS, spec(), "device", 0.0)
    without, with_tv = FAIR(ROWS) >= 0.5, logit(AMOUNT + 4)(ROWS) >= 0.5
    sides = np.where((ROWS["device"] == "tv").to_numpy(), with_tv, without)
    assert found.value == np.mean((sides != without) | (sides != with_tv))


def test_a_regression_is_held_to_how_far_its_values_move() -> None:
    rows = ROWS.with_columns(_label=pl.col("amount"))
    moved = invariance(lambda of: of.select(AMOUNT + TV).to_series().to_numpy(), rows, regression(), "device", 0.5)
    assert moved.outcome is FAIL
    assert moved.value == pytest.approx(1 / np.std(rows["amount"].to_numpy()))


@pytest.mark.parametrize("level", ["tv", None])
def test_a_column_of_one_value_tells_nothing(level: str | None) -> None:
    rows = ROWS.with_columns(device=pl.lit(level, dtype=pl.String))
    assert invariance(FAIR, rows, spec(), "device", 0.0).outcome is UNKNOWN


def test_a_score_that_is_no_number_tells_nothing() -> None:
    def nothing(rows: pl.DataFrame) -> Any:
        return np.full(rows.height, np.nan)

    assert invariance(nothing, ROWS, spec(), "device", 0.0).outcome is UNKNOWN
    assert direction(nothing, ROWS, "amount", up=True).outcome is UNKNOWN


# direction


@pytest.mark.parametrize(
    ("odds", "up", "outcome"),
    [
        (AMOUNT, True, PASS),
        (-AMOUNT, True, FAIL),
        (-AMOUNT, False, PASS),
        (AMOUNT, False, FAIL),
        (pl.lit(0.3) * TV, True, PASS),  # does not depend on it
        (-((pl.col("amount") - 1.0) ** 2), True, FAIL),  # rises, then falls
    ],
)
def test_raising_a_feature_moves_the_mean_score_one_way(odds: pl.Expr, up: bool, outcome: Outcome) -> None:
    assert direction(logit(odds), ROWS, "amount", up=up).outcome is outcome


@pytest.mark.parametrize("amount", [None, float("nan"), 3.0])
def test_a_feature_without_a_span_tells_nothing(amount: float | None) -> None:
    rows = ROWS.with_columns(amount=pl.lit(amount, dtype=pl.Float64))
    assert direction(FAIR, rows, "amount", up=True).outcome is UNKNOWN


def test_rows_without_the_value_take_no_part() -> None:
    rows = ROWS.with_columns(amount=pl.when(pl.int_range(pl.len()) % 2 == 0).then(None).otherwise(pl.col("amount")))
    assert direction(FAIR, rows, "amount", up=True).outcome is PASS


# minimum slice


def block(rare: int = 0) -> pl.DataFrame:
    """The label follows the amount, but not on tvs; `rare` rows are of another device."""
    device = pl.when(pl.int_range(pl.len()) < rare).then(pl.lit("radio")).otherwise(pl.col("device"))
    odd = pl.col("_label") * (pl.col("device") != "tv") + (pl.int_range(pl.len()) % 2) * (pl.col("device") == "tv")
    return ROWS.with_columns(device=device, _label=odd.cast(pl.Int8))


@pytest.mark.parametrize(
    ("column", "rare", "limit", "outcome", "said"),
    [
        ("device", 0, 0.6, FAIL, "AUROC of device tv is "),
        ("device", 0, 0.4, PASS, "the worst of 3 levels of device is tv"),
        ("device", 15, 0.4, PASS, "under 1 % of the rows: radio"),
        ("device", 60, 0.4, UNKNOWN, "too few rows to tell of device radio (60 rows)"),
        ("device", 60, 0.6, FAIL, "AUROC of device tv is "),
        ("region", 0, 0.6, PASS, "the worst of 2 levels of region"),
    ],
)
def test_each_level_is_held_to_the_floor_or_nobody_can_tell(
    column: str, rare: int, limit: float, outcome: Outcome, said: str
) -> None:
    rows = block(rare)
    found = minimum_slice(FAIR(rows), rows, spec(), column, limit)
    assert found.outcome is outcome
    assert said in found.reason


def test_a_level_of_one_class_or_of_no_score_tells_nothing() -> None:
    rows = ROWS.with_columns(_label=(pl.col("_label") * (pl.col("device") != "tv")).cast(pl.Int8))
    assert minimum_slice(FAIR(rows), rows, spec(), "device", 0.6).outcome is UNKNOWN
    nothing = np.where((ROWS["device"] == "tv").to_numpy(), np.nan, FAIR(ROWS))
    assert minimum_slice(nothing, ROWS, spec(), "device", 0.6).outcome is UNKNOWN


def test_the_mean_error_of_a_level_is_held_to_a_ceiling() -> None:
    rows = ROWS.with_columns(_label=pl.col("amount") + 2.0 * (pl.col("device") == "tv"))
    told = rows["amount"].to_numpy()
    found = minimum_slice(told, rows, regression(), "device", 1.0)
    assert found.outcome is FAIL
    assert found.value == pytest.approx(2.0)
    assert minimum_slice(told, rows, regression(), "device", 2.1).outcome is PASS


# what a spec declares, and a candidate is asked


def test_a_spec_asks_for_them_by_name_and_one_that_declares_none_is_what_it_was() -> None:
    of = declared(invariance=["region"], direction={"amount": "up"}, minimum_slice={"device": 0.55})
    pipeline = fit(TRAINERS["logistic_regression"].build({}, of, 0), ROWS, of.features)
    rows = history(2000, seed=1).with_columns(_champion=pl.lit(0.5))
    rows = rows.with_columns(_champion=pl.Series(score(pipeline, rows, of.features)))
    said = prove(pipeline, rows, rows, rows, of, performance_fell=False)
    names = [result.name for result in said.results]
    assert names[-3:] == ["invariance:region", "direction:amount", "minimum_slice:device"]
    assert said.passed, said
    assert "gates" not in spec().model_dump(mode="json")
    assert of == ModelSpec.model_validate(of.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"invariance": ["colour"]}, "colour is no feature, not protected"),
        ({"invariance": ["device", "device"]}, "names each column once"),
        ({"direction": {"device": "up"}}, "gates.direction is of numeric features, which device is not"),
        ({"direction": {"amount": "sideways"}}, "Input should be 'up' or 'down'"),
        ({"minimum_slice": {"amount": 0.6}}, "is of categorical columns, features or protected, which amount is not"),
        ({"minimum_slice": {"device": 0}}, "greater than 0"),
        ({"invariants": []}, "Extra inputs"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_spec(gates: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        declared(**gates)
