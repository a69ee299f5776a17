"""Slack, by an incoming webhook: its address is the secret."""

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from drift_pipeline.alerts.alert import Action, Alert
from drift_pipeline.alerts.channels import SecretName, Secrets
from drift_pipeline.alerts.channels.http import is_private, post
from drift_pipeline.errors import InputError
from drift_pipeline.spec.parts import Part

_SIGNS = {Action.TRIGGER: ":rotating_light:", Action.ACKNOWLEDGE: ":eyes:", Action.RESOLVE: ":white_check_mark:"}
_MOST, _HEADER = 2900, 150  # letters of a section (3000 by Slack), and of a header


class Slack(Part):
    """`secret` names the address of an incoming webhook, https://hooks.slack.com/services/..."""

    kind: Literal["slack"]
    secret: SecretName

    def receiver(self, secrets: Secrets) -> "Sender":
        """Raises InputError where the address is missing or none."""
        url = secrets(self.secret)
        if not is_private(url.get_secret_value()):
            raise InputError(f"{self.secret}: is no https:// address of an incoming webhook")
        return Sender(url)


@dataclass(frozen=True)
class Sender:
    url: SecretStr

    def send(self, alert: Alert) -> None:
        url = self.url.get_secret_value()
        post(url, json.dumps(body(alert)).encode(), {"content-type": "application/json"}, (url, urlsplit(url).path))


def body(alert: Alert) -> dict[str, Any]:
    """`text` is what a notification shows; nothing in it mentions anybody or is taken for a link."""
    shown = [f"*{name}*\n{_plain(told)}"[:_MOST] for name, told in alert.facts()]
    title = f"{_SIGNS[alert.action]} {alert.title}"
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": one, "verbatim": True}} for one in shown]
    header = {"type": "header", "text": {"type": "plain_text", "text": title[:_HEADER], "emoji": True}}
    return {"text": _plain(title), "blocks": [header, *blocks]}


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
