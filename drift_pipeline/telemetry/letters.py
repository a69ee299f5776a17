"""Dead letters: what is no event, with the reason; and the line that hands one over through the spool."""

import json
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drift_pipeline.telemetry.mentions import names

_PAYLOAD_LENGTH = 4096
_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that is no event. `time` is when it was read; `model` is empty where no known one is named.

    `names` are the entities and ids that the whole line gives, `payload` is its beginning.
    """

    time: datetime
    source: str
    model: str
    reason: str
    payload: str
    names: tuple[str, ...] = ()


def dead_letter(line: bytes, now: datetime, reason: str, model: str = "", source: str = "") -> DeadLetter:
    payload = line[:_PAYLOAD_LENGTH].decode("utf-8", "replace")
    return DeadLetter(now, source, model, reason[:_REASON_LENGTH], payload, tuple(names(line)))


def refused_line(letter: DeadLetter) -> bytes:
    """A line that is read as this dead letter again, whatever an event of the same payload would be by then."""
    told = {"model": letter.model, "reason": letter.reason, "payload": letter.payload, "names": letter.names}
    return json.dumps({"event": "refused", **told}).encode()


def read_refused(document: dict[str, Any], models: Container[str], now: datetime, source: str) -> DeadLetter:
    """What `refused_line` wrote. Raises ValueError for what else calls itself so."""
    model, reason, payload, about = (document.get(key) for key in ("model", "reason", "payload", "names"))
    if not (
        isinstance(model, str) and isinstance(reason, str) and isinstance(payload, str) and isinstance(about, list)
    ):
        raise ValueError("event: 'refused' is neither 'prediction' nor 'outcome'")
    whose = model if model in models else ""
    return DeadLetter(now, source, whose, reason[:_REASON_LENGTH], payload[:_PAYLOAD_LENGTH], tuple(map(str, about)))
