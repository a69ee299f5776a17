"""Events for a topic that capture reads, from who serves a model elsewhere.

```python
from drift_pipeline.telemetry.sources.kafka import EventProducer

with EventProducer("kafka://broker:9092/drift", producer="checkout") as events:
    events.prediction("fraud", "p1", {"amount": 12.5, "device": "phone"}, version="7", score=0.81)
    events.outcome("fraud", "p1", label=1)
```
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.event import EXTERNAL, LINE_BYTES
from drift_pipeline.telemetry.sources.kafka.client import Address, configuration, made, words

Value = float | str | bool | None


class EventProducer:
    """Sends to one topic; its methods may be called from any thread.

    The broker takes each event once, in the order of its model and id, which are the key, so that all that is told of
    one prediction is in one partition. Nothing waits for the broker but `flush`, and who sends more than it takes.
    """

    def __init__(self, url: str, producer: str = "", settings: Settings | None = None) -> None:
        """
        Args:
            url: kafka://HOST:PORT[,HOST:PORT]/TOPIC.
            producer: whose the ids are, where several producers tell of one model.
            settings: DRIFT_KAFKA_SECURITY and its like; None = of the environment.

        Raises:
            InputError: url or settings cannot be used.
        """
        address = Address.of(url)
        if len(address.topics) != 1:
            raise InputError(f"{url}: a producer sends to one topic")
        self._topic, self._whose, self._address = address.topics[0], producer, address
        self._lost: list[str] = []
        self._trouble: KafkaError | None = None
        config = configuration(address, settings or Settings(), self._hear)
        sends = {
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "message.max.bytes": LINE_BYTES,
        }
        self._producer = made(Producer, {**config, **sends})

    def prediction(
        self,
        model: str,
        id: str,
        features: Mapping[str, Value],
        *,
        version: str,
        score: float | None = None,
        time: datetime | None = None,
        latency_ms: float | None = None,
        entity: str | None = None,
    ) -> None:
        """An answer of a model. Capture holds it against the model's spec: every watched column is to be there.

        Args:
            time: with its zone; None = now.

        Raises:
            InputError: a value that JSON cannot hold, a time without a zone.
            UnavailableError: more waits than memory holds, and no broker takes it.
        """
        told = {"version": version, "route": EXTERNAL, "features": dict(features), "score": score}
        self._send("prediction", model, id, time, {**told, "latency_ms": latency_ms, "entity": entity})

    def outcome(self, model: str, id: str, label: Value, time: datetime | None = None) -> None:
        """What turned out to be true of a prediction; `time`: when that was observed. Errors as of `prediction`."""
        self._send("outcome", model, id, time, {"label": label})

    def flush(self, timeout_s: float = 30.0) -> None:
        """Back once the broker has all.

        Raises:
            UnavailableError: it has not; what was not lost is still tried.
        """
        left = self._producer.flush(timeout_s)
        lost, self._lost = self._lost, []
        if lost:
            raise UnavailableError(f"{self._address}: {len(lost)} events are lost, the first: {lost[0]}")
        if left:
            why = words(KafkaException(self._trouble)) if self._trouble else f"not taken within {timeout_s:.0f} s"
            raise UnavailableError(f"{self._address}: {left} events wait: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def _send(self, event: str, model: str, id: str, time: datetime | None, told: Mapping[str, Any]) -> None:
        at = time or datetime.now(UTC)
        if at.tzinfo is None:
            raise InputError(f"{model} {id}: time {at.isoformat()} has no zone")
        body = {
            "event": event,
            "model": model,
            "id": id,
            "time": at.isoformat(),
            "producer": self._whose,
            **told,
        }
        try:
            value = json.dumps(body, allow_nan=False, default=_plain).encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"{model} {id}: is no event: {error}") from error
        key = f"{model}/{id}".encode("utf-8", "replace")
        for _ in range(60):
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.5)
            except KafkaException as error:  # too long
                raise InputError(f"{model} {id}: cannot be sent: {words(error)}") from error
        raise UnavailableError(f"{self._address}: takes no events, and no more can wait")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._lost.append(f"{(message.key() or b'').decode()}: {words(KafkaException(error))}")

    def _hear(self, error: KafkaError) -> None:
        self._trouble = error


def _plain(value: object) -> object:
    """Of a NumPy scalar."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no value of an event")
