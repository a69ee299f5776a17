"""A synthetic history is the same for the same seed, and changes as its drift says and not otherwise."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.detection.statistics.psi import psi
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.synthetic import (
    DELIVERY_SPEC,
    SAMPLE_SPEC,
    START,
    Drift,
    DriftKind,
    delivery_history,
    seasonal_history,
    stationary_history,
    synthetic_history,
)

DAYS, ROWS, DRIFT_DAY = 40, 1000, 20
NUMERIC = ("session_length_s", "items_viewed", "price_eur", "days_since_visit", "latency_ms")


def halves(*drifts: Drift, seasonal: float = 0.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    whole = synthetic_history(DAYS, ROWS, seed=7, drifts=drifts, seasonal=seasonal)
    return whole[: DRIFT_DAY * ROWS], whole[DRIFT_DAY * ROWS :]


def auroc(frame: pl.DataFrame) -> float:
    edges = np.linspace(0, 1, 1001)
    counts = [np.histogram(frame.filter(clicked=label)["score"], edges)[0] for label in (1, 0)]
    return binned_auroc(*counts).value


def numeric_psi(before: pl.DataFrame, after: pl.DataFrame, column: str) -> float:
    deciles = np.quantile(before[column].drop_nulls(), np.linspace(0.1, 0.9, 9))
    sides = [np.bincount(np.searchsorted(deciles, side[column].drop_nulls()), minlength=10) for side in (before, after)]
    return psi(*sides)


def parity_gap(frame: pl.DataFrame) -> float:
    rates = frame.group_by("age_band").agg((pl.col("score") >= 0.5).mean())["score"]
    return float(rates.to_numpy().max() - rates.to_numpy().min())


def p95(frame: pl.DataFrame) -> float:
    return float(np.quantile(frame["latency_ms"], 0.95))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("spec") / "recommendation_v3.yaml"
    path.write_text(SAMPLE_SPEC)
    return read_spec(path)


def test_the_same_seed_gives_the_same_frame_and_another_does_not() -> None:
    drift = [Drift("concept", 2)]
    first = synthetic_history(4, 50, seed=1, drifts=drift)
    assert_frame_equal(first, synthetic_history(4, 50, seed=1, drifts=drift))
    assert not first.equals(synthetic_history(4, 50, seed=2, drifts=drift))


@pytest.mark.parametrize("kind", get_args(DriftKind))
def test_before_its_day_a_drift_changes_nothing(kind: DriftKind) -> None:
    plain, drifted = synthetic_history(6, 200, 3), synthetic_history(6, 200, 3, drifts=[Drift(kind, 3)])
    assert_frame_equal(drifted[:600], plain[:600])
    assert not drifted[600:].equals(plain[600:])


def test_times_rise_within_their_day_and_noon_is_busier_than_midnight() -> None:
    frame = synthetic_history(10, 2000, seed=1)
    assert frame["ts"].is_sorted()
    assert frame["ts"].dtype == pl.Datetime("us", "UTC")
    assert frame.group_by(pl.col("ts").dt.date(), maintain_order=True).len()["len"].to_list() == [2000] * 10
    assert frame["ts"][0].date() == START.date()
    by_hour = frame.group_by(pl.col("ts").dt.hour()).len().sort("ts")["len"].to_list()
    assert len(by_hour) == 24
    assert by_hour[12] > 4 * by_hour[0]


def test_a_history_without_drift_is_quiet_and_its_score_is_good() -> None:
    before, after = halves()
    assert max(numeric_psi(before, after, column) for column in NUMERIC) < 0.01
    assert auroc(before) == pytest.approx(0.80, abs=0.02)
    assert auroc(after) == pytest.approx(auroc(before), abs=0.02)
    assert parity_gap(before) < 0.03
    assert p95(before) == pytest.approx(107, abs=3)
    assert before.null_count().sum_horizontal().item() == 0


def test_covariate_drift_moves_features_and_leaves_the_score_good() -> None:
    before, after = halves(Drift("covariate", DRIFT_DAY))
    assert numeric_psi(before, after, "session_length_s") > 0.4
    assert max(numeric_psi(before, after, column) for column in NUMERIC if column != "session_length_s") < 0.01
    shares = [(side["device"] == "desktop").mean() for side in (before, after)]
    assert shares == pytest.approx([0.30, 0.44], abs=0.02)
    assert auroc(after) == pytest.approx(auroc(before), abs=0.03)


def test_concept_drift_costs_auroc_and_moves_no_feature() -> None:
    before, after = halves(Drift("concept", DRIFT_DAY))
    assert auroc(before) > 0.78
    assert 0.5 < auroc(after) < 0.65
    assert max(numeric_psi(before, after, column) for column in NUMERIC) < 0.01


def test_latency_drift_lifts_the_p95_over_150_ms() -> None:
    before, after = halves(Drift("latency", DRIFT_DAY))
    assert p95(before) < 120
    assert 170 < p95(after) < 210
    assert auroc(after) == pytest.approx(auroc(before), abs=0.02)


def test_unfairness_widens_the_gap_between_age_bands() -> None:
    before, after = halves(Drift("unfairness", DRIFT_DAY))
    assert parity_gap(before) < 0.03
    assert parity_gap(after) > 0.2


@pytest.mark.parametrize("size", [1.0, 0.3])
def test_schema_drift_empties_a_column(size: float) -> None:
    before, after = halves(Drift("schema", DRIFT_DAY, size=size))
    assert before["price_eur"].null_count() == 0
    assert after["price_eur"].null_count() / len(after) == pytest.approx(size, abs=0.02)


def test_a_ramp_grows_day_by_day() -> None:
    frame = synthetic_history(12, 4000, seed=5, drifts=[Drift("latency", 1, ramp_days=10)])
    daily = [p95(frame[day * 4000 : (day + 1) * 4000]) for day in range(12)]
    assert all(later > earlier for earlier, later in pairwise(daily[1:11]))
    assert daily[11] > 1.7 * daily[0]


def test_a_season_moves_hours_not_months() -> None:
    before, after = halves(seasonal=0.5)
    morning = before.filter(pl.col("ts").dt.hour() == 6)["session_length_s"].to_numpy()
    evening = before.filter(pl.col("ts").dt.hour() == 18)["session_length_s"].to_numpy()
    assert np.median(morning) > 1.5 * np.median(evening)
    assert numeric_psi(before, after, "session_length_s") < 0.02


def test_the_spec_reads_what_is_written(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    frame = synthetic_history(3, 100, seed=1, drifts=[Drift("schema", 2)])
    frame.write_csv(path)
    history = read_history(path, spec)
    assert spec.name == "recommendation_v3"
    assert set(spec.protected) == {"age_band"}
    assert spec.outcome.delay == timedelta(hours=6)
    assert history.notes == ()
    assert_frame_equal(history.frame.select("_time"), frame.select(_time="ts"))
    assert history.frame["_label"].to_list() == frame["clicked"].to_list()
    assert history.frame["_score"].to_list() == frame["score"].to_list()
    assert history.frame["price_eur"].to_list() == frame["price_eur"].to_list()


def test_scores_may_be_left_out() -> None:
    frame = synthetic_history(2, 10, seed=1, score=False)
    assert_frame_equal(frame, synthetic_history(2, 10, seed=1).drop("score"))


def test_a_stationary_history_has_no_hours() -> None:
    frame = stationary_history(3, days=30, rows_per_day=2000, seed=1)
    assert frame.columns == ["ts", "f0", "f1", "f2", "y"]
    hourly = frame.group_by(pl.col("ts").dt.hour()).agg(pl.col("f0").mean())["f0"].to_numpy()
    assert np.abs(hourly).max() < 0.1
    assert np.std(frame["f0"].to_numpy()) == pytest.approx(1, abs=0.02)
    assert 0.3 < frame["y"].to_numpy().mean() < 0.7


def test_a_seasonal_history_peaks_once_a_day_and_keeps_the_labels_rule() -> None:
    frame = seasonal_history(3, days=28, rows_per_day=2000, seed=1, amplitude=0.5)
    hours = frame.group_by(pl.col("ts").dt.hour()).agg(pl.col("f0").mean()).sort("ts")["f0"].to_numpy()
    assert np.ptp(hours) == pytest.approx(1.0, abs=0.2)
    slopes = [np.polyfit(part["f0"].to_numpy(), part["y"].to_numpy(), 1)[0] for part in (frame[:28000], frame[28000:])]
    assert slopes[0] == pytest.approx(slopes[1], abs=0.02)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no drift 'concpt'; there are: covariate, concept"):
        Drift("concpt", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a ramp takes 0 days or more"):
        Drift("concept", 1, ramp_days=-1)
    with pytest.raises(ValueError, match="at least one day and one row a day, not 0 and 5"):
        synthetic_history(0, 5, seed=1)


def test_deliveries_err_by_their_noise_until_their_rule_changes() -> None:
    frame = delivery_history(60, 400, 0, drifts=(Drift("concept", day=30),))
    errors = (frame["minutes"] - frame["promised_minutes"]).abs()
    before, after = float(str(errors[:12_000].mean())), float(str(errors[12_000:].mean()))
    assert before == pytest.approx(3.2, rel=0.03)
    assert after > 1.5 * before
    assert frame.equals(delivery_history(60, 400, 0, drifts=(Drift("concept", day=30),)))


def test_longer_ways_alone_change_no_error() -> None:
    frame = delivery_history(60, 400, 0, drifts=(Drift("covariate", day=30),))
    errors = (frame["minutes"] - frame["promised_minutes"]).abs()
    assert float(str(errors[12_000:].mean())) == pytest.approx(3.2, rel=0.05)
    assert float(str(frame["distance_km"][12_000:].mean())) > 1.2 * float(str(frame["distance_km"][:12_000].mean()))


def test_the_deliveries_spec_is_read_and_names_their_columns(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(DELIVERY_SPEC)
    delivery_history(10, 50, 0).write_parquet(tmp_path / "history.parquet")
    found = read_history(tmp_path / "history.parquet", read_spec(tmp_path / "spec.yaml"))
    assert found.frame.height == 500
    assert found.frame["_label"].dtype == pl.Float64
