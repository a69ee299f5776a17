"""Concerns: what goes wrong beside the loop, told once an hour for as long as it lasts, with an alert and its audit."""

import logging
from datetime import datetime
from typing import Any

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
    if before is not None and before.body["hour"] == hour:
        return
    told = {"hour": hour, "at": now.isoformat(), "event": event, "why": why}
    alert = {"model": model if owner else "", "what": event, "why": why, "at": now.isoformat(), "owner": owner}
    alert["incident"] = event  # it is one, however often it is told
    put = Put(_KIND, key, told, before.generation if before else 0)
    message = Message(f"{model}:{hour}:{event}", ALERTS, alert)
    try:
        store.commit(Entry(actor, event, model, details=details), [put], [message])
    except ConflictError:  # another process told it
        return
    log.warning("%s: %s: %s", model, event, why, extra={"model": model if owner else ""})


def lasting(store: ControlReader, model: str, now: datetime) -> dict[str, str]:
    """What was told of a model of late: why, by event."""
    found = [record.body for record in store.find(_KIND, f"{model}/")]
    return {body["event"]: body["why"] for body in found if now - datetime.fromisoformat(body["at"]) < _LASTS}
