"""What each channel sends to endpoints of our own, held against the receiver's rules, and what it never tells."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import jsonschema
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook as StandardWebhook

from drift_pipeline.alerts.alert import Action, Alert, Severity, dedup_key
from drift_pipeline.alerts.channels import Receiver, http
from drift_pipeline.alerts.channels.email import Email
from drift_pipeline.alerts.channels.pagerduty import PagerDuty
from drift_pipeline.alerts.channels.slack import Slack
from drift_pipeline.alerts.channels.webhook import Webhook
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline_tests.alerts.pagerduty import EVENT
from drift_pipeline_tests.alerts.worlds import Endpoint, listening

ROUTING_KEY, SIGNING_KEY = "a1" * 16, "whsec_" + "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"
SLACK_PATH = "/services/T000/B000/hunter2hunter2"


def alert(action: Action = Action.TRIGGER, **more: Any) -> Alert:
    told: dict[str, Any] = {
        "id": f"fraud:ab-1:{action}",
        "incident": "production/fraud/ab-1",
        "severity": Severity.PAGE,
        "environment": "production",
        "model": "fraud",
        "owner": "ml@example.com",
        "what": "incident.opened",
        "why": "psi BREACH: PSI 0.41 > 0.2 & <b>rising</b>",
        "at": "2026-03-01T12:00:00+00:00",
        "since": "2026-03-01T11:00:00+00:00",
        "columns": ("amount: higher, PSI 0.41 over 30d",),
        "decided": "retrain (fraud-1): psi is over",
        "link": "http://pages/fraud",
        "commands": ('drift incident ack fraud --reason "looking into it"',),
    }
    return Alert(action=action, **{**told, **more})


HOSTILE = alert(
    id="x" * 3000 + ".\r\n",
    model="fraud\r\nBcc: everybody@example.com",
    why="\r\n.\r\nQUIT\r\n" + "ψ" * 20_000,
    incident="production/" + "x" * 400,
    at="no time at all",
)


def secret(value: str) -> Callable[[str], SecretStr]:
    return lambda _: SecretStr(value)


@pytest.fixture
def at() -> Iterator[Endpoint]:
    with listening() as endpoint:
        yield endpoint


# webhook


def test_a_webhook_is_a_cloud_event_that_the_library_of_receivers_verifies(at: Endpoint) -> None:
    sender = Webhook(kind="webhook", url=at.url, secret="HOOK").receiver(secret(SIGNING_KEY))
    for one in (alert(), alert(Action.RESOLVE), HOSTILE):
        sender.send(one)
    for _, headers, body in at.posted:
        event = StandardWebhook(SIGNING_KEY).verify(body, dict(headers))
        assert event["specversion"] == "1.0"
        assert {"id", "source", "type", "subject", "time", "data"} <= event.keys()
        assert headers["content-type"] == "application/cloudevents+json"
    first, second, _ = at.documents
    assert (first["type"], second["type"]) == ("drift.alert.trigger", "drift.alert.resolve")
    assert first["subject"] == second["subject"] == "production/fraud/ab-1"
    assert first["data"]["columns"] == ["amount: higher, PSI 0.41 over 30d"]
    assert len({headers["webhook-id"] for _, headers, _ in at.posted}) == 3


def test_a_changed_body_and_another_key_are_not_verified(at: Endpoint) -> None:
    from standardwebhooks.webhooks import WebhookVerificationError

    Webhook(kind="webhook", url=at.url, secret="HOOK").receiver(secret(SIGNING_KEY)).send(alert())
    ((_, headers, body),) = at.posted
    for key, changed in ((SIGNING_KEY, body.replace(b"fraud", b"freud")), ("whsec_" + "eHg" * 8 + "eHh4", body)):
        with pytest.raises(WebhookVerificationError):
            StandardWebhook(key).verify(changed, dict(headers))


@pytest.mark.parametrize("key", ["short", "whsec_YWJj", "not base64 at all!!", "ψψψψψψψψψψψψψψψψψψψψψψψψψψψψψψψψ"])
def test_a_signing_key_that_is_none_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(InputError, match="HOOK: is no signing key") as told:
        Webhook(kind="webhook", url="http://localhost", secret="HOOK").receiver(secret(key))
    assert key not in str(told.value)


# Slack


def test_slack_is_told_within_its_limits_and_nothing_is_taken_for_markup(at: Endpoint) -> None:
    sender = Slack(kind="slack", secret="SLACK").receiver(secret(at.url + SLACK_PATH))
    for one in (alert(), alert(Action.ACKNOWLEDGE), HOSTILE, alert(why="<!channel> <@U1>")):
        sender.send(one)
    for path, _, body in at.posted:
        document = json.loads(body)
        assert path == SLACK_PATH
        assert 1 <= len(document["blocks"]) <= 50
        header, *sections = document["blocks"]
        assert (header["type"], header["text"]["type"]) == ("header", "plain_text")
        assert 1 <= len(header["text"]["text"]) <= 150
        assert all(one["type"] == "section" and 1 <= len(one["text"]["text"]) <= 3000 for one in sections)
        assert "<" not in json.dumps(sections)
        assert "<" not in document["text"]
    assert "&lt;b&gt;rising&lt;/b&gt;" in json.dumps(at.documents[0])


@pytest.mark.parametrize("url", ["hooks.slack.com/services/x", "http://hooks.slack.com/services/x", "https://a b"])
def test_an_address_of_slack_that_is_none_or_in_the_clear_is_not_shown(url: str) -> None:
    with pytest.raises(InputError, match="SLACK: is no https:// address") as told:
        Slack(kind="slack", secret="SLACK").receiver(secret(url))
    assert url not in str(told.value)


# PagerDuty


def test_pagerduty_is_told_by_its_own_schema_and_an_incident_has_one_key(at: Endpoint) -> None:
    sender = PagerDuty(kind="pagerduty", secret="PD", url=at.url).receiver(secret(ROUTING_KEY))
    for one in (alert(), alert(Action.ACKNOWLEDGE), alert(Action.RESOLVE), alert(severity=Severity.TICKET, link="")):
        sender.send(one)
    sender.send(HOSTILE)
    for document in at.documents:
        jsonschema.validate(document, EVENT)
    page, acknowledged, resolved, ticket, _ = at.documents
    assert [one["event_action"] for one in at.documents[:3]] == ["trigger", "acknowledge", "resolve"]
    assert page["dedup_key"] == acknowledged["dedup_key"] == resolved["dedup_key"] == dedup_key("production/fraud/ab-1")
    assert (page["payload"]["severity"], ticket["payload"]["severity"]) == ("critical", "warning")
    assert page["links"] == [{"href": "http://pages/fraud", "text": "its page"}]
    details = page["payload"]["custom_details"]
    assert details["columns"] == "amount: higher, PSI 0.41 over 30d"
    assert details["decided"] == "retrain (fraud-1): psi is over"
    assert "drift incident ack fraud" in details["do"]


@pytest.mark.parametrize("key", ["", "short", "a1" * 17, "a1" * 15 + "-+"])
def test_an_integration_key_that_is_none_is_not_shown(key: str) -> None:
    with pytest.raises(InputError, match="PD: is no integration key") as told:
        PagerDuty(kind="pagerduty", secret="PD").receiver(secret(key))
    assert not key or key not in str(told.value)


# e-mail


class Mailbox:
    """An SMTP server's handler; `refuse` may answer instead of taking a mail."""

    def __init__(self) -> None:
        self.mails, self.refuse = list[EmailMessage](), ""

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        if self.refuse:
            return self.refuse
        found = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        return "250 taken"


@contextmanager
def mail_server(mailbox: Mailbox, **more: Any) -> Iterator[int]:
    """The port of a real SMTP server on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = Controller(mailbox, hostname="127.0.0.1", port=port, **more)
    server.start()
    try:
        yield port
    finally:
        server.stop()


def email(port: int, **more: Any) -> Email:
    told = {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "drift@example.com", "to": ["sre@example.com"]}
    return Email(kind="email", **{**told, **more})


def test_a_mail_is_one_of_a_thread_and_no_model_s_name_adds_a_header() -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        sender = email(port, to=["sre@example.com", "ml@example.com"]).receiver(secret(""))
        for one in (alert(), alert(), alert(Action.RESOLVE), HOSTILE):
            sender.send(one)
    first, again, over, hostile = mailbox.mails
    assert first["Message-ID"] == again["Message-ID"] != over["Message-ID"]
    assert first["References"] == over["References"] == over["In-Reply-To"]
    assert first["To"] == "sre@example.com, ml@example.com"
    assert first["Subject"].startswith("[page] fraud: incident.opened (production): psi BREACH")
    assert "amount: higher" in first.get_content()
    assert "drift incident ack fraud" in first.get_content()
    assert (hostile["Bcc"], hostile["To"]) == (None, first["To"])
    assert "QUIT" in hostile.get_content()


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS", "ignore:Session.login_data is deprecated")
def test_a_mail_server_that_wants_a_password_gets_it_and_one_that_refuses_is_told_without_it() -> None:
    mailbox = Mailbox()

    def authenticator(*arguments: Any) -> AuthResult:
        return AuthResult(success=arguments[-1].password == b"hunter2", handled=False)

    settings = {"authenticator": authenticator, "auth_required": True, "auth_require_tls": False}
    with mail_server(mailbox, **settings) as port:
        named = {"username": "drift", "secret": "MAIL"}
        email(port, **named).receiver(secret("hunter2")).send(alert())
        with pytest.raises(UnavailableError, match=r"answers 535") as told:
            email(port, **named).receiver(secret("another")).send(alert())
    assert (len(mailbox.mails), "another" in str(told.value)) == (1, False)


@pytest.mark.parametrize(
    ("refusal", "error"), [("554 no", InputError), ("452 later", UnavailableError), ("421 busy", UnavailableError)]
)
def test_what_a_mail_server_refuses_for_good_is_the_alert_s_fault(refusal: str, error: type[Exception]) -> None:
    mailbox = Mailbox()
    mailbox.refuse = refusal
    with mail_server(mailbox) as port, pytest.raises(error, match=refusal[:3]):
        email(port).receiver(secret("")).send(alert())


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": "drift"},
        {"secret": "MAIL"},
        {"username": "drift", "secret": "MAIL", "host": "mail.example.com"},  # the password in the clear
        {"to": []},
        {"to": ["a@b\r\nBcc: c@d"]},
        {"sender": "drift"},
        {"tls": "ssl"},
    ],
)
def test_a_mail_channel_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        email(25, **wrong)


# what goes wrong


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, InputError) for status in (400, 413, 415, 422)),
        *((status, UnavailableError) for status in (302, 401, 403, 404, 408, 410, 429, 500, 502, 503)),
    ],
)
def test_an_answer_says_whether_it_is_the_alert_or_the_channel(
    at: Endpoint, status: int, error: type[Exception]
) -> None:
    at.answer = lambda _: (status, b"because")
    with pytest.raises(error, match=f"answers {status}: because"):
        PagerDuty(kind="pagerduty", secret="PD", url=at.url).receiver(secret(ROUTING_KEY)).send(alert())


def test_no_error_and_no_log_tells_a_secret(at: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the receiver answers with what it was sent."""
    caplog.set_level(logging.DEBUG)
    at.answer = lambda body: (400, body + SLACK_PATH.encode())
    senders: list[Receiver] = [
        PagerDuty(kind="pagerduty", secret="PD", url=at.url).receiver(secret(ROUTING_KEY)),
        Slack(kind="slack", secret="SLACK").receiver(secret(at.url + SLACK_PATH)),
        Slack(kind="slack", secret="SLACK").receiver(secret(f"http://127.0.0.1:9{SLACK_PATH}")),
    ]
    told = []
    for sender in senders:
        with pytest.raises((InputError, UnavailableError)) as error:
            sender.send(alert())
        told.append(f"{error.value} {sender!r}")
    text = " ".join(told) + caplog.text
    assert ROUTING_KEY not in text
    assert "hunter2" not in text


def test_who_is_not_there_or_says_nothing_is_unavailable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def hang_up() -> None:
            silent.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"is not reached: (RemoteProtocolError|ReadError|WriteError)"):
            PagerDuty(kind="pagerduty", secret="PD", url=url).receiver(secret(ROUTING_KEY)).send(alert())
    with pytest.raises(UnavailableError, match="is not reached: ConnectError"):
        PagerDuty(kind="pagerduty", secret="PD", url="http://127.0.0.1:9").receiver(secret(ROUTING_KEY)).send(alert())
    with pytest.raises(UnavailableError, match="is not reached: ConnectionRefusedError"):
        email(9).receiver(secret("")).send(alert())


@contextmanager
def trickling(answer: bytes) -> Iterator[str]:
    """The address of a receiver whose answer comes a byte at a time, without an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            with suppress(OSError), server.accept()[0] as asking:
                asking.recv(65536)
                asking.sendall(answer)
                while True:
                    time.sleep(0.02)
                    asking.sendall(b"x")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    thread.join(30)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 202 OK\r\nOdd: ", "is not reached: ReadError"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n", "answers 500: x"),
        (b"HTTP/1.1 202 OK\r\nContent-Length: 99999\r\n\r\n", ""),
    ],
)
def test_a_receiver_that_trickles_its_answer_is_hung_up_on(
    answer: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.25)
    ends: AbstractContextManager[object] = pytest.raises(UnavailableError, match=told) if told else nullcontext()
    with trickling(answer) as url:
        sender = PagerDuty(kind="pagerduty", secret="PD", url=url).receiver(secret(ROUTING_KEY))
        with ends:
            sender.send(alert())
