"""Tells people when much of what comes is laid aside: one alert a model and hour, by way of the outbox."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime

from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.refusals import Refused

KIND, EVENT, UNKNOWN = "laid_aside", "events.laid_aside", "unknown"


@contextmanager
def telling(
    settings: Settings, specs: Mapping[str, ModelSpec], clock: Clock
) -> Iterator[Callable[[Iterable[Refused]], None]]:
    """A function that alerts; it may be told the same again and again."""

    def tell(found: Iterable[Refused]) -> None:
        for one in found:
            owner = specs[one.model].owner if one.model else ""
            _tell(store, one, owner, f"{settings.dead_letters}", clock.now())

    with closing(open_store(settings, clock)) as store:
        yield tell


def _tell(store: ControlStore, one: Refused, owner: str, folder: str, now: datetime) -> None:
    """Reasons and payloads stay where they are: they quote what producers sent, and an alert leaves the house."""
    name, hour = one.model or UNKNOWN, f"{now:%Y-%m-%dT%H}"
    before = store.get(KIND, name)
    if before is not None and before.body["hour"] == hour:
        return
    whose = "" if one.model else " named no model that is known here and"
    why = f"{one.refused} of the last {one.events:,} events{whose} were laid aside; {folder} holds them with the reason"
    alert = {"model": one.model, "what": EVENT, "why": why, "at": now.isoformat(), "owner": owner}
    store.commit(
        Entry("capture", EVENT, name, details={"refused": one.refused, "events": one.events}),
        [Put(KIND, name, {"hour": hour}, before.generation if before else 0)],
        [Message(f"{name}:{hour}:{EVENT}", ALERTS, alert)],
    )
