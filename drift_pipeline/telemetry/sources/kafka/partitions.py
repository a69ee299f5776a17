"""The partitions that a group gives to this capture, and where each of them is read on: where the lake stands."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from drift_pipeline.errors import DriftError, IntegrityError, UnavailableError
from drift_pipeline.telemetry.event import DeadLetter
from drift_pipeline.telemetry.sources import Lag
from drift_pipeline.telemetry.sources.kafka.client import ANSWER_S, Address, words
from drift_pipeline.telemetry.sources.positions import Positions

log = logging.getLogger(__name__)


@dataclass
class Held:
    """A partition of ours. `source` is empty until its topic's id and its position are known; `reached_at`: what was
    sent before is done."""

    topic: str
    number: int
    source: str = ""
    read_to: int = -1
    is_at_end: bool = False
    seen_at: float | None = None
    reached_at: float | None = None
    begun_at: int | None = None  # the offset from which it is read anew, until its first message has come
    hole: tuple[int, int] | None = None  # that offset, and the one of the message that came

    def at(self, offset: int) -> TopicPartition:
        return TopicPartition(self.topic, self.number, offset)


Place = tuple[str, int]


def offset_of(message: Message) -> int:
    """Of one that came: it has one."""
    offset = message.offset()
    return -1 if offset is None else offset


class Partitions:
    """By topic and number; who is told by the group what is given and taken."""

    def __init__(self, address: Address, positions: Positions, now: Callable[[], datetime], consumer: Consumer) -> None:
        self._address, self._positions, self._now, self._consumer = address, positions, now, consumer
        self._held: dict[Place, Held] = {}
        consumer.subscribe(list(address.topics), on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)

    def get(self, topic: str | None, number: int | None) -> Held | None:
        """None where it is another member's."""
        return self._held.get((topic or "", -1 if number is None else number))

    def all(self) -> list[Held]:
        return list(self._held.values())

    def lags(self) -> list[Lag]:
        """By the position in the lake and the end of the log that came with the last messages. Offsets that no message
        has, as of transactions, are none behind the last message."""
        found = []
        for held in self._held.values():
            with suppress(KafkaException):  # of a partition that is being taken away
                _, high = self._consumer.get_watermark_offsets(held.at(0), cached=True)
                if high < 0 or not (held.source or held.seen_at):  # where it stands is not known
                    continue
                at_end = held.is_at_end and held.seen_at is None
                behind = 0 if at_end else max(high - max(held.read_to + 1, held.begun_at or 0), 0)
                if not behind:
                    held.reached_at = time.time()
                oldest_at = held.seen_at or held.reached_at if behind else None
                found.append(Lag(held.topic, held.number, behind, oldest_at))
        return found

    def _given(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What may fail, such as to look where they stand, is done outside of a callback: until then they rest."""
        resting = [TopicPartition(one.topic, one.partition, 0) for one in partitions]
        consumer.incremental_assign(resting)
        consumer.pause(resting)
        for one in partitions:
            self._held[one.topic, one.partition] = Held(one.topic, one.partition)

    def _taken(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._held.pop((one.topic, one.partition), None)

    def settle(self, ids: Mapping[str, str], pending: dict[Place, list[Message]]) -> Iterator[DriftError]:
        """Let partitions begin where the lake stands. No message is kept of those, nor of a topic that was made again:
        the ids are asked for when the messages are here, so that those are of the topic that had the id before.

        Returns why some cannot begin; they are tried again.
        """
        for place, held in self._held.items():
            source = f"kafka.{held.topic[:100]}.{ids.get(held.topic)}.{held.number}"
            if held.topic not in ids or held.source != source:
                pending.pop(place, None)
                held.source = ""
            if held.topic in ids and not held.source:
                try:
                    held.read_to = self._positions.of(source)
                    self._read_on(held, self._first_of(held, source))
                    held.source = source
                except DriftError as error:
                    yield error
            elif place in pending and held.begun_at is not None:
                self._prove(held, pending)

    def _prove(self, held: Held, pending: dict[Place, list[Message]]) -> None:
        """The first message is the one that was asked for, or there is none of its offset any more: then the same one
        comes again. What was on its way from before is none of these."""
        came = offset_of(pending[held.topic, held.number][0])
        asked = held.begun_at
        if asked is not None and came != asked and held.hole != (asked, came):
            held.hole = (asked, came)
            del pending[held.topic, held.number]
            held.source = ""  # it is begun anew
        else:
            held.begun_at = held.hole = None

    def _first_of(self, held: Held, source: str) -> int:
        """Where to read on. What retention took before is laid down for people, and it goes on behind it."""
        try:
            low, high = self._consumer.get_watermark_offsets(held.at(0), timeout=ANSWER_S)
        except KafkaException as error:
            raise UnavailableError(f"{self._address}: {words(error)}; capture waits for it") from error
        first = held.read_to + 1
        if first > high:
            raise IntegrityError(
                f"{self._address}: partition {held.number} of {held.topic} ends at {high}, and {first} was to be read "
                f"next: its broker lost messages that had landed; make the topic anew, or bring them back"
            )
        if held.read_to >= 0 and first < low:
            self._tell_lost(held, source, low)
        return max(first, low)

    def _tell_lost(self, held: Held, source: str, low: int) -> None:
        reason = (
            f"lost: offsets {held.read_to + 1} to {low - 1} of partition {held.number} of {held.topic} were deleted "
            f"before they were read; let the topic keep its messages for longer (retention.ms, retention.bytes)"
        )
        self._positions.advance(source, low - 1, held.read_to, [DeadLetter(self._now(), source, "", reason, "")])
        held.read_to = low - 1
        log.error("%s: %s", self._address, reason)

    def _read_on(self, held: Held, first: int) -> None:
        """From an offset on, whatever was fetched already."""
        offset = held.at(first)
        held.is_at_end, held.begun_at = False, first
        try:
            self._consumer.incremental_unassign([offset])
            self._consumer.incremental_assign([offset])
            self._consumer.resume([offset])
        except KafkaException as error:  # it is being taken away
            raise UnavailableError(f"{self._address}: {words(error)}; capture waits for it") from error
