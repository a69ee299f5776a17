"""The KPI matrix: from profiles to a verdict, and never OK without evidence."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, WEEK
from drift_pipeline.detection.judging import kpis
from drift_pipeline.detection.judging.tick import Tick
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Verdict
from drift_pipeline.detection.statistics.auroc import Auroc
from drift_pipeline_tests.detection.worlds import SPEC, World, rows, spec_of

DAYS, PER_DAY = 40, 500


@pytest.fixture(scope="module")
def healthy() -> World:
    return World.on(rows(np.random.default_rng(0), DAYS, PER_DAY))


def found(world: World, name: str, frame: pl.DataFrame, days: int = 1) -> KpiResult:
    return world.again().land(frame).at(days * DAY).kpis[name]


def after(days: int, seed: int = 1, per_day: int = PER_DAY) -> pl.DataFrame:
    return rows(np.random.default_rng(seed), days, per_day, DAYS)


# psi


def finding(name: str, psi: float, drift: bool | None, window: timedelta = DAY, n: int = 500) -> FeatureFinding:
    return FeatureFinding(name, window, n, n, psi, psi - 0.05, 0, 0, 0, 0, 0.1, 0.1, 0, drift, "up", f"{drift}")


@pytest.mark.parametrize(
    ("findings", "verdict", "said"),
    [
        ([], Verdict.INCONCLUSIVE, "no window has rows yet"),
        ([("a", 0.1, False), ("b", 0.15, False)], Verdict.OK, "b: the largest PSI of a column"),
        ([("a", 0.1, None), ("b", 0.15, False)], Verdict.OK, "b: the largest PSI of a column"),
        ([("a", 0.1, None), ("b", 0.15, None)], Verdict.INCONCLUSIVE, "b: None"),
        ([("a", 0.3, None), ("b", 0.1, False)], Verdict.INCONCLUSIVE, "a: None"),
        ([("a", 0.3, None), ("b", 0.4, False)], Verdict.INCONCLUSIVE, "a: None"),
        ([("a", 0.9, None), ("b", 0.1, True)], Verdict.WARN, "b: up over 1d, True"),
        ([("a", 0.0, None, DAY, 0), ("b", 0.1, False)], Verdict.INCONCLUSIVE, "a: None"),
        ([("a", 0.0, None, DAY, 0), ("b", 0.1, False, WEEK)], Verdict.INCONCLUSIVE, "a: None"),
        ([("a", 0.9, None, HOUR, 20), ("a", 0.1, False, WEEK)], Verdict.OK, "a: the largest PSI of a column"),
        ([("a", 0.9, True, WEEK)], Verdict.WARN, "a: up over 7d, True"),
        ([("a", 0.26, True, 4 * WEEK)], Verdict.BREACH, "a: up, True"),
        ([("a", 0.24, True, 4 * WEEK)], Verdict.WARN, "a: up over 28d, True"),
        ([("a", 0.9, False, 4 * WEEK)], Verdict.OK, "a: the largest PSI of a column"),
    ],
)
def test_psi_says_what_its_findings_say(healthy: World, findings: list[tuple], verdict: Verdict, said: str) -> None:  # type: ignore[type-arg]
    told = [finding(*f) for f in findings]
    slices = healthy.again().slices
    tick = Tick(healthy.reference, slices, SPEC, healthy.baseline_at, (DAY,), {}, told, lambda _, __, make: make())
    result = kpis.evaluate(tick)["psi"]
    assert (result.verdict, result.reason) == (verdict, said)


# range_z


def test_one_percent_of_values_at_six_sd_is_a_breach(healthy: World) -> None:
    frame = after(1, per_day=2000)
    far = frame.with_columns(x=pl.when(pl.int_range(pl.len()) % 100 == 0).then(6.0).otherwise(pl.col("x")))
    result = found(healthy, "range_z", far)
    assert result.verdict is Verdict.BREACH
    assert result.value == pytest.approx(0.01, abs=1e-3)
    assert result.reason.startswith("x: 1.00% more rows than the reference beyond 4 sd")
    assert found(healthy, "range_z", frame).verdict is Verdict.OK


def test_heavy_tails_are_healthy_where_the_reference_has_them() -> None:
    rng = np.random.default_rng(3)
    heavy = rows(rng, DAYS + 30, PER_DAY).with_columns(x=pl.Series(rng.standard_t(3, (DAYS + 30) * PER_DAY)))
    world = World.on(heavy[: DAYS * PER_DAY])
    reports = list(world.daily(heavy[DAYS * PER_DAY :]))
    assert [r.kpis["range_z"].verdict for r in reports] == [Verdict.OK] * 30
    assert [r.drifting for r in reports if r.drifting] == []


def test_range_is_not_ok_where_no_value_was_compared(healthy: World) -> None:
    gone = after(1).with_columns(x=pl.lit(None, pl.Float64), w=pl.lit(None, pl.Float64))
    result = found(healthy, "range_z", gone)
    assert (result.verdict, result.value) == (Verdict.INCONCLUSIVE, None)
    assert found(healthy, "range_z", after(1)[:199]).verdict is Verdict.INCONCLUSIVE


# auroc


def flipped(frame: pl.DataFrame, share: float, seed: int = 2) -> pl.DataFrame:
    """Labels of this share of rows are drawn by lot: the AUROC falls by about 0.33 times the share."""
    rng = np.random.default_rng(seed)
    lot = pl.Series(rng.random(frame.height) < share)
    drawn = pl.Series(rng.integers(0, 2, frame.height).astype(np.int8))
    return frame.with_columns(_label=pl.when(lot).then(drawn).otherwise(pl.col("_label")))


def test_auroc_that_stays_is_ok_and_one_that_falls_far_is_a_breach(healthy: World) -> None:
    assert found(healthy, "auroc", after(7), 7).verdict is Verdict.OK
    result = found(healthy, "auroc", flipped(after(7), 0.6), 7)
    assert result.verdict is Verdict.BREACH
    assert result.value is not None
    assert result.bound is not None
    assert result.value <= -0.05
    assert result.value < result.bound <= 0


@pytest.mark.parametrize(
    ("baseline", "error", "verdict"),
    [(0.835, 0.002, Verdict.OK), (0.95, 0.002, Verdict.BREACH), (0.95, 0.2, Verdict.WARN), (0.7, 0.002, Verdict.OK)],
)
def test_a_breach_wants_the_estimate_below_the_drop_and_the_upper_bound_below_0(
    healthy: World, baseline: float, error: float, verdict: Verdict
) -> None:
    reference = replace(healthy.reference, auroc=Auroc(baseline, error, 0.0, 500, 500))
    result = found(replace(healthy, reference=reference), "auroc", after(7), 7)
    assert result.verdict is verdict
    assert result.value is not None
    assert result.bound is not None
    assert (verdict is Verdict.OK) == (result.value > -0.05)
    assert (verdict is Verdict.BREACH) == (result.value <= -0.05 and result.bound <= 0)


def test_days_that_differ_widen_the_bound(healthy: World) -> None:
    wide = replace(healthy, reference=replace(healthy.reference, auroc_phi=100.0))
    assert found(wide, "auroc", flipped(after(7), 0.6), 7).verdict is Verdict.WARN


def test_below_50_labels_of_a_class_auroc_is_inconclusive(healthy: World) -> None:
    frame = after(1)
    ones = frame.filter(_label=1)
    for number, verdict in ((49, Verdict.INCONCLUSIVE), (50, Verdict.OK)):
        few = pl.concat([ones, frame.filter(_label=0)[:number]]).sort("_time")
        assert found(healthy, "auroc", few).verdict is verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.94, Verdict.INCONCLUSIVE), (0.95, Verdict.OK)])
def test_below_95_percent_of_the_labels_auroc_is_inconclusive(healthy: World, share: float, verdict: Verdict) -> None:
    known = pl.int_range(pl.len()) < share * 7 * PER_DAY
    frame = after(7).with_columns(_label=pl.when(known).then(pl.col("_label")).otherwise(None))
    shuffled = frame.with_columns(_time=frame["_time"].shuffle(seed=1)).sort("_time")
    result = found(healthy, "auroc", shuffled, 7)
    assert result.verdict is verdict
    assert result.reason.endswith("95% are needed") == (verdict is Verdict.INCONCLUSIVE) == (result.value is None)


@pytest.mark.parametrize("baseline", [None, Auroc(0.9, float("inf"), 0.0, 1, 500)])
def test_a_baseline_without_both_classes_is_inconclusive(healthy: World, baseline: Auroc | None) -> None:
    world = replace(healthy, reference=replace(healthy.reference, auroc=baseline))
    result = found(world, "auroc", after(7), 7)
    assert (result.verdict, result.value, result.bound) == (Verdict.INCONCLUSIVE, None, None)


def test_a_model_baselined_at_noon_keeps_the_labels_of_its_first_day_when_its_hours_are_folded(healthy: World) -> None:
    frame = after(4)
    noon = healthy.baseline_at + 12 * HOUR
    world = replace(healthy, baseline_at=noon)
    world.land(frame.filter(pl.col("_time") >= noon))
    before = world.at(3 * DAY + 12 * HOUR).kpis["auroc"]
    world.slices.consolidate(healthy.baseline_at + 20 * DAY)
    assert before.n == 3.5 * PER_DAY
    assert world.at(3 * DAY + 12 * HOUR).kpis["auroc"].n == before.n


# latency


def with_p95(frame: pl.DataFrame, p95_ms: float, seed: int) -> pl.DataFrame:
    noise = np.random.default_rng(seed).standard_normal(frame.height)
    return frame.with_columns(_latency_ms=pl.Series(p95_ms * np.exp(0.35 * (noise - 1.645))))


def test_a_true_p95_of_140_ms_rarely_breaches_and_200_ms_does(healthy: World) -> None:
    verdicts = [
        [found(healthy, "latency_p95_ms", with_p95(after(1), p95, seed)).verdict for seed in range(40)]
        for p95 in (140, 200)
    ]
    assert verdicts[0].count(Verdict.BREACH) <= 1
    assert verdicts[1].count(Verdict.BREACH) == 40


def test_latency_needs_200_rows_that_have_one(healthy: World) -> None:
    frame = with_p95(after(1), 500, 1)
    gone = frame.with_columns(_latency_ms=pl.when(pl.int_range(pl.len()) < 301).then(None).otherwise("_latency_ms"))
    assert found(healthy, "latency_p95_ms", gone).verdict is Verdict.INCONCLUSIVE
    edge = frame.with_columns(_latency_ms=pl.lit(150.0))
    result = found(healthy, "latency_p95_ms", edge)
    assert (result.verdict, result.value) == (Verdict.OK, 0.0)


# demographic parity


def unfair(frame: pl.DataFrame, gap: float) -> pl.DataFrame:
    return frame.with_columns(_score=pl.col("_score") * pl.when(pl.col("group") == "h").then(1 - gap).otherwise(1.0))


def test_an_injected_gap_breaches_parity_and_equal_groups_do_not(healthy: World) -> None:
    fair = found(healthy, "demographic_parity", after(14), 14)
    assert fair.verdict is Verdict.OK
    result = found(healthy, "demographic_parity", unfair(after(14), 0.4), 14)
    assert result.verdict is Verdict.BREACH
    assert result.bound is not None
    assert result.bound <= -0.03
    assert result.reason.startswith("group: gap 0.0")
    assert (result.n, result.window) == (14 * PER_DAY, 14 * DAY)


@pytest.mark.parametrize(
    ("frame", "days", "said"),
    [
        (after(6), 6, "6 days since the baseline, 7 are needed"),
        (after(14).filter(pl.col("group") == "g"), 14, "fewer than two groups"),
        (after(14, per_day=10), 14, "fewer than two groups"),
    ],
)
def test_parity_without_enough_days_or_groups_is_inconclusive(
    healthy: World, frame: pl.DataFrame, days: int, said: str
) -> None:
    result = found(healthy, "demographic_parity", frame, days)
    assert (result.verdict, result.value) == (Verdict.INCONCLUSIVE, None)
    assert said in result.reason


# what is not configured


def test_what_the_spec_or_the_data_does_not_have_is_not_configured() -> None:
    frame = rows(np.random.default_rng(0), DAYS, PER_DAY)
    off = dict.fromkeys(("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"))
    for spec, expected in (
        (spec_of("x"), {"latency_p95_ms", "demographic_parity"}),
        (spec_of(categorical=("kind",)), {"range_z", "latency_p95_ms", "demographic_parity"}),
        (spec_of("x", kpis=off), set(off)),
    ):
        report = World.on(frame, spec).land(after(1)).at(DAY)
        assert {n for n, kpi in report.kpis.items() if kpi.verdict is Verdict.NOT_CONFIGURED} == expected
        assert {report.kpis[name].value for name in expected} == {None}
    assert report.verdict is Verdict.NOT_CONFIGURED
