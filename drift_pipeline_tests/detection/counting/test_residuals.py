"""A regression's KPIs: MAE against its held-out baseline, residuals against the held-out ones."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, MINUTE, WEEK
from drift_pipeline.detection.counting.profile import label_slices, merge
from drift_pipeline.detection.judging.residuals import mae_kpi
from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.detection.reference.residuals import mae_of
from drift_pipeline_tests.detection import worlds
from drift_pipeline_tests.detection.worlds import World, spec_of

OK, WARN, BREACH, INCONCLUSIVE, OFF = (
    *(Verdict.OK, Verdict.WARN, Verdict.BREACH, Verdict.INCONCLUSIVE, Verdict.NOT_CONFIGURED),
)
SPEC = spec_of("x", "w", categorical=("kind",), protected={"group": "categorical"}, task="regression")
PER_DAY = 300


def rows(
    seed: int, days: int, first_day: int = 0, *, noise: float = 1.0, bias: float = 0.0, per_day: int = PER_DAY
) -> pl.DataFrame:
    """`_label` is the prediction, `_score`, with an error of sd `noise` and mean `bias`."""
    random = np.random.default_rng(seed)
    frame = worlds.rows(random, days, per_day, first_day)
    score = 10 + 3 * frame["x"].to_numpy()
    label = score + bias + noise * random.normal(size=frame.height)
    return frame.with_columns(_score=pl.Series(score), _label=pl.Series(label))


@pytest.fixture(scope="module")
def world() -> World:
    return World.on(rows(0, 42), SPEC)


def last(world: World, frame: pl.DataFrame) -> Report:
    *_, report = world.again().daily(frame)
    return report


def kpis(report: Report) -> tuple[KpiResult, KpiResult]:
    return report.kpis["mae"], report.kpis["residuals"]


def test_a_healthy_month_is_ok_every_day(world: World) -> None:
    reports = list(world.again().daily(rows(1, 28, 42)))
    assert {kpi.verdict for report in reports[1:] for kpi in kpis(report)} == {OK}
    assert world.reference.baseline is not None
    assert world.reference.baseline.value == pytest.approx(0.8, rel=0.02)


def test_what_a_regression_does_not_have_is_not_configured(world: World) -> None:
    report = last(world, rows(1, 2, 42))
    for name in ("auroc", "demographic_parity"):
        assert (report.kpis[name].verdict, report.kpis[name].reason) == (OFF, "a regression has none")


def test_a_classification_has_the_five_kpis_it_had() -> None:
    frame = worlds.rows(np.random.default_rng(0), 10, 200)
    report = World.on(frame).land(worlds.rows(np.random.default_rng(1), 2, 200, 10)).at(2 * DAY)
    assert list(report.kpis) == ["psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"]


@pytest.mark.parametrize(("noise", "verdict"), [(1.05, OK), (1.3, BREACH), (2.0, BREACH), (0.5, OK)])
def test_a_rise_of_ten_percent_that_is_certain_breaches(world: World, noise: float, verdict: Verdict) -> None:
    mae, _ = kpis(last(world, rows(2, 14, 42, noise=noise)))
    assert mae.verdict is verdict
    assert mae.value == pytest.approx(noise - 1, abs=0.05)
    assert mae.threshold == 0.1
    assert f"({mae.value:+.1%}".replace("%", " %") in mae.reason


@pytest.mark.parametrize(
    ("labels", "length", "verdict"),
    [(250, DAY, INCONCLUSIVE), (250, WEEK, WARN), (2500, DAY, BREACH), (2500, WEEK, BREACH), (250, 4 * WEEK, WARN)],
)
def test_a_rise_within_the_noise_is_no_breach(world: World, labels: int, length: timedelta, verdict: Verdict) -> None:
    """12 % of 250 labels has a standard error of 6 %, of 2,500 one of 2 %."""
    reference = world.reference
    assert reference.errors is not None
    now = reference.errors.mae.value * 1.12 / reference.binning.error_unit
    counts = np.zeros(reference.binning.size, np.int64)
    counts[reference.binning.slots["errors"]] = [labels, round(labels * now), round(labels * (np.pi / 2) * now**2)]
    found = mae_kpi(reference.binning, reference.errors, counts, labels, SPEC, length)
    assert found.verdict is verdict
    assert found.value == pytest.approx(0.12, abs=1e-4)


def test_one_absurd_label_carries_no_mean_away(world: World) -> None:
    frame = rows(4, 7, 42).with_columns(
        _label=pl.when(pl.int_range(pl.len()) == 50).then(1e300).otherwise(pl.col("_label"))
    )
    mae, _ = kpis(last(world, frame))
    assert mae.value is not None
    assert 0 < mae.value < 1.0


@pytest.mark.parametrize(("bias", "noise"), [(0.5, 1.0), (-0.5, 1.0), (0.0, 1.8), (0.0, 0.5)])
def test_residuals_that_are_distributed_otherwise_are_warned_of(world: World, bias: float, noise: float) -> None:
    """Also where the MAE says nothing: a bias of half a sd adds 12 % at most, a model that errs less is no harm."""
    _, residuals = kpis(last(world, rows(5, 14, 42, bias=bias, noise=noise)))
    assert residuals.verdict is WARN
    assert residuals.value == residuals.bound
    assert residuals.value is not None
    assert residuals.value > 0.05
    assert "KS distance" in residuals.reason


@pytest.mark.parametrize("lacking", ["labels", "rows"])
def test_too_few_labels_tell_nothing(world: World, lacking: str) -> None:
    if lacking == "labels":
        frame = rows(6, 7, 42, noise=1.1).with_columns(
            _label=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise(pl.col("_label"))
        )
        message = "90% of the predictions have their label, 95% are needed"
    else:
        frame, message = rows(6, 1, 42, noise=1.1, per_day=150), "150 labels"
    for kpi in kpis(last(world, frame)):
        assert kpi.verdict == INCONCLUSIVE
        assert kpi.reason.startswith(message)


def test_kpis_that_are_off_are_not_configured(world: World) -> None:
    off = World(
        world.reference, spec_of("x", task="regression", kpis={"mae": None, "residuals": None}), world.baseline_at
    )
    for kpi in kpis(off.land(rows(7, 3, 42)).at(3 * DAY)):
        assert (kpi.verdict, kpi.reason) == (OFF, "switched off in the spec")


def test_a_model_without_error_has_no_baseline_to_rise_from() -> None:
    perfect = World.on(rows(0, 14, noise=0.0), SPEC)
    mae, residuals = kpis(last(perfect, rows(1, 7, 14, noise=1.0)))
    assert (mae.verdict, residuals.verdict) == (INCONCLUSIVE, WARN)


def test_days_that_differ_by_themselves_widen_the_errors() -> None:
    def restless(seed: int, days: int, first: int = 0) -> Iterator[pl.DataFrame]:
        widths = np.exp(0.35 * np.random.default_rng(seed).normal(size=days))
        return (rows(seed + day, 1, first + day, noise=width) for day, width in enumerate(widths))

    world = World.on(pl.concat(restless(100, 42)), SPEC)
    assert world.reference.errors is not None
    assert world.reference.errors.mae_phi > 5
    verdicts = [kpis(report)[0].verdict for report in world.daily(pl.concat(restless(500, 28, 42)))]
    assert verdicts.count(BREACH) <= 1


def test_counters_of_errors_add_up_exactly(world: World) -> None:
    frame, binning = rows(8, 5, 42), world.reference.binning
    day = frame["_time"].dt.truncate("1d").rank("dense").cast(pl.Int64).to_numpy() - 1
    parts = label_slices(binning, frame["_score"], frame["_label"], day, 5)
    whole = label_slices(binning, frame["_score"], frame["_label"], np.zeros(frame.height, np.int64), 1)[0]
    assert (merge(binning, parts).counts == whole.counts).all()
    found = mae_of(binning, whole.counts[binning.slots["errors"]])
    errors = (frame["_label"] - frame["_score"]).abs().to_numpy()
    assert found.value == pytest.approx(errors.mean(), rel=1e-4)
    assert found.standard_error == pytest.approx(errors.std(ddof=1) / len(errors) ** 0.5, rel=1e-3)


def test_windows_that_slide_by_the_minute_see_the_same_errors() -> None:
    world = World.on(rows(0, 14, per_day=7200), SPEC, step=MINUTE)
    frame = rows(9, 1, 14, noise=2, per_day=7200)
    for minute in (60, 61, 90):
        upto = world.again().land(frame.filter(pl.col("_time") < world.baseline_at + timedelta(minutes=minute)))
        mae, residuals = kpis(upto.at(timedelta(minutes=minute)))
        assert (mae.verdict, residuals.verdict) == (BREACH, WARN)
        assert mae.window is not None
        assert mae.window < WEEK
