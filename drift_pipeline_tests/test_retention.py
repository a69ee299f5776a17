"""Retention: what goes, what stays readable, and what the audit tells of it."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import DAY, ManualClock, Window
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.loop.retention import past_retention, retain
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, synthetic_history

DAYS = 40
NOW = START + DAYS * DAY
EVER = Window(START - DAY, NOW + 10 * DAY)


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "spec.yaml").write_text(SAMPLE_SPEC + "retrain: {trials: 1, trainer: logistic_regression}\n")
    return read_spec(tmp_path / "spec.yaml")


@pytest.fixture
def home(tmp_path: Path, spec: ModelSpec) -> Iterator[Home]:
    synthetic_history(DAYS, 60, 0, score=False).write_parquet(tmp_path / "history.parquet")
    with opened(Settings(home=tmp_path / "home", database=""), ManualClock(NOW), new=True) as made:
        spec = spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"score": None})})
        adopt(made, spec, read_history(tmp_path / "history.parquet", spec))
        yield made


def rows(home: Home, spec: ModelSpec) -> pl.DataFrame:
    return Lake(home.settings.lake / spec.name).read("predictions", EVER)


def test_retention_deletes_whole_days_that_are_past_and_says_so_before(home: Home, spec: ModelSpec) -> None:
    later = ManualClock(NOW + spec.retention.telemetry - 10 * DAY)
    then = Home(home.settings, later, home.store, home.registry, home.policy, home.alerts)
    before = rows(home, spec)
    planned = past_retention(then, spec)
    trusted = home.store.get("holdout", spec.name)
    assert trusted is not None
    since = datetime.fromisoformat(trusted.body["from"]).replace(hour=0, minute=0, second=0, microsecond=0)
    end = min(NOW - 10 * DAY, since)
    assert planned.tables["predictions"][0] == before.filter(pl.col("_time") < end).height > 0
    assert rows(home, spec).height == before.height
    assert retain(then, spec, "ada") == planned
    kept = rows(home, spec)
    assert kept["_id"].to_list() == before.filter(pl.col("_time") >= end)["_id"].to_list()
    assert then.resumed(spec).trainings.holdout.height > 0
    told = [record.event for record in home.store.records() if record.event.startswith("retention")]
    assert told == ["retention.begun", "retention.applied"]
    assert past_retention(then, spec).rows == 0


def test_what_is_compacted_reads_the_same_and_lands_nothing_again(home: Home, spec: ModelSpec) -> None:
    lake, few = Lake(home.settings.lake / spec.name, source="small"), rows(home, spec).head(3)
    for batch in range(6):
        lake.append("predictions", few.with_columns(_id=pl.lit(f"{batch}-") + pl.col("_id")), batch)
    before, cursor = rows(home, spec), lake.cursor("predictions")
    assert lake.compact("predictions") > 0
    assert rows(home, spec).equals(before)
    assert lake.landed("predictions", cursor)[0].is_empty()
