"""The OTLP receiver: an event that it acknowledged is in the spool; each bad request has its one answer."""

import gzip
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import InputError, SpecError, UnavailableError
from drift_pipeline.serving.keys import revoke_producer
from drift_pipeline.serving.receiver import MOST_BYTES, address_of, make_receiver, receiving
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.capture import Capture, Captured
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.otlp import MOST_RECORDS
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.serving.worlds import SPECS, Home, listening
from drift_pipeline_tests.telemetry.test_capture import ALL, no_mirror
from drift_pipeline_tests.telemetry.test_otlp import request

FEATURES: dict[str, float | str | None] = {"amount": 0.5, "age": 1, "device": "tv", "region": None}
PROTOBUF, JSON = {"Content-Type": "application/x-protobuf"}, {"Content-Type": "application/json"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.store.close()


def prediction(id: str, **changes: object) -> dict[str, Any]:
    told = {"event": "prediction", "model": "fraud", "id": id, "time": datetime.now(UTC).isoformat(), "version": "7"}
    return {**told, "score": 0.5, "features": FEATURES, **changes}


def outcome(id: str, **changes: object) -> dict[str, Any]:
    return {"event": "outcome", "model": "fraud", "id": id, "label": 1, **changes}


@contextmanager
def receiver(
    home: Home, key: str | None, specs: Mapping[str, ModelSpec] = SPECS, spool: SpoolWriter | None = None, **limits: Any
) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    spool = spool or SpoolWriter(home.settings.home / "spool" / "otlp")
    app = make_receiver(specs, home.store, spool, SystemClock(), every_seconds=0.05)
    with listening(app, **limits) as address, httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        end = time.monotonic() + 30
        while client.get("/health").status_code == 503:
            assert time.monotonic() < end
            time.sleep(0.02)
        yield client


def send(client: httpx.Client, *bodies: object, nanoseconds: int = 0) -> httpx.Response:
    content = request(*bodies, nanoseconds=nanoseconds).SerializeToString()
    return client.post("/v1/logs", content=content, headers=PROTOBUF)


def rejected(told: httpx.Response) -> tuple[int, str]:
    assert told.status_code == 200, told.text
    partial = ExportLogsServiceResponse.FromString(told.content).partial_success
    return partial.rejected_log_records, partial.error_message


def message(told: httpx.Response) -> str:
    """Of the Status that an error's body is."""
    if told.headers["content-type"] == "application/json":
        return str(told.json()["message"])
    return str(Status.FromString(told.content).message)


def spooled(home: Home) -> list[dict[str, Any]]:
    files = sorted((home.settings.home / "spool" / "otlp").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def landed(home: Home) -> Captured:
    lakes: dict[tuple[str, str], Lake] = {}

    def lake_of(model: str, source: str) -> Lake:
        folder = home.settings.lake / model if model else home.settings.dead_letters
        return lakes.setdefault((model, source), Lake(folder, source))

    return Capture(home.settings.home / "spool", lake_of, SPECS, SystemClock(), no_mirror).step()


def test_events_of_both_forms_are_landed_once_under_the_name_of_the_key(home: Home) -> None:
    key = home.producer()
    with receiver(home, key) as client:
        assert rejected(send(client, prediction("a"), json.dumps(prediction("b", producer="mallory")))) == (0, "")
        body = {"kvlistValue": {"values": [
            *({"key": name, "value": {"stringValue": text}} for name, text in outcome("a").items() if name != "label"),
            {"key": "label", "value": {"intValue": "1"}},
        ]}}  # fmt: skip
        document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": body}]}]}]}
        packed = gzip.compress(json.dumps(document).encode())
        told = client.post("/v1/logs", content=packed, headers={**JSON, "Content-Encoding": "gzip"})
        assert (told.status_code, told.json()) == (200, {})
        assert rejected(send(client, prediction("a"))) == (0, "")  # a retry
        assert rejected(send(client)) == (0, "")
    found = landed(home)
    assert (found.predictions, found.outcomes, found.duplicates, found.dead_letters) == (2, 1, 1, 0)
    rows = Lake(home.settings.lake / "fraud").read("predictions", ALL)
    assert rows.select("_id", "_producer", "_route").rows() == [("a", "app", "external"), ("b", "app", "external")]
    assert Lake(home.settings.lake / "fraud").read("outcomes", ALL)["_id"].to_list() == ["a"]


def test_a_prediction_keeps_the_span_that_it_was_logged_in_unless_it_tells_another(home: Home) -> None:
    logged, told = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")
    sent = request(prediction("a"), prediction("b", traceparent=told), outcome("a"))
    for record in sent.resource_logs[0].scope_logs[0].log_records:
        record.trace_id, record.span_id = b"\xaa" * 16, b"\xaa" * 8
    with receiver(home, home.producer()) as client:
        content = sent.SerializeToString()
        assert rejected(client.post("/v1/logs", content=content, headers=PROTOBUF)) == (0, "")
    assert [line.get("traceparent") for line in spooled(home)] == [logged, told, None]
    assert landed(home).dead_letters == 0


def test_a_record_that_is_no_event_is_told_and_laid_aside_with_that_reason_and_the_others_land(home: Home) -> None:
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    bad = [
        ("Server started", "neither a map nor an object of JSON"),
        ({"event": "greeting", "model": "fraud", "id": "x"}, "neither 'prediction' nor 'outcome'"),
        (prediction("p", features={"amount": 1}), "missing 'age'"),
        (prediction("p", time=ahead), "the producer's clock is ahead"),
        (prediction("p", model="nosuch"), "there is no model 'nosuch'"),
        (prediction("p", route="canary"), "is what a gateway answered"),
        (prediction("p", score=float("nan")), "not finite"),
        (outcome("p", stamped=True), "unknown key 'stamped'"),
        (outcome("p", label=None), "label"),
        ({"event": "refused", "model": "fraud", "reason": "r", "payload": "p", "names": 5}, "neither 'prediction'"),
        (prediction("x" * 1_100_000), "bytes, more than"),
    ]
    with receiver(home, home.producer(["*"])) as client:
        for body, reason in bad:
            count, told = rejected(send(client, prediction("good"), body))
            assert (count, reason in told) == (1, True), told
    found = landed(home)
    assert (found.predictions, found.dead_letters) == (1, len(bad))
    letters = Lake(home.settings.dead_letters).read("dead_letters", ALL)
    assert [reason for _, reason in bad if not any(reason in told for told in letters["_reason"])] == []
    assert letters["_source"].unique().to_list() == ["otlp"]
    assert letters.filter(letters["_payload"] == "Server started").height == 1


def test_an_event_of_a_model_that_the_key_is_not_for_is_refused_as_nobodys_and_audited(home: Home) -> None:
    with receiver(home, home.producer(["other"])) as client:
        count, told = rejected(send(client, prediction("a"), outcome("b")))
        assert (count, "the key of app is not for 'fraud'" in told) == (2, True)
    found = landed(home)
    assert (found.predictions, found.outcomes, found.dead_letters) == (0, 0, 2)
    assert Lake(home.settings.dead_letters).read("dead_letters", ALL)["_model"].to_list() == ["", ""]
    refused = [record for record in home.store.records() if record.event == "producer.refused"]
    assert [(record.subject, record.details["model"]) for record in refused] == [("app", "fraud")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["event", "model", "id", "time", "route", "score", "features", "label", "stamped", "names", "x"])
LIKELY = st.sampled_from(["prediction", "outcome", "refused", "fraud", "other", "external", "canary"])


def test_whatever_a_body_is_it_is_an_event_or_a_dead_letter_and_the_key_learns_of_no_other_model(home: Home) -> None:
    specs = {**SPECS, "other": SPECS["fraud"].model_copy(update={"name": "other"})}
    sent = 0
    with receiver(home, home.producer(rows_per_second=10_000_000), specs) as client:

        @given(st.lists(VALUES | st.dictionaries(KEYS, VALUES | LIKELY), min_size=10, max_size=40))
        @settings(max_examples=6)
        def attack(bodies: list[object]) -> None:
            nonlocal sent
            count, told = rejected(send(client, *bodies))
            sent += len(bodies)
            assert count <= len(bodies)
            assert "there are: fraud, other" not in told

        attack()
    assert len(spooled(home)) == sent
    found = landed(home)
    assert found.dead_letters + found.predictions + found.outcomes + found.duplicates == sent


def test_a_time_may_be_the_records_own_and_an_outcome_without_any_is_stamped(home: Home) -> None:
    now = time.time_ns()
    with receiver(home, home.producer()) as client:
        timeless = {name: value for name, value in prediction("a").items() if name != "time"}
        assert rejected(send(client, timeless, outcome("a"), nanoseconds=now)) == (0, "")
        assert rejected(send(client, outcome("b"))) == (0, "")
        count, told = rejected(send(client, timeless))
        assert (count, "time: None is not a text" in told) == (1, True)
    first, second, third, _ = spooled(home)
    assert datetime.fromisoformat(first["time"]).timestamp() == pytest.approx(now / 1e9, abs=1e-5)
    assert ("stamped" in second, third["stamped"]) == (False, True)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}])
def test_without_a_key_that_is_known_nothing_is_taken(home: Home, headers: dict[str, str]) -> None:
    home.producer()
    with receiver(home, None) as client:
        told = client.post("/v1/logs", content=request(prediction("a")).SerializeToString(), headers=PROTOBUF | headers)
        assert (told.status_code, told.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "the key is missing, unknown or revoked" in message(told)
    assert spooled(home) == []


def test_a_revoked_key_is_refused_soon(home: Home) -> None:
    with receiver(home, home.producer()) as client:
        assert send(client, prediction("a")).status_code == 200
        revoke_producer(home.store, "app", "test", "leaked")
        end = time.monotonic() + 20
        while send(client, prediction("a")).status_code != 401:
            assert time.monotonic() < end
            time.sleep(0.02)


BODIES = {
    "protobuf": (400, PROTOBUF, b"\xff\xff"),
    "json": (400, JSON, b"{"),
    "a JSON bomb": (400, JSON, b"[" * 1_000_000),
    "much JSON": (413, JSON, b'{"resourceLogs":[' + b"{}," * 2_700_000 + b"{}]}"),
    "many resources": (413, PROTOBUF, b"\x0a\x00" * 100_000),
    "too long": (413, PROTOBUF, bytes(MOST_BYTES + 1)),
    "gzip": (400, {**PROTOBUF, "Content-Encoding": "gzip"}, b"plain"),
    "torn gzip": (400, {**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(b"a" * 999)[:-1]),
    "a gzip bomb": (413, {**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(bytes(200_000_000), 9)),
    "another coding": (415, {**PROTOBUF, "Content-Encoding": "br"}, b""),
    "another type": (415, {"Content-Type": "text/plain"}, b"{}"),
    "no type": (415, {}, b"{}"),
}


@pytest.mark.parametrize("bad", BODIES)
def test_a_body_that_cannot_be_read_has_its_answer_and_the_next_request_is_served(home: Home, bad: str) -> None:
    status, headers, body = BODIES[bad]
    with receiver(home, home.producer()) as client:
        told = client.post("/v1/logs", content=body, headers=headers)
        assert told.status_code == status
        assert message(told)
        end = time.monotonic() + 20
        while (told := send(client, prediction("a"))).status_code == 429:  # what was refused has to be paid for
            assert time.monotonic() < end
            time.sleep(0.1)
        assert rejected(told) == (0, "")
    assert [event["id"] for event in spooled(home)] == ["a"]


def test_more_records_than_a_request_may_hold_are_refused(home: Home) -> None:
    with receiver(home, home.producer()) as client:
        told = send(client, *[None] * (MOST_RECORDS + 1))
        assert (told.status_code, "log records" in message(told)) == (413, True)
    assert spooled(home) == []


def test_a_batch_beyond_the_rate_is_taken_whole_and_the_next_waits_for_what_it_cost(home: Home) -> None:
    """413 would lose it: a Collector drops what it refuses, and sends again after 429."""
    with receiver(home, home.producer(rows_per_second=10)) as client:
        assert rejected(send(client, *(prediction(str(k)) for k in range(100)))) == (0, "")
        told = send(client, prediction("next"))
        assert (told.status_code, int(told.headers["Retry-After"])) == (429, 9)
    assert len(spooled(home)) == 100


def test_traces_and_metrics_are_refused_plainly(home: Home) -> None:
    with receiver(home, home.producer()) as client:
        for path in ("/v1/traces", "/v1/metrics"):
            told = client.post(path, content=b"", headers=PROTOBUF)
            assert (told.status_code, "not kept here" in message(told)) == (404, True)
        assert client.get("/v1/logs").status_code == 405
        assert client.post("/v1/nosuch", headers=JSON).status_code == 404


def test_what_the_disk_does_not_take_is_not_acknowledged(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(SpoolWriter):
        at = "write"

        def write(self, lines: Any) -> None:
            if self.at == "write":
                raise UnavailableError("the disk is full")
            super().write(lines)

        def sync(self) -> None:
            raise UnavailableError("the disk is full")

    spool = Full(home.settings.home / "spool" / "otlp")
    with receiver(home, home.producer(), spool=spool) as client:
        for at in ("write", "sync"):
            spool.at = at
            told = send(client, prediction("a"))
            assert (told.status_code, told.headers["Retry-After"], message(told)) == (503, "1", "the disk is full")


def test_without_the_control_store_the_known_keys_hold(home: Home) -> None:
    with receiver(home, home.producer()) as client:
        with sqlite3.connect(home.settings.home / "control.db") as broken:
            broken.execute("ALTER TABLE state RENAME TO gone")
        time.sleep(0.2)
        assert rejected(send(client, prediction("a"))) == (0, "")


def test_events_of_a_model_whose_spec_cannot_be_had_wait_for_it(home: Home) -> None:
    class Odd(dict[str, ModelSpec]):
        def __getitem__(self, name: str) -> ModelSpec:
            raise SpecError("fraud: other forms")

    with receiver(home, home.producer(), Odd(SPECS)) as client:
        assert rejected(send(client, prediction("a"), prediction("bad", features={}))) == (0, "")
    found = landed(home)
    assert (found.predictions, found.dead_letters) == (1, 1)


def test_a_half_request_holds_nobody_up_and_is_closed(home: Home) -> None:
    key = home.producer()
    with receiver(home, key, head_seconds=0.5, request_seconds=0.5) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        head = f"POST /v1/logs HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/x-protobuf\r\n"
        for half in (b"POST /v1/lo", f"{head}Content-Length: 1000\r\n\r\nhalf".encode()):
            with socket.create_connection(address, timeout=20) as one:
                one.sendall(half)
                assert rejected(send(client, prediction("a"))) == (0, "")
                told = one.recv(65536)
                assert told in (b"", told if told.startswith(b"HTTP/1.1 408") else b"")
                while told:
                    told = one.recv(65536)
    assert {event["id"] for event in spooled(home)} == {"a"}


@pytest.mark.parametrize(
    "url", ["otlp://", "otlp://host", "otlp://h:99999", "http://h:1", "otlp://u@h:1", "otlp://h:1/x"]
)
def test_a_source_that_is_none_is_told(url: str) -> None:
    with pytest.raises(InputError, match="write otlp://HOST:PORT"):
        address_of(url)
    assert address_of("otlp://[::1]:4318") == ("::1", 4318)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["http://h:1"],
            "http:// is not known; there are: kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC], otlp://HOST:PORT",
        ),
        (["otlp://"], "write otlp://HOST:PORT"),
        (["otlp:h"], "the address names no scheme"),
        (["http://["], "http:// is not known"),
        (["otlp://["], "write otlp://HOST:PORT"),
        (["otlp://127.0.0.1:0", "--once"], "listened to for ever"),
    ],
)
def test_the_command_refuses_what_it_cannot_listen_to(arguments: list[str], told: str) -> None:
    ended = drift("capture", "--source", *arguments)
    assert (ended.code, told in ended.err) == (2, True)


def test_an_address_that_is_taken_and_a_second_receiver_are_told(home: Home) -> None:
    stop, at = threading.Event(), (home.settings, SPECS, SystemClock())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"otlp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot listen"), receiving(*at, url, stop):
            pass
    url = "otlp://127.0.0.1:0"
    with receiving(*at, url, stop):
        with pytest.raises(InputError, match="another writer"), receiving(*at, url, stop):
            pass
        assert not stop.is_set()
    assert stop.is_set()
