"""What the loop gains on a real market's data, and how rarely it retrains where nothing drifts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drift_pipeline.telemetry.synthetic import seasonal_history, stationary_history
from drift_pipeline_tests.replay.worlds import drift

pytestmark = pytest.mark.live  # minutes of faults or of history

ELEC2 = Path(__file__).parents[2].parent / "shared/data/elec2.csv.gz"
with_the_market = pytest.mark.skipif(
    not ELEC2.is_file(), reason="shared/data/elec2.csv.gz is not beside the repository"
)


def spec_of(features: int, **retrain: object) -> str:
    return json.dumps(
        {
            "name": "calm",
            "owner": "ml@example.com",
            "task": "binary_classification",
            "columns": {"timestamp": "ts"},
            "features": {f"f{number}": "numeric" for number in range(features)},
            "outcome": {"column": "y", "delay": "6h"},
            "retrain": retrain,
        }
    )


def replayed(tmp_path: Path, history: pl.DataFrame, spec: str, *options: object) -> dict[str, Any]:
    history.write_parquet(tmp_path / "history.parquet")
    (tmp_path / "spec.yaml").write_text(spec)
    command = ("replay", tmp_path / "history.parquet", "--spec", tmp_path / "spec.yaml", "--out", tmp_path / "out")
    ended = drift(*command, "--json", *options)
    assert ended.code == 0, ended.err
    return ended.summary


def because_of_drift(summary: dict[str, Any]) -> int:
    return sum(retrain["cause"] in ("drift", "hotfix") for retrain in summary["retrains"])


def market(tmp_path: Path, seed: int) -> dict[str, Any]:
    out = tmp_path / "out"
    command = ("replay", ELEC2, "--spec", Path(__file__).with_name("elec2.yaml"), "--out", out, "--seed", seed)
    ended = drift(*command, "--triggers", "drift", "--json")
    assert ended.code == 0, ended.err
    assert drift("audit", "verify", "--home", out).code == 0
    return ended.summary


def is_worth_it(summary: dict[str, Any]) -> None:
    auroc = summary["auroc"]
    assert auroc["loop"] >= 0.835
    assert auroc["loop"] > auroc["frozen"]
    assert len(summary["retrains"]) <= 12
    assert summary["audit"]["verified"] is True


@with_the_market
def test_on_elec2_few_retrains_beat_the_frozen_model_and_no_month_pays_for_it(tmp_path: Path) -> None:
    summary = market(tmp_path, 0)
    is_worth_it(summary)
    assert summary["auroc"]["worst_month"] >= -0.07


@pytest.mark.slow
@with_the_market
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_elec2_other_seeds_gain_as_well(tmp_path: Path, seed: int) -> None:
    """Their worst month is not bounded: seed 1 has one of -0.090, which the README says."""
    is_worth_it(market(tmp_path, seed))


@pytest.mark.parametrize("make", [stationary_history, seasonal_history])
def test_half_a_year_without_drift_has_one_false_retrain_at_most(tmp_path: Path, make: Any) -> None:
    history = make(20, days=182, rows_per_day=100, seed=11)
    summary = replayed(tmp_path, history, spec_of(20, trials=1), "--triggers", "drift", "--reference", "60d")
    assert because_of_drift(summary) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("make", [stationary_history, seasonal_history])
def test_a_year_without_drift_has_one_false_retrain_at_most(tmp_path: Path, make: Any, seed: int) -> None:
    history = make(20, days=365, rows_per_day=400, seed=seed)
    assert because_of_drift(replayed(tmp_path, history, spec_of(20, trials=2), "--triggers", "drift")) <= 1
