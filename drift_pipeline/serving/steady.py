"""A clock that does not go back: what the gateway stamps comes after what it stamped before, also after a restart."""

import json
from datetime import UTC, datetime

from drift_pipeline.clock import HOUR, Clock

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class SteadyClock:
    """Stands still while the clock behind it was set back by less than an hour.

    Set back by more, it follows at once: then what it stamped before was wrong, and a day must not get one time.
    """

    def __init__(self, clock: Clock, last: bytes = b"") -> None:
        """
        Args:
            last: the event that was last written; b"" = there is none.
        """
        self._clock, self._last = clock, _time_of(last)

    def now(self) -> datetime:
        now = self._clock.now()
        if now < self._last < now + HOUR:
            return self._last
        self._last = now
        return now


def _time_of(event: bytes) -> datetime:
    """Of what the gateway stamped: an answer, or an outcome without a time; else, and where it was torn, 1970."""
    try:
        told = json.loads(event)
        stamped = told.get("route", "") in ("stable", "canary") or told.get("stamped") is True
        return datetime.fromisoformat(told["time"]) if stamped else _NEVER
    except (ValueError, KeyError, AttributeError):
        return _NEVER
