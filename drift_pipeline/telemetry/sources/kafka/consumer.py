"""Topics as a way in: partitions that the consumer group gives to this capture, read on from where the lake stands.

The group only says whose a partition is; how far it was read is in the lake (`positions`), where a capture that lost it
unawares writes nothing any more. A log is named by its topic's id, which a topic that is made again has anew.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Event as Stop

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from drift_pipeline.clock import Clock
from drift_pipeline.errors import DriftError, UnavailableError
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.sources import Batch, Lag
from drift_pipeline.telemetry.sources.kafka.client import (
    Address,
    configuration,
    made,
    topic_ids,
    words,
)
from drift_pipeline.telemetry.sources.kafka.letters import Letters
from drift_pipeline.telemetry.sources.kafka.partitions import Held, Partitions, Place, offset_of
from drift_pipeline.telemetry.sources.kafka.schemas import decoder
from drift_pipeline.telemetry.sources.positions import Positions

BATCH_BYTES, BATCH_MESSAGES = 8_000_000, 20_000  # of one look; librdkafka holds twice the bytes before it fetches more
_AT_ONCE = 500
_ASK_EVERY_S = 10.0  # whether a topic was made again, where no message comes
_HEARD_S = 60.0  # so long ago a broker may have answered for what it told of the end of its logs to be known
_WAIT_S = 0.2  # for the first message of a look
_GROUP = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # an offset that is gone is told, never skipped
    "enable.partition.eof": True,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,  # so long the partitions of a capture that was killed wait for another
    "topic.metadata.refresh.interval.ms": 5000,  # until a topic that is made is known
    "queued.max.messages.kbytes": 16_384,
}

_REASONS = {KafkaError._RESOLVE, KafkaError._AUTHENTICATION, KafkaError._SSL}  # of one broker of perhaps several

log = logging.getLogger(__name__)


class KafkaLog:
    """A `Source`: the topics of one address."""

    def __init__(
        self, address: Address, settings: Settings, group: str, positions: Positions, now: Callable[[], datetime]
    ) -> None:
        """
        Raises:
            InputError: the settings cannot be used.
        """
        self._address, self._positions = address, positions
        self._messages: dict[int, Message] = {}  # of the batch that was told last
        self._trouble: KafkaError | None = None
        self._reason: KafkaError | None = None
        self._asked_at = 0.0
        config = configuration(address, settings, self._hear)
        self._decode = decoder(settings)
        self._letters = Letters(settings.kafka_dead_letters, config)
        self._admin = made(AdminClient, config)
        self._consumer = made(Consumer, {**config, **_GROUP, "group.id": settings.kafka_group or group})
        self._partitions = Partitions(address, positions, now, self._consumer)

    def batches(self, stop: Stop) -> Generator[Batch, None, None]:
        """As `Source`; a batch is of one partition."""
        pending = self._gather(stop)
        try:
            errors = list(self._settle(pending))
            for place in list(pending):
                held = self._partitions.get(*place)
                if held is None or stop.is_set():
                    break
                batch = self._batch(held, pending[place])
                yield batch
                if held.read_to == batch.number:
                    del pending[place]
            for error in errors:
                raise error
        finally:
            for held in filter(None, (self._partitions.get(*place) for place in pending)):
                held.source = ""  # begun anew, for another capture may have gone on from here

    def done(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """As `Source`."""
        self._letters.send([(self._messages[place], reason) for place, reason in refused.items()])
        self._positions.advance(batch.source, batch.number, batch.after)
        for held in self._partitions.all():
            if held.source == batch.source:
                held.read_to, held.seen_at = batch.number, None
                held.reached_at = self._messages[batch.number].timestamp()[1] / 1000
                with suppress(KafkaException):  # for people who look at the group's lag; the lake is what counts
                    self._consumer.commit(offsets=[held.at(batch.number + 1)], asynchronous=True)

    @property
    def is_behind(self) -> bool:
        return not all(one.source and one.is_at_end for one in self._partitions.all())

    @property
    def is_at_end(self) -> bool:
        held = self._partitions.all()
        return bool(held) and all(one.source and one.is_at_end for one in held)

    def waiting_since(self) -> float | None:
        return min((one.seen_at for one in self._partitions.all() if one.seen_at is not None), default=None)

    def lags(self) -> list[Lag]:
        """As `Source`; none of a broker that does not answer."""
        return self._partitions.lags() if time.monotonic() - self._asked_at < _HEARD_S else []

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session's end."""
        self._consumer.close()

    def _hear(self, error: KafkaError) -> None:
        """Where no broker answers any more, the reason is what one of them said before."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._trouble = self._reason or error
        elif error.code() in _REASONS:
            self._reason = error
        elif error.code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
            self._trouble = error

    def _gather(self, stop: Stop) -> dict[Place, list[Message]]:
        """What has come, by partition, as far as it is ours to read."""
        found: dict[Place, list[Message]] = defaultdict(list)
        size, count, wait_s = 0, 0, _WAIT_S
        while size < BATCH_BYTES and count < BATCH_MESSAGES and not stop.is_set():
            some = self._consume(wait_s)
            for one in some:
                if (error := one.error()) is not None:
                    self._meet(one, error)
                    continue
                held = self._partitions.get(one.topic(), one.partition())
                if held is not None and offset_of(one) > held.read_to:
                    held.is_at_end = False
                    found[held.topic, held.number].append(one)
                    size, count = size + len(one.value() or b""), count + 1
            if not some:
                break
            wait_s = 0
        for place in list(found):
            held = self._partitions.get(*place)
            if held is None:  # taken away meanwhile
                del found[place]
            else:
                held.seen_at = held.seen_at or found[place][0].timestamp()[1] / 1000
        return found

    def _settle(self, pending: dict[Place, list[Message]]) -> Iterator[DriftError]:
        """Why some of it does not go on; asked where somebody waits for it, and now and then."""
        held = self._partitions.all()
        due = time.monotonic() - self._asked_at > _ASK_EVERY_S
        if held and (due or pending or not all(one.source for one in held)):
            yield from self._partitions.settle(
                topic_ids(self._admin, self._address, {one.topic for one in held}), pending
            )
            self._asked_at = time.monotonic()
        error, self._trouble = self._trouble, None
        if pending:
            self._reason = None
        if error is not None and not (pending and error.code() in (*_REASONS, KafkaError._ALL_BROKERS_DOWN)):
            yield UnavailableError(f"{self._address}: {words(KafkaException(error))}; capture waits for it")

    def _consume(self, wait_s: float) -> list[Message]:
        try:
            return self._consumer.consume(_AT_ONCE, wait_s)
        except KafkaException as error:
            raise UnavailableError(f"{self._address}: {words(error)}; capture waits for it") from error

    def _meet(self, one: Message, error: KafkaError) -> None:
        """What the queue holds beside messages."""
        held = self._partitions.get(one.topic(), one.partition())
        if error.code() == KafkaError._PARTITION_EOF and held is not None:
            held.is_at_end = True
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and held is not None:
            held.source = ""  # looked at anew
        elif error.code() != KafkaError._PARTITION_EOF:
            self._trouble = error

    def _batch(self, held: Held, messages: list[Message]) -> Batch:
        self._messages = {offset_of(one): one for one in messages}
        values, unread = [], dict[int, str]()
        for offset, one in self._messages.items():
            value = one.value() or b""
            try:
                values.append(self._decode(held.topic, value))
            except ValueError as error:
                values.append(value)
                unread[offset] = str(error)
        places, sent_at = list(self._messages), messages[0].timestamp()[1] / 1000
        return Batch.of(held.source, held.read_to, places[-1], values, places, sent_at, unread)


@contextmanager
def reading(url: str, settings: Settings, group: str, positions: Positions, clock: Clock) -> Iterator[KafkaLog]:
    """A member of the group until it is left."""
    log = KafkaLog(Address.of(url), settings, group, positions, clock.now)
    try:
        yield log
    finally:
        log.close()
