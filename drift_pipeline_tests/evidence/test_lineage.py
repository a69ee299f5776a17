"""Lineage events say which table versions a bundle came from, and reach the file as OpenLineage writes them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drift_pipeline.control.store import Message
from drift_pipeline.errors import UnavailableError
from drift_pipeline.evidence.lineage import TOPIC, LineageFile, training_events

AT = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


def events() -> tuple[Message, ...]:
    return training_events("m", "v2", DIGEST, AT, {"predictions": 7, "outcomes": 3}, {"x": "numeric"})


def test_start_and_complete_are_one_run_with_the_table_versions_in_and_the_digest_out() -> None:
    start, complete = (message.body for message in events())
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    versions = {i["name"]: i["facets"]["version"]["datasetVersion"] for i in complete["inputs"]}
    assert versions == {"outcomes": "3", "predictions": "7"}
    assert [o["facets"]["version"]["datasetVersion"] for o in complete["outputs"]] == [DIGEST]
    assert "outputs" not in start or start["outputs"] == []


def test_the_same_training_told_twice_has_the_same_ids_and_another_version_has_others() -> None:
    assert events() == events()
    other = training_events("m", "v3", DIGEST, AT, {"predictions": 7}, {})
    assert not {m.id for m in other} & {m.id for m in events()}
    assert all(message.topic == TOPIC for message in other)


def test_the_file_holds_one_json_line_an_event(tmp_path: Path) -> None:
    channel = LineageFile(tmp_path / "lineage.jsonl")
    for message in events():
        channel.send(message)
    lines = (tmp_path / "lineage.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["eventType"] for line in lines] == ["START", "COMPLETE"]


def test_a_file_that_cannot_be_written_is_unavailable_and_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="nowhere"):
        LineageFile(tmp_path / "nowhere" / "lineage.jsonl").send(events()[0])
