"""Routes: who answers which model's requests right now, as the control store has it. The gateway and the mirror ask."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import Record
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.spec import ModelSpec

Document = Mapping[str, Any]  # what `Version.to_json` wrote


@dataclass(frozen=True)
class Route:
    """One model's traffic. Versions are documents for `Version.load`; `weight` is the candidate's share in percent.

    `candidate` is None while no rollout is under way; `mirror`: a copy of the traffic is to be scored by whichever of
    the two did not answer. `previous` is what a rollback would put back; None of a first version. `rollout_id`, `phase`
    and `since`, when it began or ended, are of the last rollout, also once it is over.
    """

    model: str
    champion: Document
    candidate: Document | None
    previous: Document | None
    rollout_id: str
    phase: Phase | None
    weight: int
    mirror: bool
    since: datetime | None = None


def routes(store: ControlReader, specs: Iterable[ModelSpec]) -> dict[str, Route]:
    """The route of each model that was adopted; errors as of `route_of`."""
    found = (route_of(store, spec) for spec in specs)
    return {route.model: route for route in found if route is not None}


def route_of(store: ControlReader, spec: ModelSpec) -> Route | None:
    """One model's; None where it was not adopted.

    Raises:
        IntegrityError: who answers, the rollout or the candidate is not what the audit says was written.
    """
    champion = _attested(store, "model", spec.name)
    if champion is None:
        return None
    previous = champion.body.get("previous")
    rollout = _attested(store, "rollout", spec.name)
    status = Status.from_json(rollout.body) if rollout else None
    if status is None or not status.active:
        if status is None:
            return Route(spec.name, champion.body, None, previous, "", None, 0, mirror=False)
        over = status.rollout_id, status.phase
        return Route(spec.name, champion.body, None, previous, over[0], over[1], 0, mirror=False, since=status.since)
    candidate = _attested(store, "candidate", f"{spec.name}/{status.candidate}")
    weight = spec.rollout.canary_weight if status.phase is Phase.CANARY else 0
    body = candidate.body if candidate else None
    return Route(
        spec.name,
        champion.body,
        body,
        previous,
        status.rollout_id,
        status.phase,
        weight,
        mirror=body is not None,
        since=status.started,
    )


def _attested(store: ControlReader, kind: str, key: str) -> Record | None:
    found = store.get(kind, key)
    return None if found is None else store.attest(found)
