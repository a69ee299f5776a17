"""Controllers: who moves the traffic of a rollout. By default each gateway does, by the routes that it reads of the
control store (`loop/routes.py`), and there is nothing to ask; another one is brought to where the control store says.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from drift_pipeline.circuit import Circuit
from drift_pipeline.rollout.plan import Phase

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings


class State(StrEnum):
    """Of a model's traffic, as the controller has it.

    ABSENT: it has no objects, or not all. MOVING: it is on its way, or has not read yet what it was told. SHADOW and
    CANARY: it waits for us there. SETTLED: one version answers all. ABORTED: it took the newest version back.
    """

    ABSENT = "absent"
    MOVING = "moving"
    SHADOW = "shadow"
    CANARY = "canary"
    SETTLED = "settled"
    ABORTED = "aborted"


class Act(StrEnum):
    """What a controller can be told."""

    CREATE = "create"  # what of its objects lacks; the champion answers
    BEGIN = "begin"  # the candidate, in the shadow
    PROMOTE = "promote"  # from the shadow to the canary
    COMPLETE = "complete"  # the newest version, which is our champion, answers all, without further steps
    ABORT = "abort"  # the newest version is sent nothing more
    RESTORE = "restore"  # our champion is the newest version


@dataclass(frozen=True)
class Served:
    """A version, and the rollout that it came by; "" = that is not known."""

    digest: str
    version: str
    rollout_id: str = ""


@dataclass(frozen=True)
class Wanted:
    """Where the control store says that a model's traffic stands. `candidate` while a rollout is under way; `phase` and
    `rollout_id` are of the last one. `canary_weight` in percent."""

    model: str
    champion: Served
    candidate: Served | None
    phase: Phase | None
    rollout_id: str
    canary_weight: int

    @property
    def share(self) -> int:
        """Of the traffic that the candidate may answer now, in percent."""
        return self.canary_weight if self.candidate is not None and self.phase is Phase.CANARY else 0


@dataclass(frozen=True)
class Seen:
    """How a model's traffic stands. `newest` came last, `stable` is the digest that answers what that one does not;
    `share` is what the newest answers, in percent, `asked` what it was told and has not done yet. `odd`: what is not as
    it has to be, for people. `revision`: an act that is based on another one is refused."""

    state: State
    newest: Served = Served("", "")
    stable: str = ""
    share: int = 0
    asked: Act | None = None
    reason: str = ""
    odd: tuple[str, ...] = ()
    revision: str = ""


class Controller(Protocol):
    """Both raise UnavailableError where it does not answer, after seconds and not minutes, and InputError where it says
    that what was asked for cannot be."""

    kind: str

    def observe(self, wanted: Wanted) -> Seen:
        """How the model's traffic stands; changes nothing."""
        ...

    def do(self, act: Act, wanted: Wanted, seen: Seen) -> None:
        """Tell it what to do; it has not done that when this returns. CREATE keeps what is there. All others raise
        ConflictError where anything moved since it was `seen`, and change nothing then: observe again."""
        ...


def controller_of(settings: "Settings") -> Controller | None:
    """Whom DRIFT_CONTROLLER names; None where that is the gateway.

    Raises:
        InputError: DRIFT_CONTROLLER_FILE cannot be used.
    """
    if settings.controller == "gateway":
        return None
    from drift_pipeline.rollout.controllers.argo import ArgoController
    from drift_pipeline.rollout.controllers.declared import read_routing

    return Patient(ArgoController(read_routing(settings.controller_file)))


def manifests(settings: "Settings", wanted: Wanted) -> str:
    """YAML of the objects that the controller makes of a model that it does not know yet. Raises InputError as
    `controller_of`, or where a route would not do."""
    import yaml

    from drift_pipeline.rollout.controllers.declared import read_routing
    from drift_pipeline.rollout.controllers.rendering import rendered

    return yaml.safe_dump_all(rendered(read_routing(settings.controller_file), wanted), sort_keys=False)


class Patient:
    """Around a controller: an outage costs a process one wait a while, for all its models."""

    def __init__(self, controller: Controller) -> None:
        self.kind, self._controller, self._circuit = controller.kind, controller, Circuit(controller.kind)

    def observe(self, wanted: Wanted) -> Seen:
        return self._circuit.ask(lambda: self._controller.observe(wanted))

    def do(self, act: Act, wanted: Wanted, seen: Seen) -> None:
        self._circuit.ask(lambda: self._controller.do(act, wanted, seen))
