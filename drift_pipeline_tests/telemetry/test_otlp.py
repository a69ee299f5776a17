"""OTLP logs are read as events the same way in both forms, and what is none is refused before it costs much."""

import base64
import gzip
import json
import zlib
from contextlib import nullcontext
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.sources.otlp import (
    MOST_RECORDS,
    MOST_VALUES,
    Budget,
    TooMuchError,
    answered,
    inflated,
    read_logs,
)

EVENT = {
    "event": "prediction",
    "id": "a",
    "score": 0.5,
    "features": {"age": 3, "device": None, "old": True, "x": [1, "b"]},
}


_PLAIN = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}


def any_value(value: Any) -> AnyValue:
    found = AnyValue(**{_PLAIN[type(value)]: value}) if type(value) in _PLAIN else AnyValue()
    if isinstance(value, dict):
        found.kvlist_value.SetInParent()
        for key, one in value.items():
            found.kvlist_value.values.add(key=key, value=any_value(one))
    elif isinstance(value, list):
        found.array_value.SetInParent()
        found.array_value.values.extend(map(any_value, value))
    return found


def request(*bodies: object, nanoseconds: int = 0) -> ExportLogsServiceRequest:
    found = ExportLogsServiceRequest()
    records = found.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add(body=any_value(body), time_unix_nano=nanoseconds)
    return found


def read(sent: ExportLogsServiceRequest) -> list[dict[str, Any] | bytes]:
    """What both forms say, which is the same."""
    budget = Budget()
    protobuf = [one.event(budget) for one in read_logs(sent.SerializeToString(), as_json=False)]
    as_json = [one.event(budget) for one in read_logs(json.dumps(MessageToDict(sent)).encode(), as_json=True)]
    assert protobuf == as_json
    return protobuf


def test_a_map_and_the_text_of_its_json_are_the_same_event_in_both_forms() -> None:
    assert read(request(EVENT, json.dumps(EVENT))) == [EVENT, EVENT]


def test_a_record_tells_the_span_that_it_was_logged_in() -> None:
    sent, trace, span = request(EVENT, EVENT), "0a" * 16, "0b" * 8
    logged, _ = sent.resource_logs[0].scope_logs[0].log_records
    logged.trace_id, logged.span_id = bytes.fromhex(trace), bytes.fromhex(span)
    for records in (
        read_logs(sent.SerializeToString(), as_json=False),
        read_logs(_hexadecimal(sent), as_json=True),
    ):
        assert [one.traceparent for one in records] == [f"00-{trace}-{span}-01", ""]


@pytest.mark.parametrize(
    "ids", [{"traceId": 7, "spanId": []}, {"traceId": "0" * 32, "spanId": "b" * 16}, {"spanId": "b"}]
)
def test_ids_of_a_record_that_are_none_are_left_out(ids: dict[str, Any]) -> None:
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "{}"}, **ids}]}]}]}
    (record,) = read_logs(json.dumps(body).encode(), as_json=True)
    assert record.traceparent == ""


def _hexadecimal(sent: ExportLogsServiceRequest) -> bytes:
    """OTLP's JSON has ids in hexadecimal digits, where protobuf's own has base64."""
    document = MessageToDict(sent)
    for record in document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        for name in {"traceId", "spanId"} & record.keys():
            record[name] = base64.b64decode(record[name]).hex()
    return json.dumps(document).encode()


def test_a_body_without_a_time_has_the_records_own() -> None:
    told, own = read(
        request({"id": "a"}, {"id": "b", "time": "2026-01-31T12:00:00Z"}, nanoseconds=10**18 + 123_456_789)
    )
    assert told == {"id": "a", "time": "2001-09-09T01:46:40.123456+00:00"}
    assert own == {"id": "b", "time": "2026-01-31T12:00:00Z"}


@pytest.mark.parametrize("body", [None, "Server started", 7, [1], b"\xff", "[1]", '{"id": "\\ud800"}', "{" * 5000])
def test_what_is_no_map_is_told_as_the_line_that_it_is(body: object) -> None:
    (found,) = read(request(body))
    if isinstance(body, bytes):
        assert found == {"bytes": "/w=="}
    else:
        assert isinstance(found, bytes)


def test_numbers_that_json_lacks_are_read_as_words() -> None:
    (found,) = read(request({"big": 2**62, "inf": float("inf")}))
    assert found == {"big": 2**62, "inf": float("inf")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"resourceLogs": 5}',
        b'{"resourceLogs": [5]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "soon"}]}]}]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": 1e30}]}]}]}',
    ],
)
def test_a_body_of_json_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        read_logs(body, as_json=True)


@pytest.mark.parametrize(
    "value",
    [
        {"stringValue": 5},
        {"intValue": "x"},
        {"intValue": 2.5},
        {"intValue": str(2**64)},
        {"doubleValue": "x"},
        {"doubleValue": True},
        {"boolValue": 1},
        {"kvlistValue": []},
        {"arrayValue": {"values": {}}},
        {"kvlistValue": {"values": [{"key": 5}]}},
        {"stringValue": "a", "intValue": 1},
    ],
)
def test_a_value_that_is_not_otlps_json_is_refused(value: object) -> None:
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": value}]}]}]}).encode()
    (record,) = read_logs(body, as_json=True)
    with pytest.raises(InputError):
        record.event(Budget())


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"{}", EVENT["id"].encode()])  # type: ignore[attr-defined]
def test_a_body_of_protobuf_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="no ExportLogsServiceRequest"):
        read_logs(body, as_json=False)


def wrapped(tag: int, content: bytes) -> bytes:
    """A field of protobuf."""
    length, left = b"", len(content)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return bytes([tag]) + length + bytes([left]) + content


def test_protobuf_that_is_nested_too_deep_is_refused() -> None:
    for lists, refused in ((10, False), (60, True), (10_000, True)):
        value = b""
        for _ in range(lists):
            value = wrapped(0x2A, wrapped(0x0A, value))
        body = wrapped(0x0A, wrapped(0x12, wrapped(0x12, wrapped(0x2A, value))))
        with pytest.raises(InputError) if refused else nullcontext():
            assert len(read_logs(body, as_json=False)) == 1


def test_more_records_or_values_than_a_request_may_hold_are_refused_before_they_are_read() -> None:
    many = request(*[None] * (MOST_RECORDS + 1)).SerializeToString()
    with pytest.raises(TooMuchError, match="log records"):
        read_logs(many, as_json=False)
    with pytest.raises(TooMuchError, match="values"):  # a million empty resources are 2 MB
        read_logs(b"\x0a\x00" * 1_000_000, as_json=False)
    full = ExportLogsServiceRequest()
    values = full.resource_logs.add().scope_logs.add().log_records.add().body.array_value.values
    values.extend([AnyValue()] * (MOST_VALUES + 1))
    (record,) = read_logs(full.SerializeToString(), as_json=False)
    with pytest.raises(TooMuchError, match="values"):
        record.event(Budget())
    with pytest.raises(TooMuchError, match="values of JSON"):
        read_logs(b'{"resourceLogs":[' + b"{}," * 4_000_000 + b"{}]}", as_json=True)


def test_a_gzip_bomb_is_cut_off_and_what_is_no_whole_gzip_is_refused() -> None:
    assert inflated(gzip.compress(b"a" * 100), 100) == b"a" * 100
    with pytest.raises(TooMuchError, match="inflates to more than 1,000 bytes"):
        inflated(gzip.compress(bytes(50_000_000)), 1000)
    whole = gzip.compress(b"a" * 1000)
    for bad in (b"", b"plain", whole[:-4], whole[:20], whole + b"more", whole + whole, zlib.compress(b"a")):
        with pytest.raises(InputError):
            inflated(bad, 10_000)


def test_the_answer_tells_how_many_records_were_no_events() -> None:
    assert answered(0, "", as_json=False) == b""
    assert answered(0, "", as_json=True) == b"{}"
    told = ExportLogsServiceResponse.FromString(answered(2, "why", as_json=False)).partial_success
    assert (told.rejected_log_records, told.error_message) == (2, "why")
    assert json.loads(answered(2, "why", as_json=True)) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "why"}
    }
