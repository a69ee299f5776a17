"""Candidates: what retrains came to, and which of them may be released now."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from drift_pipeline.errors import IntegrityError
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.queue import PROVEN, REJECTED, Queue
from drift_pipeline.loop.releasing.approvals import kept_back, with_waivers
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.releasing.starting import begin


class Candidates:
    """One model's. `champion` is the digest of the version that answers now: what was proven against another one is
    outdated."""

    def __init__(self, context: Context, rollouts: Rollouts) -> None:
        self._at, self._ledger, self._rollouts = context, context.ledger, rollouts
        self._queue, self._pauses = Queue(context), Pauses(context)

    def releasable(self, champion: str) -> str | None:
        """The digest of the candidate whose rollout may begin now: `newest`, unless one is under way, or people asked
        to leave the model alone."""
        if self._pauses.paused() or self._pauses.in_maintenance() or self._rollouts.active is not None:
            return None
        return self.newest(champion)

    def newest(self, champion: str) -> str | None:
        """The digest of the newest proven candidate, else of the newest one whose gates are waived now; None where
        there is neither. Where no waiver is filed that costs one look at a folder."""
        if (proven := self._newest_proven(champion)) is not None:
            return proven
        waived = with_waivers(self._at)
        known = [digest for digest in (self._rejected(champion) if waived else ()) if digest in waived]
        return next((digest for digest in known if not kept_back(self._at, digest)), None)

    def waiting(self, champion: str) -> str | None:
        """The version that is `newest` and was not rolled out yet; None once it has waited for `rollout.deadline`, so
        that one whose rollout cannot begin does not stand in the way of the next for ever."""
        digest = self.newest(champion)
        if digest is None:
            return None
        _, body = self._of(digest)[-1]
        ended_at = datetime.fromisoformat(body.get("ended_at", body["at"]))
        lasts = self._at.clock.now() - ended_at < self._at.spec.rollout.deadline
        return str(self._ledger.get(f"candidate/{digest}")["version"]) if lasts else None

    def release(self, digest: str, champion: str, actor: str) -> bool:
        """Begin the rollout of one whose gates passed or are waived; False where one is under way already.

        Raises:
            IntegrityError: no record says that its gates passed or were waived, the bundle's bytes do not fit, or it
                was proven against another champion than today's.
            InputError: it was rolled out before, and people did not approve that it is rolled out again.
        """
        of = self._of(digest)
        if any(self._is_outdated(body, champion) for _, body in of):
            raise IntegrityError(f"{self._at.spec.name}: {digest} was proven against another champion than today's")
        also: dict[str, Mapping[str, Any]] = {name: {**body, "status": "released"} for name, body in of}
        return begin(self._rollouts, digest, champion, actor=actor, also=also)

    def _newest_proven(self, champion: str) -> str | None:
        """The digest of the newest candidate that passed its gates against this champion and was not released yet.

        One that was proven against another champion is outdated, and audited as such.
        """
        for name, body in reversed(self._queue.entries()):
            if body["status"] != PROVEN:
                continue
            if not self._is_outdated(body, champion):
                return str(body["digest"])
            told = {"decision": body["decision"], "because": "it was proven against another champion than today's"}
            put = {name: {**body, "status": "outdated"}}
            self._ledger.commit("candidate.outdated", told, {"bundle": str(body["digest"])}, puts=put)
        return None

    def _rejected(self, champion: str) -> list[str]:
        """The digests of the candidates that a gate kept back and that were proven against this champion, newest first:
        what people waived of them is to be looked at."""
        found = [body for _, body in reversed(self._queue.entries()) if body["status"] == REJECTED]
        return [str(body["digest"]) for body in found if not self._is_outdated(body, champion)]

    def _of(self, digest: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The entries of the queue that this candidate came of."""
        return [(name, body) for name, body in self._queue.entries() if body["digest"] == digest]

    def _is_outdated(self, body: Mapping[str, Any], champion: str) -> bool:
        """Whether its candidate was proven against another champion than this one."""
        pinned: str = self._ledger.get(f"training/{body['decision']}")["champion"]
        return pinned != champion
