"""PagerDuty, by its Events API v2: trigger, acknowledge and resolve follow the incident, whose name is the dedup key.

Plain HTTP instead of PagerDuty's own client: that one takes https alone, so that no test could look at what it sends
without a certificate, and sleeps for its retries, which the delivery does by itself.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from drift_pipeline.alerts.alert import Action, Alert, Severity, dedup_key
from drift_pipeline.alerts.channels import SecretName, Secrets
from drift_pipeline.alerts.channels.http import PrivateUrl, post
from drift_pipeline.errors import InputError
from drift_pipeline.spec.parts import Part

_SEVERITIES = {Severity.PAGE: "critical", Severity.TICKET: "warning"}
_MOST_SUMMARY, _MOST_DETAIL = 1024, 8000


class PagerDuty(Part):
    """`secret` names the integration key of an Events API v2 integration (32 letters). `url`: events.eu.pagerduty.com
    of the service region EU."""

    kind: Literal["pagerduty"]
    secret: SecretName
    url: PrivateUrl = "https://events.pagerduty.com/v2/enqueue"

    def receiver(self, secrets: Secrets) -> "Sender":
        """Raises InputError where the key is missing or none."""
        key = secrets(self.secret)
        if not re.fullmatch(r"[A-Za-z0-9]{32}", key.get_secret_value()):
            raise InputError(f"{self.secret}: is no integration key: it has 32 letters and digits")
        return Sender(self.url, key)


@dataclass(frozen=True)
class Sender:
    url: str
    key: SecretStr

    def send(self, alert: Alert) -> None:
        key = self.key.get_secret_value()
        told = json.dumps({"routing_key": key, **event(alert)}).encode()
        post(self.url, told, {"content-type": "application/json"}, (key,))


def event(alert: Alert) -> dict[str, Any]:
    """Of the Events API v2, without the routing key."""
    told: dict[str, Any] = {"event_action": str(alert.action), "dedup_key": dedup_key(alert.incident)}
    if alert.action is not Action.TRIGGER:
        return told
    told["payload"] = {
        "summary": alert.title[:_MOST_SUMMARY],
        "timestamp": alert.at,
        "severity": _SEVERITIES[alert.severity],
        "source": alert.environment,
        "component": alert.model or "drift",
        "group": alert.owner or "drift",
        "class": alert.what,
        "custom_details": {name: text[:_MOST_DETAIL] for name, text in alert.facts()},
    }
    told["client"] = "drift_pipeline"
    if alert.link:
        told |= {"client_url": alert.link, "links": [{"href": alert.link, "text": "its page"}]}
    return told
