"""A session: what one process has taken up of a model, whose state other processes change meanwhile."""

from contextlib import suppress

from drift_pipeline.clock import Window
from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline.loop import first_version
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.monitoring.rebaselining import Rebaselining
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.state import Memory
from drift_pipeline.policy.incident import Incident


class Session:
    """The champion's monitor and the memory of the last tick."""

    def __init__(self, context: Context) -> None:
        self.memory = Memory(Incident(reference=""))
        self._at, self._pauses, self._rebaselining = context, Pauses(context), Rebaselining(context, self.memory)
        self._monitor: ChampionMonitor | None = None

    @property
    def adopted(self) -> bool:
        """Whether there is a champion that this process has taken up."""
        return self._monitor is not None

    @property
    def monitor(self) -> ChampionMonitor:
        """The champion's, as last taken up. Raises InputError before a model is adopted."""
        if self._monitor is None:
            raise InputError(f"{self._at.spec.name}: no model is watched; adopt it first")
        return self._monitor

    def adopt(self, span: Window, recorded: bool, given: first_version.Given | None) -> None:
        """Arguments and errors as of `first_version.adopt`."""
        self._monitor = first_version.adopt(self._at, self._rebaselining, span, recorded, given)

    def drop(self) -> None:
        """Forget the monitor: what it counted is not what was stored; `catch_up` takes that up."""
        self._monitor = None

    def resume(self) -> None:
        """Take up where the control store says the loop stood; the next `observe` reads what landed meanwhile.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the registry holds other bytes than the store's digests say.
        """
        self._monitor = self._rebaselining.in_force(self._pauses.maintenances())
        self._recall()
        self.take_up_champion()

    def catch_up(self) -> None:
        """Take up what other processes did since this one last ticked: their ticks, a promotion, a rollback."""
        if self._monitor is None:
            self.resume()
            return
        if self._at.ledger.moved_on():
            self._recall()
            if self._rebaselining.newest()["at"] != self._monitor.baseline_at.isoformat():
                self._monitor = self._rebaselining.in_force(self._pauses.maintenances())
        self.take_up_champion()

    def take_up_champion(self) -> None:
        """Monitor the version that answers, where another one does by now: promoted, or rolled back to."""
        model, before = self._at.ledger.get("model"), self.monitor.champion
        if model["digest"] == before.digest:
            return
        if self._rebaselining.newest()["digest"] == model["digest"]:  # another process took it up meanwhile
            self.resume()
            return
        self._monitor = self._rebaselining.follow(model, before)

    def follow_champion(self) -> None:
        """As `take_up_champion`, after a step of the rollout that is done whoever takes it up: where another process
        is faster, the next `catch_up` does."""
        with suppress(ConflictError):
            self.take_up_champion()

    def _recall(self) -> None:
        if (memory := self._at.ledger.recall()) is not None:
            self.memory.take_up(memory)
        else:
            self.memory.incident = Incident.from_json(self._at.ledger.get("incident"))
