"""The people around a rollout: approvals that do not count before the one that does, and rollbacks at bad moments."""

from dataclasses import dataclass

from drift_pipeline.clock import MINUTE
from drift_pipeline.control.signing import Signer
from drift_pipeline.errors import ConflictError, DriftError, InputError
from drift_pipeline.evidence.approve import rollout_to_approve
from drift_pipeline.files import write_whole
from drift_pipeline.loop import operating
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.faults.world import NAME, Process, Site

WAIT = 2 * MINUTE  # for which each approval that does not count has to hold the rollout


@dataclass(frozen=True)
class Happened:
    fault: str
    told: str
    wrong: str = ""


class People:
    """Asked each minute; it answers with what it has just done, or found to have come of it."""

    def __init__(self, site: Site, processes: tuple[Process, ...]) -> None:
        self.site, self.processes = site, processes
        self.rollbacks = 0
        self._tried = 0
        self._until = site.clock.now()
        self._release = ""

    def act(self) -> list[Happened]:
        route, now = self.site.route, self.site.clock.now()
        if self._release:
            return self._again()
        if now < self._until:
            return []
        if route.phase is Phase.AWAITING_APPROVAL and route.candidate is not None:
            return self._approvals(str(route.candidate["digest"]))
        if route.phase is Phase.CANARY and route.candidate is not None:
            return self._in_canary(str(route.candidate["digest"]), route.rollout_id)
        return []

    def _approvals(self, digest: str) -> list[Happened]:
        site, self._until = self.site, self.site.clock.now() + WAIT
        kinds = ("missing", "forged", "by who trained it", "for another digest")
        if self._tried < len(kinds):
            kind, self._tried = kinds[self._tried], self._tried + 1
            if kind == "forged":
                site.approve(site.stranger, digest)
            elif kind == "by who trained it":
                site.approve(Signer.load(site.settings.keys / "trainer.pem"), digest)
            elif kind == "for another digest":
                other = site.approve(site.approver, f"sha256:{'a' * 64}")
                folder = site.settings.gitops / "approvals" / NAME
                write_whole(folder / f"{digest.removeprefix('sha256:')}.other.dsse.json", other)
            return [Happened(f"approval {kind}", "holds in awaiting_approval")]
        site.approved.add(digest)
        site.approve(site.approver, digest)
        return []

    def _in_canary(self, digest: str, rollout_id: str) -> list[Happened]:
        """The first is rolled back at once, the second in the very moment in which it is promoted."""
        if self.rollbacks == 0:
            self.rollbacks, self._release = 1, digest
            operating.roll_back(self.site.by_hand(), "ada", "not now")
            return [Happened("rollback during a canary", f"{rollout_id} is rolled back")]
        if self.rollbacks == 1 and not self.processes[0].fuses.only:
            self._race_of = digest
            for process in self.processes:
                process.fuses.only["store.commit"] = "rollout.full"
                process.fuses.set["store.commit", "before"] = self._race
        return []

    def _race(self) -> None:
        self.rollbacks, self._release = 2, self._race_of
        for process in self.processes:
            process.fuses.only.clear()
            process.fuses.set.pop(("store.commit", "before"), None)
        operating.roll_back(self.site.by_hand(), "ada", "stop")

    def _again(self) -> list[Happened]:
        """The operator who rolled it back changes their mind."""
        digest, self._release = self._release, ""
        raced = self.rollbacks == 2
        phase = self.site.phase()
        raced_to = f"it is {phase}, {self.site.route.rollout_id}"
        told = [Happened("rollback while it is promoted", raced_to)] if raced else []
        if raced:
            self.rollbacks = 3
            if phase is not Phase.ROLLED_BACK:
                told = [Happened(told[0].fault, told[0].told, wrong="the rollback did not win")]
        try:
            self.site.by_hand().release(digest, actor="ada")
        except InputError as error:
            told.append(Happened("released again without a new approval", str(error)))
        else:
            told.append(Happened("released again", "begun", wrong="nobody approved it anew"))
        try:
            candidate = self.site.store.get("candidate", f"{NAME}/{digest}")
            assert candidate is not None
            rollout = rollout_to_approve(self.site.store, NAME, candidate.body["version"], digest)
            self.site.approve(self.site.approver, digest, rollout)
            self.site.by_hand().release(digest, actor="ada")
        except (ConflictError, DriftError) as error:
            told.append(Happened("released again", "refused", wrong=str(error)))
        return told

    def roll_back_champion(self) -> Happened:
        """From a champion that was promoted to the one before it."""
        site, before = self.site, self.site.route
        if before.previous is None or (before.candidate is not None):
            return Happened("rollback after full", "there is nothing to go back to by now")
        operating.roll_back(site.by_hand(), "ada", "it disappoints", champion=True)
        after = site.route
        wrong = "" if after.champion["digest"] == before.previous["digest"] else "another version answers"
        return Happened(
            "rollback after full", f"{before.champion['version']} -> {after.champion['version']}", wrong=wrong
        )
