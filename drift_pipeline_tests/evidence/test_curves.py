"""The pictures of a card are drawn of stored numbers, which are those of the rows that proved the version."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from drift_pipeline.control.canonical import canonical
from drift_pipeline.evidence.card import make_card
from drift_pipeline.evidence.card.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, pictures
from drift_pipeline.evidence.curves import CURVES, curves_of, importance
from drift_pipeline.evidence.pages import number
from drift_pipeline.spec import ModelSpec
from drift_pipeline_tests.evidence.cards import write_card
from drift_pipeline_tests.evidence.test_card import facts, fields_of
from drift_pipeline_tests.evidence.worlds import block, curves, read_json, spec


def amount(rows: pl.DataFrame) -> npt.ArrayLike:
    return rows["amount"]


def numbers(task: str = "binary_classification") -> dict[str, Any]:
    if task == "regression":
        frame = block().with_columns(_label=pl.col("_label") * 10 + pl.col("_score"))
        return curves_of(frame, spec(task="regression"), amount)
    return curves()


# what is stored


def test_each_task_has_its_curves_as_small_canonical_json() -> None:
    for task, names in CURVES.items():
        found = numbers(task)
        assert tuple(found) == names
        assert json.loads(canonical(found)) == found
        assert len(json.dumps(found)) < 8000


def test_the_roc_lies_on_sklearns_and_has_its_area() -> None:
    frame, points = block(), curves()["roc"]
    false, true, _ = roc_curve(frame["_label"], frame["_score"], drop_intermediate=False)
    x, y = (np.array([point[f"{name}_positive_rate"] for point in points]) for name in ("false", "true"))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert all(np.min(np.abs(false - a) + np.abs(true - b)) < 1e-5 for a, b in zip(x, y, strict=True))
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(frame["_label"], frame["_score"]), abs=0.003)


def test_the_confusion_is_sklearns_at_the_decision_threshold() -> None:
    frame, found = block(), curves_of(block(), spec(prediction={"threshold": 0.3}), amount)["confusion"]
    table = confusion_matrix(frame["_label"], frame["_score"] >= 0.3)
    assert [[found["true_negative"], found["false_positive"]], [found["false_negative"], found["true_positive"]]] == (
        table.tolist()
    )
    assert found["threshold"] == 0.3


def test_calibration_and_gains_count_every_row_once() -> None:
    frame, found = block(), curves()
    assert sum(part["rows"] for part in found["calibration"]) == frame.height
    positives = sum(part["rows"] * part["observed"] for part in found["calibration"])
    assert positives == pytest.approx(frame["_label"].sum(), rel=1e-4)
    best = frame.sort("_score", descending=True).head(frame.height // 5)
    captured = {part["share"]: part["captured"] for part in found["gains"]}
    assert captured[0.2] == pytest.approx(best["_label"].to_numpy().sum() / frame["_label"].to_numpy().sum(), abs=1e-5)
    assert (captured[0.0], captured[1.0]) == (0, 1)


def test_a_model_of_one_score_gains_nothing_in_any_order_of_its_rows() -> None:
    frame = block().sort("_label").with_columns(_score=pl.lit(0.3), amount=pl.lit(0.3))
    found = curves_of(frame, spec(), amount)
    assert [(part["share"], part["captured"]) for part in found["gains"]] == [
        (pytest.approx(place / 20), pytest.approx(place / 20, abs=1e-6)) for place in range(21)
    ]
    assert len(found["roc"]) == 2
    assert len(found["calibration"]) == 1


def test_a_feature_that_decides_loses_all_and_one_that_is_not_read_loses_nothing() -> None:
    losses = {row["feature"]: row["loss"] for row in curves()["importance"]}
    whole = roc_auc_score(block().tail(2000)["_label"], block().tail(2000)["_score"])
    assert losses["amount"] == pytest.approx(whole - 0.5, abs=0.03)
    assert losses["country"] == 0


def test_importance_ends_in_time_and_says_of_which_features_it_knows_nothing() -> None:
    ticks = iter(range(0, 10_000, 9))
    many = spec(features={**spec().features, **{f"x{number}": "numeric" for number in range(20)}})
    frame = block().with_columns(pl.lit(number * 1.0).alias(f"x{number}") for number in range(20))
    found = importance(frame, many, amount, clock=lambda: next(ticks))
    assert [row["loss"] is None for row in found] == [False] + [True] * 21
    assert found[0]["feature"] == "amount"


@pytest.mark.parametrize("features", [1, 40, 400])
def test_the_work_of_importance_is_bounded(features: int) -> None:
    names, asked = [f"x{number}" for number in range(features)], list[int]()
    frame = block().with_columns(pl.col("_score").alias(name) for name in names)

    def score(rows: pl.DataFrame) -> npt.ArrayLike:
        asked.append(rows.height)
        return rows["_score"]

    importance(frame, spec(features=dict.fromkeys(names, "numeric")), score)
    assert len(asked) == 2 * features
    assert max(asked) <= 2000
    assert sum(asked) <= 2 * max(200_000, 200 * features)


def test_quantiles_of_the_labels_and_residuals_are_those_of_the_rows() -> None:
    found = numbers("regression")
    frame = block().with_columns(_label=pl.col("_label") * 10 + pl.col("_score"))
    least = frame.filter(pl.col("_score") <= frame["_score"].quantile(0.1, "lower"))
    first = found["predicted_and_actual"][0]
    assert first["rows"] == least.height
    assert first["median"] == pytest.approx(np.median(least["_label"]), rel=1e-4)
    assert sum(part["share"] for part in found["residuals"]) == pytest.approx(1, abs=1e-4)
    ten = sum(part["share"] for part in found["residuals"] if (part["to"] or 11) > 9.9)
    assert ten == pytest.approx(frame["_label"].gt(5).mean(), abs=1e-3)


@pytest.mark.parametrize("labels", [[0] * 100, [1] * 100, [None] * 100, []])
def test_where_only_one_class_is_known_nothing_is_drawn(labels: list[int | None]) -> None:
    frame = block().head(len(labels)).with_columns(_label=pl.Series(labels, dtype=pl.Int8))
    assert curves_of(frame, spec(), amount) == {}


def test_rows_without_a_label_or_a_finite_score_are_left_out() -> None:
    holes = [None if row % 3 == 0 else row % 2 for row in range(4000)]
    frame = block().with_columns(_label=pl.Series(holes, dtype=pl.Int8), _score=pl.Series([np.nan] + [0.5] * 3999))
    assert sum(list(curves_of(frame, spec(), amount)["confusion"].values())[1:]) == 4000 - 1334


# what is drawn


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """Of each curve the places in units of the axes, where both go from 0 to 1."""
    found = re.findall(r'points="([^"]+)" class="curve"', svg)
    return [
        [
            ((float(x) - LEFT) / (WIDTH - RIGHT - LEFT), (HEIGHT - BOTTOM - float(y)) / (HEIGHT - BOTTOM - TOP))
            for x, y in (place.split(",") for place in places.split())
        ]
        for places in found
    ]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [("roc", "false_positive_rate", "true_positive_rate"), ("gains", "share", "captured")],
)
def test_a_curve_read_back_from_the_page_is_the_stored_one(name: str, x: str, y: str, tmp_path: Path) -> None:
    write_card(make_card(facts()), tmp_path)
    page, stored = (tmp_path / "card.html").read_text(), curves()[name]
    figure = re.search(rf'id="curves.{name}">.*?<figure>(.*?)</figure>', page, re.S)
    assert figure is not None
    (drawn,) = lines(figure[1])
    for place, row in zip(drawn, stored, strict=True):
        assert place == pytest.approx((row[x], row[y]), abs=0.001)


def test_residuals_outside_of_the_bins_stand_apart_and_are_named() -> None:
    frame = block().with_columns(
        _label=pl.col("_score") + pl.when(pl.int_range(pl.len()) < 8).then(90.0).otherwise(0.5)
    )
    found = curves_of(frame, spec(task="regression"), amount)["residuals"]
    assert (found[0]["from"], found[-1]["to"]) == (None, None)
    random = np.random.default_rng(0).normal(0, 1, 4000)
    found = curves_of(
        block().with_columns(_label=pl.col("_score") + pl.Series(random)), spec(task="regression"), amount
    )
    low, high = found["residuals"][0]["to"], found["residuals"][-1]["from"]
    outside = [float((random < low).mean()), float((random > high).mean())]
    assert [found["residuals"][end]["share"] for end in (0, -1)] == pytest.approx(outside, abs=3e-4)
    svg = pictures(found, "MAE")["residuals"]
    for told in (f"&lt; {number(low)}", f"&gt; {number(high)}"):
        assert svg.count(told) == 2  # on the bar, and where one points


def test_the_card_holds_the_stored_numbers(tmp_path: Path) -> None:
    write_card(make_card(facts()), tmp_path)
    fields = fields_of(read_json(tmp_path / "card.json"))
    assert {name: fields[f"curves.{name}"]["value"] for name in curves()} == curves()


@pytest.mark.parametrize("task", [*CURVES])
def test_every_picture_has_a_name_axes_with_values_and_titles(task: str) -> None:
    for name, svg in pictures(numbers(task), "AUROC").items():
        assert 'aria-label="' in svg, name
        ticks = re.findall(r'class="tick"[^>]*>(?:<title>[^<]*</title>)?([^<]*)</text>', svg)
        assert sum(bool(re.fullmatch(r"-?[\d.,]+(e[+-]?\d+)?%?", tick)) for tick in ticks) >= 4, (name, ticks)
        assert 'class="axis-name"' in svg, name
        assert svg.count("<title>") >= 2, name


def test_a_feature_s_name_is_text_and_nothing_else() -> None:
    svg = pictures({"importance": [{"feature": "<script>x", "loss": 0.1}, {"feature": "b", "loss": -0.01}]}, "MAE")
    assert "<script>" not in svg["importance"]
    assert "<script>x" in unescape(svg["importance"])


def test_no_curves_are_no_pictures() -> None:
    assert pictures({"roc": None, "importance": []}, "AUROC") == {}


def test_an_equal_prediction_for_all_is_drawn() -> None:
    frame = block().with_columns(_label=pl.lit(2.0), _score=pl.lit(2.0), amount=pl.lit(2.0))
    regression: ModelSpec = spec(task="regression")
    drawn = pictures(curves_of(frame, regression, amount), "MAE")
    assert set(drawn) == set(CURVES["regression"])
    assert not any("nan" in svg for svg in drawn.values())
