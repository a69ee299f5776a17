"""A history of decades with one row a day: what such a replay is judged by, says, and gains."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline_tests.replay.worlds import Ended, drift


def decades(years: int, seed: int = 0) -> pl.DataFrame:
    """A row a day from 1971 on; over fifty years another feature comes to tell the label."""
    rng, n = np.random.default_rng(seed), int(365.25 * years)
    x = rng.standard_normal((n, 3))
    turned = np.arange(n) / 365.25 / 50 * np.pi / 2
    z = 1.2 * (np.cos(turned) * x[:, 0] + np.sin(turned) * x[:, 1]) + 0.5 * x[:, 2]
    days = [datetime(1971, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(n)]
    label = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    return pl.DataFrame({"ts": days, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": label})


def spec(**retrain: object) -> str:
    return json.dumps(
        {
            "name": "weather",
            "owner": "ml@example.com",
            "task": "binary_classification",
            "columns": {"timestamp": "ts"},
            "features": dict.fromkeys(("a", "b", "c"), "numeric"),
            "outcome": {"column": "y", "delay": "1d"},
            "retrain": {"trials": 1, "trainer": "logistic_regression", "min_rows": 500, **retrain},
            "rollout": {"deadline": "400d", "canary_weight": 50},
        }
    )


def replayed(tmp_path: Path, years: int, *options: object, told: bool = False, **retrain: object) -> Ended:
    decades(years).write_parquet(tmp_path / "history.parquet")
    (tmp_path / "spec.yaml").write_text(spec(**retrain))
    command = ("replay", tmp_path / "history.parquet", "--spec", tmp_path / "spec.yaml", "--out", tmp_path / "out")
    return drift(*command, *([] if told else ["--json"]), *options)


def verdicts(out: Path, name: str) -> list[str]:
    ticks = pl.read_parquet(out / "kpis.parquet")
    found: list[str] = ticks.filter(pl.col("name") == name)["verdict"].to_list()
    return found


def test_a_reference_that_is_too_short_is_refused_with_the_span_that_is_needed(tmp_path: Path) -> None:
    ended = replayed(tmp_path, 3)
    assert ended.code == 2
    assert "90 labels are known by 1971-04-01, where retrain.min_rows is 500: give --reference 501d" in ended.err
    assert replayed(tmp_path, 3, "--reference", "501d", "--step", "300d", "--triggers", "drift").code == 0


def test_a_history_with_fewer_labels_than_a_training_needs_says_so(tmp_path: Path) -> None:
    ended = replayed(tmp_path, 1)
    assert ended.code == 2
    assert "the whole history has 365: set a smaller retrain.min_rows" in ended.err


@pytest.mark.live
def test_one_row_a_day_is_judged_by_the_last_rows_and_told_by_year(tmp_path: Path) -> None:
    ended = replayed(tmp_path, 7, "--reference", "1100d", "--step", "60d", "--triggers", "drift", told=True)
    assert ended.code == 0, ended.err
    assert "(mean over years)" in ended.out
    assert "; by year: months hold too few labels" in ended.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "by year (months hold too few labels) on the same rows" in page
    for name in ("psi", "range_z", "auroc"):
        assert "OK" in verdicts(tmp_path / "out", name)
        assert verdicts(tmp_path / "out", name)[0] == "INCONCLUSIVE"


@pytest.mark.slow
def test_over_fifty_years_the_loop_gains_over_the_model_that_stays_as_it_is(tmp_path: Path) -> None:
    options = ("--reference", "1100d", "--step", "60d", "--triggers", "schedule")
    ended = replayed(tmp_path, 50, *options, cron="0 3 1 1 *", window="3650d")
    assert ended.code == 0, ended.err
    auroc: dict[str, Any] = ended.summary["auroc"]
    assert auroc["period"] == "year"
    assert len(auroc["by_month"]) >= 46
    assert ended.summary["promotions"] >= 5
    assert auroc["loop"] > auroc["frozen"] + 0.027


@pytest.mark.live
def test_a_window_that_holds_too_few_rows_to_train_on_is_told_with_how_many(tmp_path: Path) -> None:
    ended = replayed(
        tmp_path, 5, "--reference", "501d", "--step", "100d", "--triggers", "schedule", told=True, window="300d"
    )
    assert ended.code in (0, 1)
    (line,) = (line for line in ended.out.splitlines() if line.startswith("not trained"))
    assert "labelled rows in the retrain.window of 300d" in line
    assert "retrain.min_rows 500 older ones to train" in line


def test_a_deadline_that_is_over_at_the_first_look_is_told(tmp_path: Path) -> None:
    ended = replayed(tmp_path, 3, "--reference", "501d", "--step", "400d", "--triggers", "drift", told=True)
    assert "note        rollout.deadline 400d is over at the first look, --step 400d on: a candidate" in ended.out
    shorter = replayed(tmp_path, 3, "--reference", "501d", "--step", "399d", "--triggers", "drift", told=True)
    assert "rollout.deadline" not in shorter.out
