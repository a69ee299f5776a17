"""PagerDuty's webhook: who acknowledges there has acknowledged here, once; nothing else is believed or changed."""

import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import suppress
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
PAGE = dedup_key(f"production/fraud/{KEY}")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.store.remember(Put("", "fraud", {"incident": {"key": KEY, "open": True}}))
    yield made
    made.store.close()


@pytest.fixture
def asks(home: Home, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """With connections of which each request's head may take 2 s."""
    from pydantic import SecretStr

    secret = getattr(request, "param", SECRET)
    settings = home.settings.model_copy(update={"pagerduty_webhook_secret": SecretStr(secret)})
    app = make_app(settings, SPECS, SpoolWriter(home.settings.home / "spool" / "gateway"), SystemClock())
    with listening(app, head_seconds=2.0) as url, httpx.Client(base_url=url) as client:
        yield client


def event(kind: object = "incident.acknowledged", incident: Any = PAGE, **more: Any) -> bytes:
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


STRANGE = [
    event().decode().encode("utf-16"),
    event(incident="\ud800"),
    event(agent={"summary": "\ud800\udc00 \u202e\x00"}),
    event(agent={"summary": {"a": [1] * 1000}}),
    event(occurred_at=float("nan")),
    event().replace(b'"number": 1234', b'"number": 1' + b"0" * 3000),
    event().replace(b'"number": 1234', b'"number": 1' + b"0" * 5000),
    event().replace(b'"data":', b'"data": 3, "data":'),
    event().replace(b"Earline", b"\xff\xfe"),
    event(agent=["a"]),
    event(kind={"a": 1}),
    event(data=[]),
    b'{"event": null}',
    b'{"event": {"event_type": "incident.acknowledged", "data": ' + b'{"a":' * 5000 + b"1" + b"}" * 5002,
    b"\xef\xbb\xbf" + event(),
    b'"' + b"\\" * 9999 + b'"',
]


@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
def test_whatever_is_signed_is_answered_and_acknowledges_at_most_what_it_names(
    home: Home, asks: httpx.Client, body: bytes
) -> None:
    answer = post(asks, body)
    assert answer.status_code in (200, 400), answer.text
    assert len(acknowledged(home)) == (answer.json() == {"acknowledged": "fraud"} if answer.status_code == 200 else 0)
    assert post(asks, event()).json() == {"acknowledged": "fraud"}


@pytest.mark.parametrize(
    "signature",
    [
        "," * 60_000,
        ",".join([f"v1={'0' * 64}"] * 10 + [signed(event())]),
        signed(event()).upper(),
        signed(event()).removeprefix("v1="),
        f"v0={signed(event()).removeprefix('v1=')}",
        f"{signed(event())}=",
        f"v1={signed(event())}",
        signed(b""),
    ],
    ids=[
        "commas",
        "eleventh of a list",
        "upper case",
        "no version",
        "another version",
        "padded",
        "twice",
        "of nothing",
    ],
)
def test_a_signature_in_another_form_is_none(home: Home, asks: httpx.Client, signature: str) -> None:
    assert post(asks, event(), signature).status_code in (400, 401, 431)
    assert acknowledged(home) == []


def test_a_signature_is_of_the_bytes_as_they_came(home: Home, asks: httpx.Client) -> None:
    headers = {"X-PagerDuty-Signature": signed(event()), "Content-Encoding": "gzip"}
    assert asks.post(PATH, content=gzip.compress(event()), headers=headers).status_code == 401
    assert (
        asks.post(PATH, content=event() + b" ", headers={"X-PagerDuty-Signature": signed(event())}).status_code == 401
    )
    assert acknowledged(home) == []


def test_an_old_acknowledgement_that_is_sent_again_does_not_touch_what_came_since(
    home: Home, asks: httpx.Client
) -> None:
    old = event()
    post(asks, old)
    other = KEY.replace("0301", "0401")
    home.store.remember(Put("", "fraud", {"incident": {"key": other, "open": True}}, 1))
    assert post(asks, old).json() == {"acknowledged": None}
    assert home.store.get("acknowledged", f"fraud/{other}") is None


def test_who_goes_on_sending_after_the_answer_is_hung_up_on(asks: httpx.Client) -> None:
    end = time.monotonic() + 60

    def pieces() -> Iterator[bytes]:
        while time.monotonic() < end:
            yield b" " * 10_000

    with suppress(httpx.HTTPError):  # who is hung up on in the middle may not hear the answer
        assert asks.post(PATH, content=pieces()).status_code == 413
    assert time.monotonic() < end


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
