"""Retention and erasure: what goes, what stays readable, and what the audit tells of it."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import DAY, ManualClock, Window
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.loop.retention import erase, past_retention, retain
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.lake import Lake, Table
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


def busiest(home: Home, spec: ModelSpec) -> str:
    return str(rows(home, spec)["_entity"].value_counts(sort=True)["_entity"][0])


def test_an_erased_subject_is_in_no_file_and_its_neighbours_are_all_there(home: Home, spec: ModelSpec) -> None:
    before, subject = rows(home, spec), busiest(home, spec)
    theirs = before.filter(pl.col("_entity") == subject)
    found = erase(home, spec, subject, "asked by letter", "ada")
    assert found.rows["predictions"] == found.rows["outcomes"] == theirs.height > 1
    assert found.versions == ("v1",)
    kept = rows(home, spec)
    assert kept["_id"].to_list() == before.filter(pl.col("_entity") != subject)["_id"].to_list()
    files = list((home.settings.lake / spec.name).glob("*/_day=*/*.parquet"))
    assert not {name for file in files for name in pl.read_parquet(file)["_id"]} & set(theirs["_id"])
    last = list(home.store.records())[-1]
    assert (last.event, last.actor, last.details["versions"]) == ("erased", "ada", ["v1"])
    assert subject not in str(last.details)
    assert home.store.get("affected", f"{spec.name}/v1") is not None


def test_after_an_erasure_the_loop_goes_on_and_the_audit_verifies(home: Home, spec: ModelSpec) -> None:
    holdout = home.resumed(spec).trainings.holdout.height
    subject = busiest(home, spec)
    found = erase(home, spec, subject, "asked", "ada")
    loop = home.resumed(spec)
    assert loop.tick(inline=False).model == spec.name
    assert holdout - found.rows["predictions"] <= loop.trainings.holdout.height <= holdout
    assert verify_home(home.settings).ok
    assert erase(home, spec, subject, "again", "ada").rows == {}


def test_a_subject_is_erased_from_what_was_laid_aside(home: Home, spec: ModelSpec) -> None:
    texts = ['{"entity": "u-77", "score": "high"}', '{"entity": "u-78"}']
    frame = pl.DataFrame(
        {
            "_id": ["a", "b"],
            "_time": pl.Series([NOW, NOW], dtype=pl.Datetime("us", "UTC")),
            "_source": ["gateway"] * 2,
            "_model": [spec.name] * 2,
            "_reason": ["no event"] * 2,
            "_payload": texts,
        }
    )
    Lake(home.settings.dead_letters).append("dead_letters", frame, 0)
    assert erase(home, spec, "u-77", "asked", "ada").rows == {"dead_letters": 1}
    assert Lake(home.settings.dead_letters).read("dead_letters", EVER)["_payload"].to_list() == texts[1:]


def test_a_quote_in_a_subject_erases_nothing_else(home: Home, spec: ModelSpec) -> None:
    before = rows(home, spec).height
    assert erase(home, spec, "x' OR '1'='1", "asked", "ada").rows == {}
    assert rows(home, spec).height == before


def test_without_an_entity_nobody_can_be_erased(home: Home, spec: ModelSpec) -> None:
    nobody = spec.model_copy(update={"columns": spec.columns.model_copy(update={"entity": None})})
    with pytest.raises(InputError, match=r"names no columns\.entity"):
        erase(home, nobody, "u1", "asked", "ada")


def test_an_erasure_that_died_half_way_is_made_whole_by_doing_it_again(
    home: Home, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, drop = busiest(home, spec), Lake.drop
    theirs = set(rows(home, spec).filter(pl.col("_entity") == subject)["_id"])

    def dying(lake: Lake, table: Table, where: str) -> int:
        if table == "predictions":
            raise UnavailableError("the disk is gone")
        return drop(lake, table, where)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "drop", dying)
        with pytest.raises(UnavailableError):
            erase(home, spec, subject, "asked", "ada")
    assert erase(home, spec, subject, "asked", "ada").rows == {"predictions": len(theirs)}
    known = Lake(home.settings.lake / spec.name).read("outcomes", EVER)
    assert not theirs & set(known["_id"])
    assert home.resumed(spec).trainings.holdout.height > 0


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
    assert lake.compact("predictions", NOW.date()) > 0
    assert rows(home, spec).equals(before)
    assert lake.landed("predictions", cursor)[0].is_empty()
