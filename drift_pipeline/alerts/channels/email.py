"""E-mail over SMTP: one mail an alert, the mails of an incident as one thread."""

import hashlib
import logging
import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from drift_pipeline.alerts.alert import Action, Alert
from drift_pipeline.alerts.channels import SecretName, Secrets
from drift_pipeline.alerts.channels.http import SECONDS
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.spec.parts import Part

log = logging.getLogger(__name__)
Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
_HERE = ("localhost", "127.0.0.1", "::1")


class Email(Part):
    """`secret` names the password of `username`; both are left out where the server asks for none.

    A password goes over TLS, or stays on this machine.
    """

    kind: Literal["email"]
    host: Annotated[str, Field(pattern=r"^[^@\s/]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    sender: Address
    to: Annotated[list[Address], Field(min_length=1, max_length=50)]
    username: str = ""
    secret: SecretName | None = None

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if bool(self.username) != bool(self.secret):
            raise ValueError("username and secret (the name of its password) stand together")
        if self.secret and self.tls == "none" and self.host not in _HERE:
            raise ValueError("tls: none would send the password in the clear; use starttls or implicit")
        return self

    def receiver(self, secrets: Secrets) -> "Sender":
        """Raises InputError where the password is missing."""
        return Sender(self, secrets(self.secret) if self.secret else SecretStr(""))


@dataclass(frozen=True)
class Sender:
    at: Email
    password: SecretStr

    def send(self, alert: Alert) -> None:
        try:
            server = self._connected()
            try:
                refused = server.send_message(mail(alert, self.at.sender, self.at.to))
            finally:
                with suppress(OSError, smtplib.SMTPException):  # what was taken is taken, however they part
                    server.quit()
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            raise UnavailableError(f"takes no mail for any of the addresses: {sorted(codes)}") from None
        except smtplib.SMTPDataError as error:
            if 500 <= error.smtp_code < 600:
                raise InputError(f"answers {error.smtp_code}: it refuses the mail") from None
            raise UnavailableError(f"answers {error.smtp_code}") from None
        except smtplib.SMTPResponseException as error:
            raise UnavailableError(f"answers {error.smtp_code} ({type(error).__name__})") from None
        except (OSError, smtplib.SMTPException) as error:
            raise UnavailableError(f"is not reached: {type(error).__name__}") from None
        if refused:
            log.warning("%s takes no mail for %s; the others have it", self.at.host, ", ".join(refused))

    def _connected(self) -> smtplib.SMTP:
        at, context = self.at, ssl.create_default_context()
        if at.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(at.host, at.port, timeout=SECONDS, context=context)
        else:
            server = smtplib.SMTP(at.host, at.port, timeout=SECONDS)
        try:
            if at.tls == "starttls":
                server.starttls(context=context)
            if at.username:
                server.login(at.username, self.password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server


def mail(alert: Alert, sender: str, to: list[str]) -> EmailMessage:
    """The same alert has the same Message-ID, by which a mail that comes twice is known."""
    made, thread = EmailMessage(), _name(alert.incident)
    made["From"], made["To"], made["Subject"] = sender, ", ".join(to), alert.title
    made["Message-ID"] = f"<{_name(alert.id)}@drift-pipeline>"
    made["References"] = f"<{thread}@drift-pipeline>"
    made["Auto-Submitted"] = "auto-generated"
    if alert.action is not Action.TRIGGER:
        made["In-Reply-To"] = f"<{thread}@drift-pipeline>"
    with suppress(ValueError):  # a time that nobody can read; the server dates it
        made["Date"] = format_datetime(datetime.fromisoformat(alert.at))
    made.set_content(alert.text())
    return made


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
