"""How the channels of DRIFT_ALERTS stand, and a try of each: for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from drift_pipeline.alerts.alert import Alert, Teller
from drift_pipeline.alerts.delivery import Progress, alerts_after, recalled
from drift_pipeline.alerts.routing import Routing, read_routing
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import DriftError, InputError
from drift_pipeline.settings import Settings, secret


@dataclass(frozen=True)
class Standing:
    """One channel. `waiting`: alerts that it has to hear, the first 500 audit records on; `since`: of the oldest.

    `parked`: the last alerts that its receiver refuses, of `lost` in all; they are in alerts.jsonl.
    """

    channel: str
    kind: str
    sent: int
    waiting: int
    since: str
    error: str
    again_at: datetime | None
    parked: Sequence[Mapping[str, str]]
    lost: int

    def to_json(self) -> dict[str, Any]:
        again = self.again_at.isoformat() if self.again_at else None
        return {**asdict(self), "again_at": again, "parked": [dict(one) for one in self.parked]}


def standings(settings: Settings, store: ControlReader) -> list[Standing]:
    """How each channel stands, as the YAML has them; none without DRIFT_ALERTS. Raises SpecError of the YAML."""
    if settings.alerts_file is None:
        return []
    routing = read_routing(settings.alerts_file)
    teller = Teller(store, settings.environment, settings.pages)
    return [_standing(store, teller, routing, name) for name in routing.channels]


def _standing(store: ControlReader, teller: Teller, routing: Routing, name: str) -> Standing:
    kept = recalled(store, name)[0]
    at, waiting = kept or Progress(), list[Alert]()
    for _, alert in () if kept is None else alerts_after(store, teller, at.place):  # one that is new begins now
        if alert is not None and at.news(alert, partial(routing.wants, name)):
            waiting.append(alert)
            at = at.with_told(alert)
    at = kept or Progress()
    return Standing(
        channel=name,
        kind=routing.channels[name].kind,
        sent=at.sent,
        waiting=len(waiting),
        since=waiting[0].at if waiting else "",
        error=at.error,
        again_at=datetime.fromtimestamp(at.again_at, UTC) if at.again_at else None,
        parked=at.parked,
        lost=at.lost,
    )


def require(file: Path) -> None:
    """Raises InputError where the YAML is wrong, or a secret that it names is missing or has not its form."""
    for name, channel in read_routing(file).channels.items():
        try:
            channel.receiver(secret)
        except InputError as error:
            raise InputError(f"{file}: the channel {name}: {error}") from error


def told(settings: Settings, store: ControlReader) -> list[str]:
    """What is wrong with the channels, in words; nothing where all is well."""
    try:
        found = standings(settings, store)
    except DriftError as error:
        return [f"go to {settings.alerts} alone: {error}"]
    lines = [f"{one.channel}: {one.waiting:,} wait since {one.since}: {one.error}" for one in found if one.error]
    parked = [one for one in found if one.lost]
    return lines + [f"{one.channel}: {one.lost:,} were refused; the last: {one.parked[-1]['why']}" for one in parked]


def tried(settings: Settings, store: ControlReader, channel: str | None, at: datetime) -> Iterator[tuple[str, str]]:
    """A test alert and its end to each channel, or to one, past the outbox: its name, and what is wrong ("" = nothing).

    Raises InputError where there is no such channel, or none at all.
    """
    if settings.alerts_file is None:
        raise InputError(
            "DRIFT_ALERTS is not set; name a YAML of channels and routes, else alerts.jsonl has them alone"
        )
    channels = read_routing(settings.alerts_file).channels
    if channel is not None and channel not in channels:
        raise InputError(f"there is no channel {channel!r}; there are: {', '.join(channels)}")
    teller = Teller(store, settings.environment, settings.pages)
    for name in channels if channel is None else [channel]:
        try:
            receiver = channels[name].receiver(secret)
            for alert in teller.test(at.isoformat()):
                receiver.send(alert)
        except DriftError as error:
            yield name, str(error)
        else:
            yield name, ""
