"""Rows of a real Feast: nothing that was not known at a prediction is in them, and what changed since is told."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.errors import InputError, IntegrityError, SpecError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset
from drift_pipeline.training.sources import Access, source_for
from drift_pipeline_tests.parts import feast
from drift_pipeline_tests.parts.fixtures import feast_python
from drift_pipeline_tests.training.worlds import START

pytestmark = pytest.mark.live

AT = START + DAY
EARLY, BEFORE, AFTER = AT - 2 * HOUR, AT - HOUR, AT + HOUR
POISON = 999.0
PEOPLE = 40  # of each case: an order that is only mostly right shows
Value = tuple[datetime, datetime, float]  # of when it is, when it was created, and what it is

CASES: dict[str, tuple[Sequence[Value], float | None]] = {
    "the newest of the past": ([(EARLY, EARLY, 1.0), (BEFORE, BEFORE, 2.0)], 2.0),
    "not the future": ([(BEFORE, BEFORE, 1.0), (AFTER, BEFORE, POISON)], 1.0),
    "nothing where all is the future": ([(AFTER, AFTER, POISON)], None),
    "not what came late": ([(EARLY, EARLY, 1.0), (BEFORE, AFTER, POISON)], 1.0),
    "nothing where all came late": ([(BEFORE, AFTER, POISON)], None),
    "a correction that was known": ([(BEFORE, BEFORE, 1.0), (BEFORE, BEFORE + timedelta(minutes=9), 2.0)], 2.0),
    "not a correction that came later": ([(BEFORE, BEFORE, 1.0), (BEFORE, AFTER, POISON)], 1.0),
    "what was created at that very moment": ([(AT, AT, 3.0)], 3.0),
    "nothing for whom the store does not know": ([], None),
}


def spec(folder: Path, service: str = "fraud", **features: str) -> ModelSpec:
    document = {
        "name": "fraud",
        "owner": "ml@example.com",
        "task": "binary_classification",
        "columns": {"entity": "user"},
        "features": features or {"amount": "numeric", "age": "numeric", "device": "categorical", "asked": "numeric"},
        "outcome": {"column": "label"},
        "retrain": {"source": {"feast": {"repo": "repo", "feature_service": service}}},
    }
    return ModelSpec.model_validate(document).placed(folder).with_forms({})


def entities() -> list[tuple[str, str]]:
    """(case, entity)."""
    return [(case, f"{number}{person:03}") for number, case in enumerate(CASES, 1) for person in range(PEOPLE)]


def stored() -> pl.DataFrame:
    found = [
        {"user_id": who, "ts": ts, "created": created, "amount": value, "age": value, "device": f"d{value:g}"}
        for case, who in entities()
        for ts, created, value in CASES[case][0]
    ]
    times = {"ts": pl.Datetime("us", "UTC"), "created": pl.Datetime("us", "UTC")}
    return pl.DataFrame(found, schema_overrides=times).sample(fraction=1, shuffle=True, seed=3)


def landed(folder: Path) -> Lake:
    """A prediction of everybody, `asked` with the request; two of the first one, and one of nobody."""
    who = [entity for _, entity in entities()]
    rows = pl.DataFrame({"_entity": [*who, who[0], None, "no number"]}).with_columns(
        pl.format("p{}", pl.int_range(pl.len())).alias("_id"),
        pl.lit(AT, pl.Datetime("us", "UTC")).alias("_time"),
        amount=pl.lit(-1.0),
        age=pl.lit(-1.0),
        device=pl.lit("seen"),
        asked=pl.int_range(pl.len()).cast(pl.Float64),
        _score=0.5,
    )
    lake = Lake(folder / "lake")
    lake.append("predictions", rows, 0)
    labels = rows.select("_id", _observed_at=pl.col("_time") + HOUR, _label=(pl.int_range(pl.len()) % 2).cast(pl.Int8))
    lake.append("outcomes", labels, 0)
    return lake


@pytest.fixture(scope="module")
def python() -> Path:
    return feast_python()


@pytest.fixture(scope="module")
def folder(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feast")
    feast.repository(python, folder / "repo", stored())
    landed(folder)
    return folder


def asked(python: Path, folder: Path, model: ModelSpec | None = None) -> Dataset:
    return source_for(model or spec(folder), Lake(folder / "lake"), Access(python)).rows(AT + DAY)


@pytest.fixture(scope="module")
def found(python: Path, folder: Path) -> Dataset:
    return asked(python, folder)


@pytest.mark.parametrize("case", CASES)
def test_a_row_has_what_was_known_at_its_prediction(found: Dataset, case: str) -> None:
    expected = CASES[case][1]
    ids = [f"p{at}" for at, (name, _) in enumerate(entities()) if name == case]
    rows = found.frame.filter(pl.col("_id").is_in(ids))
    assert rows["amount"].to_list() == rows["age"].to_list() == [expected] * PEOPLE
    assert rows["device"].to_list() == [None if expected is None else f"d{expected:g}"] * PEOPLE


def test_each_prediction_is_one_row_whoever_it_is_of_and_the_request_stays_what_it_was(found: Dataset) -> None:
    everybody = len(entities()) + 3
    assert found.frame["_id"].n_unique() == found.frame.height == everybody
    assert found.frame.filter(pl.col("_id") == f"p{everybody - 3}")["amount"].to_list() == [2.0]  # the first one again
    assert (
        found.frame.filter(pl.col("_id").is_in([f"p{everybody - 2}", f"p{everybody - 1}"]))["amount"].null_count() == 2
    )
    by_id = found.frame.with_columns(pl.col("_id").str.strip_prefix("p").cast(pl.Float64))
    assert (by_id["asked"] == by_id["_id"]).all()
    assert found.pin.facts["features"] == "amount, age, device"


def test_whole_numbers_as_keys_and_times_without_a_zone_give_the_same(
    python: Path, folder: Path, found: Dataset, tmp_path: Path
) -> None:
    """And an entity that is no whole number has no features."""
    naive = stored().with_columns(pl.col("ts", "created").dt.replace_time_zone(None), pl.col("user_id").cast(pl.Int64))
    feast.repository(python, tmp_path / "repo", naive, key="INT64")
    (tmp_path / "lake").symlink_to(folder / "lake")
    assert asked(python, tmp_path).frame.equals(found.frame)


SERVICES = """
import sys
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
store = FeatureStore(repo_path=sys.argv[1])
clicks = store.get_feature_view("clicks")
source = FileSource(path="rows.parquet", timestamp_field="ts")
fields = [Field(name="x", dtype=Float64)]
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
shops = FeatureView(name="shops", entities=[shop], ttl=timedelta(days=1), schema=fields, source=source)
@on_demand_feature_view(sources=[clicks], schema=[Field(name="twice", dtype=Float64)])
def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"twice": inputs["amount"] * 2})
store.apply([shop, shops, doubled, FeatureService(name="two_keys", features=[clicks, shops]),
             FeatureService(name="on_demand", features=[clicks, doubled])])
"""


def test_a_service_that_cannot_be_asked_says_why(python: Path, folder: Path) -> None:
    feast.run(python, SERVICES, str(folder / "repo"))
    for model, said in (
        (spec(folder, "nobody"), "there is no feature service 'nobody'; there are: fraud, on_demand, two_keys"),
        (spec(folder, "two_keys"), "has the join keys shop_id, user_id; it can have one"),
        (spec(folder, "on_demand"), "has 'doubled', which is computed on demand or streamed"),
        (spec(folder, asked="numeric"), "has none of the model's features; it has: amount, age, device"),
    ):
        with pytest.raises(SpecError) as raised:
            asked(python, folder, model)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_what_the_store_changed_since_is_not_taken_for_what_was_pinned(
    python: Path, folder: Path, found: Dataset
) -> None:
    """Last: the store is rewritten, then defined otherwise, then empty."""
    rows, source = folder / "repo" / "rows.parquet", source_for(spec(folder), Lake(folder / "lake"), Access(python))
    stored().with_columns(pl.col("amount") + 1).write_parquet(rows)
    with pytest.raises(IntegrityError, match=r"store gives other rows by now than .* pinned \(drift/fraud\)"):
        source.rows(AT + DAY, found.pin)
    feast.repository(python, folder / "repo", stored(), features=("amount", "age"))
    with pytest.raises(IntegrityError, match="the feature service is defined otherwise by now"):
        source.rows(AT + DAY, found.pin)
    stored().with_columns(user_id=pl.lit("x")).write_parquet(rows)
    with pytest.raises(InputError, match="Feast has no value for any of"):
        source.rows(AT + DAY)
    rows.unlink()
    with pytest.raises(Exception, match="Feast could not join"):
        source.rows(AT + DAY)
