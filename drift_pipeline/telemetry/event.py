"""Events: one JSON object a line, read against the model's spec. What is no event is a dead letter with its reason.

```
{"event": "prediction", "model": M, "id": text, "time": ISO 8601 with an offset, "version": text,
 "route": "stable"|"canary"|"external", "score": number|null, "latency_ms": number|null, "entity": text|null,
 "features": {every watched column: number|text|bool|null}, "producer": text, "traceparent": text}
{"event": "outcome", "model": M, "id": text, "time": when it was observed, "label": number|text|bool,
 "producer": text, "stamped": bool}
```

`score`, `latency_ms` and `entity` may be left out. `producer` is whose the id is, which the gateway writes from the key
(left out: nobody's by name); `traceparent`: the span of the request that it came of, as W3C Trace Context has it, which
no table holds: one of another form is linked to by nobody (`TRACEPARENT`), and costs no prediction; `stamped`: the
gateway gave the time, since the producer told none. A category's value is brought to its column's form, of which it has
to be (`cells`); null and what the spec calls missing are no value. A label is `outcome.positive` or its negation; one
that `outcome.unknown` lists is refused, and told once it is known. What was refused when it was taken is a line of its
own (`letters`).
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.cells import cells_of
from drift_pipeline.telemetry.letters import DeadLetter, dead_letter, read_refused
from drift_pipeline.telemetry.tables.levels import level

__all__ = ["DeadLetter", "Event", "OutcomeKnown", "Prediction", "off_form_of", "read_event"]

EXTERNAL = "external"  # told by its producer; the gateway answered on all other routes
ROUTES = ("stable", "canary", EXTERNAL)
LINE_BYTES = 1_000_000
TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_ID_LENGTH = 200
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # events tell what happens now; a clock that lost its battery says 1970
_TICK = timedelta(microseconds=1)
_OF_ALL = {"event", "model", "id", "time", "producer"}
_PREDICTION = _OF_ALL | {"version", "route", "score", "latency_ms", "entity", "features", "traceparent"}
_OUTCOME = _OF_ALL | {"label", "stamped"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of a model. `features` holds every watched column, a float or a text as the spec declares it."""

    model: str
    id: str
    time: datetime
    version: str
    route: str
    score: float | None
    latency_ms: float | None
    entity: str | None
    features: dict[str, float | str | None]
    producer: str = ""
    traceparent: str = ""

    @property
    def whose(self) -> str:
        """Ids are a producer's own, and those of answers are others than those that it tells of."""
        return self.producer + self.nobodys

    @property
    def nobodys(self) -> str:
        """Whose it were if no producer was named."""
        return f"/{EXTERNAL}" if self.route == EXTERNAL else ""


@dataclass(frozen=True, slots=True)
class OutcomeKnown:
    """What turned out to be true of a prediction; `label` is 0 or 1, or a regression's number.

    `told`: the producer said when that was observed; else `time` is when it was taken.
    """

    model: str
    id: str
    time: datetime
    label: float
    producer: str = ""
    told: bool = True


Event = Prediction | OutcomeKnown | DeadLetter


def read_event(
    line: bytes, specs: Mapping[str, ModelSpec], now: datetime, source: str = "", *, handed_over: bool = False
) -> Event:
    """Never raises, whatever the line holds; but for what `specs` raises of a model that it names.

    Args:
        specs: by the name of the model.
        now: an event of more than a minute later is refused: its producer's clock is ahead.
        handed_over: its time was judged when it was taken, by another process' clock, and is refused only where it
            is an hour ahead; one that the gateway stamped itself, such as its answers, where it is half a day ahead.
    """
    model = ""
    try:
        document = _document(line)
        if document.get("event") == "refused":
            return read_refused(document, specs, now, source)
        model = _model(document, specs)
        spec = specs[model]
        if document.get("event") == "prediction":
            return _prediction(document, spec, _latest(document, now, handed_over))
        if document.get("event") == "outcome":
            return _outcome(document, spec, _latest(document, now, handed_over))
        raise ValueError(f"event: {document.get('event')!r} is neither 'prediction' nor 'outcome'")
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "not JSON that can be read: it is nested too deep"
        return dead_letter(line, now, reason, model, source)


def _document(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise ValueError(f"the line has {len(line):,} bytes, more than {LINE_BYTES:,}")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"not a JSON object but {type(document).__name__}")
    if "\\u" in text:
        _refuse_half_characters(document)
    return document


def _refuse_half_characters(document: dict[str, Any]) -> None:
    """JSON can escape half of a surrogate pair, which is no text and which no table takes."""
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not text: it holds half of a surrogate pair") from error


def _model(document: dict[str, Any], specs: Mapping[str, ModelSpec]) -> str:
    name = document.get("model")
    if not isinstance(name, str) or name not in specs:
        raise ValueError(f"model: there is no model {name!r}; there are: {', '.join(specs)}")
    return name


def _latest(document: dict[str, Any], now: datetime, handed_over: bool) -> tuple[datetime, datetime]:
    """Now, and the first moment at which no event may be."""
    if not handed_over:
        return now, now + MINUTE + _TICK
    of_gateway = document.get("route") != EXTERNAL if document.get("event") == "prediction" else document.get("stamped")
    return now, now + (DAY / 2 if of_gateway else HOUR)


def _prediction(document: dict[str, Any], spec: ModelSpec, now: tuple[datetime, datetime]) -> Prediction:
    _refuse_unknown(document.keys() - _PREDICTION)
    route = document.get("route")
    if route not in ROUTES:
        raise ValueError(f"route: {route!r} is none of {', '.join(ROUTES)}")
    return Prediction(
        spec.name,
        _id(document),
        _time(document, now),
        _text("version", document.get("version")),
        route,
        _score(document.get("score"), spec),
        _latency(document.get("latency_ms")),
        None if document.get("entity") is None else _text("entity", document["entity"]),
        _features(document.get("features"), spec),
        _producer(document),
        _text("traceparent", document.get("traceparent", "")),
    )


def _outcome(document: dict[str, Any], spec: ModelSpec, now: tuple[datetime, datetime]) -> OutcomeKnown:
    _refuse_unknown(document.keys() - _OUTCOME)
    label = _label(document.get("label"), spec)
    told = document.get("stamped") is not True
    return OutcomeKnown(spec.name, _id(document), _time(document, now), label, _producer(document), told)


def _producer(document: dict[str, Any]) -> str:
    return sys.intern(_text("producer", document.get("producer", "")))


def _refuse_unknown(keys: set[str]) -> None:
    if keys:
        raise ValueError(f"unknown key {', '.join(map(repr, sorted(keys)))}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: {value!r} is not a text")
    return value


def _id(document: dict[str, Any]) -> str:
    name = _text("id", document.get("id"))
    if not 0 < len(name) <= _ID_LENGTH:
        raise ValueError(f"id: has {len(name):,} characters; 1 to {_ID_LENGTH} are allowed")
    return name


def _time(document: dict[str, Any], judged: tuple[datetime, datetime]) -> datetime:
    text = _text("time", document.get("time"))
    try:
        time = datetime.fromisoformat(text)
        zoned = time.tzinfo is not None
        time = time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"time: {text!r} is not ISO 8601, such as 2026-01-31T12:00:00Z") from error
    if not zoned:
        raise ValueError(f"time: {text!r} has no zone; write 2026-01-31T12:00:00Z")
    now, end = judged
    if time >= end:
        raise ValueError(f"time: {text!r} is later than now, {now.isoformat()}: the producer's clock is ahead")
    if time < _FIRST:
        raise ValueError(f"time: {text!r} is before 2000: the producer's clock is wrong")
    return time


def _number(key: str, value: object) -> float:
    """A finite number; true and false are 1 and 0, as a history is read."""
    if not isinstance(value, int | float):
        raise ValueError(f"{key}: {value!r} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{key}: a number of {value.bit_length()} bits is too large") from None  # type: ignore[union-attr]
    if not isfinite(number):
        raise ValueError(f"{key}: {number} is not finite; write null where there is no value")
    return number


def _score(value: object, spec: ModelSpec) -> float | None:
    if value is None:
        return None
    score = _number("score", value)
    if spec.task == "binary_classification" and not 0 <= score <= 1:
        raise ValueError(f"score: {score} is not a probability in 0..1")
    return score


def _latency(value: object) -> float | None:
    if value is None:
        return None
    latency_ms = _number("latency_ms", value)
    if latency_ms < 0:
        raise ValueError(f"latency_ms: {latency_ms} is below 0")
    return latency_ms


def _features(given: object, spec: ModelSpec) -> dict[str, float | str | None]:
    watched = spec.watched
    if not isinstance(given, dict) or given.keys() != watched.keys():
        raise ValueError(_features_differ(given, watched.keys()))
    features: dict[str, float | str | None] = {}
    cells = cells_of(spec)
    for name, kind in watched.items():
        value = given[name]
        if value is None:
            features[name] = None
        elif kind == "categorical":
            known = cells.levels[name]
            is_plain = type(value) is str and not known.is_full
            features[name] = known[value] if is_plain else known.one(f"features.{name}", value)
        else:
            is_plain = type(value) is float and isfinite(value)
            number = value if is_plain else _number(f"features.{name}", value)
            features[name] = None if number in cells.missing else number
    return features


def _features_differ(given: object, watched: Any) -> str:
    if not isinstance(given, dict):
        return f"features: {given!r} is not an object of {', '.join(watched)}"
    missing, unknown = sorted(watched - given.keys()), sorted(given.keys() - watched)
    told = [f"missing {', '.join(map(repr, missing))}"] if missing else []
    told += [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
    return f"features: {'; '.join(told)}"


def _label(value: object, spec: ModelSpec) -> float:
    """1 where the label equals `outcome.positive`, else 0; a regression's own number.

    Of a positive 1 or 0, true or false, the negation is known, and of others it is `outcome.negative`, which an adopted
    model has: a third value is refused. Before that, the negation is whatever else is told. Where the positive is a
    text of those, such as "1", a label may be the text or the value.
    """
    outcome, positive = spec.outcome, _same(spec.outcome.positive)
    if outcome.unknown and _same(value) in map(_same, outcome.unknown):
        raise ValueError(f"label: {value!r} stands for one that is not known yet (outcome.unknown); tell it once it is")
    if spec.task == "regression":
        return _number("label", value)
    if not isinstance(outcome.positive, str):
        _number("label", value)
    elif not isinstance(value, str | bool | int | float):
        raise ValueError(f"label: {value!r} is neither a text nor a number nor true or false")
    label = _same(value)
    if positive in ("0", "1") and label not in ("0", "1"):
        raise ValueError(f"label: {value!r} is neither {outcome.positive!r} (outcome.positive) nor its negation")
    if outcome.negative is not None and label not in (positive, _same(outcome.negative)):
        raise ValueError(
            f"label: {value!r} is neither {outcome.positive!r} (outcome.positive) nor {outcome.negative!r}"
        )
    return int(label == positive)


def _same(label: object) -> str | None:
    """One text for the spellings of a label: -1, -1.0 and "-1"; true, "True" and 1."""
    return level(label, "decimal") if isinstance(label, str | bool | int | float) else None


def off_form_of(event: Prediction | OutcomeKnown, spec: ModelSpec) -> list[str]:
    """The columns of an event that was just read whose value does not fit their form."""
    if isinstance(event, OutcomeKnown):
        return []
    return [name for name, levels in cells_of(spec).levels.items() if event.features[name] in levels.off_form]
