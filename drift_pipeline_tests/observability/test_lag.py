"""How far captures are behind: what they remember, and what is told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from drift_pipeline.cli.watch import _told_elsewhere
from drift_pipeline.clock import DAY, MINUTE
from drift_pipeline.control.store import Put
from drift_pipeline.observability import lag
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.telemetry.sources import Lag
from drift_pipeline_tests.observability.worlds import AT, World

SENT_AT = AT - 3 * MINUTE


def told_by(*lags: Lag, before: dict[str, Any] | None = None, ago: timedelta = timedelta()) -> dict[str, Any]:
    return lag.remembered(before or {}, lags, AT - ago)


def remember(world: World, body: dict[str, Any]) -> None:
    world.store.remember(Put("", CAPTURE, {"at": AT.isoformat(), "events": {}, **body}))


def test_each_partition_has_a_sample_and_an_age_where_it_is_known(world: World) -> None:
    remember(world, told_by(Lag("t", 0, 7, SENT_AT.timestamp()), Lag("t", 1, 5, None), Lag("u", 0, 0, None)))
    told = world.told()
    assert told["drift_kafka_lag_messages"] == {("t", "0"): 7, ("t", "1"): 5, ("u", "0"): 0}
    assert told["drift_kafka_oldest_message_timestamp_seconds"] == {("t", "0"): SENT_AT.timestamp()}


def test_of_very_many_partitions_those_with_the_most_are_told(world: World) -> None:
    remember(world, told_by(*(Lag("t", number, number, None) for number in range(1000))))
    found = world.told()["drift_kafka_lag_messages"]
    assert sorted(found.values()) == list(range(1000 - lag.MOST, 1000))


def test_what_no_capture_told_for_minutes_is_not_known_and_in_a_day_forgotten(world: World) -> None:
    old = told_by(Lag("t", 0, 7, None), ago=timedelta(minutes=6))
    assert lag.told(old, AT) == ["of 1 partitions no capture told for 5 minutes how many messages wait"]
    remember(world, old)
    assert "drift_kafka_lag_messages" not in world.told()
    later = told_by(Lag("t", 1, 0, None), before=old)
    assert [place for place, _ in lag.known(later, AT)] == [("t", "1")]
    assert len(later["lag"]) == 2
    assert len(lag.remembered(later, [], AT + DAY - MINUTE)["lag"]) == 1
    assert lag.remembered(later, [], AT + DAY) == {}


@pytest.mark.parametrize(
    ("lags", "said"),
    [
        ((), []),
        ((Lag("t", 0, 0, None),), []),
        ((Lag("t", 0, 7, None),), ["7 messages wait, 7 of them in partition 0 of t"]),
        (
            (Lag("t", 0, 700, SENT_AT.timestamp()), Lag("t", 1, 800, None)),
            ["1,500 messages wait, 800 of them in partition 1 of t, the oldest sent 3 min ago"],
        ),
        (
            (Lag("t", 0, 9, None), Lag("t", 0, 4, None)),  # of two brokers: a series has one sample
            ["9 messages wait, 9 of them in partition 0 of t"],
        ),
    ],
)
def test_people_are_told_of_what_waits(lags: tuple[Lag, ...], said: list[str]) -> None:
    assert lag.told(told_by(*lags), AT) == said


def test_status_tells_it_of_the_home(world: World) -> None:
    remember(world, lag.remembered({}, [Lag("t", 3, 1200, None)], datetime.now(UTC)))
    assert list(_told_elsewhere(world.settings.home)) == [
        "kafka: 1,200 messages wait, 1,200 of them in partition 3 of t",
    ]
