"""Operating: what people may do to a model's loop. Each verb is one audited change with an actor and a reason."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from drift_pipeline.clock import Clock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import ConflictError, DriftError, InputError, NothingToDoError, RefusedError
from drift_pipeline.loop.context import Context, Trust
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.loop import Loop
from drift_pipeline.loop.releasing.advancing import hurry
from drift_pipeline.loop.releasing.putting_back import put_back
from drift_pipeline.loop.releasing.rolling_back import roll_back as back
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.retraining.fitting import plan_of
from drift_pipeline.policy.decide import Decision, Trigger
from drift_pipeline.policy.incident import Incident
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

T = TypeVar("T")
_TRIES = 5


def retried(do: Callable[[], T]) -> T:
    """Do what changes nothing where it conflicts; again where a tick came in between, whose state is taken up first.

    Raises:
        ConflictError: ticks came in between each time.
    """
    for _ in range(_TRIES - 1):
        with suppress(ConflictError):
            return do()
    return do()


def retrain(
    loop: Loop, actor: str, reason: str, *, hotfix: bool = False, steps: Sequence[str] = ()
) -> tuple[str, Decision]:
    """Ask the policy for a retrain, or for a hotfix, which has a lane of its own; a run comes of it where it agrees.

    Args:
        steps: of the graph that are to be trained alone.

    Raises:
        RefusedError: the policy refuses as it did at the last time.
        InputError: the graph has no such step, or the champion none of the others as the spec declares them.
    """
    trigger = Trigger.HOTFIX if hotfix else Trigger.OPERATOR
    loop.catch_up()
    _require_steps(loop, steps)
    decided = loop.decide(trigger, loop.look(), actor=actor, reason=given(reason), steps=steps)
    if decided is None:
        name = loop.spec.name
        raise RefusedError(f"{name}: the policy refuses as before; drift decisions {name} tells why")
    return decided


def _require_steps(loop: Loop, steps: Sequence[str]) -> None:
    spec, champion = loop.spec, loop.monitor.champion
    if odd := [name for name in steps if name not in spec.graph]:
        known = ", ".join(spec.graph) or "none, since its spec declares no graph"
        raise InputError(f"{spec.name}: {odd[0]!r} is no step of the graph; there are: {known}")
    plan_of(loop.rollouts.context, steps, champion.digest).taken(spec)


def promote(loop: Loop, actor: str, reason: str) -> Status:
    """The rollout's next step forward without waiting for the time of its phase; evidence and approvals count as ever.

    Raises:
        NothingToDoError: no rollout is under way.
        RefusedError: something else than time is lacking.
    """
    loop.catch_up()
    moved = hurry(loop.rollouts, loop.monitor.champion, actor, given(reason))
    loop.steering.steer()
    loop.session.follow_champion()
    return moved


def roll_back(loop: Loop, actor: str, reason: str, *, champion: bool = False) -> Status:
    """Stop the rollout, or go back to the version before; no policy is asked, and nothing is waited for.

    The next tick monitors the version that answers then, so that this takes no longer than one transaction.
    `champion` as for `releasing.rolling_back`. Where it was changed beside the audit who answers, that is put back
    first, as an act of its own; there may be nothing else to go back from then. Each is done again, for itself, where a
    tick came in between.
    """
    rollouts = loop.rollouts
    answers = retried(lambda: put_back(rollouts, actor, given(reason)))
    try:
        moved = retried(lambda: back(rollouts, actor, reason, champion=champion))
    except InputError:
        if answers is None:
            raise
        now, name = loop.clock.now(), loop.spec.name
        return Status(f"{name}-put-back", name, "", answers, Phase.ROLLED_BACK, now, now, reason)
    assert moved is not None, "no particular rollout was asked for"
    with suppress(DriftError):  # it is rolled back; another controller hears of it now, or at the next tick
        loop.steering.steer()
    return moved


def brake(
    settings: Settings,
    store: ControlStore,
    registry: Registry,
    spec: ModelSpec,
    clock: Clock,
    rollout_id: str,
    why: str,
) -> Status | None:
    """What the gateway does when a version it serves breaches its SLO: roll back exactly that rollout.

    None, and nothing is changed, where somebody rolled it back already, or another one is under way by now.
    """
    ledger, lake = Ledger(spec, store, clock, settings.environment), Lake(settings.lake / spec.name, source="loop")
    context = Context(spec, ledger, lake, registry, clock, Trust(settings.gitops, settings.environment, dict, ""))
    return back(Rollouts(context), "gateway", f"SLO breach: {why}", only=rollout_id)


def pause(loop: Loop, actor: str, reason: str, *, on: bool) -> None:
    """Hold retraining and promotion, or let them go on. Monitoring and rollback are never held.

    Raises:
        NothingToDoError: what is to go on is not paused.
    """
    if not on and not loop.pauses.paused():
        name = loop.spec.name
        raise NothingToDoError(f"{name}: is not paused; a maintenance is ended by drift maintenance end {name}")
    event = "model.paused" if on else "model.resumed"
    _put(loop, event, "pause", {"on": on}, actor, reason)


def announce_maintenance(loop: Loop, actor: str, reason: str, span: Window) -> None:
    """Rows of the span are kept, but judge nothing, and nothing is done while it lasts.

    It begins now, where it is to have begun before: those rows have judged. One that goes on, or is still to come,
    gives way to it, so that a maintenance can be ended early or made longer.

    Raises:
        InputError: the span is over already: its rows have judged.
    """
    now = loop.clock.now()
    if span.end <= now:
        raise InputError(f"maintenance until {span.end:%Y-%m-%d %H:%M} is over already; give a --to in the future")
    _maintain(loop, "maintenance.announced", Window(max(span.start, now), span.end), actor, reason)


def end_maintenance(loop: Loop, actor: str, reason: str) -> None:
    """Rows judge from now on: the maintenance that goes on ends here, and one still to come is called off.

    Raises:
        NothingToDoError: there is none.
    """
    now = loop.clock.now()
    if not any(now < span.end for span in loop.pauses.maintenances()):
        raise NothingToDoError(f"{loop.spec.name}: no maintenance goes on, and none is to come")
    _maintain(loop, "maintenance.ended", Window(now, now), actor, reason)


def _maintain(loop: Loop, event: str, span: Window, actor: str, reason: str) -> None:
    """The span in place of what is left of those before, whose rows so far judge nothing either."""
    now = loop.clock.now()
    before = [Window(one.start, min(one.end, now)) for one in loop.pauses.maintenances() if one.start < now]
    body = {**_ends(span), "earlier": [_ends(one) for one in before if one.length]}
    _put(loop, event, "maintenance", body, actor, reason)


def _ends(span: Window) -> dict[str, str]:
    return {"from": span.start.isoformat(), "to": span.end.isoformat()}


def acknowledge(loop: Loop, actor: str, reason: str) -> str:
    """Somebody looks after the open incident; returns its key."""
    key = _open_incident(loop.ledger, loop.spec).key
    _put(loop, "incident.acknowledged", f"acknowledged/{key}", {"key": key}, actor, reason)
    return key


def acknowledge_paged(ledger: Ledger, clock: Clock, key: str, actor: str, reason: str) -> bool:
    """As `acknowledge`, by whoever was paged elsewhere, who may tell it more than once; False where that is known."""
    name = f"acknowledged/{key}"
    if ledger.find(name) is not None:
        return False
    told = {"key": key, "actor": actor, "reason": reason, "at": clock.now().isoformat()}
    ledger.commit("incident.acknowledged", {"key": key, "reason": reason}, puts={name: told}, actor=actor)
    return True


def snooze(loop: Loop, actor: str, reason: str, until: datetime) -> None:
    """No page about drift before the moment; what happens is recorded as ever.

    Raises:
        InputError: the moment is past.
    """
    if until <= loop.clock.now():
        raise InputError(f"{until:%Y-%m-%d %H:%M} is past; snooze until a later time")
    _put(loop, "incident.snoozed", "snooze", {"until": until.isoformat()}, actor, reason)


def close_incident(loop: Loop, actor: str, reason: str) -> str:
    """End the open incident by hand; what is still found opens it again. Returns its key.

    Raises:
        ConflictError: a tick came in between; nothing is changed, so do it again.
    """
    before = _open_incident(loop.ledger, loop.spec)
    closed = replace(Incident(before.reference), key=before.key, onset=before.onset, closed_at=loop.clock.now())
    memory = loop.ledger.recall() or {}
    loop.ledger.find("incident")
    loop.ledger.commit(
        "incident.closed",
        {"key": before.key, "reason": given(reason), "by": "hand"},
        puts={"incident": closed.to_json()},
        actor=actor,
        memory={**memory, "incident": closed.to_json()},
    )
    return before.key


def _open_incident(ledger: Ledger, spec: ModelSpec) -> Incident:
    memory = ledger.recall()
    incident = Incident.from_json(memory["incident"] if memory else ledger.get("incident"))
    if not incident.open:
        raise NothingToDoError(f"{spec.name}: no incident is open")
    return incident


def _put(loop: Loop, event: str, name: str, body: Mapping[str, Any], actor: str, reason: str) -> None:
    loop.ledger.get("model")  # of an adopted model only
    loop.ledger.find(name)
    told = {**body, "actor": actor, "reason": given(reason), "at": loop.clock.now().isoformat()}
    loop.ledger.commit(event, {**body, "reason": reason}, puts={name: told}, actor=actor)


def given(reason: str) -> str:
    """The reason. Raises InputError where it is blank."""
    if not reason.strip():
        raise InputError("--reason: is empty; say why, for it stands in the audit")
    return reason
