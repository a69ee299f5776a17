"""Reconciling: what a controller is told next, so that it comes to where the control store says; a pure function.

What it did by itself, and that nobody here approved, is not undone silently: it ends the rollout here as well.
"""

from dataclasses import dataclass

from drift_pipeline.rollout.controllers import Act, Seen, State, Wanted
from drift_pipeline.rollout.plan import Phase


@dataclass(frozen=True)
class Step:
    """`act` is what it is to be told, None = nothing now. `stopped`: why the rollout has to be rolled back here;
    `differs`: what it does that the control store does not say."""

    act: Act | None = None
    stopped: str = ""
    differs: str = ""


def next_step(wanted: Wanted, seen: Seen) -> Step:
    """One act at most. Told again, it comes to the same; in any order of crashes it ends where the store says."""
    if seen.state is State.ABSENT:
        return Step(Act.CREATE)
    ours = wanted.candidate is not None and seen.newest == wanted.candidate
    if seen.state is State.ABORTED:
        return _aborted(wanted, seen)
    if ours:
        return _candidate(wanted, seen)
    if seen.newest.digest == wanted.champion.digest:
        return _champion(wanted, seen)
    return _stranger(wanted, seen)


def _aborted(wanted: Wanted, seen: Seen) -> Step:
    of_the_last = bool(wanted.rollout_id) and seen.newest.rollout_id == wanted.rollout_id
    if of_the_last and wanted.phase is not Phase.ROLLED_BACK:
        return Step(stopped=seen.reason or "it was aborted there")
    if seen.newest.digest != wanted.champion.digest:
        return Step(Act.RESTORE)
    told = f"{wanted.champion.version}, which is to answer, was aborted there: {seen.reason}"
    return Step(Act.COMPLETE, differs=told)


def _candidate(wanted: Wanted, seen: Seen) -> Step:
    """Sent more than was approved, it has to go, whoever meant well."""
    whole = seen.state is State.SETTLED or seen.asked is Act.COMPLETE
    if whole or (seen.share and not wanted.share):
        share = 100 if whole else seen.share
        return Step(stopped=f"it was sent {share} % of the traffic there in {wanted.phase}, which nobody approved here")
    if seen.state is State.SHADOW and wanted.share:
        return Step(Act.PROMOTE)
    if seen.state is State.CANARY and seen.share != wanted.share:
        return Step(differs=f"the candidate is sent {seen.share} % of the traffic, not {wanted.share}")
    return Step()


def _champion(wanted: Wanted, seen: Seen) -> Step:
    if seen.state is not State.SETTLED and seen.stable != seen.newest.digest:
        return Step(None if seen.asked is Act.COMPLETE else Act.COMPLETE)
    return Step(Act.BEGIN if wanted.candidate is not None and seen.state is State.SETTLED else None)


def _stranger(wanted: Wanted, seen: Seen) -> Step:
    """What was rolled back here a moment ago is expected there; anything else is somebody's."""
    expected = bool(wanted.rollout_id) and seen.newest.rollout_id == wanted.rollout_id
    known = seen.newest.version or seen.newest.digest or "a version without a digest"
    differs = "" if expected else f"{known} is rolled out there, which the control store knows nothing of"
    if seen.state is State.SETTLED or seen.stable == seen.newest.digest:
        return Step(Act.RESTORE, differs=differs)
    return Step(None if seen.asked is Act.ABORT else Act.ABORT, differs=differs)
