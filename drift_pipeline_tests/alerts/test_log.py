"""LogChannel: every alert is a line of its own, also after a writer that died."""

import json
from pathlib import Path

import pytest

from drift_pipeline.alerts.channels.log import LogChannel
from drift_pipeline.control.store import Message
from drift_pipeline.errors import UnavailableError


def alert(number: int) -> Message:
    return Message(f"fraud:{number}", "alerts", {"what": "incident.opened", "why": "ψ rose\nby much"})


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_alert_is_a_line_with_its_id(tmp_path: Path) -> None:
    channel = LogChannel(tmp_path / "alerts.jsonl")
    for number in (1, 2):
        channel.send(alert(number))
    assert lines(tmp_path / "alerts.jsonl") == [{"id": f"fraud:{n}", **alert(n).body} for n in (1, 2)]


def test_the_same_alert_twice_is_the_same_line_twice(tmp_path: Path) -> None:
    """At least once: the reader knows it by its id."""
    channel = LogChannel(tmp_path / "alerts.jsonl")
    channel.send(alert(1))
    channel.send(alert(1))
    first, second = lines(tmp_path / "alerts.jsonl")
    assert first == second


def test_a_line_that_a_dead_writer_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"id": "half')
    LogChannel(path).send(alert(1))
    half, whole = path.read_text(encoding="utf-8").splitlines()
    assert half == '{"id": "half'
    assert json.loads(whole)["id"] == "fraud:1"


def test_a_file_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="the alert cannot be written"):
        LogChannel(tmp_path / "absent" / "alerts.jsonl").send(alert(1))
