"""Homes whose lake, registry and reports lie in a bucket of a real S3-compatible server."""

import io
import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.bucket import Bucket, Objects
from drift_pipeline.clock import HOUR, ManualClock, Window
from drift_pipeline.evidence.day_pages import page_file, remove_page, rendered_days, share_page, shared_page
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.files import write_whole
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.erasure import erase
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.loop.retention import retain
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, synthetic_history
from drift_pipeline_tests.faults.test_erasure import DAYS, IDS, LENGTH, NOW, PRICE, SUBJECT, Site, live, render, traces
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.parts.s3 import S3
from drift_pipeline_tests.telemetry.test_lake import predictions

pytestmark = pytest.mark.live


def test_a_page_that_one_machine_rendered_another_shows_until_it_is_removed(s3_place: Bucket, tmp_path: Path) -> None:
    ours, theirs = (Settings(home=tmp_path / name, store=s3_place.url) for name in ("ours", "theirs"))
    for day in ("2026-03-01", "2026-03-02"):
        write_whole(page_file(ours, "fraud", day), f"<p>{day}")
        share_page(ours, "fraud", day)
    assert rendered_days(theirs, "fraud") == ["2026-03-01", "2026-03-02"]
    assert rendered_days(theirs, "fraud", shared=False) == rendered_days(theirs, "frau") == []
    assert shared_page(theirs, "fraud", "2026-03-02") == b"<p>2026-03-02"
    remove_page(ours, "fraud", "2026-03-02")
    assert shared_page(theirs, "fraud", "2026-03-02") is None
    assert rendered_days(ours, "fraud") == rendered_days(theirs, "fraud") == ["2026-03-01"]


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "models" / "m").mkdir(parents=True)
    text = SAMPLE_SPEC + "retrain: {trials: 1, trainer: logistic_regression}\n"
    (tmp_path / "models" / "m" / "defs.yaml").write_text(text)
    spec = read_spec(tmp_path / "models" / "m" / "defs.yaml")
    return spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"score": None})})


@pytest.fixture
def home(s3_place: Bucket, spec: ModelSpec, tmp_path: Path) -> Iterator[Home]:
    settings = Settings(home=tmp_path / "home", database="", store=s3_place.url)
    with opened(settings, ManualClock(NOW), new=True) as made:
        _adopt(made, spec, tmp_path)
        yield made


def _adopt(home: Home, spec: ModelSpec, folder: Path) -> None:
    synthetic_history(DAYS, 60, 0, score=False).write_parquet(folder / "history.parquet")
    adopt(home, spec, read_history(folder / "history.parquet", spec))


def objects_that_tell(place: Bucket) -> list[str]:
    """Objects of the bucket that hold the subject, an id or a value of theirs, as bytes or in a cell."""
    wanted = [text.encode() for text in (*IDS, SUBJECT, json.dumps(SUBJECT)[1:-1], str(PRICE), str(LENGTH))]
    wanted += [struct.pack(order + "d", value) for order in "<>" for value in (PRICE, LENGTH)]
    objects, found = Objects(place), list[str]()
    for name in objects.names():
        data = objects.get(name) or b""
        parts = [data]
        if data.startswith(b"PAR1"):
            parts.append(str(pl.read_parquet(io.BytesIO(data), hive_partitioning=False).to_dicts()).encode())
        if any(text in part for part in parts for text in wanted):
            found.append(name)
    return sorted(found)


def test_a_home_in_a_bucket_lives_erases_and_verifies(home: Home, spec: ModelSpec, s3_place: Bucket) -> None:
    site = Site(home, spec)
    live(site)
    render(site)
    assert not [one for one in Fleet(home, {spec.name: spec}).tick(inline=False) if isinstance(one, Failed)]
    places = {name.split("/")[0 if name.startswith("drift_reports") else 2] for name in objects_that_tell(s3_place)}
    assert places >= {"predictions", "outcomes", "shadow", "late", "dead_letters", "drift_reports"}
    found = erase(home, spec, SUBJECT, "asked by letter", "ada")
    assert objects_that_tell(s3_place) == []
    assert traces(home.settings.home) == []
    assert found.rows["predictions"] == 2
    assert Lake(home.settings.lake / spec.name).read("predictions", Window(NOW, NOW + HOUR)).height == 21
    assert not list((home.settings.home / "lake").rglob("*.parquet"))
    assert verify_home(home.settings).ok, verify_home(home.settings).reason


def test_retention_holds_in_a_bucket(home: Home, spec: ModelSpec) -> None:
    lake = Lake(home.settings.lake / spec.name)
    before = lake.read("predictions", Window(NOW - 999 * HOUR * 24, NOW))
    later = ManualClock(NOW + spec.retention.telemetry - 10 * 24 * HOUR)
    then = Home(home.settings, later, home.store, home.registry, home.policy, home.alerts)
    old = retain(then, spec, "ada")
    kept = lake.read("predictions", Window(NOW - 999 * HOUR * 24, NOW))
    assert kept.height == before.height - old.tables["predictions"][0] < before.height
    gone = set(before["_id"]) - set(kept["_id"])
    objects = Objects(Bucket(str(home.settings.lake / spec.name), Path()))
    tables = [objects.get(name) or b"" for name in objects.names("predictions") if "/_day=" in name]
    assert not {one for data in tables for one in pl.read_parquet(io.BytesIO(data))["_id"]} & gone


def test_verifying_reads_the_bucket_and_no_copy(home: Home) -> None:
    assert verify_home(home.settings).ok
    objects = Objects(Bucket(str(home.settings.registry_place), Path()))
    name = next(name for name in objects.names() if name.endswith(".skops"))
    objects.put(name, b"other bytes")
    found = verify_home(home.settings)
    assert not found.ok
    assert "model.skops" in found.reason


def test_a_bucket_that_keeps_versions_is_told_at_an_erasure(
    s3_server: S3, s3_place: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    name = s3_place.split()[0].removeprefix("s3://")
    asked = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    s3_server.ask("PUT", f"/{name}?versioning", asked)
    lake = Lake(s3_place / "lake")
    lake.append("predictions", predictions(0), 0)
    with caplog.at_level(logging.WARNING):
        assert lake.erase("predictions", "_id", {"p000.00-0"}) == 1
    assert "the bucket keeps versions of what is deleted" in caplog.text


def _capture(folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from drift_pipeline.cli import main; main()", "capture", "--once"]
    whole = {**os.environ, **environment, "DRIFT_HOME": str(folder)}
    return subprocess.Popen(command, env=whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_machines_share_a_home_and_no_row_is_lost_or_doubled(
    s3_place: Bucket, postgres_server: Postgres, spec: ModelSpec, tmp_path: Path
) -> None:
    """Each has a folder, a spool and a capture of its own; both spools have the same name and numbers."""
    url = postgres_server.of("two machines")
    first = Settings(home=tmp_path / "first", database=url, store=s3_place.url)
    with opened(first, ManualClock(NOW), new=True) as one:
        _adopt(one, spec, tmp_path)
        site = Site(one, spec)
        site.spool.close()
    environment = {"DRIFT_DATABASE": url, "DRIFT_STORE": s3_place.url, "DRIFT_MODELS": str(tmp_path / "models")}
    begun, now = [tmp_path / "first", tmp_path / "second"], datetime.now(UTC)
    for number, folder in enumerate(begun):
        folder.mkdir(exist_ok=True)
        spool = SpoolWriter(folder / "spool" / "gateway")
        for segment in range(3):
            names = [f"{number}-{segment}-{row}" for row in range(5)]
            spool.write([json.dumps(site.predicted(name, f"u-{name}", now, 20.0)).encode() for name in names])
            spool.rotate()
        spool.close()
    captures = [_capture(folder, environment) for folder in begun]
    said = [capture.communicate(timeout=200)[0] for capture in captures]
    assert [capture.returncode for capture in captures] == [0, 0], said
    landed = Lake(first.lake / spec.name).find("predictions", pl.col("_id").str.contains(r"^\d-\d-\d$"), ("_id",))
    assert sorted(landed["_id"]) == sorted(f"{n}-{s}-{r}" for n in range(2) for s in range(3) for r in range(5))
    with opened(first.model_copy(update={"home": tmp_path / "second"}), ManualClock(NOW)) as two:
        champion = two.store.get("model", spec.name)
        assert champion is not None
        assert registry_of(two.settings).get(champion.body["digest"]).files
