"""One row is the same row, with the same score, whatever door it comes in by; its columns' forms stay as adopted."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.forms import FORMS, FrozenSpecs, frozen
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.state import Version
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.capturing import capturing
from drift_pipeline.serving.keys import add_producer
from drift_pipeline.serving.protocol import read_ask
from drift_pipeline.serving.scoring import make_scorer
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import Prediction, read_event
from drift_pipeline.telemetry.history import History, read_history
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import heard, listening, until

START, ROWS = datetime(2026, 1, 1, tzinfo=UTC), 900
NOW = START + timedelta(days=30)
SPEC = ModelSpec.model_validate(
    {
        "name": "m",
        "owner": "o",
        "task": "binary_classification",
        "columns": {"timestamp": "t"},
        "features": {"x": "numeric", **dict.fromkeys(("flag", "grade", "rate", "code"), "categorical")},
        "outcome": {"column": "y"},
        "retrain": {"trials": 1, "trainer": "logistic_regression", "min_rows": 500},
    }
)
FOUND = {"flag": "boolean", "grade": "integer", "rate": "decimal", "code": "text"}
RATES = (0.5, 1.0, 2.25)


def table() -> pl.DataFrame:
    """The history with the types that a table has."""
    random = np.random.default_rng(0)
    x, flag, grade = random.normal(size=ROWS), random.random(ROWS) < 0.5, random.integers(0, 4, ROWS)
    odds = 1.5 * x + 2 * flag - 0.5 * grade
    return pl.DataFrame(
        {
            "t": [START + timedelta(minutes=minute) for minute in range(ROWS)],
            "x": x,
            "flag": flag,
            "grade": pl.Series(grade),
            "rate": random.choice(RATES, ROWS),
            "code": random.choice(["01", "1", "A"], ROWS),
            "y": (random.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(int),
        }
    )


def written(folder: Path, door: str, spec: ModelSpec = SPEC) -> History:
    """The history as a file of one kind, read."""
    floats = table().with_columns(pl.col("grade").cast(pl.Float64))
    if door == "parquet":
        table().write_parquet(path := folder / "h.parquet")
    elif door == "parquet, integers as floats":
        floats.write_parquet(path := folder / "f.parquet")
    else:
        path = folder / "h.csv"
        shown = floats.with_columns(pl.col("flag").cast(pl.String).str.to_titlecase())  # as pandas writes them
        shown.write_csv(path)
    return read_history(path, spec)


class Adopted:
    """A home whose model was adopted from one kind of file."""

    def __init__(self, folder: Path, door: str = "csv", spec: ModelSpec = SPEC, **options: Any) -> None:
        self.settings, self.clock = Settings(home=folder / "home", database=""), ManualClock(NOW)
        history = written(folder, door, spec)
        with opened(self.settings, self.clock, new=True) as at:
            adopt(at, spec, history, **options)

    def store(self) -> ControlStore:
        return ControlStore(self.settings.database_url, self.clock)

    def lake(self) -> pl.DataFrame:
        rows = Lake(self.settings.lake / "m", source="t").find(
            "predictions", pl.lit(value=True), ["_id", *SPEC.watched]
        )
        return rows.sort(pl.col("_id").cast(pl.Int64))


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    return Adopted(tmp_path_factory.mktemp("csv"))


@pytest.fixture(scope="module")
def spec(adopted: Adopted) -> Iterator[ModelSpec]:
    store = adopted.store()
    yield frozen(store, SPEC)
    store.close()


def test_a_history_of_any_kind_lands_as_the_same_rows_and_its_forms_are_kept(tmp_path: Path, adopted: Adopted) -> None:
    typed = written(tmp_path, "parquet")
    for door in ("parquet", "parquet, integers as floats"):
        (tmp_path / door).mkdir()
        other = Adopted(tmp_path / door, door)
        assert other.lake().equals(adopted.lake())
        store = other.store()
        record = store.get(FORMS, "m")
        assert record is not None
        assert record.body == FOUND
        told = next(entry for entry in store.records() if entry.event == "model.adopted")
        assert told.details[FORMS] == FOUND
        store.close()
    assert typed.frame.height == ROWS


# the doors of a row: how each type of cell is written there

Row = Mapping[str, Any]
ROW = st.fixed_dictionaries(
    {
        "x": st.one_of(st.none(), st.floats(-3, 3)),
        "flag": st.one_of(st.none(), st.booleans()),
        "grade": st.one_of(st.none(), st.integers(-1, 5)),
        "rate": st.one_of(st.none(), st.sampled_from([*RATES, 7.125])),
        "code": st.one_of(st.none(), st.sampled_from(["01", "1", "A", "ü", "nobody's"])),
    }
)
CELLS: dict[str, list[tuple[str, Any]]] = {
    "flag": [("BOOL", lambda v: v), ("INT64", int), ("INT32", int), ("BYTES", str), ("BYTES", lambda v: str(int(v)))],
    "grade": [
        *[("INT64", lambda v: v), ("INT32", lambda v: v), ("FP64", float), ("FP32", float)],
        *[("BYTES", str), ("BYTES", lambda v: f"{v}.0")],
    ],
    "rate": [("FP64", lambda v: v), ("FP32", lambda v: v), ("BYTES", str), ("BYTES", lambda v: f"{v:.4f}")],
    "code": [("BYTES", lambda v: v), ("BYTES", lambda v: f" {v}\t")],
}


def expected(row: Row) -> list[Any]:
    flag, rate = row["flag"], row["rate"]
    return [
        row["x"],
        None if flag is None else str(flag).lower(),
        None if row["grade"] is None else str(row["grade"]),
        None if rate is None else f"{rate:g}",
        row["code"],
    ]


def as_written(row: Row, way: int) -> dict[str, tuple[str, Any]]:
    """Datatype and cell by column, in one of the ways to write each."""
    told: dict[str, tuple[str, Any]] = {"x": ("FP64", row["x"])}
    for name, ways in CELLS.items():
        datatype, write = ways[way % len(ways)]
        told[name] = datatype, None if row[name] is None else write(row[name])
    return told


@given(row=ROW, way=st.integers(0, 59))
def test_a_row_is_the_same_by_tensor_and_by_event_in_every_way_to_write_it(row: Row, way: int, spec: ModelSpec) -> None:
    told = as_written(row, way)
    tensors = [{"name": n, "shape": [1], "datatype": d, "data": [cell]} for n, (d, cell) in told.items()]
    ask = read_ask(json.dumps({"inputs": tensors}).encode(), spec)
    assert list(ask.rows[0]) == expected(row)
    event = {
        "event": "prediction",
        "model": "m",
        "id": "p",
        "time": NOW.isoformat(),
        "version": "v",
        "route": "external",
    }
    features = {name: cell for name, (_, cell) in told.items()}
    read = read_event(json.dumps({**event, "features": features}).encode(), {"m": spec}, NOW)
    assert isinstance(read, Prediction), read
    assert list(read.features.values()) == expected(row)
    assert ask.off_form == {}


def test_a_row_of_the_history_has_one_score_by_every_door(adopted: Adopted, spec: ModelSpec) -> None:
    store = adopted.store()
    record = store.get("model", "m")
    assert record is not None
    version = Version.load(record.body, LocalRegistry(adopted.settings.registry))
    rows, landed = table(), adopted.lake()
    assert version.pipeline is not None
    scorer = make_scorer(version.pipeline, spec.features)
    for at in range(40):
        told = as_written(rows.row(at, named=True), at)
        tensors = [{"name": n, "shape": [1], "datatype": d, "data": [cell]} for n, (d, cell) in told.items()]
        ask = read_ask(json.dumps({"inputs": tensors}).encode(), spec)
        assert scorer.score(ask.rows).tolist() == version.scores(landed[at : at + 1], spec).to_list()
    flags = [[0.0, flag, "1", "1", "A"] for flag in ("true", "false")]
    first, second = scorer.score(flags).tolist()
    assert first > second + 0.1
    store.close()


# the gateway and capture of that home


def tensor(name: str, datatype: str, cell: object) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": datatype, "data": [cell]}


def request(flag: tuple[str, object], grade: tuple[str, object] = ("INT64", 1), **more: Any) -> dict[str, Any]:
    rest = [tensor("x", "FP64", 0.0), tensor("rate", "FP64", 0.5), tensor("code", "BYTES", "A")]
    return {"inputs": [tensor("flag", *flag), tensor("grade", *grade), *rest], **more}


def test_a_gateway_scores_true_as_true_counts_what_does_not_fit_and_capture_lands_levels(tmp_path: Path) -> None:
    """A model that is adopted after the gateway started has its forms all the same."""
    settings, clock = Settings(home=tmp_path / "home", database=""), ManualClock(NOW)
    settings.home.mkdir()
    with_history = written(tmp_path, "csv")
    store = ControlStore(settings.database_url, clock)
    key = add_producer(store, "app", ["m"], 1000, "test")
    store.close()
    app = make_app(settings, {"m": SPEC}, SpoolWriter(settings.home / "spool" / "gateway"), clock, every_seconds=0.05)
    with listening(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False) as asks:
        heard(asks)
        with opened(settings, clock) as at:
            adopt(at, SPEC, with_history)
        until(asks, "true", "/v2/models/m/ready")
        ways = [("BOOL", True), ("BYTES", "True"), ("BYTES", "1"), ("INT64", 1)]
        answers = [asks.post("/v2/models/m/infer", json=request(way)) for way in ways]
        scores = {answer.json()["outputs"][0]["data"][0] for answer in answers}
        no = asks.post("/v2/models/m/infer", json=request(("BOOL", False))).json()["outputs"][0]["data"][0]
        assert len(scores) == 1
        assert no < min(scores) - 0.1
        refused = asks.post("/v2/models/m/infer", json=request(("FP64", 1.0)))
        assert (refused.status_code, "flag is categorical, of the form boolean" in refused.text) == (400, True)
        off = asks.post("/v2/models/m/infer", json=request(("BOOL", True), ("BYTES", "high"), id="off"))
        assert off.status_code == 200
        events = {
            "events": [{"id": "e", "time": NOW.isoformat(), "version": "v", "features": {**EVENT, "grade": "low"}}]
        }
        assert asks.post("/v2/models/m/events", json=events).status_code == 202
        until(asks, 'drift_gateway_off_form_total{column="grade",model="m"} 2.0')
        datatypes = {t["name"]: t["datatype"] for t in asks.get("/v2/models/m").json()["inputs"]}
        assert datatypes == {"x": "FP64", "flag": "BOOL", "grade": "INT64", "rate": "FP64", "code": "BYTES"}
    SpoolWriter(settings.home / "spool" / "gateway").close()
    with capturing(settings, {"m": SPEC}, clock) as (capture, _):
        capture.step()
    lake = Lake(settings.lake / "m", source="t").find(
        "predictions", pl.col("_route") != "history", ["_id", *SPEC.watched]
    )
    assert lake.filter(pl.col("_id") != "off", pl.col("_id") != "e")["flag"].to_list() == ["true"] * 4 + ["false"]
    assert dict(lake.select("_id", "grade").iter_rows())["off"] == "high"
    assert dict(lake.select("_id", "flag").iter_rows())["e"] == "true"


EVENT = {"x": 0.5, "flag": "TRUE", "grade": 1.0, "rate": 1, "code": "01"}


# what stays


def test_a_spec_that_declares_another_form_than_the_model_was_adopted_with_is_refused_at_every_door(
    adopted: Adopted,
) -> None:
    other = SPEC.model_copy(update={"forms": {"grade": "text"}})
    said = "forms.grade is text, but the model was adopted with integer"
    store = adopted.store()
    with pytest.raises(SpecError, match=said):
        frozen(store, other)
    with pytest.raises(SpecError, match=said):
        FrozenSpecs(store, {"m": other})
    with opened(adopted.settings, adopted.clock) as at, pytest.raises(SpecError, match=said):
        at.resumed(other)
    with pytest.raises(SpecError, match=said), capturing(adopted.settings, {"m": other}, adopted.clock):
        pass
    spool = SpoolWriter(adopted.settings.home / "spool" / "other")
    with pytest.raises(SpecError, match=said):
        make_app(adopted.settings, {"m": other}, spool, adopted.clock)
    spool.close()
    same = SPEC.model_copy(update={"forms": {"grade": "integer"}})
    assert frozen(store, same).forms == FOUND
    store.close()


def test_a_declared_form_wins_over_the_one_that_would_be_found(tmp_path: Path) -> None:
    declared = SPEC.model_copy(update={"forms": {"grade": "text", "flag": "integer"}})
    home = Adopted(tmp_path, "parquet, integers as floats", declared)
    assert sorted(home.lake()["flag"].unique()) == ["0", "1"]
    store = home.store()
    assert frozen(store, SPEC).forms == {**FOUND, "grade": "text", "flag": "integer"}
    store.close()


def test_a_model_that_is_not_adopted_has_the_spec_as_it_is(tmp_path: Path) -> None:
    store = ControlStore(f"sqlite:///{tmp_path / 'c.db'}", ManualClock(NOW))
    assert frozen(store, SPEC) is SPEC
    assert dict(FrozenSpecs(store, {"m": SPEC})) == {"m": SPEC}
    store.close()


def test_an_adoption_that_died_is_not_taken_up_with_other_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:  # after the history landed, before anything was decided
        patch.setattr("drift_pipeline.loop.loop.Loop.adopt", dies)
        with pytest.raises(OSError, match="killed"):
            Adopted(tmp_path)
    with pytest.raises(InputError, match="holds the history of an adoption that failed; remove it"):
        Adopted(tmp_path, spec=SPEC.model_copy(update={"forms": {"grade": "text", "rate": "text"}}))
    assert Adopted(tmp_path).lake()["rate"].unique().sort().to_list() == ["0.5", "1", "2.25"]


# a pipeline of somebody else's


def stranger(flags: pl.Series) -> bytes:
    """A pipeline that learnt `flag` as it stands in some table."""
    rows = table().with_columns(flag=flags).to_pandas()
    columns = ColumnTransformer(
        [("levels", OneHotEncoder(handle_unknown="ignore"), ["flag"]), ("x", "passthrough", ["x"])]
    )
    pipeline = Pipeline([("columns", columns), ("model", LogisticRegression())])
    return dump_pipeline(pipeline.fit(rows[["x", "flag"]], rows["y"]))


FLAG = table()["flag"]


@pytest.mark.parametrize(
    ("flags", "learnt"),
    [
        (FLAG.cast(pl.String).str.to_titlecase(), "'False', 'True'"),
        (FLAG, "False, True"),
        (FLAG.cast(pl.Int64), "0, 1"),
        (FLAG.cast(pl.Float64), "0.0, 1.0"),
        (FLAG.cast(pl.Int64).cast(pl.String), "'0', '1'"),
    ],
    ids=["texts of pandas", "booleans", "integers", "floats", "digits"],
)
def test_a_bundle_that_knows_none_of_a_columns_levels_is_refused(tmp_path: Path, flags: pl.Series, learnt: str) -> None:
    (tmp_path / "b.skops").write_bytes(stranger(flags))
    with pytest.raises(InputError) as refused:
        Adopted(tmp_path, bundle=tmp_path / "b.skops")
    said = f"knows none of the levels of flag: it was trained on {learnt}, and is asked for 'false', 'true'"
    assert said in str(refused.value)
    assert "declare forms: {flag: text}" in str(refused.value)


def test_a_bundle_is_asked_for_the_raw_texts_of_a_column_that_is_declared_text(tmp_path: Path) -> None:
    bundle = tmp_path / "b.skops"
    bundle.write_bytes(stranger(FLAG.cast(pl.String).str.to_titlecase()))
    Adopted(tmp_path, spec=SPEC.model_copy(update={"forms": {"flag": "text"}}), bundle=bundle)
    bundle.write_bytes(stranger(FLAG.cast(pl.String)))
    (tmp_path / "canonical").mkdir()
    Adopted(tmp_path / "canonical", bundle=bundle)
