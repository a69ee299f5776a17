"""Concerns: what goes wrong beside the loop, told once an hour for as long as it lasts, with an alert and its audit.

Who knows of its end tells that, too; else it is over when it is told no more.
"""

import logging
from contextlib import suppress
from datetime import datetime
from typing import Any

from drift_pipeline.alerts.alert import CONCERN_OVER
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import HOUR
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.errors import ConflictError

log = logging.getLogger(__name__)

_KIND = "concern"
_LASTS = 2 * HOUR  # what is still so is told again by then


def tell(
    store: ControlStore, model: str, owner: str, event: str, why: str, now: datetime, *, actor: str, **details: Any
) -> None:
    """Alert, unless the same was told within this hour.

    Args:
        model: by which it is found again, or a word where it is no model's.
        event: what it is, such as `events.late`.
        why: leaves the house, so it quotes nothing that producers sent.
    """
    hour, key = f"{now:%Y-%m-%dT%H}", f"{model}/{event}"
    before = store.get(_KIND, key)
    again = before is not None and "over" in before.body
    if before is not None and before.body["hour"] == hour and not again:
        return
    told = {"hour": hour, "at": now.isoformat(), "event": event, "why": why}
    alert = {"model": model if owner else "", "what": event, "why": why, "at": now.isoformat(), "owner": owner}
    alert["incident"] = event  # it is one, however often it is told
    put = Put(_KIND, key, told, before.generation if before else 0)
    since = f"{now:%Y-%m-%dT%H:%M:%S}" if again else hour
    message = Message(f"{model}:{since}:{event}", ALERTS, alert)
    try:
        store.commit(Entry(actor, event, model, details=details), [put], [message])
    except ConflictError:  # another process told it
        return
    log.warning("%s: %s: %s", model, event, why, extra={"model": model if owner else ""})


def end(store: ControlStore, model: str, event: str, now: datetime, *, actor: str) -> None:
    """Tell that it is over, where it was told and was not over yet."""
    key = f"{model}/{event}"
    if (before := store.get(_KIND, key)) is None or "over" in before.body:
        return
    put = Put(_KIND, key, {**before.body, "over": now.isoformat()}, before.generation)
    with suppress(ConflictError):  # another process told it, or its opposite
        store.commit(Entry(actor, CONCERN_OVER, model, details={"key": event}), [put])


def lasting(store: ControlReader, model: str, now: datetime) -> dict[str, str]:
    """What was told of a model of late and is not over: why, by event."""
    found = [record.body for record in store.find(_KIND, f"{model}/")]
    late = [body for body in found if now - datetime.fromisoformat(body["at"]) < _LASTS]
    return {body["event"]: body["why"] for body in late if "over" not in body}
