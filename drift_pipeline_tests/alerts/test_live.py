"""With real processes and servers: a kill between sending and marking, and Pub/Sub by Google's own fake server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.alerts import delivery
from drift_pipeline.alerts.alert import Action, dedup_key
from drift_pipeline.alerts.channels.pubsub import PubSub, Sender
from drift_pipeline.alerts.delivery import Alerting, recalled
from drift_pipeline.clock import HOUR, MINUTE, SystemClock
from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop.operating import close_incident
from drift_pipeline.settings import Settings, secret
from drift_pipeline_tests.alerts import killed
from drift_pipeline_tests.alerts.test_channels import HOSTILE, ROUTING_KEY, alert
from drift_pipeline_tests.alerts.worlds import KEY, World, listening
from drift_pipeline_tests.parts.fixtures import pubsub_server
from drift_pipeline_tests.parts.pubsub import PubSub as Server
from drift_pipeline_tests.test_loop import World as Loop

__all__ = ["pubsub_server"]
pytestmark = pytest.mark.live


# killed


def test_kill_9_between_sending_and_marking_sends_again_under_the_same_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more beyond that nothing: the receiver's dedup key takes up what came twice."""
    monkeypatch.setenv("PD_KEY", ROUTING_KEY)
    with listening() as at:
        world.routes({"pager": {"kind": "pagerduty", "secret": "PD_KEY", "url": at.url}})
        Alerting(world.settings, world.store, world.clock)
        world.opened("fraud")
        world.opened("other")
        environment = {**os.environ, "DRIFT_ALERTS": str(world.settings.alerts_file), "DRIFT_PAGES_URL": "http://pages"}
        command = [sys.executable, "-m", killed.__name__, str(world.settings.home)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert (ran.returncode, len(at.posted)) == (-signal.SIGKILL, 1), ran.stderr
        alerting = Alerting(world.settings, world.store, world.clock)
        end = time.monotonic() + delivery.LEASE_S + 60
        while len(at.posted) < 3 and time.monotonic() < end:  # the lease of the one that was killed
            alerting.deliver()
            time.sleep(0.5)
        alerting.deliver()
        first, second = (dedup_key(f"production/{model}/{KEY}") for model in ("fraud", "other"))
        assert [one["dedup_key"] for one in at.documents] == [first, first, second]
        assert at.documents[0] == at.documents[1]


# Pub/Sub


class Subscriber:
    """Somebody's subscription to a new topic."""

    def __init__(self, topic: str) -> None:
        from google.cloud import pubsub_v1

        self._publisher, self._client = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        self._topic = self._publisher.topic_path("my-project", topic)
        self.name = self._client.subscription_path("my-project", topic)
        self.make()

    def make(self) -> None:
        """The topic and the subscription; of a server that was killed nothing is left."""
        self._publisher.create_topic(name=self._topic)
        self._client.create_subscription(
            request={"name": self.name, "topic": self._topic, "enable_message_ordering": True}
        )

    def pull(self) -> list[Any]:
        """What waits, acknowledged; waited for a moment."""
        from google.api_core.exceptions import DeadlineExceeded

        try:
            got = self._client.pull(subscription=self.name, max_messages=100, timeout=5).received_messages
        except DeadlineExceeded:
            return []
        if got:
            self._client.acknowledge(subscription=self.name, ack_ids=[one.ack_id for one in got])
        return [one.message for one in got]

    def pulled(self, wanted: int) -> list[Any]:
        """So many messages, in the order in which they came."""
        found, end = list[Any](), time.monotonic() + 60
        while len(found) < wanted and time.monotonic() < end:
            found += self.pull()
        return found

    def close(self) -> None:
        self._client.close()
        self._publisher.stop()


@pytest.fixture
def subscriber(pubsub_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Subscriber]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_server.url)
    made = Subscriber(f"alerts-{abs(hash(tmp_path))}")
    yield made
    made.close()


def channel(subscriber: Subscriber) -> PubSub:
    return PubSub(kind="pubsub", project="my-project", topic=subscriber.name.rpartition("/")[2])


def test_pubsub_has_each_alert_as_a_cloud_event_in_the_order_of_its_incident(subscriber: Subscriber) -> None:
    sender: Sender = channel(subscriber).receiver(secret)
    sent = [alert(action, incident=f"production/m{n}/k") for action in Action for n in range(5)]
    for one in [*sent, HOSTILE]:
        sender.send(one)
    got = subscriber.pulled(len(sent) + 1)
    assert len(got) == len(sent) + 1
    for n in range(5):
        of = [one for one in got if one.ordering_key == dedup_key(f"production/m{n}/k")]
        assert [one.attributes["action"] for one in of] == [str(action) for action in Action]
        events = [json.loads(one.data) for one in of]
        assert {one["specversion"] for one in events} == {"1.0"}
        assert {one.attributes["content-type"] for one in of} == {"application/cloudevents+json"}
        assert [one["data"]["incident"] for one in events] == [f"production/m{n}/k"] * 3
        assert {one["data"]["dedup_key"] for one in events} == {of[0].ordering_key}  # for who pages


def test_a_drift_is_told_once_through_pubsub_and_so_is_its_end(subscriber: Subscriber, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    loop = Loop(tmp_path / "home")
    settings = Settings(home=tmp_path / "home", database="", alerts_file=tmp_path / "alerts.yaml")
    route = {"severity": "page", "model": "fraud", "channels": ["bus"]}
    assert settings.alerts_file is not None
    settings.alerts_file.write_text(
        yaml.safe_dump({"channels": {"bus": channel(subscriber).model_dump()}, "routes": [route]})
    )
    try:
        outbox, key = Alerting(settings, loop.store, SystemClock()), loop.drift()
        for _ in range(2):
            outbox.deliver(60)
        loop.day()  # which finds it again
        close_incident(loop.loop, "ada", "seen")
        for _ in range(2):
            outbox.deliver(60)
        kept = recalled(loop.store, "bus")[0]
    finally:
        loop.store.close()
    told = [json.loads(one.data)["data"] for one in subscriber.pulled(2)]
    assert [(one["action"], one["incident"]) for one in told] == [
        (action, f"production/fraud/{key}") for action in ("trigger", "resolve")
    ]
    assert told[0]["columns"][0].startswith("amount: up, PSI ")
    assert kept is not None
    assert (kept.sent, kept.lost, kept.failures) == (2, 0, 0)


def test_a_topic_that_is_not_there_is_unavailable_and_its_incident_goes_on_once_it_is(subscriber: Subscriber) -> None:
    sender = PubSub(kind="pubsub", project="my-project", topic="no-such-topic").receiver(secret)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="NotFound"):
            sender.send(alert())
    there = Sender(sender.client, subscriber._topic)
    there.send(alert())
    assert len(subscriber.pulled(1)) == 1


def test_pubsub_that_was_down_has_all_of_it_in_order_once_it_is_back(
    world: World, pubsub_server: Server, subscriber: Subscriber
) -> None:
    world.routes({"bus": channel(subscriber).model_dump()})
    alerting = Alerting(world.settings, world.store, world.clock)
    pubsub_server.server.kill()
    for step in (world.opened, lambda: world.followed("acknowledged"), lambda: world.followed("closed")):
        step()  # type: ignore[no-untyped-call]
        alerting.deliver(30)
        world.clock.advance_to(world.clock.now() + MINUTE)
    kept = recalled(world.store, "bus")[0]
    assert kept is not None
    assert (kept.sent, kept.failures > 0) == (0, True)
    pubsub_server.server.start()
    subscriber.make()
    end = time.monotonic() + 60
    while (kept := recalled(world.store, "bus")[0]) is not None and kept.sent < 3 and time.monotonic() < end:
        world.clock.advance_to(world.clock.now() + HOUR)
        alerting.deliver(30)
    assert [one.attributes["action"] for one in subscriber.pulled(3)] == [str(action) for action in Action]
