"""How far captures are behind the partitions that they read, in what capture remembers: pure.

A figure that nobody told for some minutes is none any more: its capture is dead, or its broker does not answer.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from drift_pipeline.clock import DAY, MINUTE
from drift_pipeline.telemetry.sources import Lag

MOST = 100  # partitions in the metrics
_KEY, _HOLDS, _FORGOTTEN = "lag", 5 * MINUTE, DAY
Known = tuple[tuple[str, str], tuple[int, datetime | None]]


def remembered(before: Mapping[str, Any], found: Iterable[Lag], now: datetime) -> dict[str, Any]:
    """What is added to what capture remembered: the partitions of other captures of the home stay as they were."""
    kept = {place: one for place, one in before.get(_KEY, {}).items() if now - _moment(one["at"]) < _FORGOTTEN}
    for one in sorted(found, key=lambda one: one.messages):  # the worst, where two brokers have a topic of one name
        oldest_at = None if one.oldest_at is None else datetime.fromtimestamp(one.oldest_at, UTC).isoformat()
        told = {"messages": one.messages, "oldest_at": oldest_at, "at": now.isoformat()}
        kept[f"{one.topic}/{one.partition}"] = told
    return {_KEY: kept} if kept else {}


def known(body: Mapping[str, Any], now: datetime) -> list[Known]:
    """Of topic and partition the messages that wait, and when the oldest was sent; the most first."""
    found = list[Known]()
    for place, one in body.get(_KEY, {}).items():
        if now - _moment(one["at"]) < _HOLDS:
            topic, _, partition = place.rpartition("/")
            oldest_at = _moment(one["oldest_at"]) if one["oldest_at"] else None
            found.append(((topic, partition), (one["messages"], oldest_at)))
    return sorted(found, key=lambda one: (-one[1][0], one[0]))


def told(body: Mapping[str, Any], now: datetime) -> list[str]:
    """What waits, in words; nothing where nothing does."""
    found, partitions = known(body, now), len(body.get(_KEY, {}))
    lines = []
    if waiting := sum(messages for _, (messages, _) in found):
        (topic, partition), (most, _) = found[0]
        oldest_at = min((at for _, (_, at) in found if at is not None), default=None)
        age = f", the oldest sent {max(now - oldest_at, timedelta()) // MINUTE} min ago" if oldest_at else ""
        lines.append(f"{waiting:,} messages wait, {most:,} of them in partition {partition} of {topic}{age}")
    if unknown := partitions - len(found):
        lines.append(f"of {unknown} partitions no capture told for 5 minutes how many messages wait")
    return lines


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
