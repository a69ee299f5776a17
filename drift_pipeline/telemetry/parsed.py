"""The lines of a batch, parsed and sorted by model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat

from drift_pipeline.errors import DriftError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import DeadLetter, Event, read_event
from drift_pipeline.telemetry.letters import dead_letter
from drift_pipeline.telemetry.sources import Batch


@dataclass
class Parsed:
    """Lines of one model, "" for dead letters, and what they say; of a log, their places."""

    lines: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def read_lines(
    lines: Sequence[bytes], specs: Mapping[str, ModelSpec], source: str, now: datetime, batch: Batch | None = None
) -> tuple[dict[str, Parsed], Mapping[str, DriftError]]:
    """By model, dead letters first: an event that is refused for its time, which a later try may accept, then lies
    there as well. And the models whose spec cannot be had, so that their events say nothing yet.

    Args:
        batch: of a log, whose lines they are.
    """
    said = {"": Parsed()}
    unread: dict[str, DriftError] = {}
    for line, place in zip(lines, batch.places if batch else repeat(None, len(lines)), strict=True):
        try:
            if batch is not None and place is not None and place in batch.unread:
                event: Event = dead_letter(line, now, batch.unread[place], source=source)
            else:
                event = read_event(line, specs, now, source, handed_over=True)
        except DriftError as error:
            model = str(json.loads(line)["model"])
            unread[model] = error
            said.setdefault(model, Parsed()).lines.append(line)
            continue
        of_model = said.setdefault("" if isinstance(event, DeadLetter) else event.model, Parsed())
        of_model.lines.append(line)
        of_model.events.append(event)
        if place is not None:
            of_model.places.append(place)
    if not said[""].lines:
        del said[""]
    return said, unread


def refused_of(said: Mapping[str, Parsed]) -> dict[int, str]:
    """Of a log's messages that are no events, the reasons, by place."""
    letters = said.get("", Parsed())
    found = zip(letters.places, letters.events, strict=True)
    return {place: letter.reason for place, letter in found if isinstance(letter, DeadLetter)}
