"""Lineage: every stage is told as OpenLineage events, once and in order, whatever becomes of who takes them."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attr
import jsonschema
import polars as pl
import pytest

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.control.store import ControlStore, Entry
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.lineage import sinks
from drift_pipeline.evidence.lineage.events import FACETS, Event, facet
from drift_pipeline.evidence.lineage.sinks import FileSink, run_event
from drift_pipeline.loop import suspects
from drift_pipeline.loop.lineage import deliver_lineage, standing, told
from drift_pipeline.replays.folder import read_folder
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.fakes.lineage_backend import FakeBackend, fake_backend, in_order, key_of
from drift_pipeline_tests.replay.worlds import MODEL, SPEC, drift, replayed
from drift_pipeline_tests.test_cli_live import adopted, adopted_once, place

__all__ = ["adopted", "adopted_once", "place"]

RUN, DATASET, INPUT, OUTPUT, JOB = "run", "dataset", "input", "output", "job"
STAGES = ("adopt", "profile", "ingest", "monitor", "decide", "pin", "fit", "prove", "register", "rollout", "evidence")


def told_by(home: Path) -> list[Event]:
    files = sorted((home / "lineage").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """What the shared replay told."""
    return told_by(replayed()[1])


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(SPEC)
    return read_spec(path)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A copy of the shared replay that told nobody yet."""
    copy = Path(shutil.copytree(replayed()[1], tmp_path / "home", ignore=shutil.ignore_patterns("lineage")))
    settings = Settings(home=copy, database="")
    with store_of(settings) as store:
        store.forget(["_lineage/files"])
    return settings


@contextmanager
def store_of(settings: Settings) -> Iterator[ControlStore]:
    with closing(ControlStore(settings.database_url, SystemClock())) as store:
        yield store


def deliver(settings: Settings, spec: ModelSpec, **options: Any) -> int:
    with store_of(settings) as store:
        end = read_folder(replayed()[1]).end
        options = {"seconds": math.inf, "at_once": True, "at_end": True, **options}
        return deliver_lineage(settings, store, {spec.name: spec}, end, **options)


# what an event has to be


def _of(kind: Any) -> Any:
    """JSON schema of a type of the client, whose classes are generated from the published schemas."""
    origin, given = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_of(one) for one in given]}
    if origin is list:
        return {"type": "array", "items": _of(given[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(given[1])}
    if attr.has(kind):
        return _of_class(kind)
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": plain[kind]}


def _of_class(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, {**vars(typing), **vars(sys.modules[kind.__module__])})
    fields = [field for field in attr.fields(kind) if field.name != "facets"]
    known = {field.name: _of(hints[field.name]) for field in fields if kind.__name__ not in _RECURSIVE}
    required = [field.name for field in fields if field.default is attr.NOTHING]
    return {"type": "object", "properties": known, "required": required, "additionalProperties": not known}


_RECURSIVE = {"SchemaDatasetFacetFields"}  # a field may have fields


def class_of(name: str) -> type:
    """The client's class of a facet of the standard."""
    import importlib
    import pkgutil

    from openlineage.client import generated

    title = FACETS[name].partition("/")[2]
    for module in pkgutil.iter_modules(generated.__path__):
        found = getattr(importlib.import_module(f"{generated.__name__}.{module.name}"), title, None)
        if found is not None:
            return typing.cast("type", found)
    raise AssertionError(f"the client has no {title}")


@pytest.mark.parametrize("name", FACETS)
def test_a_facet_names_the_schema_that_the_client_has_of_it(name: str) -> None:
    assert facet(name)["_schemaURL"] == class_of(name)._get_schema()  # type: ignore[attr-defined]


def test_every_event_is_what_the_client_s_own_classes_write(events: Sequence[Event]) -> None:
    from openlineage.client.serde import Serde

    for event in events:
        assert Serde.to_dict(run_event(event)) == event


def facets_of(event: Event) -> list[tuple[str, dict[str, Any]]]:
    """All of an event's, by name."""
    of_datasets = [
        facets
        for dataset in (*event["inputs"], *event["outputs"])
        for facets in (dataset["facets"], dataset.get("inputFacets", {}), dataset.get("outputFacets", {}))
    ]
    return [
        pair for facets in (event["run"]["facets"], event["job"]["facets"], *of_datasets) for pair in facets.items()
    ]


def check(found: Mapping[str, Any], name: str) -> None:
    """Raises ValidationError."""
    if name != "drift":  # our own, which no schema is published of
        jsonschema.validate(found, _of_class(class_of(name)))


def test_every_facet_fits_the_schema_that_it_names(events: Sequence[Event]) -> None:
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        for name, found in facets_of(event):
            first.setdefault((name, event["job"]["name"]), found)
    for (name, _), found in first.items():
        check(found, name)
    assert {name for name, _ in first} == {*FACETS, "drift"} - {"errorMessage"}  # nothing failed


@pytest.mark.parametrize("wrong", [{"datasetVersion": 3}, {"datasetVersion": "3", "more": 1}, {}])
def test_a_facet_of_another_form_does_not(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({**facet("version"), **wrong}, "version")


# what is told


def stages(events: Sequence[Event]) -> Mapping[str, list[Event]]:
    found: dict[str, list[Event]] = {stage: [] for stage in STAGES}
    for event in events:
        found[event["job"]["name"].removeprefix(f"{MODEL}.")].append(event)
    return found


def test_every_stage_is_told_and_each_run_begins_once_and_ends_once(events: Sequence[Event]) -> None:
    assert all(stages(events).values())
    of_run: dict[str, list[str]] = {}
    for event in events:
        of_run.setdefault(event["run"]["runId"], []).append(event["eventType"])
    for kinds in of_run.values():
        assert kinds[0] == "START"
        assert Counter(kinds)["START"] == 1
        assert [kind for kind in kinds if kind in ("COMPLETE", "FAIL")] in ([kinds[-1]], [])
    unended = [kinds for kinds in of_run.values() if kinds[-1] not in ("COMPLETE", "FAIL")]
    assert len(unended) <= 1  # a rollout that was under way when the history ended


def test_a_candidate_s_runs_come_of_its_decision_and_the_decision_of_what_the_monitor_saw(
    events: Sequence[Event],
) -> None:
    of = stages(events)
    decided = {event["run"]["runId"] for event in of["decide"]}
    seen = {event["run"]["runId"] for event in of["monitor"]}
    for stage in ("pin", "fit", "prove", "register", "rollout"):
        assert {event["run"]["facets"]["parent"]["run"]["runId"] for event in of[stage]} <= decided
    parents = [event["run"]["facets"]["parent"] for event in of["decide"] if "parent" in event["run"]["facets"]]
    assert parents
    assert {parent["run"]["runId"] for parent in parents} <= seen


def test_the_facts_of_a_day_are_those_of_the_lake(events: Sequence[Event], spec: ModelSpec) -> None:
    rows = Lake(replayed()[1] / "lake" / MODEL).find("predictions", pl.lit(value=True), ["_time", "_landed"])
    for event in stages(events)["ingest"]:
        if event["eventType"] == "COMPLETE":
            of_day = rows.filter(
                rows["_time"].dt.date().cast(str) == event["run"]["facets"]["nominalTime"]["nominalStartTime"][:10]
            )
            predictions = event["outputs"][0]
            assert predictions["outputFacets"]["outputStatistics"]["rowCount"] == of_day.height
            assert predictions["facets"]["version"]["datasetVersion"] == str(of_day["_landed"].max())
            (score,) = predictions["facets"]["columnLineage"]["fields"].values()
            assert [one["field"] for one in score["inputFields"]] == list(spec.features)


def test_a_rejected_candidate_was_proven_and_the_gates_that_failed_are_assertions(events: Sequence[Event]) -> None:
    summary = replayed()[0].summary
    proven = [event for event in stages(events)["prove"] if event["eventType"] == "COMPLETE"]
    held = [
        all(one["success"] for one in event["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"])
        for event in proven
    ]
    assert held == [one["accepted"] for one in summary["retrains"]]


def test_a_copy_of_a_home_tells_the_same_events_of_the_same_runs(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    assert deliver(home, spec) == len(events)
    assert in_order(told_by(home.home)) == in_order(events)


def entries(*told: tuple[str, dict[str, Any]]) -> list[Entry]:
    return [Entry("loop", event, MODEL, {}, details) for event, details in told]


@pytest.mark.parametrize(
    ("records", "ended"),
    [
        ([("training.refused", {})], [("pin", "START"), ("pin", "FAIL")]),
        ([("training.started", {"rows": 9}), ("training.refused", {})], [("fit", "START"), ("fit", "FAIL")]),
        ([("training.started", {"rows": 9}), ("training.failed", {})], [("fit", "START"), ("fit", "FAIL")]),
    ],
    ids=["too few rows", "nothing to train on", "its process failed"],
)
def test_a_training_that_comes_to_nothing_fails_where_it_was(
    home: Settings, spec: ModelSpec, records: list[tuple[str, dict[str, Any]]], ended: list[tuple[str, str]]
) -> None:
    deliver(home, spec)
    before = len(told_by(home.home))
    more = {"decision": "x-99", "because": "too few", "version": "v99"}
    run = "6f9c2a60-0f3c-4c7e-9d55-0d6ff4a3f6b1"
    with store_of(home) as store:
        for entry in entries(("training.claimed", {"by": run}), *records):
            store.commit(Entry(entry.actor, entry.event, MODEL, {}, {**entry.details, **more}))
    deliver(home, spec)
    new = told_by(home.home)[before:]
    assert [(event["job"]["name"].rpartition(".")[2], event["eventType"]) for event in new][-2:] == ended
    check(new[-1]["run"]["facets"]["errorMessage"], "errorMessage")
    assert new[-1]["run"]["facets"]["errorMessage"]["message"] == "too few"
    assert {event["run"]["facets"]["drift"]["dagster_run_id"] for event in new} == {run}


def test_a_record_of_another_form_is_left_out_and_told(home: Settings, spec: ModelSpec) -> None:
    deliver(home, spec)
    with store_of(home) as store:
        bad = store.commit(Entry("eve", "decision.made", MODEL, details={"decision": "x"}))
        store.commit(Entry("loop", "training.refused", MODEL, details={"decision": "x-9", "because": "too few"}))
    assert deliver(home, spec) == 2
    with store_of(home) as store:
        found = standing(home, store)
    assert found is not None
    assert (found.waiting, found.refused) == (0, 1)
    assert found.parked[0].startswith(f"record {bad.seq} has not the form of decision.made")
    assert "lineage: 1 events were refused" in drift("status", "--home", home.home).out


# where it goes


def to(fake: FakeBackend, home: Settings, **more: Any) -> Settings:
    return home.model_copy(update={"lineage_url": fake.url, **more})


def test_a_backend_is_sent_every_event_once_and_in_order_with_the_key(
    events: Sequence[Event], home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_LINEAGE_KEY", "secret-of-marquez")
    with fake_backend() as fake:
        settings = Settings(home=home.home, database="", lineage_url=fake.url)
        assert "secret-of-marquez" not in repr(settings)
        deliver(settings, spec)
    assert in_order(fake.events) == in_order(events)
    assert set(fake.asked) == {("/api/v1/lineage", "Bearer secret-of-marquez")}


def test_what_a_backend_fails_at_it_gets_again_and_in_order(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    with fake_backend() as fake:
        fake.answers = [201, 500, 201, 201, 503, 429, 401, 404]
        settings = to(fake, home)
        for _ in range(6):
            deliver(settings, spec)
        assert in_order(fake.once) == in_order(events)
        with store_of(settings) as store:
            found = standing(settings, store)
    assert found is not None
    assert (found.waiting, found.error, found.refused) == (0, "", 0)


def test_a_backend_that_is_down_delays_nothing_loses_nothing_and_is_told(
    events: Sequence[Event], home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = home.model_copy(update={"lineage_url": f"http://127.0.0.1:{port}"})
    began = time.monotonic()
    assert deliver(settings, spec) == 0
    assert deliver(settings, spec, at_once=False) == 0  # it pauses: nobody is asked
    assert time.monotonic() - began < 5
    monkeypatch.setenv("DRIFT_LINEAGE_URL", settings.lineage_url)
    assert "records wait for http://127.0.0.1" in " ".join(drift("status", "--home", home.home).out.split())
    with fake_backend(port) as fake:
        deliver(settings, spec)
        assert in_order(fake.events) == in_order(events)
    told_now = drift("status", "--home", home.home).out
    assert "lineage" not in told_now


def test_a_slow_backend_is_left_at_the_deadline_and_goes_on_where_it_was(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    with fake_backend() as fake:
        settings, fake.pause_s = to(fake, home), 0.05
        began = time.monotonic()
        deliver(settings, spec, seconds=0.5)
        assert time.monotonic() - began < 3
        assert 0 < len(fake.events) < len(events)
        fake.pause_s = 0
        deliver(settings, spec)
        assert in_order(fake.events) == in_order(events)


def test_a_backend_that_never_answers_is_given_up_after_the_timeout(
    home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "TIMEOUT_S", 0.3)
    with fake_backend() as fake:
        settings, fake.pause_s = to(fake, home), 1.5
        began = time.monotonic()
        assert deliver(settings, spec) == 0
        assert time.monotonic() - began < 1.4
        with store_of(settings) as store:
            found = standing(settings, store)
        assert found is not None
        assert "does not answer: ReadTimeout" in found.error


def test_an_event_that_a_backend_refuses_is_parked_and_the_others_go_on(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    with fake_backend() as fake:
        fake.refuses = f"{MODEL}.profile"
        settings = to(fake, home)
        deliver(settings, spec)
        with store_of(settings) as store:
            found = standing(settings, store)
    refused = [event for event in events if event["job"]["name"] == fake.refuses]
    assert in_order(fake.events) == in_order([event for event in events if event not in refused])
    assert found is not None
    assert (found.waiting, found.refused, len(found.parked)) == (0, len(refused), len(refused))
    assert told(found)[0].startswith(f"{len(refused)} events were refused")


def test_where_a_backend_refuses_all_it_is_not_the_events_and_none_is_parked(
    events: Sequence[Event], home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "MOST", 2)
    with fake_backend() as fake:
        settings, fake.answers = to(fake, home), [400] * 5
        assert deliver(settings, spec) == 0
        assert len(fake.answers) == 2  # the third that it refuses in a row is one too many
        deliver(settings, spec)  # two more, and another one goes
        with store_of(settings) as store:
            found = standing(settings, store)
    assert sorted(in_order(fake.once)) == sorted(in_order(events))
    assert found is not None
    assert (found.waiting, found.refused) == (0, 0)


def test_an_event_that_a_backend_breaks_on_does_not_hold_the_others_for_ever(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    with fake_backend() as fake:
        fake.refuses, fake.refusal = f"{MODEL}.profile", 500
        settings = to(fake, home)
        for _ in range(5):
            deliver(settings, spec)
        assert len(fake.events) < len(events) / 2
        deliver(settings, spec)
        with store_of(settings) as store:
            found = standing(settings, store)
    assert {key_of(event) for event in events if event["job"]["name"] != fake.refuses} == {*in_order(fake.events)}
    assert found is not None
    assert (found.waiting, found.parked[-1].endswith("the backend answers 500")) == (0, True)


def test_two_at_once_send_nothing_twice(events: Sequence[Event], home: Settings, spec: ModelSpec) -> None:
    with fake_backend() as fake, ThreadPoolExecutor(3) as pool:
        settings = to(fake, home)
        sent = list(pool.map(lambda _: deliver(settings, spec), range(3)))
    assert (sum(sent), in_order(fake.events)) == (len(events), in_order(events))


KILLED = """
import math, os, sys
from pathlib import Path
from drift_pipeline.evidence.lineage import sinks
from drift_pipeline_tests.evidence.test_lineage import deliver_as
deliver_as(*sys.argv[1:])
"""


def deliver_as(folder: str, spec: str, url: str, die_at: str) -> None:
    """In a process of its own, which dies by SIGKILL when the sink took its so many-th batch, before that is noted."""
    taken = 0
    for sink in (FileSink, sinks.HttpSink):
        sink.batch = 1 if sink is sinks.HttpSink else 20
        send = sink.send

        def counted(self: Any, *given: Any, send: Any = send) -> Any:
            nonlocal taken
            done = send(self, *given)
            taken += 1
            if taken == int(die_at):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        sink.send = counted  # type: ignore[assignment,method-assign]
    settings = Settings(home=Path(folder), database="", lineage_url=url)
    with store_of(settings) as store:
        end = read_folder(Path(folder)).end
        known = read_spec(Path(spec))
        deliver_lineage(settings, store, {known.name: known}, end, seconds=math.inf, at_end=True)


def kill_then_finish(home: Settings, url: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    for die_at in (3, 1, 2, 0):
        arguments = [str(home.home), str(tmp_path / "spec.yaml"), url, str(die_at)]
        found = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
        assert found.returncode == (-signal.SIGKILL if die_at else 0), found.stderr


def test_files_hold_every_event_once_whoever_was_killed(
    events: Sequence[Event], home: Settings, tmp_path: Path
) -> None:
    kill_then_finish(home, "", tmp_path)
    assert in_order(told_by(home.home)) == in_order(events)


def test_a_backend_knows_what_comes_twice_by_its_run_after_a_kill(
    events: Sequence[Event], home: Settings, tmp_path: Path
) -> None:
    with fake_backend() as fake:
        kill_then_finish(home, fake.url, tmp_path)
    assert in_order(fake.once) == in_order(events)
    assert 3 <= len(fake.events) - len(events) <= 6  # for each kill, what one record told


def test_files_are_bounded_and_one_that_was_taken_away_is_not_missed(
    events: Sequence[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "MOST_BYTES", 50_000)
    sink, left = FileSink(tmp_path), dict[str, Any]()
    for number, event in enumerate(events):
        left = dict(sink.send([event], left))
        if number == len(events) // 2:
            (tmp_path / "000001.jsonl").unlink()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) > 2
    assert all(path.stat().st_size < 50_000 + 10_000 for path in files)
    kept = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert kept == list(events)[-len(kept) :]


def test_another_address_is_told_everything_and_files_go_on_beside(
    events: Sequence[Event], home: Settings, spec: ModelSpec
) -> None:
    with fake_backend() as one, fake_backend() as two:
        for fake in (one, two):
            deliver(to(fake, home), spec)
    assert in_order(one.events) == in_order(two.events) == in_order(events)


# the switch


def test_nothing_is_told_where_it_is_off(home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deliver(home.model_copy(update={"lineage": False}), spec) == 0
    assert not (home.home / "lineage").exists()
    monkeypatch.setenv("DRIFT_LINEAGE", "off")
    ended = drift("lineage", "--home", home.home)
    assert (ended.code, "DRIFT_LINEAGE=off" in ended.err) == (4, True)


@pytest.mark.parametrize("url", ["marquez", "ftp://marquez", "http://user:secret@marquez"])
def test_an_address_that_is_none_is_refused_with_its_variable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_LINEAGE_URL", url)
    with pytest.raises(InputError, match="DRIFT_LINEAGE_URL"):
        Settings()


def test_the_command_tells_now_and_how_it_stands(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_backend() as fake:
        monkeypatch.setenv("DRIFT_LINEAGE_URL", fake.url)
        fake.answers = [500]
        ended = drift("lineage", "--home", home.home)
        assert (ended.code, "answers 500" in ended.out) == (3, True)
        document = json.loads(drift("lineage", "--home", home.home, "--json").out)
    assert (document["waiting"], document["error"], document["sent"]) == (0, "", len(fake.events))


def test_a_home_that_cannot_be_written_is_no_error_of_the_tick(home: Settings, spec: ModelSpec) -> None:
    (home.home / "lineage").write_text("a file where the folder should be")
    assert deliver(home, spec) == 0


def test_a_tick_where_nothing_happened_reads_two_rows_and_writes_none(home: Settings, spec: ModelSpec) -> None:
    deliver(home, spec)
    before = (home.home / "lineage" / "000001.jsonl").stat().st_mtime_ns
    with store_of(home) as store:
        cursor = store.recall("_lineage/files")
        assert deliver_lineage(home, store, {spec.name: spec}, read_folder(home.home).end) == 0
        assert store.recall("_lineage/files") == cursor
    assert (home.home / "lineage" / "000001.jsonl").stat().st_mtime_ns == before


def test_a_day_is_told_an_hour_after_it_and_only_once(home: Settings, spec: ModelSpec) -> None:
    deliver(home, spec, at_end=False)
    before = len(told_by(home.home))
    end = read_folder(home.home).end
    days = [event["run"]["facets"].get("nominalTime", {}).get("nominalEndTime", "") for event in told_by(home.home)]
    assert max(days) == f"{end - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    with store_of(home) as store:
        sent = deliver_lineage(home, store, {spec.name: spec}, end + 2 * DAY, at_once=True)
        assert deliver_lineage(home, store, {spec.name: spec}, end + 300 * DAY, at_once=True) == 0
        (cursor,) = [one.body for one in store.recalled("_lineage/")]
        assert cursor["days"][MODEL] == f"{end + 299 * DAY:%Y-%m-%d}"  # days without rows are not looked at again
    assert len(told_by(home.home)) == before + sent


def test_a_tick_of_a_live_home_tells_into_files_without_any_setting(
    adopted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_LINEAGE", "off")
    assert drift("tick").code == 0
    assert not (adopted / "home" / "lineage").exists()
    monkeypatch.delenv("DRIFT_LINEAGE")
    assert drift("tick").code == 0
    assert set(Counter(event["job"]["name"] for event in told_by(adopted / "home"))) >= {f"{MODEL}.adopt"}


def test_a_tick_goes_on_as_ever_beside_a_backend_that_is_down(adopted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("DRIFT_LINEAGE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
    ended = drift("tick")
    assert (ended.code, ended.complaints) == (0, [])
    assert "records wait for http://127.0.0.1" in " ".join(drift("status").out.split())


def test_importing_who_delivers_opens_no_socket() -> None:
    guard = "import sys; sys.addaudithook(lambda e, a: e.startswith('socket.') and sys.exit(77))\n"
    code = f"{guard}import drift_pipeline.loop.lineage, drift_pipeline.cli.records\n"
    code += "assert not {'openlineage', 'requests', 'urllib3'} & set(sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_the_sensor_delivers_and_says_what_it_did(
    home: Settings, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from drift_pipeline.components.lineage import lineage_sensor

    monkeypatch.setenv("DRIFT_HOME", str(home.home))
    told_one = lineage_sensor({spec.name: spec})(dg.build_sensor_context())
    assert isinstance(told_one, dg.SkipReason)
    assert str(told_one.skip_message).endswith("events told")
    assert told_by(home.home)
