"""Where alerts go."""

from typing import Protocol

from drift_pipeline.control.store import Message


class Channel(Protocol):
    """Obligations: `send` returns only when the alert is safe there, and may be called twice with one message id.

    Raises UnavailableError when it is not reached; the outbox keeps the message and tries again.
    """

    def send(self, message: Message) -> None: ...
