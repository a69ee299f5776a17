"""For those who serve a model elsewhere: its predictions and outcomes as OTLP log records.

They go to `drift capture --source otlp://...`, or to a Collector.

OTEL_EXPORTER_OTLP_ENDPOINT=http://capture:4318 OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20KEY"

with EventSender() as sender:
    sender.prediction("fraud", "tx-1", version="7", features={"amount": 12.5, "device": "tv"}, score=0.2)
    sender.outcome("fraud", "tx-1", label=1)
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from drift_pipeline.errors import InputError
from drift_pipeline.observability.otel import Outlet, Telling, wanted

Value = float | int | str | bool | None


class EventSender:
    """Sends on threads of its own, so that who serves never waits: what finds no room, or is refused, is in `lost`.

    A retry may send an event twice, and capture counts it once. Safe from any thread; close it, or leave its block,
    before the process ends.
    """

    def __init__(self, service: str = "drift-producer") -> None:
        """
        Args:
            service: the `service.name`, where the environment gives none.

        Raises:
            InputError: the environment does not say where to send, or the extra `otel` is not installed.
        """
        if not wanted(os.environ):
            raise InputError("nobody to send to: set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318")
        self._outlet = Outlet(service)

    def prediction(
        self,
        model: str,
        id: str,
        *,
        version: str,
        features: Mapping[str, Value],
        score: float | None = None,
        latency_ms: float | None = None,
        entity: str | None = None,
        time: datetime | None = None,
    ) -> bool:
        """One answer of the model; False where it is lost, since too much waits already.

        Args:
            id: the prediction's own, by which its outcome finds it; one that comes again is the same prediction.
            features: every watched column, None where there is no value.
            time: when it was answered, with a zone; None = now.

        Raises:
            InputError: a value is none that JSON has, or `time` has no zone.
        """
        told = {"version": version, "route": "external", "score": score, "latency_ms": latency_ms, "entity": entity}
        return self._put("prediction", model, id, time, {**told, "features": dict(features)})

    def outcome(self, model: str, id: str, label: float | int | str | bool, *, time: datetime | None = None) -> bool:
        """What turned out to be true of a prediction; `time` is when that was known. As `prediction` else."""
        return self._put("outcome", model, id, time, {"label": label})

    @property
    def lost(self) -> Mapping[str, int]:
        """Events that were not sent: `full` found no room, `refused` were not taken."""
        return self._outlet.lost

    def close(self, patience_s: float = 30.0) -> bool:
        """Send what waits; False where the time did not suffice."""
        return self._outlet.close(patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _put(self, event: str, model: str, id: str, time: datetime | None, more: Mapping[str, Any]) -> bool:
        at = datetime.now(UTC) if time is None else time
        if at.tzinfo is None:
            raise InputError(f"time: {at.isoformat()} has no zone; give one, such as datetime.now(UTC)")
        told = {"event": event, "model": model, "id": id, "time": at.isoformat(), **more}
        try:
            line = json.dumps(told, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"{model} {id}: {error}; send numbers, texts, true, false and None") from error
        return self._outlet.put(Telling([line]))
