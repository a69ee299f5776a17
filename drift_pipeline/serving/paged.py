"""PagerDuty's webhook (v3): whoever acknowledges a page there has acknowledged the incident here.

Only with DRIFT_PAGERDUTY_WEBHOOK_SECRET, and only what is signed with it. Its signature has no time: an event that is
sent again finds the incident acknowledged, and changes nothing.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drift_pipeline.alerts.alert import dedup_key, name_of
from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import ConflictError, DriftError
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.operating import acknowledge_paged
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

PATH = "/webhooks/pagerduty"
_MOST_BYTES = 256 * 1024
_NAMED = 100  # letters of whoever acknowledged
ACKNOWLEDGED = "incident.acknowledged"


class Paged:
    """The endpoint."""

    def __init__(self, settings: Settings, specs: Mapping[str, ModelSpec], store: ControlStore, clock: Clock) -> None:
        self._key = settings.pagerduty_webhook_secret.get_secret_value().encode()
        self._environment, self._specs, self._store, self._clock = settings.environment, specs, store, clock

    async def answer(self, request: Request) -> Response:
        """200 for what is PagerDuty's, whether or not it is of an incident that is open here: else it would be sent
        again. 401 for what is not signed, 503 where the store does not answer."""
        body = await _read(request)
        if not self._is_signed(body, request.headers.get("x-pagerduty-signature", "")):
            raise HTTPException(401, "the signature is not that of DRIFT_PAGERDUTY_WEBHOOK_SECRET")
        try:
            event = json.loads(body)["event"]
            kind, key, who = event["event_type"], event["data"].get("incident_key"), _who(event)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise HTTPException(400, "is no event of PagerDuty's webhooks v3") from None
        if kind != ACKNOWLEDGED or not isinstance(key, str):
            return JSONResponse({"acknowledged": None})
        try:
            return JSONResponse({"acknowledged": await asyncio.to_thread(self._acknowledge, key, who)})
        except DriftError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error

    def _acknowledge(self, paged: str, who: str) -> str | None:
        """The model whose open incident it is."""
        for name, spec in list(self._specs.items()):
            memory = self._store.recall(name)
            incident = (memory.body.get("incident") or {}) if memory else {}
            key = str(incident.get("key", ""))
            if not incident.get("open") or dedup_key(name_of(self._environment, name, key)) != paged:
                continue
            with suppress(ConflictError):  # somebody else did at this very moment
                acknowledge_paged(Ledger(spec, self._store, self._clock), self._clock, key, who, "in PagerDuty")
            return name
        return None

    def _is_signed(self, body: bytes, header: str) -> bool:
        """One of several is enough: while the secret is changed there are two."""
        right = f"v1={hmac.new(self._key, body, hashlib.sha256).hexdigest()}".encode()
        given = [one.strip().encode("utf-8", "replace") for one in header.split(",")[:10]]
        return any(hmac.compare_digest(right, one) for one in given)


async def _read(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"is longer than {_MOST_BYTES:,} bytes")
    return body


def _who(event: Any) -> str:
    agent = event.get("agent") or {}
    name = " ".join("".join(sign if sign.isprintable() else " " for sign in str(agent.get("summary") or "")).split())
    return f"pagerduty:{name.encode('utf-8', 'replace').decode()[:_NAMED] or 'somebody'}"
