"""Stepping: a retrain taken one step further by whichever process is asked to, such as a pod of a workflow.

What one step hands to the next is in the control store and the registry, so that each may run on another machine. A
step that was done is not done again: all of them may be repeated in any order of crashes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline.loop.loop import Loop
from drift_pipeline.loop.queue import PROVEN, REJECTED, RUNNING, WANTED
from drift_pipeline.loop.releasing.starting import register
from drift_pipeline.loop.retraining.searching import search
from drift_pipeline.loop.retraining.working import holder_of, working
from drift_pipeline.loop.state import Assignment

TRIES = 5  # where ticks come in between


class Step(StrEnum):
    """In their order."""

    PIN = "pin"
    SEARCH = "search"
    FIT = "fit"
    PROVE = "prove"
    REGISTER = "register"


@dataclass(frozen=True)
class Taken:
    """What a step came to. `going_on`: the next one may begin, or there is none."""

    going_on: bool
    told: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def take(loop: Loop, step: Step, decision_id: str, worker: int = 0) -> Taken:
    """Take one step of the retrain that was decided on; what failed for good gives the decision up, and pages.

    Args:
        worker: of those that search at once, which.

    Raises:
        InputError: nobody decided that, or a step before this one is lacking.
        ConflictError: ticks came in between each time.
        UnavailableError: something does not answer; the step may be taken again.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            loop.catch_up()
            return _take(loop, step, decision_id, worker)
        except ConflictError:
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _take(loop: Loop, step: Step, decision_id: str, worker: int) -> Taken:
    if step is Step.REGISTER:
        made = register(loop.rollouts, loop.trainings.trained(decision_id))
        return Taken(True, f"{made.name} may be shipped", {"version": made.name, "bundle": made.digest})
    loop.queue.take_back()
    status, pinned = _status(loop, decision_id), None
    if status not in (WANTED, RUNNING):
        return _ended(loop, step, decision_id, status)
    if step is not Step.PIN:
        pinned = loop.trainings.pinned(decision_id)
        if step is Step.PROVE:
            loop.trainings.trained(decision_id)
    holder = holder_of(decision_id)
    if not loop.queue.claim(decision_id, holder):
        other = loop.queue.holder(decision_id)
        return Taken(False, f"{decision_id} is held by {other}", {"held_by": other})
    try:
        with working(loop.trainings, decision_id, holder):
            return _work(loop, step, decision_id, pinned, worker)
    except (ConflictError, UnavailableError):
        raise
    except Exception as error:  # a trainer of the user's own raises what it likes, MemoryError included
        why = loop.queue.fail(decision_id, error)
        return Taken(False, f"{decision_id} failed: {why}", {"status": "failed"})


def _status(loop: Loop, decision_id: str) -> str:
    body = loop.ledger.find(f"retrain/{decision_id}")
    if body is None:
        name = loop.spec.name
        raise InputError(
            f"--decision: {name} has no retrain {decision_id!r}; drift decisions {name} lists what there is"
        )
    return str(body["status"])


def _ended(loop: Loop, step: Step, decision_id: str, status: str) -> Taken:
    """A step of a retrain that has ended already: its answer is that of then."""
    known = loop.ledger.find(f"training/{decision_id}")
    before_gates = status == REJECTED and step is not Step.PROVE
    said = {"status": status, **(_facts(Assignment.from_json(known)) if known else {})}
    return Taken(status in (PROVEN, "released") or before_gates, f"{decision_id} is {status} already", said)


def _work(loop: Loop, step: Step, decision_id: str, pinned: Assignment | None, worker: int) -> Taken:
    if pinned is None:
        return _going_on(loop.pin(decision_id, loop.look()), decision_id, "{rows:,} rows are pinned")
    match step:
        case Step.SEARCH:
            found = search(loop.trainings, pinned, worker)
            words = "is searched" if found and (found.searched or found.digest) else "others search on"
            return _going_on(found, decision_id, "is searched while it is fitted" if loop.spec.graph else words)
        case Step.FIT:
            return _going_on(loop.fit(pinned), decision_id, "is trained")
    proven = loop.prove(pinned)
    said = "passed its gates" if proven.accepted else "did not pass its gates"
    facts = {"version": proven.version, "bundle": proven.digest, "passed": proven.accepted}
    facts |= {"before": proven.before, "after": proven.after}
    return Taken(proven.accepted, f"{proven.version} {said}; drift versions {loop.spec.name} tells why", facts)


def _going_on(done: Assignment | None, decision_id: str, words: str) -> Taken:
    if done is None:
        return Taken(False, f"{decision_id}: nothing is trained; the audit record training.refused says why")
    return Taken(True, f"{done.version}: {words.format(rows=done.rows)}", _facts(done))


def _facts(done: Assignment) -> dict[str, Any]:
    return {"version": done.version, "rows": done.rows, "rows_that_prove": done.block_rows, "bundle": done.digest}
