"""observe(): the facts of a rollout's phase, counted off a real lake."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp

from drift_pipeline.clock import HOUR, Window
from drift_pipeline.detection.judging.performance import PERFORMANCE
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.verdict import Decisions, Observations
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SHADOW = Status("r1", "fraud", "sha256:new", "sha256:old", Phase.SHADOW, since=NOW, started=NOW, reason="submitted")
CANARY = replace(SHADOW, phase=Phase.CANARY, since=NOW + HOUR)
AUROC = PERFORMANCE["binary_classification"]
SPEC = ModelSpec.model_validate(
    {
        "name": "fraud",
        "owner": "team",
        "task": "binary_classification",
        "columns": {"latency_ms": "latency_ms"},
        "features": {"amount": "numeric"},
        "prediction": {"score": "score", "threshold": 0.6},
        "outcome": {"column": "fraud"},
        "protected": {"rows": "categorical"},
        "kpis": {"latency_p95_ms": {"threshold": 100}, "demographic_parity": {"drop": 0.1}},
    }
)
Row = tuple[float | None, float | None, float | None, str | None]


def changed(**parts: Any) -> ModelSpec:
    return ModelSpec.model_validate({**SPEC.model_dump(mode="json"), **parts})


def lake_of(folder: Path, rows: Sequence[Row], by_canary: int = 0, hour: float = 0) -> Lake:
    """Rows of (candidate's score, champion's score, latency, level); of each, who answers served it.

    The first `by_canary` rows are answered by the candidate; the other model scores a copy. The first two have labels.
    """
    candidate, champion, latency, level = zip(*rows, strict=True)
    n, versions = len(rows), (["v2"] * by_canary + ["v1"] * (len(rows) - by_canary))
    times = pl.Series([NOW + hour * HOUR + timedelta(seconds=i) for i in range(n)], dtype=pl.Datetime("us", "UTC"))
    ids, scores = [f"p{i:03}" for i in range(n)], {"v1": champion, "v2": candidate}
    answered = pl.Series([scores[version][i] for i, version in enumerate(versions)], dtype=pl.Float64)
    others = ["v1" if version == "v2" else "v2" for version in versions]
    copied = pl.Series([scores[version][i] for i, version in enumerate(others)], dtype=pl.Float64)
    routes = ["canary" if version == "v2" else "stable" for version in versions]
    served = {"_id": ids, "_time": times, "_version": versions, "_route": routes, "_score": answered}
    facts = {"_latency_ms": pl.Series(latency, dtype=pl.Float64), "rows": pl.Series(level, dtype=pl.String)}
    lake = Lake(folder)
    lake.append("predictions", pl.DataFrame({**served, **facts}), 0)
    lake.append("shadow", pl.DataFrame({"_id": ids, "_time": times, "_version": others, "_score": copied}), 0)
    labels = pl.Series([1, 0], dtype=pl.Int8)
    lake.append("outcomes", pl.DataFrame({"_id": ids[:2], "_observed_at": times[:2], "_label": labels}), 0)
    return lake


ROWS: list[Row] = [
    (0.9, 0.7, 50, "a"),
    (0.2, 0.8, 150, "a"),
    (0.6, 0.1, 200, "b"),
    (None, 0.3, None, "b"),
    (0.1, math.nan, 90, "b"),
    (0.7, 0.9, math.nan, None),
]


def seen(lake: Lake, status: Status, spec: ModelSpec | None = SPEC, hours: float = 3) -> Observations:
    return observe(lake, status, "v2", "v1", NOW + hours * HOUR, AUROC, spec)


def test_a_shadow_is_counted_by_all_that_it_scored_and_has_no_latency(tmp_path: Path) -> None:
    found = seen(lake_of(tmp_path, ROWS), SHADOW)
    assert (found.candidate_rows, found.candidate_errors) == (6, 1)
    assert (found.champion_rows, found.champion_errors) == (6, 1)
    assert (found.latency, found.champion_latency) == (None, None)
    assert np.asarray(found.labels).tolist() == [1, 0]
    assert np.asarray(found.candidate_scores).tolist() == [0.9, 0.2]
    assert np.asarray(found.champion_scores).tolist() == [0.7, 0.8]


def test_a_canary_is_counted_by_what_it_answered_beside_the_champion_of_the_same_time(tmp_path: Path) -> None:
    found = seen(lake_of(tmp_path, ROWS, by_canary=3, hour=1), CANARY)
    assert (found.candidate_rows, found.candidate_errors) == (3, 0)
    assert (found.champion_rows, found.champion_errors) == (6, 1)
    assert (found.latency, found.champion_latency) == ((2, 3), (0, 1))


@pytest.mark.parametrize("by_canary", [0, 2, 6])
def test_decisions_are_compared_on_the_rows_that_both_scored_whoever_answered(tmp_path: Path, by_canary: int) -> None:
    found = seen(lake_of(tmp_path, ROWS, by_canary), SHADOW)
    assert found.agreement == {"all": (2, 4), "rows=a": (1, 2), "rows=b": (0, 1)}
    assert found.parity == {"rows": Decisions((2, 1), (1, 1), (2, 0), (1, 0), 0.1, ("a", "b"))}


def test_the_score_shift_is_the_distance_of_the_scores_on_the_same_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pairs = random.random((200, 2)).round(2) ** np.array([1.0, 1.5])
    lake = lake_of(tmp_path, [(float(mine), float(other), None, None) for mine, other in pairs])
    assert seen(lake, SHADOW).score_shift == pytest.approx(ks_2samp(*pairs.T).statistic)


def test_what_the_spec_does_not_ask_is_not_measured(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, ROWS, by_canary=3, hour=1)
    nothing = seen(lake, CANARY, spec=None)
    assert (nothing.latency, nothing.champion_latency, nothing.agreement, nothing.parity) == (None, None, {}, {})
    assert seen(lake, CANARY, changed(columns={})).latency is None
    assert seen(lake, CANARY, changed(kpis={"latency_p95_ms": None})).latency is None
    unfair = seen(lake, CANARY, changed(kpis={"demographic_parity": None}))
    assert (unfair.parity, unfair.agreement["rows=a"]) == ({}, (1, 2))
    assert seen(lake, CANARY, changed(protected={})).agreement == {"all": (2, 4)}


def test_a_latency_that_is_asked_for_and_never_came_is_of_no_rows(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [(0.9, 0.7, None, None)] * 3, by_canary=2, hour=1)
    assert seen(lake, CANARY).latency == (0, 0)
    frame = pl.DataFrame({"_id": ["x"], "_time": [NOW + HOUR], "_version": ["v2"], "_score": [0.5]})
    bare = Lake(tmp_path / "bare")
    bare.append("predictions", frame.with_columns(_route=pl.lit("canary")), 0)
    bare.append("shadow", frame.with_columns(pl.lit("v1").alias("_version")), 0)
    found = seen(bare, CANARY)
    assert (found.candidate_rows, found.latency, found.agreement) == (1, (0, 0), {"all": (1, 1)})


def test_only_what_came_since_the_phase_began_counts(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, ROWS, by_canary=3)
    assert seen(lake, SHADOW).candidate_rows == 6
    assert seen(lake, CANARY).candidate_rows == 0
    assert seen(lake, SHADOW, hours=0).candidate_rows == 0
    assert seen(lake, SHADOW, hours=-1).candidate_rows == 0


def test_an_empty_lake_is_no_rows(tmp_path: Path) -> None:
    found = seen(Lake(tmp_path), SHADOW)
    assert (found.candidate_rows, found.champion_rows, found.score_shift, found.agreement) == (0, 0, None, {})


def test_what_a_producer_tells_of_its_own_model_is_no_row_of_ours(tmp_path: Path) -> None:
    """Whoever may send events of a model could else decide its rollout, by giving them the candidate's name."""
    lake = lake_of(tmp_path, ROWS)
    before = seen(lake, SHADOW)
    forged = pl.DataFrame(
        {
            "_id": [f"forged-{number}" for number in range(50)],
            "_time": pl.Series([NOW] * 50, dtype=pl.Datetime("us", "UTC")),
            "_version": ["v2"] * 50,
            "_route": ["external"] * 50,
            "_score": pl.Series([None] * 50, dtype=pl.Float64),
        }
    )
    lake.append("predictions", forged, 1)
    after = seen(lake, SHADOW)
    assert (after.candidate_rows, after.candidate_errors) == (before.candidate_rows, before.candidate_errors)


def test_no_feature_is_read_to_judge_a_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout lasts for days and is looked at each few seconds."""
    lake, read, asked = lake_of(tmp_path, ROWS), Lake.read, set[str]()

    def recorded(*given: Any, **named: Any) -> pl.DataFrame:
        found = read(*given, **named)
        asked.update(found.columns)
        return found

    monkeypatch.setattr(Lake, "read", recorded)
    wide = lake.read("predictions", Window(NOW, NOW + HOUR)).with_columns(pl.col("_id") + "x", amount=pl.lit(1.0))
    lake.append("predictions", wide, 1)
    asked.clear()
    observe(lake, SHADOW, "v2", "v1", NOW + HOUR, AUROC, SPEC)
    assert asked == {"_id", "_time", "_version", "_score", "_route", "_latency_ms", "rows", "_observed_at", "_label"}
