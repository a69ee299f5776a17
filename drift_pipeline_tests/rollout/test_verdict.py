"""judge(): a failure wants proof that stays one at every look, a pass wants rows, and the rest is inconclusive."""

import math
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.detection.judging.performance import PERFORMANCE
from drift_pipeline.detection.statistics.latency import share_above
from drift_pipeline.detection.statistics.sequential import mean_radius, share_excess, share_lower_bound
from drift_pipeline.rollout.verdict import Decisions, Judgement, Observations, Verdict, judge

PASS, FAIL, INCONCLUSIVE = Verdict
LOOKS = np.arange(20, 4001, 20)
ALPHA = 0.0025  # a quarter of 1 %
Ints = npt.NDArray[np.int_]
Floats = npt.NDArray[np.float64]


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
        (20, 3, PASS),
        (20, 4, FAIL),
        (10_000, 100, PASS),
        (10_000, 145, PASS),
        (10_000, 146, FAIL),
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
        ((46, 500), PASS),
        ((47, 500), FAIL),
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


def with_errors(errors: int, rows: int) -> Observations:
    return Observations(rows, errors, rows)


def with_slow(above: int, rows: int) -> Observations:
    return Observations(rows, 0, rows, (above, rows))


def least_failing(failed: Callable[[int, int], bool], looks: Ints) -> Ints:
    """The least count that fails at each look; it grows from look to look, and a larger one fails too."""
    least = [0]
    for rows in looks.tolist():
        least.append(next(count for count in range(least[-1], rows + 1) if failed(count, rows)))
    return np.array(least[1:])


def failed_once(limit: float) -> Callable[[int, int], bool]:
    """The test at a fixed level of 99 %, as if there were one look."""
    return lambda count, rows: share_above(count, rows).lower_bound > limit


def failed_by(observed: Callable[[int, int], Observations]) -> Callable[[int, int], bool]:
    return lambda count, rows: judge(observed(count, rows), 20).verdict is FAIL


@pytest.mark.parametrize(("observed", "limit"), [(with_errors, 0.01), (with_slow, 0.05)])
def test_a_candidate_at_a_limit_fails_once_in_a_hundred_long_rollouts_at_most(
    observed: Callable[[int, int], Observations], limit: float
) -> None:
    """200 looks, one each 20 rows, 1000 times; a test at a fixed level of 99 % a look fails it many times as often."""
    random = np.random.default_rng(0)
    counts = random.binomial(20, limit, size=(1000, LOOKS.size)).cumsum(axis=1)
    assert (counts >= least_failing(failed_by(observed), LOOKS)).any(axis=1).mean() <= 0.01
    assert (counts >= least_failing(failed_once(limit), LOOKS)).any(axis=1).mean() > 0.05


def test_a_candidate_as_slow_as_the_champion_fails_once_in_a_hundred_long_rollouts_at_most() -> None:
    """Both far above the limit of 5 %: what is proven of the candidate alone is proven nearly always."""
    random, looks = np.random.default_rng(4), LOOKS[4::5]
    slow = random.binomial(100, 0.1, size=(200, looks.size)).cumsum(axis=1)
    champion = random.binomial(900, 0.1, size=(200, looks.size)).cumsum(axis=1)
    alone = share_lower_bound(slow, looks, ALPHA) > 0.05
    slower = share_excess((slow, looks), (champion, 9 * looks), ALPHA) > 0
    assert (alone & slower).any(axis=1).mean() <= 0.01
    assert alone.any(axis=1).mean() > 0.99
    for look in (0, 10, 39):
        latencies = [(int(side[0, look]), int(rows[look])) for side, rows in ((slow, looks), (champion, 9 * looks))]
        seen = Observations(latencies[0][1], 0, 4000, latencies[0], champion_latency=latencies[1])
        assert judge(seen, 20).verdict is PASS


def errors_of_two(seed: int, runs: int, ratio: float) -> tuple[Floats, Floats]:
    """Absolute errors (runs, rows) of a candidate and a champion, alike but for `ratio`."""
    random = np.random.default_rng(seed)
    shared, *own = random.exponential(size=(3, runs, LOOKS[-1]))
    return ratio * (shared + own[0]), shared + own[1]


def test_an_equal_candidate_fails_by_its_labels_once_in_a_hundred_long_rollouts_at_most() -> None:
    mine, other = errors_of_two(5, 500, 1.0)
    looks = LOOKS[LOOKS >= 100]
    sums = [part.cumsum(axis=1)[:, looks - 1] / looks for part in (mine, other, mine**2, other**2, mine * other)]
    ratio = sums[0] / sums[1]
    squares = sums[2] - 2 * ratio * sums[4] + ratio**2 * sums[3]
    gain, error = 1 - ratio, np.sqrt(squares / (looks - 1)) / sums[1]
    radius = np.column_stack([mean_radius(error[:, i], float(rows), ALPHA) for i, rows in enumerate(looks)])
    worse = gain + radius < 0
    assert worse.any(axis=1).mean() <= 0.01
    assert (gain + 2.326 * error < 0).any(axis=1).mean() > 0.05
    nearest = np.unravel_index(np.argmin((gain + radius) / error), gain.shape)
    for run, look in ((0, 0), (1, 150), (int(nearest[0]), int(nearest[1]))):
        rows = int(looks[look])
        seen = Observations(
            rows,
            0,
            rows,
            labels=np.zeros(rows),
            candidate_scores=mine[run, :rows],
            champion_scores=other[run, :rows],
            performance=PERFORMANCE["regression"],
        )
        assert (judge(seen, 20).verdict is FAIL) == worse[run, look]


def scored_by_two(seed: int, rows: int, candidate_skill: float, champion_skill: float) -> list[Floats]:
    """Labels, and the scores of two models that share half of what they err by."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(float)
    shared, *own = random.normal(size=(3, rows)) * math.sqrt(0.5)
    skills = (candidate_skill, champion_skill)
    return [labels, *(skill * labels + shared + noise for skill, noise in zip(skills, own, strict=True))]


def ever_fails(sides: list[Floats], looks: range) -> bool:
    for rows in looks:
        labels, candidate, champion = (side[:rows] for side in sides)
        seen = Observations(rows, 0, rows, labels=labels, candidate_scores=candidate, champion_scores=champion)
        if judge(seen, 20).verdict is FAIL:
            return True
    return False


@pytest.mark.live
def test_an_equal_auroc_fails_once_in_a_hundred_rollouts_at_most() -> None:
    assert sum(ever_fails(scored_by_two(seed, 4000, 1.0, 1.0), range(200, 4001, 200)) for seed in range(100)) <= 1


def test_a_loss_of_ten_points_of_auroc_fails_within_2000_labels() -> None:
    """0.760 against 0.660."""
    failed = sum(ever_fails(scored_by_two(seed, 2000, 0.583, 1.0), range(200, 2001, 200)) for seed in range(100))
    assert failed >= 90


@pytest.mark.parametrize(
    ("observed", "share", "rows"), [(with_errors, 0.15, 200), (with_slow, 0.3, 150)], ids=["errors", "slow"]
)
def test_a_broken_canary_fails_within_its_first_rows(
    observed: Callable[[int, int], Observations], share: float, rows: int
) -> None:
    looks = np.arange(10, rows + 1, 10)
    counts = np.random.default_rng(6).binomial(10, share, size=(1000, looks.size)).cumsum(axis=1)
    assert (counts >= least_failing(failed_by(observed), looks)).any(axis=1).mean() >= 0.95


def test_a_slow_canary_fails_within_150_rows_beside_a_champion_that_is_not() -> None:
    random = np.random.default_rng(7)
    counts = zip(random.binomial(150, 0.3, size=100), random.binomial(1350, 0.01, size=100), strict=True)
    seen = [Observations(150, 0, 1350, (mine, 150), champion_latency=(other, 1350)) for mine, other in counts]
    assert sum(judge(each, 20).verdict is FAIL for each in seen) >= 95


@pytest.mark.parametrize(
    ("baseline", "verdict", "reason"),
    [
        (None, FAIL, "60 of 500 rows slower than the threshold: at least 7.0%, 5% allowed"),
        ((3, 19), FAIL, "60 of 500 rows slower than the threshold: at least 7.0%, 5% allowed"),
        (
            (40, 4000),
            FAIL,
            "60 of 500 rows slower than the threshold: at least 7.0%, 5% allowed; the champion's were 40 of 4000",
        ),
        (
            (480, 4000),
            PASS,
            "60 of 500 rows slower than the threshold: at least 7.0%, 5% allowed; the champion's were 480 of 4000, "
            "so it is not the candidate's doing",
        ),
        (
            (2, 50),
            INCONCLUSIVE,
            "60 of 500 rows slower than the threshold: at least 7.0%, 5% allowed; the champion's were 2 of 50, "
            "and that it is slower is not proven yet",
        ),
    ],
)
def test_a_slow_candidate_is_to_blame_unless_the_champion_is_as_slow(
    baseline: tuple[int, int] | None, verdict: Verdict, reason: str
) -> None:
    found = judge(Observations(500, 0, 4000, (60, 500), champion_latency=baseline), 20)
    assert found.verdict is verdict
    assert reason in found.reasons


def test_the_champions_own_errors_are_told() -> None:
    assert judge(Observations(40, 0, 360, champion_errors=2), 20).reasons[0] == (
        "40 rows, 0 without a score, beside 360 of the champion, 2 of those without"
    )
    assert judge(Observations(40, 30, 360, champion_errors=300), 20).reasons == (
        "30 of 40 rows without a usable score: at least 45.5%, 1% allowed, beside 360 of the champion, "
        "300 of those without",
    )


def test_how_far_the_models_agree_is_told_and_decides_nothing() -> None:
    agreement = {"all": (120, 400), "age_band=young": (10, 100), "age_band=old": (110, 300), "age_band=none": (0, 0)}
    found = judge(Observations(400, 0, 400, agreement=agreement, score_shift=0.5), 20)
    assert found.verdict is PASS
    assert found.reasons[2:] == (
        "decides as the champion in 30.0% of 400 rows (all), 10.0% of 100 rows (age_band=young)",
        "scores shifted by 0.500 (KS)",
    )


def decided(young: int, old: int, allowed: float = 0.03) -> Decisions:
    """Of 3000 each; the champion says yes to 900 of either, and the candidate to fewer of the same."""
    return Decisions((3000, 3000), (young, old), (900, 900), (young, old), allowed)


def test_a_parity_gap_that_is_proven_wider_than_allowed_fails() -> None:
    assert judge(Observations(6000, 0, 6000, parity={"age_band": decided(500, 900)}), 20) == Judgement(
        FAIL, ("parity gap by age_band 0.133 against 0.000 on 6000 rows: wider by at least 0.044, 0.03 allowed",)
    )
    for parity in (decided(500, 900, allowed=0.1), decided(800, 900), decided(500, 500)):
        found = judge(Observations(6000, 0, 6000, parity={"age_band": parity}), 20)
        assert found.verdict is PASS
        assert found.reasons[2].startswith("parity gap by age_band")


def test_each_protected_column_is_judged_and_the_failing_ones_are_told() -> None:
    few = Decisions((99, 3000), (50, 900), (50, 900), (50, 900), 0.03)
    columns = {"age_band": decided(880, 900), "region": decided(100, 900), "size": few}
    found = judge(Observations(6000, 0, 6000, parity=columns), 20)
    assert found.verdict is FAIL
    assert [reason.split(" 0.")[0] for reason in found.reasons] == ["parity gap by region"]
    told = judge(Observations(6000, 0, 6000, parity={"size": few}), 20)
    assert told.verdict is PASS
    assert told.reasons[2] == (
        "parity by size not compared: fewer than two groups have 100 rows; not judged: group 1 (99 rows)"
    )


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict"),
    [
        ((900, 0), (900, 900), FAIL),
        ((900, 3000), (900, 900), FAIL),
        ((900, 900, 0), (900, 900, 900), FAIL),
        ((900, 0), (900, 0), PASS),
        ((900, 0), (900, 1), PASS),
        ((0, 0), (900, 900), PASS),
        ((30, 0), (30, 3), PASS),
        ((3000, 2999), (2999, 3000), PASS),
    ],
    ids=[
        "denied",
        "granted",
        "one of three denied",
        "denied by both",
        "all but denied by the champion",
        "nobody is granted: no gap",
        "near 0",
        "near 1",
    ],
)
def test_a_group_is_judged_whatever_its_decisions(
    candidate: tuple[int, ...], champion: tuple[int, ...], verdict: Verdict
) -> None:
    both = tuple(map(min, candidate, champion))
    of = Decisions((3000,) * len(both), candidate, champion, both, 0.03, ("a", "b", "c")[: len(both)])
    found = judge(Observations(6000, 0, 6000, parity={"region": of}), 20)
    assert found.verdict is verdict
    told = " ".join(found.reasons)
    assert ("b is denied entirely (3,000 rows)" in told) == (candidate[1] == 0)
    assert ("b is granted entirely (3,000 rows)" in told) == (candidate[1] == 3000)
