"""Erasure: no byte of the home tells of the subject, and whatever interrupts it, the next tick carries it on."""

import json
import multiprocessing
import os
import shutil
import struct
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, ManualClock, Window
from drift_pipeline.detection.report import run_file
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.evidence.day_pages import share_page
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.day import day_of, rendered_of
from drift_pipeline.loop.erasure import carry_on, erase
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, synthetic_history

pytestmark = pytest.mark.live  # minutes of faults or of history

DAYS = 40
NOW = START + DAYS * DAY
EVER = Window(START - DAY, NOW + 10 * DAY)
SUBJECT, PRICE, LENGTH = 'zq-Zoë "7731"', 987_654.328125, 0.0123291015625
IDS = ("zqp-1", "zqp-2", "zqp-late")


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that nobody has used yet, beside its spec."""
    folder = tmp_path_factory.mktemp("adopted")
    (folder / "spec.yaml").write_text(SAMPLE_SPEC + "retrain: {trials: 1, trainer: logistic_regression}\n")
    spec = read_spec(folder / "spec.yaml")
    synthetic_history(DAYS, 60, 0, score=False).write_parquet(folder / "history.parquet")
    with opened(Settings(home=folder / "home", database=""), ManualClock(NOW), new=True) as made:
        spec = spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"score": None})})
        adopt(made, spec, read_history(folder / "history.parquet", spec))
    return folder


@pytest.fixture
def spec(adopted: Path) -> ModelSpec:
    return read_spec(adopted / "spec.yaml")


@pytest.fixture
def home(adopted: Path, tmp_path: Path) -> Iterator[Home]:
    shutil.copytree(adopted / "home", tmp_path / "home")
    with opened(Settings(home=tmp_path / "home", database=""), ManualClock(NOW)) as made:
        yield made


class Site:
    """The home's spool and its capture."""

    def __init__(self, home: Home, spec: ModelSpec) -> None:
        self.home, self.spec, self._lakes = home, spec, dict[tuple[str, str], Lake]()
        self.spool = SpoolWriter(home.settings.home / "spool" / "gateway")
        self.capture = Capture(
            home.settings.home / "spool", self._lake, {spec.name: spec}, home.clock, lambda _, frame: _mirrored(frame)
        )

    def _lake(self, model: str, source: str) -> Lake:
        folder = self.home.settings.lake / model if model else self.home.settings.dead_letters
        return self._lakes.setdefault((model, source), Lake(folder, source=source))

    def send(self, *lines: dict[str, Any] | bytes) -> None:
        self.spool.write([line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines])
        self.spool.rotate()

    def take(self, *lines: dict[str, Any] | bytes) -> None:
        self.send(*lines)
        self.capture.step()

    def predicted(self, name: str, entity: str, at: datetime = NOW, price: float = PRICE) -> dict[str, Any]:
        features = {c: 1.5 if kind == "numeric" else "phone" for c, kind in self.spec.watched.items()}
        features |= {"price_eur": price, "session_length_s": LENGTH if entity == SUBJECT else 30.0}
        told = {"model": self.spec.name, "id": name, "time": at.isoformat(), "version": "v1", "route": "stable"}
        return {"event": "prediction", **told, "score": 0.625, "latency_ms": 5, "entity": entity, "features": features}

    def outcome(self, name: str) -> dict[str, Any]:
        return {"event": "outcome", "model": self.spec.name, "id": name, "time": NOW.isoformat(), "label": 1}


def _mirrored(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("_id", "_producer", "_time", pl.lit("v2").alias("_version"), "_score")


def letters(spec: ModelSpec) -> list[bytes]:
    """What is laid aside of the subject: spelled with escapes, named beyond what is kept, of no model, torn, an id."""
    first = {"event": "prediction", "model": spec.name, "more": 1, "entity": SUBJECT}
    far = {"event": "prediction", "model": spec.name, "padding": "x" * 5000, "price": PRICE, "entity": SUBJECT}
    return [
        json.dumps(first).encode(),
        json.dumps(first, ensure_ascii=False).encode(),
        json.dumps({"price": PRICE, **far}).encode(),
        json.dumps({**first, "model": "nobody's"}).encode(),
        json.dumps(first).encode()[:-1] + b', "torn": ',
        json.dumps({"event": "outcome", "model": spec.name, "id": IDS[0], "label": "?"}).encode(),
    ]


def live(site: Site) -> None:
    """The subject leaves something in every table, in files of one row and beside others."""
    site.take(*(site.predicted(f"n-{row}", f"u{row}", price=20.0 + row) for row in range(20)))
    site.take(site.predicted(IDS[0], SUBJECT))
    site.take(site.predicted(IDS[1], SUBJECT), site.predicted("n-20", "", price=41.0))
    site.take(site.outcome(IDS[0]), site.outcome("n-3"))
    site.take(site.predicted(IDS[2], SUBJECT, NOW - 9 * DAY))
    site.take(*letters(site.spec), b'{"event": "prediction", "entity": "u3"}', b"not of zq-Zoes")


def render(site: Site) -> list[Path]:
    """Pages as the drift report has them, which cannot tell which rows their extremes came from."""
    settings, name = site.home.settings, site.spec.name
    page = settings.drift_reports / name / f"{NOW:%Y-%m-%d}.html"
    page.parent.mkdir(parents=True)
    page.write_text(f"axis to {PRICE}")
    (day,) = rendered_of(settings, site.home.store, site.spec, [NOW])
    files = [page, run_file(name, DAY, day_of(day).end, settings.evidently)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"axis to {PRICE}")
    share_page(settings, name, day)
    return files


def traces(home: Path) -> list[str]:
    """Files that hold the subject, an id or a value of theirs: as bytes, or in a cell of a Parquet file."""
    texts = [*IDS, *(json.dumps(SUBJECT, ensure_ascii=plain)[1:-1] for plain in (True, False)), SUBJECT]
    wanted = [text.encode() for text in [*texts, str(PRICE), str(LENGTH)]]
    wanted += [struct.pack(order + "d", value) for order in "<>" for value in (PRICE, LENGTH)]
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and any(text in part for part in _parts(path) for text in wanted)
    )


def _parts(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if not data.startswith(b"PAR1"):
        return [data]
    return [data, str(pl.read_parquet(path, hive_partitioning=False).to_dicts()).encode()]


def test_after_an_erasure_no_byte_of_the_home_tells_of_the_subject(home: Home, spec: ModelSpec) -> None:
    site, folder = Site(home, spec), home.settings.home
    live(site)
    render(site)
    lake = folder / "lake" / spec.name
    some = next(lake.rglob("predictions/_day=2026-02-14/*.parquet"))
    for table in ("predictions", "outcomes", "shadow", "late"):  # what a writer leaves that is killed in mid-commit
        shutil.copy(some, lake / table / "part-00000-of-a-killed-writer.parquet")
    before = {
        trace.split("/")[-2 if trace.endswith("html") else 2 if "lake" in trace else 0] for trace in traces(folder)
    }
    assert before >= {"predictions", "outcomes", "shadow", "late", "dead_letters", spec.name, "evidently"}
    found = erase(home, spec, SUBJECT, "asked by letter", "ada")
    assert traces(folder) == []
    assert found.rows == {"predictions": 2, "late": 1, "outcomes": 1, "shadow": 2, "dead_letters": len(letters(spec))}
    assert Lake(lake).read("predictions", Window(NOW, NOW + HOUR)).height == 21
    assert Lake(home.settings.dead_letters).read("dead_letters", EVER).height == 2
    assert verify_home(home.settings).ok


@pytest.mark.parametrize("more", [0, 600], ids=["", "many ids"])
def test_an_erasure_leaves_to_another_producer_what_is_of_its_own_prediction_of_that_id(
    home: Home, spec: ModelSpec, more: int
) -> None:
    site, lake = Site(home, spec), Lake(home.settings.lake / spec.name, source="loop")
    site.take(
        {**site.predicted(IDS[0], SUBJECT), "producer": "a"},
        {**site.predicted(IDS[0], "u1", price=20.0), "producer": "b"},
        {**site.predicted(IDS[1], "u2", NOW - 9 * DAY, price=20.0), "producer": "b"},
        {**site.predicted(IDS[1], SUBJECT), "producer": "a"},
        *({**site.predicted(f"m-{number}", SUBJECT), "producer": "a"} for number in range(more)),
    )
    told = [("a", IDS[0]), ("b", IDS[0]), ("c", IDS[0]), ("b", IDS[1]), ("b", "m-1"), ("a", "m-2")]
    site.take(*({**site.outcome(name), "producer": teller} for teller, name in told))
    found = erase(home, spec, SUBJECT, "asked by letter", "ada")
    assert found.rows["predictions"] == 2 + more
    ours = pl.col("_producer").is_in(["a", "b", "c"])
    left = lake.find("outcomes", ours, ("_id", "_producer"))
    kept = {(IDS[0], "b"), (IDS[1], "b")} | (set() if more else {("m-1", "b"), ("m-2", "a")})
    assert set(left.rows()) == kept
    shadows = lake.find("shadow", pl.col("_producer").is_in(["a", "b"]), ("_id", "_producer"))
    assert set(shadows.rows()) == {(IDS[0], "b")}
    assert lake.find("predictions", pl.col("_id").is_in(IDS), ("_entity",))["_entity"].to_list() == ["u1"]


def test_what_landed_and_was_not_counted_is_counted_after_an_erasure(home: Home, spec: ModelSpec) -> None:
    site, lake = Site(home, spec), Lake(home.settings.lake / spec.name, source="loop")
    cursor = lake.cursor("predictions")
    site.take(*(site.predicted(f"n-{row}", SUBJECT if row == 7 else f"u{row}") for row in range(100)))
    assert erase(home, spec, SUBJECT, "asked", "ada").rows["predictions"] == 1
    rows, _ = lake.landed("predictions", cursor)
    assert rows.height == 99


@pytest.mark.parametrize("closed", [True, False], ids=["closed segment", "open segment"])
@pytest.mark.parametrize("what", ["entity", "an id", "escaped"])
def test_an_erasure_waits_for_what_capture_has_not_landed_and_the_tick_ends_it(
    home: Home, spec: ModelSpec, closed: bool, what: str
) -> None:
    site = Site(home, spec)
    site.take(site.predicted(IDS[0], SUBJECT))
    event = site.outcome(IDS[0]) if what == "an id" else site.predicted(IDS[1], SUBJECT)
    site.spool.write([json.dumps(event, ensure_ascii=what == "escaped").encode()])
    if closed:
        site.spool.rotate()
    with pytest.raises(UnavailableError, match=r"capture has not landed it yet; the erasure is begun"):
        erase(home, spec, SUBJECT, "asked", "ada")
    (waits,) = [one for one in Fleet(home, {spec.name: spec}).tick(inline=False) if isinstance(one, Failed)]
    assert waits.again
    site.spool.rotate()
    site.capture.step()
    assert not [one for one in Fleet(home, {spec.name: spec}).tick(inline=False) if isinstance(one, Failed)]
    assert traces(home.settings.home) == []
    assert [record.event for record in home.store.records()][-1] == "erased"
    assert carry_on(home, spec) == []


def test_a_spool_without_the_subject_is_not_waited_for(home: Home, spec: ModelSpec) -> None:
    site = Site(home, spec)
    site.take(site.predicted(IDS[0], SUBJECT))
    site.send(site.predicted("n-1", "u1"), b"\xff torn")
    assert erase(home, spec, SUBJECT, "asked", "ada").rows == {"predictions": 1, "shadow": 1}


@pytest.mark.parametrize("table", ["outcomes", "shadow", "dead_letters", "predictions", "late"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_erasure_that_died_is_carried_on_by_the_next_tick(
    home: Home, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, table: Table, when: str
) -> None:
    live(Site(home, spec))
    whole = Lake.erase

    def dying(lake: Lake, of: Table, column: str, values: set[str], *but: Any) -> int:
        if of == table and when == "before":
            raise KeyboardInterrupt
        gone = whole(lake, of, column, values, *but)
        if of == table:
            raise KeyboardInterrupt
        return gone

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "erase", dying)
        with pytest.raises(KeyboardInterrupt):
            erase(home, spec, SUBJECT, "asked", "ada")
    (ended,) = carry_on(home, spec)
    assert traces(home.settings.home) == []
    assert Lake(home.settings.lake / spec.name).read("predictions", Window(NOW, NOW + HOUR)).height == 21
    assert Lake(home.settings.dead_letters).read("dead_letters", EVER).height == 2
    last = list(home.store.records())[-1]
    assert (last.event, last.actor, last.details["reason"]) == ("erased", "ada", "asked")
    assert SUBJECT not in str(last.details)
    assert ended.versions == ()


def _write_busily(root: Path, stop: Any, told: Any) -> None:
    lake, batch, tests = Lake(root, source="busy"), 0, os.getppid()
    while not stop.is_set() and os.getppid() == tests:  # which may be interrupted
        frame = pl.DataFrame({"_id": [f"b{batch}"], "_time": [NOW], "_entity": [f"u{batch}"], "price_eur": [1.0]})
        lake.append("predictions", frame.cast({"_time": pl.Datetime("us", "UTC")}), batch)
        batch += 1
    told.put(batch)


def test_erasures_get_through_beside_a_writer_that_never_rests(home: Home, spec: ModelSpec) -> None:
    site, context = Site(home, spec), multiprocessing.get_context("spawn")
    site.take(*(site.predicted(f"{IDS[0]}-{turn}", f"{SUBJECT}-{turn}") for turn in range(3)))
    reader = Lake(home.settings.lake / spec.name, source="reader")
    cursor, stop, told = reader.cursor("predictions"), context.Event(), context.Queue()
    writer = context.Process(target=_write_busily, args=(home.settings.lake / spec.name, stop, told))
    writer.start()
    seen = 0
    try:
        while reader.landed("predictions", cursor)[0].is_empty():
            time.sleep(0.1)
        for turn in range(3):
            assert erase(home, spec, f"{SUBJECT}-{turn}", "asked", "ada").rows["predictions"] == 1
            rows, cursor = reader.landed("predictions", cursor)
            seen += rows.height
    finally:
        stop.set()
        written = told.get(timeout=60)
        writer.join(60)
    rows, _ = reader.landed("predictions", cursor)
    assert seen + rows.height == written > 0


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
    files = list((home.settings.home / "lake" / spec.name).glob("*/_day=*/*.parquet"))
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


def test_a_quote_in_a_subject_erases_nothing_else(home: Home, spec: ModelSpec) -> None:
    before = rows(home, spec).height
    assert erase(home, spec, "x' OR '1'='1", "asked", "ada").rows == {}
    assert rows(home, spec).height == before


def test_without_an_entity_nobody_can_be_erased(home: Home, spec: ModelSpec) -> None:
    nobody = spec.model_copy(update={"columns": spec.columns.model_copy(update={"entity": None})})
    with pytest.raises(InputError, match=r"names no columns\.entity"):
        erase(home, nobody, "u1", "asked", "ada")
