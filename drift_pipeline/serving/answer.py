"""One request's rows to their versions, and what they came to: scores, the events to write down, and counts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from pydantic_core import to_json

from drift_pipeline.logs import told
from drift_pipeline.rollout.route import in_canary
from drift_pipeline.serving.models import CANARY, STABLE, Loaded, Served
from drift_pipeline.serving.protocol import Ask
from drift_pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Count:
    """Rows sent to a version; `errors` have no usable score of it, `slow` took longer than the spec's threshold."""

    version: str
    route: str
    rows: int
    errors: int
    slow: int


@dataclass(frozen=True)
class Answer:
    """`scores` and `versions` (n): what was answered, and by whom; `route` is stable, canary, or split for both.

    A row's one event tells the version that it was sent to. Where a canary has no usable score the champion answers,
    and the event is the canary's failure: its version, and no score. In a pinned gateway nobody answers instead.
    """

    scores: list[float | None]
    versions: list[str]
    route: str
    events: list[bytes]
    counts: list[Count]
    failures: list[str]


def answer(
    spec: ModelSpec,
    served: Served,
    ask: Ask,
    now: datetime,
    began: float,
    seconds: Callable[[], float],
    drills: bool = False,
    producer: str = "",
    traceparent: str = "",
) -> Answer:
    """A row's latency runs from `began`, when the request came, by the clock `seconds`, to its own score; whose the ids
    are is its `producer`'s. The events carry the `traceparent` of the request's span, where it has one."""
    n = len(ask.rows)
    scores: list[float | None] = [None] * n
    versions = [served.champion.name] * n
    events, counts, failures = [b""] * n, [], []
    shared = seconds() - began
    for route, places in _sides(served, ask):
        started = seconds()
        version = served.candidate if route == CANARY and served.candidate else served.champion
        if drills and route == CANARY:
            time.sleep(ask.canary_delay_ms / 1000)  # as a slow model would: nobody else is answered meanwhile
        own, failure = _scores(version, ask, places)
        failures += [failure] if failure else []
        answered = dict(zip(places, own, strict=True))
        missing = [place for place, score in answered.items() if score is None]
        for place in places:
            versions[place] = version.name
        if missing and version is not served.champion:
            instead, failure = _scores(served.champion, ask, missing)
            failures += [failure] if failure else []
            answered |= zip(missing, instead, strict=True)
            for place in missing:
                versions[place] = served.champion.name
        latency_ms = round(1000 * (shared + seconds() - started), 3)
        for place, score in zip(places, own, strict=True):
            scores[place] = answered[place]
            events[place] = _event(spec, ask, place, now, version.name, route, score, latency_ms, producer, traceparent)
        limit = spec.kpis.latency_p95_ms
        slow = len(places) if limit is not None and latency_ms > limit.threshold else 0
        counts.append(Count(version.name, route, len(places), len(missing), slow))
    return Answer(scores, versions, counts[0].route if len(counts) == 1 else "split", events, counts, failures)


def joined(parts: Sequence[Answer]) -> Answer:
    """The answers to the parts of one request, in their order, as one."""
    if len(parts) == 1:
        return parts[0]
    every = [count for part in parts for count in part.counts]
    counts = [
        Count(*side, sum(c.rows for c in of), sum(c.errors for c in of), sum(c.slow for c in of))
        for side in dict.fromkeys((count.version, count.route) for count in every)
        if (of := [count for count in every if (count.version, count.route) == side])
    ]
    routes = {part.route for part in parts}
    return Answer(
        [score for part in parts for score in part.scores],
        [version for part in parts for version in part.versions],
        routes.pop() if len(routes) == 1 else "split",
        [event for part in parts for event in part.events],
        counts,
        [failure for part in parts for failure in part.failures],
    )


def _sides(served: Served, ask: Ask) -> list[tuple[str, Sequence[int]]]:
    """The places of the champion's and the candidate's rows; a side without any is left out."""
    everything = range(len(ask.rows))
    if served.pinned:
        return [(served.alone, everything)]
    if not served.weight:
        return [(STABLE, everything)]
    rollout, weight = served.route.rollout_id, served.weight
    keys = [entity or id for entity, id in zip(ask.entities, ask.ids, strict=True)]
    inside = [in_canary(key, rollout, weight) for key in keys]
    sides = ((STABLE, [at for at in everything if not inside[at]]), (CANARY, [at for at in everything if inside[at]]))
    return [(route, places) for route, places in sides if places]


def _scores(version: Loaded, ask: Ask, places: Sequence[int]) -> tuple[list[float | None], str]:
    """A score a row, None where it is not usable; and why scoring failed as a whole."""
    try:
        found = version.scorer.score([ask.rows[place] for place in places]).tolist()
    except Exception as error:  # whatever a model's code raises, the caller is answered
        return [None] * len(places), f"{version.name} raised {told(error)}"
    return [score if isfinite(score) else None for score in found], ""


def _event(
    spec: ModelSpec,
    ask: Ask,
    at: int,
    now: datetime,
    version: str,
    route: str,
    score: float | None,
    latency_ms: float,
    producer: str,
    traceparent: str,
) -> bytes:
    return to_json(
        {
            "event": "prediction",
            "model": spec.name,
            "id": ask.ids[at],
            "time": now.isoformat(),
            "version": version,
            "route": route,
            "score": score,
            "latency_ms": latency_ms,
            "entity": ask.entities[at],
            "features": {name: cells[at] for name, cells in ask.columns.items()},
            "producer": producer,
            **({"traceparent": traceparent} if traceparent else {}),
        }
    )
