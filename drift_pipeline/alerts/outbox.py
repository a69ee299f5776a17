"""Drive alerts from the outbox to their channel."""

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import UnavailableError

ALERTS = "alerts"


def deliver(store: ControlStore, channel: Channel) -> int:
    """Send what is pending, oldest first; returns how many went.

    What the channel does not take stays, with the reason, and is tried again by the next call, in order.
    """
    sent = 0
    for message in store.pending(topic=ALERTS):
        try:
            channel.send(message)
        except UnavailableError as error:
            store.failed(message.id, str(error))
            break
        store.delivered(message.id)
        sent += 1
    return sent
