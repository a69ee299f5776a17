"""Following: what is wanted is submitted to the runner, and what runs elsewhere is looked after until it ended.

```
wanted -> noted -> submitted -> ended    a run that failed or was cancelled gives up its decision, if that is open, and
            ^__________|                 pages; one that the runner does not know, or no more, is submitted again
```
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop import concerns
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.queue import FAILED, PROVEN, REJECTED, Queue
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.retraining.working import beat_of, holder_of
from drift_pipeline.training.runners import Request, Run, Runner, State

log = logging.getLogger(__name__)
LINES = 40  # of each process's log, kept with what is told of an ended run


@dataclass(frozen=True)
class Followed:
    """A run that ended: what came of its decision, `version` empty where nothing was trained."""

    decision: str
    runner: str
    run: Run
    outcome: str
    version: str


class Following:
    """One model's."""

    def __init__(
        self,
        context: Context,
        queue: Queue,
        trainings: Trainings,
        store: ControlStore,
        runner: Callable[[], Runner | None],
        inline: Runner,
    ) -> None:
        """
        Args:
            runner: who runs the steps of a retrain, None of this process; raises InputError of its file.
            inline: who runs them where nobody else does.
        """
        self._at, self._queue, self._trainings, self._store = context, queue, trainings, store
        self.runner, self._inline = runner, inline

    @property
    def outside(self) -> bool:
        """Whether another system runs the steps of a retrain, even one that cannot be asked for its file."""
        try:
            return self.runner() is not None
        except InputError:
            return True

    def carry_out(self, *, inline: bool) -> list[Followed]:
        """Submit the retrains that are wanted, and look after those that run elsewhere; told are those of which this
        process saw the end.

        Args:
            inline: also where this process itself would have to train.

        Raises:
            ConflictError, UnavailableError: as `follow`.
        """
        try:
            elsewhere = self.runner()
        except InputError as error:  # of its file; a rollout goes on, and back, without it
            if self._queue.wanted():
                spec, now, why = self._at.spec, self._at.clock.now(), f"nothing is trained: {error}"
                concerns.tell(self._store, spec.name, spec.owner, "training.runner", why, now, actor="loop")
            return []
        if elsewhere is not None:
            return self.follow(elsewhere)
        return self.follow(self._inline) if inline else []

    def follow(self, runner: Runner) -> list[Followed]:
        """Once through all runs; told are those of which this process saw the end.

        A runner that does not answer is asked at the next tick; that is logged, and holds nothing else.

        Raises:
            ConflictError: another process did the same meanwhile.
            UnavailableError: of the inline runner, what the training itself lacks.
        """
        if runner.kind == "inline":
            wanted = [(body["decision"], runner.submit(self._request(body))) for body in self._queue.wanted()]
            return [self._told(runner.kind, decision_id, run) for decision_id, run in wanted]
        for body in self._queue.wanted():
            self._take(runner, body)
        return [one for body in self._noted(runner) if (one := self._looked(runner, body)) is not None]

    def ended(self, since: datetime) -> list[Followed]:
        """The runs that ended elsewhere since then, whoever saw it, by their decisions."""
        found = []
        for _, body in self._at.ledger.all("retrain"):
            run = body.get("run") or {}
            if "ended_at" in run and datetime.fromisoformat(run["ended_at"]) >= since:
                stood = Run(run["name"], State(run["state"]), run["link"], run["reason"], run["gpu_hours"])
                found.append(self._told(run["runner"], body["decision"], stood))
        return found

    def logs(self, ended: Followed) -> str:
        """The newest lines of a run that ended, or why there are none: its runner may be another one by now."""
        try:
            runner = self.runner()
            if runner is None or runner.kind != ended.runner:
                return f"they cannot be read: {ended.runner} is not asked any more"
            return runner.logs(self._request(self._at.ledger.get(f"retrain/{ended.decision}")), LINES)
        except (InputError, UnavailableError) as error:
            return f"they cannot be read: {error}"

    def _take(self, runner: Runner, body: Mapping[str, Any]) -> None:
        """Noted before it is submitted: what was submitted and is not known here would never be told of."""
        run = {"runner": runner.kind, "name": self._request(body).name, "over": False}
        self._queue.claim(body["decision"], holder_of(body["decision"]), run=run)

    def _noted(self, runner: Runner) -> Iterator[Mapping[str, Any]]:
        for _, body in self._at.ledger.all("retrain"):
            run = body.get("run")
            if run is not None and not run["over"] and run["runner"] == runner.kind:
                yield body

    def _looked(self, runner: Runner, body: Mapping[str, Any]) -> Followed | None:
        decision_id, open_ = body["decision"], self._queue.open(body["decision"])
        try:
            run = self._asked(runner, body, open_=open_)
        except UnavailableError as error:
            log.warning("%s: the run of %s is not known: %s", self._at.spec.name, decision_id, error)
            return None
        if not run.state.over and (open_ or run.state is not State.ABSENT):
            if open_:
                self._at.ledger.beat(beat_of(decision_id, holder_of(decision_id)))
            return None
        if open_ and self._queue.holder(decision_id) in ("", holder_of(decision_id)):
            why = f"{runner.kind} run {run.name} {run.state}: {run.reason or 'nothing came of it'}"
            self._queue.give_up(decision_id, why[:500])
        self._end(decision_id, run)
        return self._told(runner.kind, decision_id, run)

    def _asked(self, runner: Runner, body: Mapping[str, Any], *, open_: bool) -> Run:
        """How a run stands. One that the runner does not know, or no more, is submitted; what it refuses has failed;
        what was given up here is cancelled there."""
        request = self._request(body)
        try:
            run = runner.status(request)
            if run.state is State.ABSENT and open_:
                return runner.submit(request)
            if body["status"] == FAILED and not run.state.over and run.state is not State.ABSENT:
                return runner.cancel(request)
            return run
        except InputError as error:
            return Run(request.name, State.FAILED, reason=str(error))

    def _end(self, decision_id: str, run: Run) -> None:
        """Noted once; hours of GPUs that the steps did not count, such as those of a preempted pod, are counted now."""
        at, retrains = self._at, self._trainings.done
        entry = at.ledger.get(f"retrain/{decision_id}")
        pinned = at.ledger.find(f"training/{decision_id}") or {}
        more = max((run.gpu_hours or 0) - pinned.get("gpu_hours", 0), 0)
        done, alerts = self._trainings.spend(retrains, more)
        ended = {**asdict(run), "state": str(run.state), "over": True, "ended_at": at.clock.now().isoformat()}
        puts = {f"retrain/{decision_id}": {**entry, "run": {**entry["run"], **ended}}}
        puts |= {"retrains": done.to_json()} if more else {}
        told = {"decision": decision_id, "run": run.name, "state": str(run.state), "gpu_hours": run.gpu_hours}
        at.ledger.commit("training.run_ended", told, puts=puts, messages=alerts)

    def _told(self, runner: str, decision_id: str, run: Run) -> Followed:
        entry = self._at.ledger.get(f"retrain/{decision_id}")
        known = self._at.ledger.find(f"training/{decision_id}")
        version = str(known["version"]) if known and entry["status"] in (PROVEN, REJECTED) else ""
        return Followed(decision_id, runner, run, str(entry["status"]), version)

    def _request(self, body: Mapping[str, Any]) -> Request:
        retrain, capacity = self._at.spec.retrain, body.get("capacity")
        return Request(self._at.spec.name, body["decision"], body["lane"], capacity, retrain.gpus)
