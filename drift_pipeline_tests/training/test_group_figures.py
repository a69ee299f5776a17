"""Figures of groups: fairlearn's are ours, and its traps are closed."""

import math

import numpy as np
import polars as pl
import pytest

from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.detection.statistics.parity import demographic_parity_difference
from drift_pipeline.training.gates import parity_gate
from drift_pipeline.training.group_figures import group_figures, selection_gap


@pytest.mark.parametrize(
    "counts",
    [[(40, 7), (30, 29), (1, 1)], [(5, 0), (6, 0)], [(3, 3), (2, 2)], [(100, 33), (7, 0), (9, 9), (64, 20)], [(8, 3)]],
    ids=["uneven", "all denied", "all granted", "one granted, one denied", "one group"],
)
def test_fairlearn_s_gap_of_decisions_is_the_streaming_kpi_s(counts: list[tuple[int, int]]) -> None:
    member = np.repeat(np.arange(len(counts)), [rows for rows, _ in counts])
    decided = np.concatenate([np.arange(rows) < yes for rows, yes in counts])
    ours = demographic_parity_difference([yes for _, yes in counts], [rows for rows, _ in counts])
    assert selection_gap(member, decided) == pytest.approx(ours, abs=1e-12)


def test_the_gate_tells_the_gap_that_the_streaming_kpi_would() -> None:
    random = np.random.default_rng(0)
    groups, decided = random.choice(["a", "b", "c", "few"], 900, p=[0.4, 0.3, 0.25, 0.05]), random.random(900) < 0.4
    rows = [(decided[groups == name].sum(), (groups == name).sum()) for name in ("a", "b", "c")]
    ours = demographic_parity_difference(*zip(*rows, strict=True))
    told = parity_gate(decided, None, pl.Series(groups), allowed_drop=0.03, column="x")
    assert told.value == pytest.approx(ours, abs=1e-12)


def test_each_figure_is_that_of_its_rows() -> None:
    random = np.random.default_rng(1)
    member, labels = random.integers(0, 4, 800), random.random(800) < 0.3
    scores = random.normal(size=800) + labels
    found = group_figures(member, labels, scores > 0.5, scores)
    for at in range(4):
        y, s = labels[member == at], scores[member == at]
        assert [found[name][at] for name in ("rows", "positives")] == [len(y), y.sum()]
        assert found["selection_rate"][at] == pytest.approx((s > 0.5).mean())
        assert found["true_positive_rate"][at] == pytest.approx((s[y] > 0.5).mean())
        assert found["false_positive_rate"][at] == pytest.approx((s[~y] > 0.5).mean())
        assert found["auroc"][at] == pytest.approx(paired_auroc_difference(y, s, np.zeros(len(s))).candidate)


@pytest.mark.parametrize(
    ("labels", "known", "unknown"),
    [
        ([1, 1, 1], {"true_positive_rate"}, {"false_positive_rate", "auroc"}),
        ([0, 0, 0], {"false_positive_rate"}, {"true_positive_rate", "auroc"}),
    ],
    ids=["no negative label", "no positive label"],
)
@pytest.mark.parametrize("decided", [[1, 1, 1], [0, 0, 0], [1, 0, 1]])
def test_a_rate_of_no_row_is_not_known_where_fairlearn_says_0(
    labels: list[int], known: set[str], unknown: set[str], decided: list[int]
) -> None:
    found = group_figures([0, 0, 0], labels, decided, [0.2, 0.4, 0.6])
    assert {name for name, values in found.items() if math.isnan(values[0])} == unknown
    assert not known & unknown
    assert found["selection_rate"][0] == pytest.approx(np.mean(decided))


def test_a_group_of_one_row_among_others_breaks_nothing() -> None:
    found = group_figures([0, 0, 1], [1, 0, 1], [1, 0, 0], [0.9, 0.1, 0.5])
    assert found["auroc"][0] == 1.0
    assert math.isnan(found["auroc"][1])
    assert found["rows"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("label", [0, 1])
def test_one_row_is_a_group(label: int) -> None:
    found = group_figures([0], [label], [1], [0.5])
    assert (found["rows"][0], found["positives"][0], found["selection_rate"][0]) == (1, label, 1.0)
    assert math.isnan(found["auroc"][0])
    assert selection_gap([0], [1]) == 0


def test_a_group_number_that_no_row_has_is_no_group() -> None:
    assert selection_gap([0, 0, 2, 2], [1, 0, 1, 1]) == pytest.approx(0.5)
