"""The YAML that DRIFT_ALERTS names: channels, and routes by severity, model and owner to them."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from drift_pipeline.alerts.alert import Alert, Severity
from drift_pipeline.alerts.channels.email import Email
from drift_pipeline.alerts.channels.pagerduty import PagerDuty
from drift_pipeline.alerts.channels.pubsub import PubSub
from drift_pipeline.alerts.channels.slack import Slack
from drift_pipeline.alerts.channels.webhook import Webhook
from drift_pipeline.spec.parts import Part
from drift_pipeline.spec.reading import read_part

AnyChannel = Annotated[Email | PagerDuty | PubSub | Slack | Webhook, Field(discriminator="kind")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class Route(Part):
    """What fits all that it names goes to its channels; `model` and `owner` may have wildcards such as `fraud_*`."""

    severity: Severity | None = None
    model: str = "*"
    owner: str = "*"
    channels: Annotated[list[Name], Field(min_length=1)]

    def fits(self, alert: Alert) -> bool:
        severe = self.severity in (None, alert.severity)
        return severe and fnmatchcase(alert.model, self.model) and fnmatchcase(alert.owner, self.owner)


class Routing(Part):
    """An alert goes to the channels of every route that fits. The file `alerts.jsonl` has all of them anyhow."""

    channels: Annotated[dict[Name, AnyChannel], Field(min_length=1)]
    routes: Annotated[list[Route], Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> Self:
        used = {name for route in self.routes for name in route.channels}
        if odd := sorted(used - self.channels.keys()):
            raise ValueError(f"a route names the channel {odd[0]!r}; there are: {', '.join(self.channels)}")
        if idle := sorted(self.channels.keys() - used):
            raise ValueError(f"no route leads to the channel {idle[0]!r}; give it one, or leave it out")
        return self

    def wants(self, channel: str, alert: Alert) -> bool:
        return any(channel in route.channels and route.fits(alert) for route in self.routes)


def read_routing(path: Path) -> Routing:
    """Raises SpecError, with file and line, where it cannot be read or is wrong."""
    return read_part(path, Routing)
