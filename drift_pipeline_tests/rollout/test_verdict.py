"""judge(): a failure wants proof, a pass wants rows, and the rest is inconclusive."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.detection.performance import PERFORMANCE
from drift_pipeline.rollout.verdict import Judgement, Observations, Verdict, judge

PASS, FAIL, INCONCLUSIVE = Verdict


def labelled(seed: int, candidate_skill: float, champion_skill: float, positives: int = 300) -> Observations:
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, 300])
    noise = rng.normal(size=labels.size)
    scores = [
        labels * skill + noise + 0.3 * rng.normal(size=labels.size) for skill in (candidate_skill, champion_skill)
    ]
    return Observations(600, 0, 600, labels=labels, candidate_scores=scores[0], champion_scores=scores[1])


@pytest.mark.parametrize(
    ("rows", "errors", "verdict"),
    [
        (0, 0, INCONCLUSIVE),
        (1, 0, INCONCLUSIVE),
        (1, 1, INCONCLUSIVE),
        (2, 2, FAIL),
        (19, 0, INCONCLUSIVE),
        (20, 0, PASS),
        (20, 2, PASS),
        (20, 3, FAIL),
        (10_000, 100, PASS),
        (10_000, 123, PASS),
        (10_000, 125, FAIL),
        (10_000, 10_000, FAIL),
    ],
)
def test_missing_scores_fail_once_more_than_one_percent_is_proven(rows: int, errors: int, verdict: Verdict) -> None:
    assert judge(Observations(rows, errors, 100), 20).verdict is verdict


def test_one_wanted_row_that_fails_is_enough() -> None:
    assert judge(Observations(1, 1, 0), 1).verdict is FAIL


@pytest.mark.parametrize(
    ("latency", "verdict"),
    [
        (None, PASS),
        ((0, 0), INCONCLUSIVE),
        ((0, 19), INCONCLUSIVE),
        ((0, 20), PASS),
        ((25, 500), PASS),
        ((37, 500), PASS),
        ((40, 500), FAIL),
        ((3, 3), FAIL),
    ],
)
def test_latency_fails_once_more_than_five_percent_is_proven(latency: tuple[int, int] | None, verdict: Verdict) -> None:
    assert judge(Observations(500, 0, 500, latency), 20).verdict is verdict


@pytest.mark.parametrize("seed", range(3))
def test_a_worse_candidate_fails_and_an_equal_or_better_one_passes(seed: int) -> None:
    assert judge(labelled(seed, 0.5, 1.0), 20).verdict is FAIL
    assert judge(labelled(seed, 1.0, 1.0), 20).verdict is PASS
    assert judge(labelled(seed, 1.0, 0.5), 20).verdict is PASS


def test_equal_models_fail_one_look_in_a_hundred() -> None:
    failed = sum(judge(labelled(seed, 1.0, 1.0), 20).verdict is FAIL for seed in range(400))
    assert failed <= 10


@pytest.mark.parametrize(("positives", "verdict"), [(49, PASS), (50, FAIL)])
def test_models_are_compared_from_fifty_labels_of_each_class(positives: int, verdict: Verdict) -> None:
    assert judge(labelled(1, -1.0, 2.0, positives), 20).verdict is verdict


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["labels", "candidate_scores", "champion_scores"])
def test_rows_that_one_side_does_not_know_are_left_out(side: str, odd: float) -> None:
    whole = labelled(1, 0.5, 1.0)
    names = ("labels", "candidate_scores", "champion_scores")
    sides = [np.append(np.asarray(getattr(whole, name), dtype=float), odd if name == side else 0.0) for name in names]
    more = Observations(600, 0, 600, labels=sides[0], candidate_scores=sides[1], champion_scores=sides[2])
    assert judge(more, 20) == judge(whole, 20)


def test_missing_labels_block_nothing_and_are_said() -> None:
    assert judge(Observations(40, 0, 360), 20) == Judgement(
        PASS,
        (
            "40 rows, 0 without a score, beside 360 of the champion",
            "not compared by labels: 0 positive and 0 negative labels, 50 of each wanted",
        ),
    )


def test_every_failure_and_every_lack_is_told() -> None:
    failing = judge(Observations(100, 50, 100, (100, 100)), 20)
    assert [reason.split(":")[0] for reason in failing.reasons] == [
        "50 of 100 rows without a usable score",
        "100 of 100 rows slower than the threshold",
    ]
    assert judge(Observations(3, 0, 0, (1, 3)), 20).reasons == ("3 of 20 rows", "3 of 20 latencies")


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 100))
def test_fewer_rows_than_wanted_never_pass_and_more_errors_never_help(rows: int, errors: int, wanted: int) -> None:
    errors = min(errors, rows)
    found = judge(Observations(rows, errors, 0), wanted)
    assert found.reasons
    if rows < wanted:
        assert found.verdict is not PASS
    if found.verdict is FAIL and errors < rows:
        assert judge(Observations(rows, errors + 1, 0), wanted).verdict is FAIL


@pytest.mark.parametrize(
    ("rows", "errors", "champion", "latency"), [(1, 2, 0, None), (1, -1, 0, None), (1, 0, -1, None), (1, 0, 0, (2, 1))]
)
def test_counts_that_cannot_be_are_refused(
    rows: int, errors: int, champion: int, latency: tuple[int, int] | None
) -> None:
    with pytest.raises(ValueError, match="larger than its whole"):
        Observations(rows, errors, champion, latency)


def test_scores_without_their_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="of one length"):
        Observations(2, 0, 2, labels=[1], candidate_scores=[0.1, 0.2], champion_scores=[0.1, 0.2])


def numbers(seed: int, candidate_noise: float, champion_noise: float, rows: int = 600) -> Observations:
    random = np.random.default_rng(seed)
    labels = 30 + 5 * random.normal(size=rows)
    sides = [labels + noise * random.normal(size=rows) for noise in (candidate_noise, champion_noise)]
    measure = PERFORMANCE["regression"]
    return Observations(
        rows, 0, rows, labels=labels, candidate_scores=sides[0], champion_scores=sides[1], performance=measure
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_regression_that_errs_more_fails_and_one_that_errs_as_much_or_less_passes(seed: int) -> None:
    worse = judge(numbers(seed, 3.0, 2.0), 20)
    assert worse.verdict is FAIL
    assert re.fullmatch(r"MAE [\d.]+ against [\d.]+ on 600 labels: at best \+\d+\.\d %", worse.reasons[0])
    assert judge(numbers(seed, 2.0, 2.0), 20).verdict is PASS
    assert judge(numbers(seed, 2.0, 3.0), 20).verdict is PASS


def test_regressions_are_compared_from_a_hundred_labels() -> None:
    few = judge(numbers(0, 9.0, 1.0, rows=99), 20)
    assert few.verdict is PASS
    assert few.reasons[1] == "not compared by labels: 99 labels, 100 wanted"
    assert judge(numbers(0, 9.0, 1.0, rows=100), 20).verdict is FAIL
