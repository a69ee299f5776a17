"""Where alerts go: a file by default, and whoever a YAML of routes names. One module a channel."""

from collections.abc import Callable
from typing import Annotated, Protocol

from pydantic import Field, SecretStr

from drift_pipeline.alerts.alert import Alert
from drift_pipeline.control.store import Message

SecretName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]  # of a variable, or of a file
Secrets = Callable[[str], SecretStr]  # by name; raises InputError, which tells the name alone, where it is not set


class Channel(Protocol):
    """What is told every message of the outbox, such as the file.

    Obligations: `send` returns only when the alert is safe there, and may be called twice with one message id.
    Raises UnavailableError when it is not reached; the outbox keeps the message and tries again.
    """

    def send(self, message: Message) -> None: ...


class Receiver(Protocol):
    """Whoever is told alerts by routes.

    Obligations: `send` returns only when the alert is safe there, takes seconds at most, and may be called twice with
    one alert, which the receiver knows by its incident and action where it can. No error tells a secret.

    Raises:
        InputError: it was reached and refuses this alert.
        UnavailableError: anything else; the alert is kept and tried again.
    """

    def send(self, alert: Alert) -> None: ...
