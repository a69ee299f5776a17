"""The dead-letter topic: what is no event as it came, with the reason and where it came from in its headers."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from drift_pipeline.errors import UnavailableError
from drift_pipeline.telemetry.sources.kafka.client import ANSWER_S, made, words


class Letters:
    """At least once: a letter that comes twice has the same headers twice."""

    def __init__(self, topic: str, config: dict[str, Any]) -> None:
        """
        Args:
            topic: "" = there is none.
        """
        self._topic = topic
        self._failed: list[KafkaError] = []
        told = {
            "enable.idempotence": True,
            "delivery.timeout.ms": int(ANSWER_S * 1000),
            "topic.metadata.propagation.max.ms": 2000,
        }
        self._producer = made(Producer, {**config, **told}) if topic else None

    def send(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Each with its reason; back once the broker has all.

        Raises:
            UnavailableError: it has not.
        """
        if self._producer is None or not letters:
            return
        self._failed.clear()
        try:
            for message, reason in letters:
                self._send(self._producer, message, reason)
            left = self._producer.flush(2 * ANSWER_S)
        except (KafkaException, BufferError) as error:
            raise UnavailableError(f"{self._topic}: takes no dead letters: {words(error)}") from error
        if left or self._failed:
            why = words(KafkaException(self._failed[0])) if self._failed else "no broker answered in time"
            raise UnavailableError(f"{self._topic}: takes no dead letters: {why}; they are told again")

    def _send(self, producer: Producer, message: Message, reason: str) -> None:
        place = (message.topic(), message.partition(), message.offset())
        names = ("drift.topic", "drift.partition", "drift.offset")
        told = [
            ("drift.reason", reason.encode()),
            *((name, str(one).encode()) for name, one in zip(names, place, strict=True)),
        ]
        while True:
            try:
                producer.produce(
                    self._topic,
                    key=message.key(),
                    value=message.value(),
                    headers=[*(message.headers() or []), *told],
                    on_delivery=self._delivered,
                )
                return
            except BufferError:  # full: wait for some to leave
                producer.poll(1)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error)
