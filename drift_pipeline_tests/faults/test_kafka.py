"""Kafka against what breaks: brokers and captures that are killed, partitions that move, logs that lose their start."""

import shutil
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event as Stop
from typing import Any

import pytest
from confluent_kafka import Message

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import UnavailableError
from drift_pipeline.serving.refused import telling
from drift_pipeline.telemetry.capture import Captured
from drift_pipeline.telemetry.delta import OvertakenError
from drift_pipeline.telemetry.refusals import Refused
from drift_pipeline_tests.parts.kafka import Kafka
from drift_pipeline_tests.telemetry.test_capture import NOW, SPECS, TABLES, Site, mirror, outcome, prediction
from drift_pipeline_tests.telemetry.topics import KafkaSite, Topic, child, landed, tried, until

pytestmark = pytest.mark.live  # a real broker


def traffic(count: int, name: str = "p") -> list[dict[str, Any]]:
    now = SystemClock().now() - timedelta(seconds=1)
    return [prediction(f"{name}{n}", now) for n in range(count)]


# the same rows as by the spool


def test_a_topic_lands_as_the_spool_does(topic: Topic, sites: Any, tmp_path: Path) -> None:
    events: list[Any] = [
        prediction("a"),
        prediction("b", model="n"),
        outcome("a"),
        b"poison",
        prediction("late", NOW - 9 * DAY),
        prediction("a"),
        outcome("a"),
        prediction("c", score=None, entity="u1", latency_ms=3.5),
    ]
    topic.send(*events, partition=0)
    site, spooled = sites(topic.url), Site(tmp_path / "spooled", mirror=mirror)
    assert site.capture.once(Stop()) == spooled.take(*events)
    for model in ("m", "n"):
        for table in TABLES[:-1]:
            assert site.rows(table, model).equals(spooled.rows(table, model))
    ours, theirs = (one.rows("dead_letters", "dead_letters").drop("_id", "_source") for one in (site, spooled))
    assert ours.equals(theirs)
    site.begin()
    assert site.capture.once(Stop()) == Captured()


def test_what_is_no_event_goes_to_the_dead_letter_topic_as_it_came(topic: Topic, sites: Any) -> None:
    letters = Topic(topic.brokers)
    topic.send(b"poison\nin lines", prediction("a"), partition=0)
    topic.send({**prediction("b"), "features": {}}, partition=0, headers=[("trace", b"t1")])
    site = sites(topic.url, kafka_dead_letters=letters.name)
    assert site.capture.once(Stop()) == Captured(1, predictions=1, dead_letters=2)
    poison, wrong = sorted(letters.read(2), key=lambda one: headers(one)["drift.offset"])
    assert (poison.key(), poison.value()) == (None, b"poison\nin lines")
    assert headers(poison) == {
        "drift.reason": b"not JSON: Expecting value: line 1 column 1 (char 0)",
        "drift.topic": topic.name.encode(),
        "drift.partition": b"0",
        "drift.offset": b"0",
    }
    assert (wrong.key(), headers(wrong)["trace"]) == (b"b", b"t1")
    assert b"missing" in headers(wrong)["drift.reason"]
    assert site.rows("dead_letters", "dead_letters").height == 2


def headers(message: Message) -> dict[str, bytes]:
    found: Any = message.headers()
    return dict(found)


def test_much_poison_lets_the_rest_through_moves_the_offset_on_and_alerts(topic: Topic, sites: Any) -> None:
    good, bad = [prediction(f"p{n}") for n in range(40)], [{**prediction(f"q{n}"), "features": {}} for n in range(25)]
    topic.send(*good[:20], *bad, *good[20:], b"poison", partition=0)
    site = sites(topic.url)
    assert site.capture.once(Stop()) == Captured(1, predictions=40, dead_letters=26)
    assert site.capture.refused() == [Refused("m", 25, 65)]  # one alone is a slip
    site.begin()
    assert site.capture.once(Stop()) == Captured()
    with closing(open_store(site.settings, site.clock)) as store, telling(site.settings, SPECS, site.clock) as tell:
        tell([Refused("m", 25, 65)])
        (alert,) = store.pending(topic="alerts")
    assert (alert.body["what"], alert.body["model"]) == ("events.laid_aside", "m")
    assert "25 of the last 65 events were laid aside" in alert.body["why"]


def test_without_the_dead_letter_topic_nothing_is_passed_over(topic: Topic, sites: Any) -> None:
    letters = Topic(topic.brokers)
    letters.delete()
    topic.send(prediction("a"), b"poison")
    site = sites(topic.url, kafka_dead_letters=letters.name)
    with pytest.raises(UnavailableError, match="takes no dead letters: there is no such topic; create it"):
        site.capture.once(Stop())
    letters.make()

    def goes_on() -> bool:
        with suppress(UnavailableError):  # for as long as the client remembers that there was none
            site.capture.once(Stop())
            return True
        return False

    until(goes_on, "the topic is known")
    assert letters.read(1)[0].value() == b"poison"
    assert (site.ids(), site.rows("dead_letters", "dead_letters").height) == (["a"], 1)


# what breaks in mid-batch


def test_a_broker_that_is_killed_in_mid_batch_costs_nothing(kafka_broker: Kafka, topic: Topic, sites: Any) -> None:
    site = sites(topic.url)
    topic.send(*(prediction(f"a{n}") for n in range(50)))

    alive = [1]

    def kills(model: str, frame: Any) -> Any:
        if alive and alive.pop():
            kafka_broker.server.kill()
        return mirror(model, frame)

    site.mirror = kills
    site.begin()
    try:
        until(lambda: tried(site) and len(site.ids()) == 50, "what came before has landed: the lake needs no broker")
        with pytest.raises(UnavailableError, match=r"no broker answers; capture waits for it"):
            until(lambda: site.capture.step() and False, "the broker is missed")
    finally:
        kafka_broker.server.start()
    topic.send(*(prediction(f"a{n}") for n in range(40, 60)))
    until(lambda: tried(site) and len(site.ids()) == 60, "the rest has landed")
    site.begin()
    site.capture.once(Stop())
    assert sorted(site.ids()) == sorted(f"a{n}" for n in range(60))
    assert len(site.ids("shadow")) == 60


def test_captures_that_are_killed_while_partitions_move_land_each_event_once(
    kafka_broker: Kafka, tmp_path: Path
) -> None:
    topic, count = Topic(kafka_broker.brokers, partitions=4), 3000
    events, group = traffic(count), "movers"
    with ExitStack() as stack:
        stack.enter_context(child(tmp_path, topic.url, group))
        second = child(tmp_path, topic.url, group)
        process = second.__enter__()
        for start in range(0, count, 300):
            topic.send(*events[start : start + 300])
            if start == 900:
                until(lambda: landed(tmp_path).height >= 300, "something has landed")
                process.kill()
            if start == 1800:
                stack.enter_context(child(tmp_path, topic.url, group))
        second.__exit__(None, None, None)
        until(lambda: landed(tmp_path).height >= count, "all has landed")
        topic.send(*events[:500])  # a producer tries again
        topic.send(*traffic(200, "last"))
        until(lambda: landed(tmp_path)["_id"].str.starts_with("last").sum() == 200, "the last has landed")
    found = landed(tmp_path)["_id"].to_list()
    assert len(found) == len(set(found)) == count + 200


def test_a_capture_that_lost_its_partition_unawares_writes_nothing(topic: Topic, sites: Any) -> None:
    """Another one, to which the first is dead, lands all that it has in its hands, and more."""
    site, other = sites(topic.url), sites(topic.url)
    topic.send(*(prediction(f"{n}") for n in range(5)))
    (held,) = _looked(site)
    topic.send(*(prediction(f"{n}") for n in range(5, 9)))
    other.capture.once(Stop())
    assert len(site.ids()) == 9
    site.log.batches = lambda _: (one for one in [held])
    with pytest.raises(OvertakenError):
        site.capture.step()
    del site.log.batches
    site.capture.once(Stop())
    assert sorted(site.ids()) == [f"{n}" for n in range(9)]


def _looked(site: KafkaSite) -> list[Any]:
    """The batches of a look that is given up before any is done."""
    found: list[Any] = []

    def look() -> bool:
        assert site.log is not None
        batches = site.log.batches(Stop())
        found.extend(one for one in [next(batches, None)] if one is not None)
        batches.close()
        return bool(found)

    until(look, "a batch has come")
    return found


# logs that are not what they were


def test_a_topic_that_is_made_again_with_lower_offsets_is_read_from_its_start(topic: Topic, sites: Any) -> None:
    site = sites(topic.url)
    topic.send(*(prediction(f"old{n}") for n in range(30)))
    site.capture.once(Stop())
    topic.delete()
    topic.make()
    topic.send(*(prediction(f"new{n}") for n in range(10)))
    until(lambda: tried(site) and len(site.ids()) == 40, "the new topic's events have landed")
    topic.send(*(prediction(f"newer{n}") for n in range(40)))
    site.begin()
    site.capture.once(Stop())
    assert len(site.ids()) == 80


@pytest.mark.parametrize("running", [True, False], ids=["running", "restarted"])
def test_what_retention_took_before_it_was_read_is_told(topic: Topic, sites: Any, running: bool) -> None:
    site = sites(topic.url)
    topic.send(*(prediction(f"a{n}") for n in range(5)))
    site.capture.once(Stop())
    if not running:
        site.close()
    topic.send(*(prediction(f"b{n}") for n in range(20)))
    if running:
        _looked(site)  # and could not land them
    topic.forget_before(15)
    if not running:
        site.begin()
    until(lambda: tried(site) and len(site.ids()) >= 15, "what is left has landed")
    assert sorted(site.ids()) == sorted([*(f"a{n}" for n in range(5)), *(f"b{n}" for n in range(10, 20))])
    (reason,) = site.rows("dead_letters", "dead_letters")["_reason"]
    assert reason.startswith(f"lost: offsets 5 to 14 of partition 0 of {topic.name} were deleted before")


def test_a_home_of_a_copy_reads_again_what_the_copy_lacks(topic: Topic, sites: Any, tmp_path: Path) -> None:
    """Whatever the group has committed: the lake says where to read on."""
    site = sites(topic.url, group="of-the-home")
    topic.send(*(prediction(f"a{n}") for n in range(5)))
    site.capture.once(Stop())
    shutil.copytree(tmp_path / "lake", tmp_path / "kept")
    topic.send(*(prediction(f"b{n}") for n in range(5)))
    site.capture.once(Stop())
    site.close()
    shutil.rmtree(tmp_path / "lake")
    shutil.copytree(tmp_path / "kept", tmp_path / "lake")
    site.begin()
    site.capture.once(Stop())
    assert len(site.ids()) == 10
