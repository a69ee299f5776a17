"""Google Cloud Pub/Sub: each alert a CloudEvent, in order for each incident. Wants the extra `pubsub`.

Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS, or the machine's); PUBSUB_EMULATOR_HOST names an emulator.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from drift_pipeline.alerts.alert import Alert, dedup_key
from drift_pipeline.alerts.channels import Secrets
from drift_pipeline.alerts.channels.events import CONTENT_TYPE, encoded
from drift_pipeline.alerts.channels.http import SECONDS
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.spec.parts import Part

if TYPE_CHECKING:
    from google.cloud.pubsub_v1 import PublisherClient

_LONGEST = 900  # letters of an attribute, of which Pub/Sub takes 1024 bytes


class PubSub(Part):
    """The topic is there already, and ordered by key in whoever subscribes with message ordering."""

    kind: Literal["pubsub"]
    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9:.-]{4,62}[a-z0-9]$")]
    topic: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$")]

    def receiver(self, _: Secrets) -> "Sender":
        """Raises InputError where the package is not installed, or Google finds no credentials."""
        try:
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.pubsub_v1 import PublisherClient
            from google.cloud.pubsub_v1.types import PublisherOptions
        except ImportError as error:
            raise InputError("pubsub: google-cloud-pubsub is missing; pip install 'drift-pipeline[pubsub]'") from error
        try:
            client = PublisherClient(publisher_options=PublisherOptions(enable_message_ordering=True))
        except GoogleAuthError as error:
            raise InputError(f"pubsub: Google finds no credentials ({type(error).__name__})") from error
        return Sender(client, client.topic_path(self.project, self.topic))


@dataclass(frozen=True)
class Sender:
    client: "PublisherClient"
    topic: str

    def send(self, alert: Alert) -> None:
        from google.api_core import exceptions
        from google.api_core.retry import Retry

        key = dedup_key(alert.incident)
        attributes = {"content-type": CONTENT_TYPE, "id": alert.id, "action": alert.action, "severity": alert.severity}
        named = {name: str(value)[:_LONGEST] for name, value in attributes.items()}
        try:
            retry, data = Retry(timeout=SECONDS), encoded(alert)
            sent = self.client.publish(self.topic, data, key, retry=retry, timeout=SECONDS, **named)
            sent.result(timeout=2 * SECONDS)
        except Exception as error:
            self.client.resume_publish(self.topic, key)  # a key that failed once is held back until then
            if isinstance(error, exceptions.InvalidArgument):
                raise InputError("refuses the alert: InvalidArgument") from None
            raise UnavailableError(f"is not reached: {type(error).__name__}") from None
