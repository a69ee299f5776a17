"""A line becomes an event of the spec's types, or a dead letter that says why not; nothing it holds raises."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import (
    DeadLetter,
    OutcomeKnown,
    Prediction,
    off_form_of,
    read_event,
)
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.rows import outcomes_frame, predictions_frame
from drift_pipeline_tests.detection.worlds import spec_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = {"timestamp": "t", "prediction_id": "i", "entity": "e", "latency_ms": "l", "version": "v"}
SPEC = spec_of(
    "x", categorical=("kind",), protected={"group": "categorical"}, columns=COLUMNS, prediction={"score": "s"}
)
PRICE = ModelSpec.model_validate(
    {"name": "price", "owner": "o", "task": "regression", "features": {"x": "numeric"}, "outcome": {"column": "y"}}
)
SPECS = {"m": SPEC, "price": PRICE}
FORMS = spec_of(
    "x",
    name="formed",
    categorical=("kind", "count", "rate", "flag"),
    forms={"count": "integer", "rate": "decimal", "flag": "boolean"},
    missing=["?", "-999"],
)

GOOD: dict[str, Any] = {
    "event": "prediction",
    "model": "m",
    "id": "p1",
    "time": "2026-03-01T12:30:00+02:00",
    "version": "v7",
    "route": "canary",
    "score": 0.25,
    "latency_ms": 12,
    "entity": "u1",
    "features": {"x": 3, "kind": "a", "group": None},
}
FORMED = {**GOOD, "model": "formed", "features": dict.fromkeys(FORMS.watched)}
KNOWN: dict[str, Any] = {"event": "outcome", "model": "m", "id": "p1", "time": "2026-03-01T10:30:00Z", "label": 1}


def line(document: object) -> bytes:
    return json.dumps(document).encode()


def features(**changes: object) -> dict[str, Any]:
    return {**GOOD, "features": {**GOOD["features"], **changes}}


def prediction(document: dict[str, Any]) -> Prediction:
    event = read_event(line(document), SPECS, NOW)
    assert isinstance(event, Prediction), event
    return event


def outcome(spec: ModelSpec, **changes: object) -> OutcomeKnown:
    event = read_event(line({**KNOWN, "model": spec.name, **changes}), {spec.name: spec}, NOW)
    assert isinstance(event, OutcomeKnown), event
    return event


def reason(raw: bytes) -> str:
    event = read_event(raw, SPECS, NOW, "gateway")
    assert isinstance(event, DeadLetter), event
    assert (event.time, event.source) == (NOW, "gateway")
    return event.reason


def test_a_prediction_is_read_with_its_time_in_utc_and_its_features_as_declared() -> None:
    at = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    expected = Prediction("m", "p1", at, "v7", "canary", 0.25, 12.0, "u1", {"x": 3.0, "kind": "a", "group": None})
    read = prediction(GOOD)
    assert read == expected
    assert read.time.tzinfo is UTC
    assert isinstance(read.features["x"], float)


def test_a_prediction_may_carry_the_traceparent_of_its_request() -> None:
    told = f"00-{'a' * 32}-{'b' * 16}-01"
    for text in (told, "", "nonsense", told[:-1], told.upper()):  # a form that is none costs no prediction
        assert prediction({**GOOD, "traceparent": text}).traceparent == text
    for bad in (7, None):
        assert reason(line({**GOOD, "traceparent": bad})) == f"traceparent: {bad} is not a text"


def test_score_latency_and_entity_may_be_null_or_left_out() -> None:
    optional = ("score", "latency_ms", "entity")
    for document in (
        {**GOOD, **dict.fromkeys(optional)},
        {key: value for key, value in GOOD.items() if key not in optional},
    ):
        read = prediction(document)
        assert (read.score, read.latency_ms, read.entity) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kind", "ünïcode", "ünïcode"),
        ("kind", " a ", "a"),
        ("kind", "", None),
        ("kind", "?", None),
        ("count", 7, "7"),
        ("count", 7.0, "7"),
        ("count", "7.0", "7"),
        ("count", True, "1"),
        ("count", "many", "many"),
        ("count", 2**64, "18446744073709551616"),
        ("count", -0.0, "0"),
        ("rate", 0.5, "0.5"),
        ("rate", "0.50", "0.5"),
        ("rate", 1, "1"),
        ("flag", True, "true"),
        ("flag", "False", "false"),
        ("flag", 1, "true"),
        ("flag", 2, "2"),
        ("x", True, 1.0),
        ("x", -2.5, -2.5),
        ("x", None, None),
        ("x", -999, None),
        ("x", -999.0, None),
    ],
)
def test_a_value_takes_the_type_that_its_column_has(name: str, value: object, expected: object) -> None:
    of = {**FORMED, "features": {**FORMED["features"], name: value}}
    read = read_event(line(of), {"formed": FORMS}, NOW)
    assert isinstance(read, Prediction), read
    assert (type(read.features[name]), read.features[name]) == (type(expected), expected)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"\xff{}", "not UTF-8: invalid start byte at byte 0"),
        (line(GOOD)[:-5], "not JSON"),
        (b"[" * 200_000, "nested too deep"),
        (b"[1]", "not a JSON object but list"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'"' + b"x" * 1_000_001 + b'"', "more than 1,000,000"),
        (line({**GOOD, "event": "guess"}), "event: 'guess' is neither"),
        (line({**GOOD, "model": "n"}), "model: there is no model 'n'; there are: m, price"),
        (line({**GOOD, "model": ["m"]}), "model: there is no model ['m']"),
        (line({**GOOD, "skore": 1}), "unknown key 'skore'"),
        (line({**GOOD, "id": ""}), "id: has 0 characters"),
        (line({**GOOD, "id": "x" * 201}), "id: has 201 characters"),
        (line({**GOOD, "id": 5}), "id: 5 is not a text"),
        (line({**GOOD, "id": "\ud800"}), "half of a surrogate pair"),
        (line({**GOOD, "time": "2026-03-01T10:00:00"}), "has no zone"),
        (line({**GOOD, "time": "2026-03-01"}), "has no zone"),
        (line({**GOOD, "time": "yesterday"}), "is not ISO 8601"),
        (line({**GOOD, "time": "0001-01-01T00:00:00+05:00"}), "is not ISO 8601"),
        (line({**GOOD, "time": "1999-12-31T23:59:59Z"}), "is before 2000: the producer's clock is wrong"),
        (line({**GOOD, "time": "2026-03-01T12:01:01Z"}), "the producer's clock is ahead"),
        (line({**GOOD, "time": 1772359200}), "time: 1772359200 is not a text"),
        (line({**GOOD, "version": None}), "version: None is not a text"),
        (line({**GOOD, "route": "shadow"}), "route: 'shadow' is none of stable, canary, external"),
        (line({**GOOD, "route": ["stable"]}), "route: ['stable'] is none of"),
        (line({**GOOD, "score": 1.01}), "score: 1.01 is not a probability"),
        (line({**GOOD, "score": "0.5"}), "score: '0.5' is not a number"),
        (line({**GOOD, "score": float("nan")}), "score: nan is not finite"),
        (line({**GOOD, "latency_ms": -1}), "latency_ms: -1.0 is below 0"),
        (line({**GOOD, "latency_ms": float("inf")}), "latency_ms: inf is not finite"),
        (line({**GOOD, "entity": 4}), "entity: 4 is not a text"),
        (line({**GOOD, "features": None}), "features: None is not an object of x, kind, group"),
        (line({**GOOD, "features": {"x": 1, "kind": "a", "z": 1}}), "features: missing 'group'; unknown 'z'"),
        (line(features(x="1")), "features.x: '1' is not a number"),
        (line(features(x=float("-inf"))), "features.x: -inf is not finite"),
        (line(features(x=10**400)), "features.x: a number of 1329 bits is too large"),
        (line(features(kind=7)), "features.kind: 7 cannot be brought to the column's form text; write a text"),
        (line(features(kind=1.5)), "features.kind: 1.5 cannot be brought to the column's form text; write a text"),
        (line(features(kind=True)), "features.kind: True cannot be brought to the column's form text; write a text"),
        (line(features(group=["g"])), "features.group: ['g'] cannot be brought"),
        (line({**KNOWN, "label": 2}), "label: 2 is neither 1 (outcome.positive) nor its negation"),
        (line({**KNOWN, "label": 0.5}), "label: 0.5 is neither 1"),
        (line({**KNOWN, "label": -1}), "label: -1 is neither 1"),
        (line({**KNOWN, "label": None}), "label: None is not a number"),
        (line({**KNOWN, "label": "1"}), "label: '1' is not a number"),
        (line({**KNOWN, "score": 1}), "unknown key 'score'"),
        (line({**KNOWN, "time": "2026-03-02T12:00:00Z"}), "the producer's clock is ahead"),
    ],
)
def test_what_is_no_event_says_why(raw: bytes, why: str) -> None:
    assert why in reason(raw)


def test_a_dead_letter_names_a_known_model_and_keeps_four_kilobytes() -> None:
    raw = line({**GOOD, "id": "x" * 9000})
    letter = read_event(raw, SPECS, NOW)
    assert isinstance(letter, DeadLetter)
    assert (letter.model, letter.payload) == ("m", raw[:4096].decode())
    unnamed = read_event(line({**GOOD, "model": "y" * 9000}), SPECS, NOW)
    assert isinstance(unnamed, DeadLetter)
    assert (unnamed.model, len(unnamed.reason)) == ("", 300)


def test_a_clock_may_be_a_minute_ahead() -> None:
    assert prediction({**GOOD, "time": "2026-03-01T12:01:00Z"}).time == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("positive", "label", "expected"),
    [
        (1, 1, 1),
        (1, 1.0, 1),
        (1, 0, 0),
        (1, True, 1),
        (2, 1, 0),
        (2, 2.0, 1),
        (0, False, 1),
        (True, 1, 1),
        (True, False, 0),
        ("yes", "yes", 1),
        ("yes", "no", 0),
        ("2", 2, 1),
        ("2", 2.0, 1),
        ("yes", " yes ", 1),
        ("true", True, 1),
        ("true", "False", 0),
        ("true", 1, 1),
        ("1", True, 1),
        ("1", 1.0, 1),
        ("1", "1.0", 1),
        ("1", "0", 0),
        ("0", False, 1),
    ],
)
def test_a_label_is_positive_where_it_equals_what_the_spec_names(
    positive: object, label: object, expected: int
) -> None:
    spec = SPEC.model_copy(update={"outcome": SPEC.outcome.model_copy(update={"positive": positive})})
    assert outcome(spec, label=label).label == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (
            {"count": [1]},
            "features.count: [1] cannot be brought to the column's form integer; write a whole number, or its text",
        ),
        ({"rate": True}, "features.rate: True cannot be brought to the column's form decimal"),
        ({"flag": 1.0}, "features.flag: 1.0 cannot be brought to the column's form boolean"),
        ({"count": float("inf")}, "features.count: inf is not finite"),
        ({"rate": float("nan")}, "features.rate: nan is not finite"),
    ],
)
def test_what_cannot_be_brought_to_a_form_says_what_it_wants(value: dict[str, Any], why: str) -> None:
    letter = read_event(line({**FORMED, "features": {**FORMED["features"], **value}}), {"formed": FORMS}, NOW)
    assert isinstance(letter, DeadLetter)
    assert why in letter.reason


@pytest.mark.parametrize(("positive", "told"), [("1", "yes"), ("1", 2), ("true", "maybe"), (True, 2), (0, -1)])
def test_a_third_label_is_refused(positive: object, told: object) -> None:
    spec = SPEC.model_copy(update={"outcome": SPEC.outcome.model_copy(update={"positive": positive})})
    letter = read_event(line({**KNOWN, "label": told}), {"m": spec}, NOW)
    assert isinstance(letter, DeadLetter)
    assert letter.reason == f"label: {told!r} is neither {positive!r} (outcome.positive) nor its negation"


@pytest.mark.parametrize(
    ("positive", "negative", "takes", "refuses"),
    [
        (2, "1", (1, 2, 1.0, 2.0, True), (0, -7, 3, 0.5)),
        ("yes", "no", ("yes", "no", " no "), ("maybe", "", 0, False, "not yes")),
        (-1, 1, (1, -1, 1.0), (0, 2)),
        (1, "0", (0, 1, True, False), (2, -7, 0.5)),
    ],
)
def test_of_two_classes_that_are_known_a_third_is_refused(
    positive: object, negative: object, takes: tuple[object, ...], refuses: tuple[object, ...]
) -> None:
    known = SPEC.outcome.model_copy(update={"positive": positive, "negative": negative})
    spec = SPEC.model_copy(update={"outcome": known})
    assert {outcome(spec, label=label).label for label in takes} == {0, 1}
    for label in refuses:
        letter = read_event(line({**KNOWN, "label": label}), {"m": spec}, NOW)
        assert isinstance(letter, DeadLetter), label
        assert "is neither" in letter.reason


@pytest.mark.parametrize("told", [-1, -1.0, "-1"])
@pytest.mark.parametrize("spec", [SPEC, PRICE])
def test_a_label_that_stands_for_not_known_yet_is_refused(told: object, spec: ModelSpec) -> None:
    unknown = spec.model_copy(update={"outcome": spec.outcome.model_copy(update={"unknown": (-1,)})})
    letter = read_event(line({**KNOWN, "model": spec.name, "label": told}), {spec.name: unknown}, NOW)
    assert isinstance(letter, DeadLetter)
    assert (
        letter.reason == f"label: {told!r} stands for one that is not known yet (outcome.unknown); tell it once it is"
    )


def test_the_columns_whose_value_does_not_fit_their_form_are_told() -> None:
    of = {**FORMED, "features": {"x": 1, "kind": "any", "count": "many", "rate": 0.5, "flag": 2}}
    read = read_event(line(of), {"formed": FORMS}, NOW)
    assert isinstance(read, Prediction)
    assert off_form_of(read, FORMS) == ["count", "flag"]
    assert off_form_of(outcome(SPEC), SPEC) == []


def test_a_regression_takes_any_finite_score_and_label() -> None:
    assert outcome(PRICE, label=-3.5).label == -3.5
    assert prediction({**GOOD, "model": "price", "score": 1e6, "features": {"x": 1}}).score == 1e6
    assert "score: inf" in reason(
        line({**GOOD, "model": "price", "score": 1, "features": {"x": 1}}).replace(b'"score": 1', b'"score": 1e999')
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD.keys() | KNOWN.keys())), JSON, st.booleans())
def test_whatever_a_key_holds_it_is_an_event_that_a_frame_takes_or_a_dead_letter(
    key: str, value: object, of_outcome: bool
) -> None:
    event = read_event(line({**(KNOWN if of_outcome else GOOD), key: value}), SPECS, NOW)
    if isinstance(event, Prediction):
        assert predictions_frame(SPECS[event.model], [event])["_id"].to_list() == [event.id]
    elif isinstance(event, OutcomeKnown):
        assert outcomes_frame(SPECS[event.model], [event])["_id"].to_list() == [event.id]
    else:
        assert event.reason


@given(st.binary(max_size=300))
def test_any_bytes_are_a_dead_letter_with_their_payload(raw: bytes) -> None:
    letter = read_event(raw, SPECS, NOW)
    assert isinstance(letter, DeadLetter)
    assert letter.payload == raw.decode("utf-8", "replace")


def test_frames_have_the_columns_and_types_of_a_history(tmp_path: Path) -> None:
    rows = "t,i,e,l,v,s,x,kind,group,y\n2026-03-01T10:30:00Z,p1,u1,12,v7,0.25,3,a,,1\n2026-03-02,p2,u,1,v,0,1,a,g,0\n"
    (tmp_path / "h.csv").write_text(rows)
    history = read_history(tmp_path / "h.csv", SPEC).frame
    served = predictions_frame(SPEC, [prediction(GOOD)])
    facts = ["_id", "_time", "_version", "_route", "_score", "_latency_ms", "_entity"]
    assert served.columns == [*facts, *SPEC.watched, "_producer"]
    shared = [column for column in served.columns if column not in ("_route", "_producer")]
    assert served.select(shared).equals(history[:1].select(shared))
    assert served.select(shared).schema == history.select(shared).schema
    known = outcomes_frame(SPEC, [outcome(SPEC)])
    moment = pl.Datetime("us", "UTC")
    owned = {"_told_at": moment, "_producer": pl.String}
    assert known.schema == {"_id": pl.String, "_observed_at": moment, "_label": pl.Int8, **owned}
    assert outcomes_frame(PRICE, [outcome(PRICE, label=2)]).schema["_label"] == pl.Float64


def test_empty_frames_have_the_same_columns_and_types() -> None:
    assert predictions_frame(SPEC, []).schema == predictions_frame(SPEC, [prediction(GOOD)]).schema
    assert outcomes_frame(SPEC, []).schema == outcomes_frame(SPEC, [outcome(SPEC)]).schema


def test_an_offset_is_only_another_way_to_write_a_time() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert prediction({**GOOD, "time": east.isoformat()}).time == NOW
