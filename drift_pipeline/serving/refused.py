"""Tells people of what comes and goes wrong: one alert a model, kind and hour, by way of the outbox.

Much is laid aside, late, or of ids that are another's; or it waits and does not land. `drift status` shows it as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

from drift_pipeline.clock import Clock
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.loop import concerns
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.refusals import Concern, Refused, Waiting, What

UNKNOWN, WAITING = "unknown", "waiting"


@contextmanager
def telling(
    settings: Settings, specs: Mapping[str, ModelSpec], clock: Clock
) -> Iterator[Callable[[Iterable[Concern]], None]]:
    """A function that alerts; it may be told the same again and again."""

    def tell(found: Iterable[Concern]) -> None:
        for one in found:
            owner = specs[one.model].owner if one.model in specs else ""
            what = WAITING if isinstance(one, Waiting) else one.what
            details = {"refused": one.refused, "events": one.events} if isinstance(one, Refused) else {}
            why, now = _why(one, settings), clock.now()
            concerns.tell(store, one.model or UNKNOWN, owner, f"events.{what}", why, now, actor="capture", **details)

    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        yield tell


def _why(one: Concern, settings: Settings) -> str:
    """Reasons and payloads stay where they are: they quote what producers sent, and an alert leaves the house."""
    if isinstance(one, Waiting):
        return (
            f"events have waited for {one.seconds / 60:.0f} minutes below {settings.home / 'spool'} and do not land; "
            "what drift capture says tells why, and they land once that is mended"
        )
    of = f"{one.refused} of the last {one.events:,} events"
    match one.what:
        case What.LATE:
            return f"{of} came more than a week behind the others and are counted nowhere; the table late holds them"
        case What.SHARED:
            return f"{of} have an id that another producer used as well; give each producer ids of its own"
    whose = "" if one.model else " named no model that is known here and"
    return f"{of}{whose} were laid aside; {settings.dead_letters} holds them with the reason"
