"""A retrain whose rows come from a store outside the home, through Dagster's assets to card, chain and lineage; and the
skew between what was served and what the store says."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from deltalake import write_deltalake

from drift_pipeline.cli import drift
from drift_pipeline.clock import DAY, HOUR, SystemClock, Window
from drift_pipeline.components.training import TRAINING as HALF
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import DriftError, IntegrityError
from drift_pipeline.loop import Loop
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.lineage import deliver_lineage
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset
from drift_pipeline_tests.components.worlds import ATTRIBUTES, MODEL, at_home, copied, materialised, metadata, records
from drift_pipeline_tests.parts import feast
from drift_pipeline_tests.parts.fixtures import feast_python

FEATURES = list(ATTRIBUTES["features"])
ALWAYS = Window(SystemClock().now() - 700 * DAY, SystemClock().now())


@dataclass
class World:
    """A home, and a store that holds the same features as its lake."""

    home: Path
    models: Path
    source: Any

    @property
    def spec(self) -> ModelSpec:
        retrain = {**ATTRIBUTES["retrain"], "source": self.source}
        return ModelSpec.model_validate({**ATTRIBUTES, "retrain": retrain}).placed(self.models / MODEL)

    @property
    def lake(self) -> Lake:
        return Lake(self.home / "lake" / MODEL, source="test")

    def write_spec(self) -> None:
        attributes = {**ATTRIBUTES, "retrain": {**ATTRIBUTES["retrain"], "source": self.source}}
        document = {"type": "drift_pipeline.components.MonitoredModel", "attributes": attributes}
        (self.models / MODEL).mkdir(parents=True, exist_ok=True)
        (self.models / MODEL / "defs.yaml").write_text(yaml.safe_dump(document))


def of_lake(_: Path, __: Lake) -> Any:
    return "lake"


def of_feast(folder: Path, lake: Lake) -> Any:
    repo = folder / "models" / MODEL / "repo"
    feast.repository(feast_python(), repo, stored(lake))
    return {"feast": {"repo": "repo", "feature_service": "fraud"}}


def stored(lake: Lake) -> pl.DataFrame:
    """What the store says: of each prediction's time what was served."""
    times = {"ts": "_time", "created": "_time"}
    return lake.read("predictions", ALWAYS).select(*FEATURES, user_id="_entity", **times)


def of_databricks(folder: Path, lake: Lake) -> Any:
    rows = lake.labelled(ALWAYS, ALWAYS.end, HOUR)
    names = {"_time": "ts", "_id": "prediction_id", "_entity": "user_id", "_label": "clicked"}
    table = rows.rename(names).select(*FEATURES, "age_band", *names.values(), latency_ms=pl.lit(5.0))
    write_deltalake(folder / "table", table)
    return {"databricks": {"table": f"file://{folder / 'table'}"}}


MADE: dict[str, Callable[[Path, Lake], Any]] = {"lake": of_lake, "feast": of_feast, "databricks": of_databricks}


def world_of(kind: str, folder: Path) -> World:
    home = copied(folder / "home")
    world = World(home, folder / "models", MADE[kind](folder, Lake(home / "lake" / MODEL, source="test")))
    world.write_spec()
    return world


def step(world: World, *names: str) -> dict[str, dict[str, Any]]:
    """Each asset is a loop of its own, which knows nothing but what is stored."""
    result = materialised(world.home, *names, spec=world.spec)
    assert result.success
    return {name: metadata(result, name) for name in names}


def rows_of(world: World) -> Dataset:
    """Those that are pinned, read again."""
    settings = Settings(home=world.home, database="")
    with opened(settings, SystemClock()) as home:
        loop = home.resumed(world.spec)
        return loop.trainings.rows(loop.trainings.pinned())


def bundle(world: World, digest: str) -> Any:
    return LocalRegistry(world.home / "registry").get(digest)


@pytest.fixture(scope="module")
def from_lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Dataset, str]:
    world = world_of("lake", tmp_path_factory.mktemp("lake"))
    made = step(world, *HALF[:2])
    return world, rows_of(world), made["candidate_model"]["bundle"]


@pytest.fixture
def with_feast(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFT_FEAST_PYTHON", str(feast_python()))
    return feast_python()


@pytest.mark.parametrize("kind", [pytest.param("feast", marks=pytest.mark.live), "databricks"])
def test_a_retrain_of_a_store_is_that_of_the_lake_and_says_where_its_rows_came_from(
    kind: str, tmp_path: Path, from_lake: tuple[World, Dataset, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the features are the same, so are rows and model; each step is a process of its own."""
    if kind == "feast":
        monkeypatch.setenv("DRIFT_FEAST_PYTHON", str(feast_python()))
    world = world_of(kind, tmp_path)
    told = step(world, *HALF)
    assert told["training_dataset"]["source_kind"] == kind
    shared = [*FEATURES, "age_band", "_label", "_time", "_id"]
    before, after = from_lake[1].frame.select(shared), rows_of(world).frame.select(shared)
    newest = after["_time"].max()
    assert after.equals(before.filter(pl.col("_time") <= newest))
    made = told["candidate_model"]["bundle"]
    found, expected = bundle(world, made).manifest, bundle(from_lake[0], from_lake[2]).manifest
    assert (found["data"]["source"]["kind"], expected["data"]["source"]["kind"]) == (kind, "lake")
    same = ("params", "rows", "trained_from", "validation_auroc")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    _is_told(world, kind)


def _is_told(world: World, kind: str) -> None:
    """By audit, card, datasheet, chain and lineage."""
    started = next(one for one in reversed(records(world.home)) if one.event == "training.started")
    assert started.details["source"]["kind"] == kind
    settings = Settings(home=world.home, database="")
    version = str(started.details["version"])
    for document in ("card.md", "datasheet.md"):
        assert kind in (settings.evidence / MODEL / version / document).read_text()
    with at_home(world.home, world.models):
        shown = CliRunner().invoke(drift, ["audit", "show", MODEL, version])
    assert f"kind {kind}" in shown.output
    with closing(ControlStore(settings.database_url, SystemClock())) as store:
        deliver_lineage(settings, store, {MODEL: world.spec}, SystemClock().now(), seconds=120, at_once=True)
    lines = [line for file in settings.lineage_files.glob("*.jsonl") for line in file.read_text().splitlines()]
    pins = [event for event in map(json.loads, lines) if event["job"]["name"] == f"{MODEL}.pin"]
    (elsewhere,) = started.details["source"]["inputs"]
    named = {(one["namespace"], one["name"]) for one in pins[-1]["inputs"]}
    assert (elsewhere["namespace"], elsewhere["name"]) in named


def test_a_store_that_is_not_set_up_ends_the_training_and_pages(tmp_path: Path) -> None:
    world = world_of("lake", tmp_path)
    world.source = {"feast": {"repo": "repo", "feature_service": "fraud"}}
    result = materialised(world.home, "training_dataset", spec=world.spec)
    assert not result.success
    settings = Settings(home=world.home, database="")
    with opened(settings, SystemClock()) as home:
        loop = home.resumed(world.spec)
        decision = records(world.home)[-1].details["decision"]
        loop.queue.hand_back(decision, loop.queue.holder(decision), "the run is over")
        assert loop.train(decision) is None
    assert records(world.home)[-1].event == "training.failed"
    assert "DRIFT_FEAST_PYTHON" in records(world.home)[-1].details["because"]


@contextmanager
def process(world: World) -> Iterator[Loop]:
    """A loop that knows nothing but what is stored."""
    with opened(Settings(home=world.home, database=""), SystemClock()) as home:
        yield home.resumed(world.spec)


def test_a_training_that_died_after_its_pin_goes_on_from_the_same_rows_whatever_the_table_is_by_now(
    tmp_path: Path,
) -> None:
    world = world_of("databricks", tmp_path)
    with process(world) as loop:
        pinned = loop.pin("by-hand-1", loop.look())
        first = loop.trainings.rows(loop.trainings.pinned())
    assert pinned is not None
    write_deltalake(tmp_path / "table", pl.read_delta(str(tmp_path / "table")).head(2000), mode="overwrite")
    with process(world) as loop:
        assert loop.trainings.rows(loop.trainings.pinned()).frame.equals(first.frame)
        fitted = loop.fit(loop.trainings.pinned())
    with process(world) as loop:
        assert fitted is not None
        assert loop.prove(loop.trainings.pinned()).digest == fitted.digest
    world.source = "lake"
    with (
        process(world) as loop,
        pytest.raises(IntegrityError, match=r"was pinned in the source databricks, and retrain.source is lake by now"),
    ):
        loop.trainings.rows(loop.trainings.pinned())


# skew


def checked(world: World, *arguments: str) -> tuple[int, dict[str, Any]]:
    with at_home(world.home, world.models):
        asked = ["features", "check", MODEL, "--json", *arguments]
        found = CliRunner().invoke(drift, asked, standalone_mode=False)
    if isinstance(found.exception, DriftError):  # which the console script prints
        return found.exception.exit_code, {"said": str(found.exception)}
    return found.return_value, json.loads(found.stdout)


def land(world: World, rows: pl.DataFrame, batch: int) -> None:
    served = rows.with_columns(_id=pl.format("s{}-{}", pl.lit(batch), pl.int_range(pl.len())), _route=pl.lit("stable"))
    with closing(Lake(world.home / "lake" / MODEL, source="skew")) as lake:
        lake.append("predictions", served, batch)


@pytest.mark.live
def test_skew_that_is_injected_online_is_found(tmp_path: Path, with_feast: Path) -> None:
    """Seconds served as minutes; then a server that was given other values than the offline store has."""
    world = world_of("feast", tmp_path)
    repo, now = world.models / MODEL / "repo", SystemClock().now()
    people = world.lake.read("predictions", ALWAYS).unique("_entity", keep="last", maintain_order=True).tail(300)
    people = people.with_columns(pl.lit(now - 2 * HOUR, pl.Datetime("us", "UTC")).alias("_time"))
    land(world, people, 0)
    fresh = people.select(*FEATURES, user_id="_entity", ts=pl.col("_time") - HOUR, created=pl.col("_time") - HOUR)
    said = pl.concat([stored(world.lake).filter(pl.col("ts") < now - DAY), fresh])
    said.write_parquet(repo / "rows.parquet")
    code, found = checked(world, "--since", "24h")
    assert (code, found["verdict"], found["checks"][0]["rows"]) == (0, "OK", 300)

    late = pl.col("session_length_s") / 60
    skewed = people.with_columns(pl.when(pl.int_range(pl.len()) % 5 == 0).then(late).otherwise("session_length_s"))
    land(world, skewed.with_columns(pl.col("_time") + timedelta(minutes=90)), 1)
    code, found = checked(world, "--since", "1h")
    told = {one["name"]: one for one in found["checks"][0]["features"]}
    assert (code, found["verdict"]) == (1, "BREACH")
    assert [name for name, one in told.items() if one["verdict"] == "BREACH"] == ["session_length_s"]
    assert (told["session_length_s"]["unequal"], told["session_length_s"]["lower"]) == (60, 60)
    assert not any(str(value) in json.dumps(found) for value in people["_entity"].to_list())

    feast.run(with_feast, feast.MATERIALIZE, str(repo), now.isoformat())
    with feast.served(with_feast, repo) as server:
        world.source["feast"]["server"] = server
        world.write_spec()
        code, found = checked(world, "--since", "24h", "--online", "--at-most", "0.5")
        assert (code, [one["verdict"] for one in found["checks"]]) == (0, ["OK", "OK"])
        said.with_columns(device=pl.lit("fridge")).write_parquet(repo / "rows.parquet")
        feast.run(with_feast, feast.MATERIALIZE, str(repo), now.isoformat())
        said.write_parquet(repo / "rows.parquet")
        code, found = checked(world, "--since", "24h", "--online", "--at-most", "0.5")
    assert (code, [one["verdict"] for one in found["checks"]]) == (1, ["OK", "BREACH"])
    assert found["checks"][1]["features"][0]["name"] == "device"
    code, found = checked(world, "--online")
    assert code == 3
    assert "gives no answer" in found["said"]


def test_a_check_without_what_it_needs_says_so(tmp_path: Path) -> None:
    world = world_of("lake", tmp_path)
    code, found = checked(world)
    assert (code, "names no feature store" in found["said"]) == (2, True)
    world.source = {"feast": {"repo": "repo", "feature_service": "fraud"}}
    world.write_spec()
    code, found = checked(world, "--online")
    assert (code, "names no server" in found["said"]) == (2, True)
    code, found = checked(world, "--since", "1h")  # where nothing was served, nobody is asked
    assert (code, found["verdict"], found["checks"][0]["rows"]) == (3, "INCONCLUSIVE", 0)
