"""The queue of retrains: each was decided on, and stays here until a run has come of it.

```
wanted -> running -> proven | rejected | refused | failed
   ^_________|   nothing was heard of its process for as long as the lease
```
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from drift_pipeline.clock import speed_of
from drift_pipeline.errors import ConflictError, DriftError, UnavailableError
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.retraining.working import LEASE, beat_of
from drift_pipeline.loop.state import Retrains
from drift_pipeline.policy.decide import Action, Decision, Trigger

MOST_TRIES = 3  # processes that may come to nothing before a retrain is given up
NORMAL, HOTFIX = "normal", "hotfix"  # lanes
WANTED, RUNNING, PROVEN, REJECTED, FAILED = "wanted", "running", "proven", "rejected", "failed"


class Queue:
    """One model's. An entry is wanted, running (`held` by whom, and since when), and then what its run came to."""

    def __init__(self, context: Context) -> None:
        self._at, self._ledger, self._clock, self._pauses = context, context.ledger, context.clock, Pauses(context)

    def entry(
        self,
        decision_id: str,
        decision: Decision,
        trigger: Trigger,
        incident: str,
        at: datetime,
        steps: Sequence[str] = (),
    ) -> dict[str, Mapping[str, Any]]:
        """State to put with a decision to retrain; `policy_digest` names the rules that said so, `capacity` what they
        want it run on, `steps` those of the graph that were asked for, none of them where nobody named any."""
        body = {
            "decision": decision_id,
            "reasons": list(decision.reasons),
            "policy_digest": decision.policy_digest,
            "capacity": str(decision.capacity) if decision.capacity else None,
            "lane": HOTFIX if decision.action is Action.HOTFIX_RETRAIN else NORMAL,
            "incident": incident,
            "trigger": str(trigger),
            "status": WANTED,
            "at": at.isoformat(),
            "digest": None,
            "tries": 0,
            "held": None,
            **({"steps": list(steps)} if steps else {}),
        }
        return {f"retrain/{decision_id}": body}

    def wanted(self) -> list[Mapping[str, Any]]:
        """What no run has come of yet; oldest first."""
        if self._pauses.in_maintenance():
            return []
        paused = self._pauses.paused()
        found = [body for _, body in self.entries() if body["status"] == WANTED]
        return [body for body in found if not paused or body["trigger"] in (Trigger.OPERATOR, Trigger.HOTFIX)]

    def under_way(self, trigger: Trigger) -> bool:
        """Whether one is wanted or running in the lane of the trigger: a hotfix does not wait for a long retrain."""
        lanes = (HOTFIX,) if trigger is Trigger.HOTFIX else (NORMAL, HOTFIX)
        return any(body["lane"] in lanes and body["status"] in (WANTED, RUNNING) for _, body in self.entries())

    def claim(
        self, decision_id: str, holder: str, *, again: bool = False, run: Mapping[str, Any] | None = None
    ) -> bool:
        """Take a wanted retrain for `holder`, or go on with what is its already; False where it is another's, or done.

        Args:
            again: the one that holds it is over, and this one carries on its work.
            run: of the runner that is asked next, which is noted with it: what runs is known, whoever dies when.

        Raises:
            ConflictError: somebody else was faster.
        """
        body = self._ledger.get(f"retrain/{decision_id}")
        if body["status"] == WANTED:
            self._hold(body, "training.claimed", holder, run)
        elif body["status"] != RUNNING:
            return False
        elif body["held"]["by"] != holder:
            if again:
                self._hold(body, "training.renewed", holder)
            return again
        return True

    def open(self, decision_id: str) -> bool:
        """Whether it was noted, and nothing has come of it yet."""
        body = self._ledger.find(f"retrain/{decision_id}")
        return body is not None and body["status"] in (WANTED, RUNNING)

    def holder(self, decision_id: str) -> str:
        """Who is at it; empty where nobody is."""
        return str((self._ledger.get(f"retrain/{decision_id}")["held"] or {"by": ""})["by"])

    def keep(self, goes_on: Callable[[str], bool]) -> None:
        """Tell of what is running that it goes on, where its holder does: between two steps no process of it works."""
        for _, body in self.entries():
            if body["status"] == RUNNING and goes_on(body["held"]["by"]):
                with suppress(ConflictError):  # it tells so itself
                    self._ledger.beat(beat_of(body["decision"], body["held"]["by"]))

    def take_back(self) -> None:
        """What nothing was heard of for as long as the lease is wanted again, and its owner is paged: its process died,
        slept or hangs. What that one may still store is refused.
        """
        for _, body in self.entries():
            if body["status"] == RUNNING and (since := self._silent_since(body)) is not None:
                self._back(body, f"nothing was heard of its process since {since}", page=True)

    def hand_back(self, decision_id: str, holder: str, why: str) -> None:
        """What `holder` could not do, through no fault of its own, is wanted again."""
        body = self._ledger.get(f"retrain/{decision_id}")
        if body["status"] == RUNNING and body["held"]["by"] == holder:
            self._back(body, why, page=False)

    def give_up(self, decision_id: str, why: str) -> None:
        """A run failed: what it was for is not wanted any more, and everybody may know why."""
        name = f"retrain/{decision_id}"
        body = self._ledger.get(name)
        if body["status"] in (WANTED, RUNNING):
            done = Retrains.from_json(self._ledger.get("retrains"))
            done = replace(done, attempted=self._clock.now())  # else it would be decided again at once
            put = {name: {**body, "status": FAILED, "held": None}, "retrains": done.to_json()}
            alert = self._ledger.alert(decision_id, "training.failed", why)
            self._ledger.commit(
                "training.failed", {"decision": decision_id, "because": why}, puts=put, messages=[alert]
            )

    @contextmanager
    def attempt(self, decision_id: str, holder: str) -> Iterator[None]:
        """While `holder` carries it out: what it could not do through no fault of its own is handed back and raised,
        of what failed only the queue is told."""
        try:
            yield
        except (ConflictError, UnavailableError, KeyboardInterrupt) as error:
            self.hand_back(decision_id, holder, str(error) or "it was interrupted")
            raise
        except Exception as error:  # a trainer of the user's own raises what it likes, MemoryError included
            self.fail(decision_id, error)

    def fail(self, decision_id: str, error: Exception) -> str:
        """Give up what raised that; returns the reason, as everybody is told."""
        why = str(error) if isinstance(error, DriftError) else f"{type(error).__name__}: {error}"
        self.give_up(decision_id, why)
        return why

    def entries(self) -> list[tuple[str, Mapping[str, Any]]]:
        """All, as (name, body), in the order of their decisions, which are numbered."""
        return sorted(self._ledger.all("retrain"), key=lambda entry: int(entry[1]["decision"].rpartition("-")[2]))

    def _hold(self, body: Mapping[str, Any], event: str, holder: str, run: Mapping[str, Any] | None = None) -> None:
        held = {"by": holder, "at": self._clock.now().isoformat()}
        taken = {**body, "status": RUNNING, "tries": body["tries"] + 1, "held": held, **({"run": run} if run else {})}
        told = {"decision": body["decision"], "lane": body["lane"], "by": holder}
        told |= {"runner": run["runner"], "run": run["name"]} if run else {}
        self._ledger.commit(event, told, puts={f"retrain/{body['decision']}": taken})

    def _back(self, body: Mapping[str, Any], why: str, *, page: bool) -> None:
        """Wanted again, from the last step that was stored; given up where that was tried often enough."""
        tries, decision_id = body["tries"], body["decision"]
        if tries >= MOST_TRIES:
            self.give_up(decision_id, f"{why}; {tries} processes came to nothing")
            return
        event = "training.lapsed" if page else "training.handed_back"
        alerts = [self._ledger.alert(f"{decision_id}-{tries}", event, f"{why}; it is taken over")] if page else []
        put = {f"retrain/{decision_id}": {**body, "status": WANTED, "held": None}}
        self._ledger.commit(event, {"decision": decision_id, "because": why}, puts=put, messages=alerts)

    def _silent_since(self, body: Mapping[str, Any]) -> str | None:
        """When its process was last heard of, if that is too long ago, or in a time that a clock set back left."""
        held = body["held"]
        beat, now = self._ledger.last_beat(beat_of(body["decision"], held["by"])), self._clock.now()
        known = [moment for moment in (datetime.fromisoformat(held["at"]), beat) if moment is not None]
        heard = min(known, key=lambda moment: abs(now - moment))
        lapsed = abs(now - heard) >= LEASE * speed_of(self._clock)
        return heard.isoformat(timespec="seconds") if lapsed else None
