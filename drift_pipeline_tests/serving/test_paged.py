"""PagerDuty's webhook: who acknowledges there has acknowledged here, once; nothing else is believed or changed."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from drift_pipeline.alerts.alert import dedup_key
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Put
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.paged import PATH
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import SPECS, Home, listening

SECRET, KEY = "a secret of PagerDuty's", "ab12cd34ef56-20260301T1100"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.store.remember(Put("", "fraud", {"incident": {"key": KEY, "open": True}}))
    yield made
    made.store.close()


@pytest.fixture
def asks(home: Home, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    from pydantic import SecretStr

    secret = getattr(request, "param", SECRET)
    settings = home.settings.model_copy(update={"pagerduty_webhook_secret": SecretStr(secret)})
    spool = SpoolWriter(home.settings.home / "spool" / "gateway")
    with listening(make_app(settings, SPECS, spool, SystemClock())) as url, httpx.Client(base_url=url) as client:
        yield client


def event(kind: str = "incident.acknowledged", incident: Any = dedup_key(f"production/fraud/{KEY}"), **more: Any) -> bytes:
    """As PagerDuty's reference shows one."""
    data = {"id": "PT4KHLK", "type": "incident", "number": 1234, "status": "acknowledged", "incident_key": incident}
    agent = {"id": "PXPGF42", "summary": "Earline Greenholt", "type": "user_reference"}
    told = {
        "id": "5ac64822",
        "event_type": kind,
        "resource_type": "incident",
        "occurred_at": "2026-05-20T14:00:00.000Z",
    }
    return json.dumps({"event": {**told, "agent": agent, "client": None, "data": data, **more}}).encode()


def signed(body: bytes, secret: str = SECRET) -> str:
    return f"v1={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def post(asks: httpx.Client, body: bytes, signature: str | None = None) -> httpx.Response:
    return asks.post(PATH, content=body, headers={"X-PagerDuty-Signature": signature or signed(body)})


def acknowledged(home: Home) -> list[tuple[str, str]]:
    records = [record for record in home.store.records() if record.event == "incident.acknowledged"]
    return [(record.subject, record.actor) for record in records]


def test_an_acknowledgement_there_is_one_here_and_one_that_is_sent_again_changes_nothing(
    home: Home, asks: httpx.Client
) -> None:
    for _ in range(2):
        answer = post(asks, event(), f"v1={'0' * 64},{signed(event())}")  # two secrets, while one is changed
        assert (answer.status_code, answer.json()) == (200, {"acknowledged": "fraud"})
    assert acknowledged(home) == [("fraud", "pagerduty:Earline Greenholt")]
    found = home.store.get("acknowledged", f"fraud/{KEY}")
    assert found is not None
    assert (found.body["actor"], found.body["reason"]) == ("pagerduty:Earline Greenholt", "in PagerDuty")


@pytest.mark.parametrize(
    "signature", ["", "v1=", "v1=" + "0" * 64, signed(event(), "another"), "v1=ψ", signed(b"other")]
)
def test_what_is_not_signed_is_not_believed(home: Home, asks: httpx.Client, signature: str) -> None:
    headers = [(b"X-PagerDuty-Signature", signature.encode())]
    assert asks.post(PATH, content=event(), headers=headers).status_code == 401
    assert asks.post(PATH, content=event()).status_code == 401
    assert acknowledged(home) == []


@pytest.mark.parametrize(
    "body",
    [
        event("incident.resolved"),
        event("incident.triggered"),
        event("pagey.ping", data={"type": "ping"}),
        event(incident=dedup_key("production/fraud/another")),
        event(incident=dedup_key(f"staging/fraud/{KEY}")),
        event(incident=None),
        event(incident={"a": 1}),
    ],
)
def test_what_is_of_no_open_incident_here_is_taken_and_changes_nothing(
    home: Home, asks: httpx.Client, body: bytes
) -> None:
    answer = post(asks, body)
    assert (answer.status_code, answer.json()) == (200, {"acknowledged": None})
    assert acknowledged(home) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"event": 1}', b'{"event": {"event_type": "x"}}', b"[" * 100_000])
def test_what_is_signed_and_no_event_is_told_so(home: Home, asks: httpx.Client, body: bytes) -> None:
    answer = post(asks, body)
    assert (answer.status_code, "no event" in answer.text) == (400, True)
    assert acknowledged(home) == []


def test_what_is_long_is_not_read(home: Home, asks: httpx.Client) -> None:
    assert post(asks, b" " * 300_000).status_code == 413


def test_of_an_incident_that_is_over_nothing_is_acknowledged(home: Home, asks: httpx.Client) -> None:
    home.store.remember(Put("", "fraud", {"incident": {"key": KEY, "open": False}}, 1))
    assert post(asks, event()).json() == {"acknowledged": None}
    assert acknowledged(home) == []


def test_whoever_it_was_is_one_line(home: Home, asks: httpx.Client) -> None:
    assert post(asks, event(agent={"summary": "Ada\n\x1b[31m" + "x" * 200})).status_code == 200
    ((_, actor),) = acknowledged(home)
    assert actor.startswith("pagerduty:Ada [31mxxx")
    assert len(actor) <= 110


def test_nobody_named_is_somebody(home: Home, asks: httpx.Client) -> None:
    assert post(asks, event(agent=None)).status_code == 200
    assert acknowledged(home) == [("fraud", "pagerduty:somebody")]


@pytest.mark.parametrize("asks", [""], indirect=True)
def test_without_a_secret_there_is_no_such_door(home: Home, asks: httpx.Client) -> None:
    assert post(asks, event()).status_code == 404
    assert acknowledged(home) == []
