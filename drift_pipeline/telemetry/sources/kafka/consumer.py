"""Topics as a way in: partitions that the consumer group gives to this capture, read on from where the lake stands.

The group only says whose a partition is; how far it was read is in the lake (`positions`), where a capture that lost it
unawares writes nothing any more. A log is named by its topic's id, which a topic that is made again has anew.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Event as Stop

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from drift_pipeline.clock import Clock
from drift_pipeline.errors import IntegrityError, UnavailableError
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.event import DeadLetter
from drift_pipeline.telemetry.sources import Batch
from drift_pipeline.telemetry.sources.kafka.client import (
    ANSWER_S,
    Address,
    configuration,
    made,
    topic_ids,
    words,
)
from drift_pipeline.telemetry.sources.kafka.letters import Letters
from drift_pipeline.telemetry.sources.kafka.schemas import decoder
from drift_pipeline.telemetry.sources.positions import Positions

BATCH_BYTES, BATCH_MESSAGES = 8_000_000, 20_000  # of one look; librdkafka holds twice the bytes before it fetches more
_AT_ONCE = 500
_WAIT_S = 0.2  # for the first message of a look
_GROUP = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # an offset that is gone is told, never skipped
    "enable.partition.eof": True,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,  # so long the partitions of a capture that was killed wait for another
    "queued.max.messages.kbytes": 16_384,
}

_OF_ONE_BROKER = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE}

log = logging.getLogger(__name__)


@dataclass
class _Held:
    """A partition of ours. `source` is empty until its topic's id and its position are known."""

    topic: str
    number: int
    source: str = ""
    read_to: int = -1
    is_at_end: bool = False
    seen_at: float | None = None

    def at(self, offset: int) -> TopicPartition:
        return TopicPartition(self.topic, self.number, offset)


_Place = tuple[str, int]


class KafkaLog:
    """A `Source`: the topics of one address."""

    def __init__(
        self, address: Address, settings: Settings, group: str, positions: Positions, now: Callable[[], datetime]
    ) -> None:
        """
        Raises:
            InputError: the settings cannot be used.
        """
        self._address, self._positions, self._now = address, positions, now
        self._held: dict[_Place, _Held] = {}
        self._messages: dict[int, Message] = {}  # of the batch that was told last
        self._trouble: KafkaError | None = None
        self._detail: KafkaError | None = None
        config = configuration(address, settings, self._hear)
        self._decode = decoder(settings)
        self._letters = Letters(settings.kafka_dead_letters, config)
        self._admin = made(AdminClient, config)
        self._consumer = made(Consumer, {**config, **_GROUP, "group.id": settings.kafka_group or group})
        self._consumer.subscribe(
            list(address.topics), on_assign=self._given, on_revoke=self._taken, on_lost=self._taken
        )

    def batches(self, stop: Stop) -> Generator[Batch, None, None]:
        """As `Source`; a batch is of one partition."""
        pending = self._gather(stop)
        try:
            if pending or not all(one.source for one in self._held.values()):
                self._settle(topic_ids(self._admin, self._address), pending)
            elif self._trouble is not None:
                error, self._trouble = self._trouble, None
                raise UnavailableError(f"{self._address}: {words(KafkaException(error))}; capture waits for it")
            for place in list(pending):
                if stop.is_set():
                    break
                held = self._held[place]
                batch = self._batch(held, pending[place])
                yield batch
                if held.read_to == batch.number:
                    del pending[place]
        finally:
            for place in pending.keys() & self._held.keys():
                self._held[place].source = ""  # also where another capture went on from here

    def done(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """As `Source`."""
        held = next(one for one in self._held.values() if one.source == batch.source)
        self._letters.send([(self._messages[place], reason) for place, reason in refused.items()])
        self._positions.advance(batch.source, batch.number, batch.after)
        held.read_to, held.seen_at = batch.number, None
        with suppress(KafkaException):  # for people who look at the group's lag; the lake is what counts
            self._consumer.commit(offsets=[held.at(batch.number + 1)], asynchronous=True)

    @property
    def is_behind(self) -> bool:
        return not all(one.source and one.is_at_end for one in self._held.values())

    @property
    def is_at_end(self) -> bool:
        return bool(self._held) and all(one.source and one.is_at_end for one in self._held.values())

    def waiting_since(self) -> float | None:
        return min((one.seen_at for one in self._held.values() if one.seen_at is not None), default=None)

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session's end."""
        self._consumer.close()

    def _hear(self, error: KafkaError) -> None:
        """Of one broker of several only that its name is not known is told, once none answers."""
        if error.code() in _OF_ONE_BROKER:
            self._detail = error if error.code() == KafkaError._RESOLVE else None
        else:
            of_all = error.code() == KafkaError._ALL_BROKERS_DOWN
            self._trouble = self._detail if of_all and self._detail else error

    def _given(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What may fail, such as to look where they stand, is done outside of a callback: until then they rest."""
        resting = [TopicPartition(one.topic, one.partition, 0) for one in partitions]
        consumer.incremental_assign(resting)
        consumer.pause(resting)
        for one in partitions:
            self._held[one.topic, one.partition] = _Held(one.topic, one.partition)

    def _taken(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._held.pop((one.topic, one.partition), None)

    def _gather(self, stop: Stop) -> dict[_Place, list[Message]]:
        """What has come, by partition, as far as it is ours to read."""
        found: dict[_Place, list[Message]] = defaultdict(list)
        size, count, wait_s = 0, 0, _WAIT_S
        while size < BATCH_BYTES and count < BATCH_MESSAGES and not stop.is_set():
            some = self._consumer.consume(_AT_ONCE, wait_s)
            for one in some:
                if one.error() is not None:
                    self._meet(one)
                    continue
                place = one.topic(), one.partition()
                if place in self._held and one.offset() > self._held[place].read_to:
                    self._held[place].is_at_end = False
                    found[place].append(one)
                    size, count = size + len(one.value() or b""), count + 1
            if not some:
                break
            wait_s = 0
        for place in found.keys() - self._held.keys():  # taken away meanwhile
            del found[place]
        for place, messages in found.items():
            held = self._held[place]
            held.seen_at = held.seen_at or messages[0].timestamp()[1] / 1000
        return found

    def _meet(self, one: Message) -> None:
        """What the queue holds beside messages."""
        error, held = one.error(), self._held.get((one.topic(), one.partition()))
        if error.code() == KafkaError._PARTITION_EOF and held is not None:
            held.is_at_end = True
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and held is not None:
            held.source = ""  # looked at anew
        elif error.code() != KafkaError._PARTITION_EOF:
            self._trouble = error

    def _settle(self, ids: Mapping[str, str], pending: dict[_Place, list[Message]]) -> None:
        """Let partitions begin where the lake stands. No message is kept of those, nor of a topic that was made again:
        the ids are asked for when the messages are here, so that those are of the topic that had the id before."""
        for place, held in self._held.items():
            source = f"kafka.{held.topic[:100]}.{ids[held.topic]}.{held.number}"
            if held.source != source:
                pending.pop(place, None)
                held.read_to, held.source = self._positions.of(source), source
                self._past_what_is_gone(held)
                self._read_on(held)

    def _past_what_is_gone(self, held: _Held) -> None:
        """Where retention was faster than capture, that is laid down for people, and capture goes on behind it."""
        if held.read_to < 0:
            return
        try:
            low, high = self._consumer.get_watermark_offsets(held.at(0), timeout=ANSWER_S)
        except KafkaException as error:
            held.source = ""
            raise UnavailableError(f"{self._address}: {words(error)}; capture waits for it") from error
        first = held.read_to + 1
        if first > high:
            held.source = ""
            raise IntegrityError(
                f"{self._address}: partition {held.number} of {held.topic} ends at {high}, and {first} was to be read "
                f"next: its broker lost messages that had landed; make the topic anew, or bring them back"
            )
        if first < low:
            reason = (
                f"lost: offsets {first} to {low - 1} of partition {held.number} of {held.topic} were deleted before "
                f"they were read; let the topic keep its messages for longer (retention.ms, retention.bytes)"
            )
            letter = DeadLetter(self._now(), held.source, "", reason, "")
            self._positions.advance(held.source, low - 1, held.read_to, [letter])
            held.read_to = low - 1
            log.error("%s: %s", self._address, reason)

    def _read_on(self, held: _Held) -> None:
        """From its position on, whatever was fetched already."""
        offset = held.at(held.read_to + 1 if held.read_to >= 0 else OFFSET_BEGINNING)
        held.is_at_end = False
        try:
            self._consumer.incremental_unassign([offset])
            self._consumer.incremental_assign([offset])
            self._consumer.resume([offset])
        except KafkaException as error:  # it is being taken away
            log.debug("%s: %s", self._address, words(error))
            held.source = ""

    def _batch(self, held: _Held, messages: list[Message]) -> Batch:
        self._messages = {one.offset(): one for one in messages}
        values, unread = [], dict[int, str]()
        for offset, one in self._messages.items():
            value = one.value() or b""
            try:
                values.append(self._decode(held.topic, value))
            except ValueError as error:
                values.append(value)
                unread[offset] = str(error)
        places, sent_at = list(self._messages), messages[0].timestamp()[1] / 1000
        number = messages[-1].offset()
        return Batch.of(held.source, held.read_to, number, values, places, sent_at, unread)


@contextmanager
def reading(url: str, settings: Settings, group: str, positions: Positions, clock: Clock) -> Iterator[KafkaLog]:
    """A member of the group until it is left."""
    log = KafkaLog(Address.of(url), settings, group, positions, clock.now)
    try:
        yield log
    finally:
        log.close()
