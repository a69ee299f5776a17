"""An endpoint of PagerDuty's Events API v2, by the schema of its reference, and the pages that come of its events."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema

from drift_pipeline_tests.alerts.worlds import listening

# As its reference has it: fields, which of them are needed, and how long they may be.
PAYLOAD = {
    "type": "object",
    "required": ["summary", "source", "severity"],
    "additionalProperties": False,
    "properties": {
        "summary": {"type": "string", "maxLength": 1024, "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "severity": {"enum": ["critical", "error", "warning", "info"]},
        "timestamp": {"type": "string", "format": "date-time"},
        **{name: {"type": "string"} for name in ("component", "group", "class")},
        "custom_details": {"type": "object"},
    },
}
EVENT = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "pattern": "^[A-Za-z0-9]{32}$"},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "payload": PAYLOAD,
        "client": {"type": "string"},
        "client_url": {"type": "string", "format": "uri"},
        "links": {"type": "array", "items": {"type": "object", "required": ["href"]}},
        "images": {"type": "array"},
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}


class PagerDuty:
    """`events` in the order in which they came, `came` when, by the monotonic clock; `refused` what the schema forbids.

    `pages`: by dedup key, how often somebody was paged: a trigger is a page unless one of its key is `open`.
    """

    def __init__(self, url: str) -> None:
        self.url, self._lock = f"{url}/v2/enqueue", threading.Lock()
        self.events, self.came, self.refused = list[dict[str, Any]](), list[float](), list[str]()
        self.pages, self.open = Counter[str](), set[str]()

    def answer(self, body: bytes) -> tuple[int, bytes]:
        event = json.loads(body)
        try:
            jsonschema.validate(event, EVENT)
        except jsonschema.ValidationError as error:
            self.refused.append(error.message)
            return 400, b'{"status": "invalid event"}'
        key, action = event["dedup_key"], event["event_action"]
        with self._lock:
            self.events.append(event)
            self.came.append(time.monotonic())
            if action == "trigger" and key not in self.open:
                self.pages[key] += 1
                self.open.add(key)
            elif action == "resolve":
                self.open.discard(key)
        return 202, json.dumps({"status": "success", "message": "Event processed", "dedup_key": key}).encode()

    def triggers(self, about: str) -> list[tuple[float, dict[str, Any]]]:
        """Those of one class, each with when it came."""
        with self._lock:
            told = list(zip(self.came, self.events, strict=True))
        return [
            (at, one) for at, one in told if one["event_action"] == "trigger" and one["payload"].get("class") == about
        ]

    def actions(self, about: str) -> list[str]:
        """What was done in turn to the one page that is of this class."""
        keys = {one["dedup_key"] for _, one in self.triggers(about)}
        assert len(keys) <= 1, keys
        return [one["event_action"] for one in [*self.events] if one["dedup_key"] in keys]


@contextmanager
def paging() -> Iterator[PagerDuty]:
    """An endpoint of this machine."""
    with listening() as at:
        made = PagerDuty(at.url)
        at.answer = made.answer
        yield made
