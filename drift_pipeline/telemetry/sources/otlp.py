"""OTLP logs as events: the body of a log record is an event, as a map, or as a text of its JSON.

A body without a `time` has the record's own. Severity, attributes, resource and scope are not read. Both forms
of OTLP/HTTP are: protobuf, and JSON as its specification maps it.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.event import TRACEPARENT

MOST_RECORDS = 10_000
MOST_VALUES = 500_000  # 512 records, an SDK's batch, of 200 features each are some 105,000
_KINDS = ("string", "bool", "int", "double", "array", "kvlist", "bytes")
_JSON_NAMES = {f"{kind}Value": f"{kind}_value" for kind in _KINDS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TooMuchError(InputError):
    """More than one request may hold; sent in parts it is taken."""


def inflated(body: bytes, most: int) -> bytes:
    """What was compressed with gzip, of `most` bytes at most; nothing longer is ever in memory.

    Raises:
        TooMuchError: it is longer.
        InputError: it is not gzip, or torn.
    """
    gzip = zlib.decompressobj(wbits=31)
    try:
        data = gzip.decompress(body, most + 1)
    except zlib.error as error:
        raise InputError(f"the body is not gzip: {error}") from error
    if len(data) > most:
        raise TooMuchError(f"the body inflates to more than {most:,} bytes; send fewer records in a request")
    if not gzip.eof or gzip.unused_data:
        raise InputError("the body is not one whole gzip stream")
    return data


def read_logs(body: bytes, *, as_json: bool) -> list["Record"]:
    """The records of an ExportLogsServiceRequest, whose bodies are not read yet.

    Raises:
        TooMuchError: it holds too many.
        InputError: it is none.
    """
    around = Budget(2 * MOST_RECORDS)  # resources and scopes
    found = _json_records(body, around) if as_json else _protobuf_records(body, around)
    records = list[Record]()
    for record in found:
        if len(records) >= MOST_RECORDS:
            raise TooMuchError(f"more than {MOST_RECORDS:,} log records; send fewer in a request")
        records.append(record)
    return records


class Budget:
    """How many values one request may still hold."""

    def __init__(self, values: int = MOST_VALUES) -> None:
        self._most = self._left = values

    def take(self) -> None:
        """Raises TooMuchError."""
        self._left -= 1
        if self._left < 0:
            raise TooMuchError(f"more than {self._most:,} values; send fewer log records in a request")


class Record:
    """One log record: its body as OTLP has it, its time in nanoseconds since 1970, 0 where it tells none, and the ids
    of its trace and span, in hexadecimal digits."""

    def __init__(
        self, body: Any, nanoseconds: int, part: "Callable[[Any], tuple[str, Any]]", trace: Any = "", span: Any = ""
    ) -> None:
        self._body, self._nanoseconds, self._part = body, nanoseconds, part
        self._ids = trace, span

    @property
    def traceparent(self) -> str:
        """Of the span that it was logged in, as W3C Trace Context has it; "" where it tells none."""
        told = "-".join(["00", *map(str, self._ids), "01"]).lower()
        return told if TRACEPARENT.fullmatch(told) else ""

    def event(self, budget: Budget) -> dict[str, Any] | bytes:
        """The event that the body tells; else what it holds, as the line that a dead letter shows.

        Raises:
            TooMuchError: the budget does not suffice.
            InputError: the body is not of OTLP's JSON.
        """
        value = _plain(self._body, self._part, budget)
        if isinstance(value, str):
            line = value.encode()
            try:
                value = from_json(line, cache_strings="none")
            except ValueError:
                return line
        if not isinstance(value, dict):
            return to_json(value)
        if self._nanoseconds > 0:
            at = _EPOCH + timedelta(microseconds=self._nanoseconds // 1000)
            value.setdefault("time", at.isoformat())
        return value


def _plain(value: Any, part: Callable[[Any], tuple[str, Any]], budget: Budget) -> Any:
    """An AnyValue in plain Python."""
    budget.take()
    kind, content = part(value)
    if kind == "kvlist_value":
        return {key: _plain(of, part, budget) for key, of in content}
    if kind == "array_value":
        return [_plain(one, part, budget) for one in content]
    if kind == "bytes_value":  # which no event has
        return {"bytes": content if isinstance(content, str) else base64.b64encode(content).decode()}
    return content


def _protobuf_records(body: bytes, around: Budget) -> Iterator[Record]:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise InputError(f"the body is no ExportLogsServiceRequest of protobuf: {error}") from error
    for resource in request.resource_logs:
        around.take()
        for scope in resource.scope_logs:
            around.take()
            for record in scope.log_records:
                time = record.time_unix_nano or record.observed_time_unix_nano
                yield Record(record.body, time, _protobuf_part, record.trace_id.hex(), record.span_id.hex())


def _protobuf_part(value: Any) -> tuple[str, Any]:
    kind = value.WhichOneof("value") or ""
    match kind:
        case "":
            return "", None
        case "kvlist_value":
            return kind, [(one.key, one.value) for one in value.kvlist_value.values]
        case "array_value":
            return kind, value.array_value.values
    return kind, getattr(value, kind)


def _json_records(body: bytes, around: Budget) -> Iterator[Record]:
    values = len(body) - len(body.translate(None, b",[{"))  # each stands behind one of these; a feature takes four
    if values > 2 * MOST_VALUES:
        raise TooMuchError(f"the body holds some {values:,} values of JSON; send fewer log records in a request")
    try:
        request = from_json(body, cache_strings="keys")
    except ValueError as error:
        raise InputError(f"the body is not JSON: {error}") from error
    for resource in _items(_object(request, "the body"), "resourceLogs"):
        around.take()
        for scope in _items(resource, "scopeLogs"):
            around.take()
            for record in _items(scope, "logRecords"):
                time = _integer(record, "timeUnixNano") or _integer(record, "observedTimeUnixNano")
                ids = record.get("traceId"), record.get("spanId")
                yield Record(record.get("body") or {}, time, _json_part, *ids)


def _json_part(value: Any) -> tuple[str, Any]:
    told = [(name, of) for name, of in _object(value, "a value").items() if name in _JSON_NAMES and of is not None]
    if not told:
        return "", None
    if len(told) > 1:
        raise InputError(f"a value has {told[0][0]} and {told[1][0]}; it can have one")
    name, content = told[0]
    return _JSON_NAMES[name], _JSON_CONTENTS[name](content, name)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is to be an object, not {type(value).__name__}")
    return value


def _items(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = parent.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InputError(f"{name} is to be a list, not {type(found).__name__}")
    return [_object(one, name) for one in found]


def _of(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{name} is not to be {type(value).__name__}")
    return value


def _integer(parent: dict[str, Any], name: str) -> int:
    """64 bits, as a number or as a text; 0 where it is not there."""
    value = parent.get(name) or 0
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not -(2**63) <= number < 2**64:
        raise InputError(f"{name} is no whole number of 64 bits")
    return number


def _pairs(content: Any, name: str) -> list[tuple[str, Any]]:
    values = _items(_object(content, name), "values")
    return [(_of(str, one.get("key", ""), "key"), one.get("value") or {}) for one in values]


def _double(value: Any, name: str) -> float:
    """A number, or one of the words for those that JSON does not have."""
    words = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    if isinstance(value, str) and value in words:
        return words[value]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{name} is no number")


_JSON_CONTENTS: Mapping[str, Callable[[Any, str], Any]] = {
    "stringValue": partial(_of, str),
    "boolValue": partial(_of, bool),
    "intValue": lambda content, name: _integer({name: content}, name),
    "doubleValue": _double,
    "arrayValue": lambda content, name: _items(_object(content, name), "values"),
    "kvlistValue": _pairs,
    "bytesValue": partial(_of, str),
}


def answered(refused: int, told: str, *, as_json: bool) -> bytes:
    """An ExportLogsServiceResponse: how many records were not taken as events, and why."""
    if as_json:
        partial = {"rejectedLogRecords": str(refused), "errorMessage": told}
        return to_json({"partialSuccess": partial} if refused else {})
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    response = ExportLogsServiceResponse()
    if refused:
        response.partial_success.rejected_log_records = refused
        response.partial_success.error_message = told
    return bytes(response.SerializeToString())


def status(told: str, *, as_json: bool) -> bytes:
    """A `google.rpc.Status` of this message: what OTLP/HTTP answers with an error."""
    if as_json:
        return to_json({"message": told})
    from google.rpc.status_pb2 import Status

    return bytes(Status(message=told).SerializeToString())
