"""Every Source gives the labelled rows that were known at a moment, and for a pin the very same bytes again."""

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

import polars as pl
import pytest
from deltalake import write_deltalake

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.errors import InputError
from drift_pipeline.loop.state import Assignment
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, Pin
from drift_pipeline.training.sources import Access, Source, source_for
from drift_pipeline_tests.parts import feast
from drift_pipeline_tests.parts.fixtures import feast_python
from drift_pipeline_tests.training.worlds import START, history

NOW, ROWS, KNOWN = START + 8 * HOUR, 600, 120  # each label is known six hours after its prediction, one a minute
COLUMNS = {"timestamp": "at", "prediction_id": "id", "entity": "user"}
FEATURES = ("amount", "age", "device")


class World(Protocol):
    """Traffic and its labels, in whichever store."""

    def spec(self, **retrain: Any) -> ModelSpec: ...
    def source(self, spec: ModelSpec) -> Source: ...
    def goes_on(self) -> None:
        """What came after NOW is there by now, too."""


def rows(count: int = ROWS) -> pl.DataFrame:
    return history(count).with_columns(_entity=pl.format("u{}", pl.int_range(count) % 50), _route=pl.lit("stable"))


def model(source: object, folder: Path, **retrain: Any) -> ModelSpec:
    document = {
        "name": "fraud",
        "owner": "ml@example.com",
        "task": "binary_classification",
        "columns": COLUMNS,
        "features": {"amount": "numeric", "age": "numeric", "device": "categorical"},
        "outcome": {"column": "label", "delay": "6h"},
        "protected": {"region": "categorical"},
        "retrain": {"source": source, **retrain},
    }
    return ModelSpec.model_validate(document).placed(folder).with_forms({})


class Captured:
    """A lake."""

    named: ClassVar[object] = "lake"

    def __init__(self, folder: Path) -> None:
        self.folder, self.lake, self.access, self.all = folder, Lake(folder / "lake"), Access(), rows()
        self.land(self.all[:480], 0)

    def land(self, some: pl.DataFrame, batch: int) -> None:
        known_at = pl.col("_time") + 6 * HOUR
        self.lake.append("predictions", some.drop("_label").with_columns(_score=0.5), batch)
        self.lake.append("outcomes", some.select("_id", "_label", known_at.alias("_observed_at")), batch)

    def spec(self, **retrain: Any) -> ModelSpec:
        return model(self.named, self.folder, **retrain)

    def source(self, spec: ModelSpec) -> Source:
        return source_for(spec, self.lake, self.access)

    def goes_on(self) -> None:
        self.land(self.all[480:], 1)


class Joined(Captured):
    """The same lake, with features of a repository of Feast that hold the same."""

    named: ClassVar[object] = {"feast": {"repo": "repo", "feature_service": "fraud"}}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.python = feast_python()
        self.access = Access(feast_python=self.python)
        self.stored = self.all.select(
            *FEATURES,
            user_id="_entity",
            ts=pl.col("_time") - timedelta(seconds=30),
            created=pl.col("_time") - timedelta(seconds=20),
        )
        feast.repository(self.python, folder / "repo", self.stored[:480])

    def goes_on(self) -> None:
        super().goes_on()
        self.stored.write_parquet(self.folder / "repo" / "rows.parquet")


class Tabled:
    """A Delta table, to which labels come as they get known."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, rows()
        self.land(NOW, 480)

    def land(self, now: datetime, count: int) -> None:
        known = pl.col("_time") + 6 * HOUR < now
        table = self.all[:count].with_columns(label=pl.when(known).then("_label")).drop("_label", "_route")
        names = {"_time": "at", "_id": "id", "_entity": "user"}
        write_deltalake(self.folder / "table", table.rename(names), mode="overwrite")

    def spec(self, **retrain: Any) -> ModelSpec:
        return model({"databricks": {"table": f"file://{self.folder / 'table'}"}}, self.folder, **retrain)

    def source(self, spec: ModelSpec) -> Source:
        return source_for(spec, Lake(self.folder / "lake"), Access())

    def goes_on(self) -> None:
        self.land(NOW + DAY, ROWS)


WORLDS: dict[str, Callable[[Path], World]] = {"lake": Captured, "feast": Joined, "databricks": Tabled}


@pytest.fixture(scope="module", params=["lake", pytest.param("feast", marks=pytest.mark.live), "databricks"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return WORLDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def found(world: World) -> Dataset:
    return world.source(world.spec()).rows(NOW)


def written(dataset: Dataset) -> bytes:
    told = io.BytesIO()
    dataset.frame.write_ipc(told)
    return told.getvalue()


def handed_on(pin: Pin) -> Pin:
    """As the next process finds it."""
    of_none: dict[str, Any] = {"version": "v2", "decision": "d", "champion": "c", "block_rows": 0, "fresh": 0}
    source = {**pin.told, "inputs": list(pin.inputs)}
    assignment = Assignment(
        **of_none, known_at=NOW, from_=NOW, versions=pin.versions, block_from=NOW, rows=0, recovery=None, source=source
    )
    return Assignment.from_json(json.loads(json.dumps(assignment.to_json()))).pin


def test_where_the_features_are_the_same_so_are_the_rows(found: Dataset) -> None:
    """And no label that was not known, no row of another time, in order of time."""
    expected = rows()[:KNOWN]
    kept = ["amount", "age", "device", "region", "_label", "_time", "_id"]
    assert found.frame.select(kept).equals(expected.select(kept))
    assert found.frame.schema["_label"] == pl.Int8


def test_a_source_says_its_kind_and_names_itself_for_lineage(world: World, found: Dataset) -> None:
    assert found.pin.kind == world.spec().retrain.source.kind
    assert all(set(one) == {"namespace", "name", "version"} and all(one.values()) for one in found.pin.inputs)
    assert bool(found.pin.inputs) == (found.pin.kind != "lake")  # whose tables are datasets of the home
    assert handed_on(found.pin) == found.pin


def test_the_window_and_the_exclusions_are_the_specs(world: World) -> None:
    """[START + 7 h - window, ..) is cut, and so is what is excluded."""
    exclude = [{"start": "2026-01-01T01:10:00", "end": "2026-01-01T01:50:00"}]
    cut = world.source(world.spec(window="7h", exclude=exclude)).rows(NOW)
    assert cut.frame["_id"].to_list() == [str(minute) for minute in [*range(60, 70), *range(110, 120)]]


def test_without_a_labelled_row_a_source_says_so(world: World) -> None:
    with pytest.raises(InputError, match=r"no labelled row between|holds no label"):
        world.source(world.spec()).rows(START - DAY)


def test_what_came_since_changes_nothing_of_what_was_pinned(world: World, found: Dataset) -> None:
    """Last: the world goes on."""
    world.goes_on()
    pin = handed_on(found.pin)
    again = world.source(world.spec()).rows(NOW, pin)
    assert written(again) == written(found)
    assert again.pin == found.pin
    assert world.source(world.spec()).rows(NOW + DAY).frame.height > found.frame.height
