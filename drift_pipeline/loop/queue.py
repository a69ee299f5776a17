"""The queue of retrains: each was decided on, and stays here until a run has come of it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.loop.context import Context
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.state import Retrains
from drift_pipeline.policy.decide import Action, Trigger

LEASE = timedelta(hours=6)  # of a run; one that takes longer, or died, may be taken over
NORMAL, HOTFIX = "normal", "hotfix"  # lanes
WANTED, RUNNING, PROVEN = "wanted", "running", "proven"


class Queue:
    """One model's. An entry is wanted, running under a lease, and then what its run came to."""

    def __init__(self, context: Context) -> None:
        self._ledger, self._clock, self._pauses = context.ledger, context.clock, Pauses(context)

    def entry(
        self, decision_id: str, action: Action, trigger: Trigger, incident: str, at: datetime
    ) -> dict[str, Mapping[str, Any]]:
        """State to put with a decision to retrain."""
        body = {
            "decision": decision_id,
            "lane": HOTFIX if action is Action.HOTFIX_RETRAIN else NORMAL,
            "incident": incident,
            "trigger": str(trigger),
            "status": WANTED,
            "at": at.isoformat(),
            "digest": None,
            "lease": None,
        }
        return {f"retrain/{decision_id}": body}

    def wanted(self) -> list[Mapping[str, Any]]:
        """What no run has come of yet, or whose run has let its lease run out; oldest first."""
        if self._pauses.in_maintenance():
            return []
        paused = self._pauses.paused()
        found = [body for _, body in self._ledger.all("retrain") if self._free(body)]
        return [body for body in found if not paused or body["trigger"] in (Trigger.OPERATOR, Trigger.HOTFIX)]

    def under_way(self, trigger: Trigger) -> bool:
        """Whether one is wanted or running in the lane of the trigger: a hotfix does not wait for a long retrain."""
        lanes = (HOTFIX,) if trigger is Trigger.HOTFIX else (NORMAL, HOTFIX)
        return any(
            body["lane"] in lanes and (body["status"] == WANTED or (body["status"] == RUNNING and not self._free(body)))
            for _, body in self._ledger.all("retrain")
        )

    def claim(self, decision_id: str) -> bool:
        """Take a wanted retrain for this process, for as long as the lease; False where it is taken or done.

        Raises:
            ConflictError: somebody else was faster.
        """
        body = self._ledger.get(f"retrain/{decision_id}")
        if self._free(body):
            self._lease(body, "training.claimed")
            return True
        return False

    def renew(self, decision_id: str) -> bool:
        """A new lease for the run that holds the old one, and is tried again; False where it was given up."""
        body = self._ledger.get(f"retrain/{decision_id}")
        if body["status"] == RUNNING:
            self._lease(body, "training.renewed")
            return True
        return False

    def give_up(self, decision_id: str, why: str) -> None:
        """A run failed: what it was for is not wanted any more, and everybody may know why."""
        name = f"retrain/{decision_id}"
        body = self._ledger.get(name)
        if body["status"] in (WANTED, RUNNING):
            done = Retrains.from_json(self._ledger.get("retrains"))
            done = replace(done, attempted=self._clock.now())  # else it would be decided again at once
            put = {name: {**body, "status": "failed", "lease": None}, "retrains": done.to_json()}
            alert = self._ledger.alert(decision_id, "training.failed", why)
            self._ledger.commit(
                "training.failed", {"decision": decision_id, "because": why}, puts=put, messages=[alert]
            )

    def newest_proven(self, champion: str) -> str | None:
        """The digest of the newest candidate that passed its gates against this champion and was not released yet.

        One that was proven against another champion is outdated, and audited as such.
        """
        for name, body in reversed(self._ledger.all("retrain")):
            if body["status"] != PROVEN:
                continue
            if not self.is_outdated(body, champion):
                return str(body["digest"])
            told = {"decision": body["decision"], "because": "it was proven against another champion than today's"}
            put = {name: {**body, "status": "outdated"}}
            self._ledger.commit("candidate.outdated", told, {"bundle": str(body["digest"])}, puts=put)
        return None

    def of(self, digest: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The entries that this candidate came of."""
        return [(name, body) for name, body in self._ledger.all("retrain") if body["digest"] == digest]

    def is_outdated(self, body: Mapping[str, Any], champion: str) -> bool:
        """Whether its candidate was proven against another champion than this one."""
        pinned: str = self._ledger.get(f"training/{body['decision']}")["champion"]
        return pinned != champion

    def _lease(self, body: Mapping[str, Any], event: str) -> None:
        taken = {**body, "status": RUNNING, "lease": (self._clock.now() + LEASE).isoformat()}
        told = {"decision": body["decision"], "lane": body["lane"]}
        self._ledger.commit(event, told, puts={f"retrain/{body['decision']}": taken})

    def _free(self, body: Mapping[str, Any]) -> bool:
        """Wanted, or of a run that neither ended nor renewed its lease."""
        if body["status"] != RUNNING:
            return bool(body["status"] == WANTED)
        return self._clock.now() >= datetime.fromisoformat(body["lease"])
