"""Skew is counted row by row, by how two values differ; and a spec names one source, without a credential."""

import math
from typing import Any

import polars as pl
import pytest

from drift_pipeline.errors import SpecError
from drift_pipeline.spec import spec_of
from drift_pipeline.training.sources.skew import skew_of, worst
from drift_pipeline_tests.training.worlds import spec

SEEN: dict[str, list[Any]] = {"amount": [1.0, math.nan, None, math.inf], "device": ["a", "b", None, "c"]}


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({name: values * 50 for name, values in {**SEEN, **columns}.items()})


@pytest.mark.parametrize(
    ("stored", "counts"),
    [
        ({}, {}),
        ({"amount": [1.0 + 1e-9, None, math.nan, math.inf]}, {}),
        ({"amount": [1.0 + 1e-3, None, None, math.inf]}, {"lower": 50}),
        ({"amount": [0.5, 2.0, None, -math.inf]}, {"higher": 100, "only_stored": 50}),
        ({"amount": [None, None, None, None]}, {"only_seen": 100}),
        ({"device": ["a", "x", "y", None]}, {"other": 50, "only_stored": 50, "only_seen": 50}),
    ],
)
def test_rows_are_counted_by_how_they_differ(stored: dict[str, list[Any]], counts: dict[str, int]) -> None:
    found = skew_of(frame(), frame(**stored), spec(), "offline")
    worst_one = found.features[0]
    told = {name: getattr(worst_one, name) for name in ("only_seen", "only_stored", "higher", "lower", "other")}
    assert {name: count for name, count in told.items() if count} == counts
    assert (found.verdict, worst_one.unequal) == ("BREACH" if counts else "OK", sum(counts.values()))
    assert worst_one.share == worst_one.unequal / 200


def test_too_few_rows_or_a_store_that_knows_nothing_are_inconclusive() -> None:
    few, nothing = frame().head(40), frame(amount=[None] * 4, device=[None] * 4)
    assert skew_of(few, few, spec(), "offline").verdict == "INCONCLUSIVE"
    unknown = skew_of(frame(), nothing, spec(), "offline")
    assert (unknown.verdict, unknown.unknown) == ("INCONCLUSIVE", 200)
    apart = skew_of(frame(), frame(device=["z"] * 4), spec(), "online")
    assert worst([unknown, apart]) == "BREACH"


def test_what_is_allowed_to_differ_is_no_breach() -> None:
    stored = frame(device=["a", "b", None, "other"])
    assert [skew_of(frame(), stored, spec(), "offline", at_most=most).verdict for most in (0.25, 0.24)] == [
        "OK",
        "BREACH",
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"feast": {"repo": "r", "feature_service": "s"}}, "name columns.entity"),
        ({"databricks": {"table": "a.b.c"}}, "name columns.timestamp and prediction_id"),
        ({"databricks": {"table": "s3://key:secret@bucket/t"}}, "no credential stands in a spec"),
        ({"databricks": {"table": "a.b"}}, "should match pattern"),
        ({"feast": {"repo": "r", "feature_service": "s", "server": "http://u:p@h"}}, "should match pattern"),
        ({"feast": {"repo": "r", "feature_service": "s"}, "databricks": {"table": "a.b.c"}}, "one source"),
        ({"fest": {}}, "unknown key"),
    ],
)
def test_a_source_that_cannot_be_is_refused_with_its_place(source: object, said: str) -> None:
    document = {**spec().model_dump(mode="json"), "retrain": {"source": source}}
    with pytest.raises(SpecError, match=said):
        spec_of(document)


def test_the_lake_is_written_as_a_spec_without_a_source() -> None:
    document = spec().model_dump(mode="json")
    assert (
        spec_of({**document, "retrain": {**document["retrain"], "source": "lake"}}).model_dump(mode="json") == document
    )
    entity = {**document, "columns": {"entity": "user"}}
    feast = spec_of({**entity, "retrain": {"source": {"feast": {"repo": "r", "feature_service": "s"}}}})
    assert spec_of(feast.model_dump(mode="json")) == feast
    assert feast.trained_from_lake().retrain.source.kind == "lake"
