"""A store of features that is slow, dead, lying or not there: one sentence says so, nothing is silently wrong."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import SecretStr

from drift_pipeline.errors import DriftError, InputError, IntegrityError, SpecError, UnavailableError
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.sources import Access, Source, source_for
from drift_pipeline.training.sources.databricks import DatabricksSource
from drift_pipeline.training.sources.feature_server import online_features
from drift_pipeline_tests.contracts.test_source import NOW, Captured, Tabled, model
from drift_pipeline_tests.fakes.unity_catalog import NAME, unity_catalog
from drift_pipeline_tests.training.worlds import START

FEAST = {"feast": {"repo": "repo", "feature_service": "fraud"}}
SECRET = "dapi-5eKr1t"


def interpreter(folder: Path, does: str) -> Path:
    """What stands where an environment with Feast is named, and does this with the question on its input."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


def asked(folder: Path, python: Path | None, seconds: float = 20) -> Source:
    captured = Captured(folder)
    return source_for(model(FEAST, folder), captured.lake, Access(python, seconds))


@pytest.mark.parametrize(
    ("does", "error", "said"),
    [
        ("exit 3", UnavailableError, "DRIFT_FEAST_PYTHON gave no answer; it said at last: nothing"),
        ("echo boom >&2; exit 1", UnavailableError, "it said at last: boom"),
        ("kill -9 $$", UnavailableError, "gave no answer"),
        ("echo '{\"feast\": '", UnavailableError, "gave no answer"),
        ("echo no JSON", UnavailableError, "gave no answer"),
        ('cat >/dev/null; echo \'{"refused": "there is no feature service"}\'', SpecError, "no feature service"),
        ('cat >/dev/null; echo \'{"failed": "IOError: gone"}\'', UnavailableError, "could not join: IOError: gone"),
        ("cat >/dev/null; echo '[1]'", UnavailableError, "gave no answer"),
        ('cat >/dev/null; echo \'{"feast": "1"}\'; echo junk', UnavailableError, "gave no answer"),
    ],
)
def test_whatever_stands_for_feast_an_answer_is_one_or_none(
    tmp_path: Path, does: str, error: type[DriftError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        asked(tmp_path, interpreter(tmp_path, does)).rows(NOW)
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)


def test_a_slow_store_is_ended_at_the_deadline_with_all_that_it_started(tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"sleep 300 & echo $! > {tmp_path / 'pid'}; wait")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"did not answer in 0.5 s \(DRIFT_FEAST_SECONDS\)"):
        asked(tmp_path, python, 0.5).rows(NOW)
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (None, "DRIFT_FEAST_PYTHON, the interpreter of an environment with Feast, is not set"),
        ("nowhere", "cannot be run: No such file"),
        (".", "cannot be run: Permission denied"),
    ],
)
def test_an_interpreter_that_is_not_there_is_named_by_its_setting(tmp_path: Path, named: str | None, said: str) -> None:
    with pytest.raises(SpecError, match="DRIFT_FEAST_PYTHON") as raised:
        asked(tmp_path, tmp_path / named if named else None).rows(NOW)
    assert said in str(raised.value)


def test_an_environment_without_feast_is_told(tmp_path: Path) -> None:
    """This one."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: drift\n")
    python = Path(os.sys.executable)  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="cannot import feast"):
        asked(tmp_path, python).rows(NOW)
    (tmp_path / "repo" / "feature_store.yaml").unlink()
    with pytest.raises(SpecError, match=r"has no feature_store.yaml \(retrain.source.feast.repo\)"):
        source_for(model(FEAST, tmp_path), Captured(tmp_path / "b").lake, Access(python)).rows(NOW)


def test_no_setting_of_ours_is_handed_to_feast_and_no_credential_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_DATABRICKS_TOKEN", "ours-only")
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", SECRET)
    python = interpreter(tmp_path, 'echo "$SNOWFLAKE_PASSWORD [$DRIFT_DATABRICKS_TOKEN] pg://ann:pw@db/x" >&2; exit 1')
    with pytest.raises(UnavailableError) as raised:
        asked(tmp_path, python).rows(NOW)
    assert "*** [] pg://***@db/x" in str(raised.value)


# a feature server


@contextmanager
def serving(status: int, body: bytes, wait_s: float = 0, headers: dict[str, str] | None = None) -> Iterator[str]:
    over = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if wait_s and over.wait(wait_s):  # who asked has gone
                return
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.replace(b"AUTH", str(self.headers["Authorization"]).encode()))

        def log_message(self, *_: Any) -> None:
            """No word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"down, AUTH", r"answers 500: down, Bearer \*\*\*"),
        (404, b"{}", "answers 404"),
        (302, b"", "answers 302"),
        (200, b"no JSON", "gives no answer"),
        (200, b"[]", "not as a feature server does"),
        (200, b'{"metadata": {"feature_names": ["a"]}, "results": []}', "not as a feature server does"),
        (200, b'{"metadata": {"feature_names": ["a"]}, "results": [{"values": [1], "statuses": []}]}', "not as a"),
        (
            200,
            b'{"metadata": {"feature_names": ["a"]}, "results": [{"values": [1], "statuses": ["PRESENT"]}]}',
            "answers 1 rows where 2",
        ),
    ],
)
def test_a_feature_server_that_answers_something_else_is_no_answer(status: int, body: bytes, said: str) -> None:
    with (
        serving(status, body, headers={"Location": "http://127.0.0.1:9/"}) as server,
        pytest.raises(UnavailableError, match=said) as raised,
    ):
        online_features(server, SECRET, "fraud", "user", ["u1", "u2"])
    assert SECRET not in str(raised.value)


def test_a_feature_server_that_is_slow_or_down_is_no_answer() -> None:
    with serving(200, b"{}", wait_s=60) as server, pytest.raises(UnavailableError, match="gives no answer: timed out"):
        online_features(server, "", "fraud", "user", ["u1"], timeout_s=0.2)
    with pytest.raises(UnavailableError, match=r"gives no answer: .*refused"):
        online_features(server, "", "fraud", "user", ["u1"])


# a Delta table


def test_a_version_that_was_vacuumed_or_another_table_is_not_taken_for_the_pinned_one(tmp_path: Path) -> None:
    world = Tabled(tmp_path)
    source = world.source(world.spec())
    pin = source.rows(NOW).pin
    world.goes_on()
    table = DeltaTable(tmp_path / "table")
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(IntegrityError, match=r"files of version 0 are gone"):
        source.rows(NOW, pin)
    other = Tabled(tmp_path / "other")
    (tmp_path / "table").rename(tmp_path / "away")
    (tmp_path / "other" / "table").rename(tmp_path / "table")
    with pytest.raises(IntegrityError, match="is another table by now than"):
        other.source(world.spec()).rows(NOW, pin)
    (tmp_path / "table").rename(tmp_path / "gone")
    with pytest.raises(SpecError, match="there is no such Delta table"):
        source.rows(NOW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pl.all(), ""),
        (pl.exclude("amount"), "has no column amount; it has"),
        (pl.all().exclude("at"), "has no column at"),
    ],
)
def test_a_table_without_a_column_says_which(tmp_path: Path, change: pl.Expr, said: str) -> None:
    world = Tabled(tmp_path)
    rows = pl.DataFrame(pl.read_delta(str(tmp_path / "table"))).select(change)
    write_deltalake(tmp_path / "table", rows, mode="overwrite", schema_mode="overwrite")
    if not said:
        assert world.source(world.spec()).rows(NOW).frame.height
        return
    with pytest.raises(SpecError, match=said):
        world.source(world.spec()).rows(NOW)


def test_deletion_vectors_are_refused_before_a_deleted_row_is_read(tmp_path: Path) -> None:
    """They are on by default in Databricks; what they mark as deleted still lies in the files."""
    spec, rows = Tabled(tmp_path).spec(), pl.read_delta(str(tmp_path / "table"))
    on = {"delta.enableDeletionVectors": "true"}
    write_deltalake(tmp_path / "marked", rows, configuration=on)
    part = spec.retrain.source.databricks
    assert part is not None
    marked = part.model_copy(update={"table": f"file://{tmp_path / 'marked'}"})
    with pytest.raises(SpecError, match=r"has deletionVectors.* cannot be read here"):
        DatabricksSource(spec, marked, Access()).rows(NOW)


def test_columns_under_other_names_than_the_files_have_are_refused(tmp_path: Path) -> None:
    """Such a table may say so by its version and a property alone."""
    world = Tabled(tmp_path)
    log = tmp_path / "table" / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "metaData" in line:
            line["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
        if "protocol" in line:
            line["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises((SpecError, UnavailableError), match=r"columnMapping|cannot be read"):
        world.source(world.spec()).rows(NOW)


def test_a_champion_that_is_known_by_scores_is_not_proven_on_rows_without_any(tmp_path: Path) -> None:
    world = Tabled(tmp_path)
    rows = world.source(world.spec()).rows(NOW).frame
    with pytest.raises(InputError, match="recorded is known by its scores alone, and the rows have none"):
        Version(RECORDED, RECORDED, START, START, None).scores(rows, world.spec())


def test_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    world = Tabled(tmp_path)
    before = world.source(world.spec()).rows(NOW).frame
    rows = pl.read_delta(str(tmp_path / "table")).with_columns(pl.col("at").dt.replace_time_zone(None))
    write_deltalake(tmp_path / "table", rows, mode="overwrite", schema_mode="overwrite")
    assert world.source(world.spec()).rows(NOW).frame.equals(before)


def test_a_table_of_unity_catalog_needs_a_host_and_a_token_which_is_never_told(tmp_path: Path) -> None:
    spec = model({"databricks": {"table": "main.fraud.rows"}}, tmp_path)
    lake = Captured(tmp_path).lake
    for access in (Access(), Access(databricks_host="http://127.0.0.1:9")):
        with pytest.raises(SpecError, match="set DRIFT_DATABRICKS_HOST and DRIFT_DATABRICKS_TOKEN"):
            source_for(spec, lake, access).rows(START)
    with unity_catalog(tmp_path, "another") as (server, asked_for):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        with pytest.raises(UnavailableError, match=r"main.fraud.rows cannot be read") as raised:
            source_for(spec, lake, access).rows(START)
    assert asked_for
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(access)


AZURE = {"azure_user_delegation_sas": {"sas_token": "s"}}


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        ({"gcp_oauth_token": {"oauth_token": "x"}}, "credentials that are not known here: gcp_oauth_token"),
        ({"expiration_time": 1, "url": "x"}, "credentials that are not known here: none"),
        ({"aws_temp_credentials": {"access_key_id": "a"}}, "the workspace's answer has no 'secret_access_key'"),
        ({"azure_user_delegation_sas": {"token": "s"}}, "the workspace's answer has no 'sas_token'"),
    ],
)
def test_credentials_that_open_nothing_here_are_named(tmp_path: Path, gives: dict[str, Any], said: str) -> None:
    Tabled(tmp_path)
    spec = model({"databricks": {"table": NAME}}, tmp_path)
    with unity_catalog(tmp_path / "table", SECRET, gives=gives) as (server, _):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        with pytest.raises(UnavailableError, match=said):
            source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW)


def test_a_shared_access_signature_opens_a_table_as_keys_do(tmp_path: Path) -> None:
    Tabled(tmp_path)
    spec = model({"databricks": {"table": NAME}}, tmp_path)
    with unity_catalog(tmp_path / "table", SECRET, gives=AZURE) as (server, _):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        assert source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW).frame.height


def test_a_table_that_the_catalog_does_not_know_is_no_reason_to_wait(tmp_path: Path) -> None:
    Tabled(tmp_path)
    spec = model({"databricks": {"table": "main.fraud.other"}}, tmp_path)
    with unity_catalog(tmp_path / "table", SECRET) as (server, _):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        with pytest.raises(SpecError, match="there is no such Delta table"):
            source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW)


def test_a_token_follows_no_redirect(tmp_path: Path) -> None:
    Tabled(tmp_path)
    spec = model({"databricks": {"table": NAME}}, tmp_path)
    with (
        unity_catalog(tmp_path / "table", SECRET) as (elsewhere, asked_there),
        unity_catalog(tmp_path / "table", SECRET, elsewhere=elsewhere) as (server, asked_here),
    ):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        with pytest.raises(UnavailableError, match="the workspace answers 302"):
            source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW)
    assert (len(asked_here), asked_there) == (1, [])


def test_a_workspace_that_does_not_answer_is_waited_for_no_longer_than_is_set(tmp_path: Path) -> None:
    spec = model({"databricks": {"table": NAME}}, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        access = Access(databricks_host=host, databricks_token=SecretStr(SECRET), databricks_seconds=3)
        with pytest.raises(UnavailableError, match=r"no answer in 3 s \(DRIFT_DATABRICKS_SECONDS\)"):
            source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW)


def test_a_table_of_unity_catalog_is_found_by_its_name_and_gives_what_its_files_hold(tmp_path: Path) -> None:
    """By an endpoint of our own, which is a fake; nothing of Databricks was ever asked."""
    world = Tabled(tmp_path)
    spec = model({"databricks": {"table": NAME}}, tmp_path)
    with unity_catalog(tmp_path / "table", SECRET) as (server, _):
        access = Access(databricks_host=server, databricks_token=SecretStr(SECRET))
        found = source_for(spec, Lake(tmp_path / "lake"), access).rows(NOW)
    assert found.frame.equals(world.source(world.spec()).rows(NOW).frame)
    assert found.pin.facts["table"] == NAME
    assert found.pin.inputs == ({"namespace": "databricks", "name": NAME, "version": "0"},)
