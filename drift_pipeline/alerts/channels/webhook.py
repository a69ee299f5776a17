"""A webhook: a CloudEvent, signed as standardwebhooks.com has it, so that any of its libraries verifies it."""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from drift_pipeline.alerts.alert import Alert
from drift_pipeline.alerts.channels import SecretName, Secrets
from drift_pipeline.alerts.channels.events import CONTENT_TYPE, encoded
from drift_pipeline.alerts.channels.http import Url, post
from drift_pipeline.errors import InputError
from drift_pipeline.spec.parts import Part

_LEAST = 24  # bytes of a key, by the standard


class Webhook(Part):
    """`secret` names the signing key: base64 of 24 to 64 bytes, with or without `whsec_` before it."""

    kind: Literal["webhook"]
    url: Url
    secret: SecretName

    def receiver(self, secrets: Secrets) -> "Sender":
        """Raises InputError where the key is missing or none."""
        given = secrets(self.secret)
        try:
            key = base64.b64decode(given.get_secret_value().removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if len(key) < _LEAST:
            raise InputError(f"{self.secret}: is no signing key: base64 of {_LEAST} bytes or more, as whsec_... has")
        return Sender(self.url, given, key)


@dataclass(frozen=True, repr=False)
class Sender:
    url: str
    secret: SecretStr
    key: bytes

    def send(self, alert: Alert) -> None:
        body, at = encoded(alert), str(int(time.time()))
        name = hashlib.sha256(alert.id.encode()).hexdigest()[:32]  # an id with a dot could be read in two ways
        signature = hmac.new(self.key, b".".join((name.encode(), at.encode(), body)), hashlib.sha256).digest()
        headers = {
            "content-type": CONTENT_TYPE,
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        }
        post(self.url, body, headers, (self.secret.get_secret_value(),))
