"""Runners: who runs the steps of a retrain. Each step is `drift train STEP MODEL --decision ID`, whoever runs it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import NothingToDoError
from drift_pipeline.spec import ModelSpec

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings

STEPS = ("pin", "search", "fit", "prove", "register")
HOTFIX = "hotfix"


class State(StrEnum):
    """Of a run. ABSENT: the runner knows of none."""

    ABSENT = "absent"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Request:
    """A decision to retrain. `capacity` is what the policy wants it run on, spot or on_demand; `gpus` of each step that
    searches or fits."""

    model: str
    decision: str
    lane: str = "normal"
    capacity: str | None = None
    gpus: int = 0

    @property
    def name(self) -> str:
        """Of its run, everywhere; as Kubernetes wants names, 52 letters at most, another one for each decision."""
        unique = sha256(f"{self.model}/{self.decision}".encode()).removeprefix("sha256:")[:10]
        plain = re.sub(r"[^a-z0-9]+", "-", self.decision.lower()).strip("-")
        return f"drift-{plain[:34].strip('-')}-{unique}".replace("--", "-")


@dataclass(frozen=True)
class Run:
    """`link` is where people look at it, empty where nowhere; `reason` says why it stands so; `gpu_hours` is what its
    processes took in all, those that were preempted included, None where the runner does not know."""

    name: str
    state: State
    link: str = ""
    reason: str = ""
    gpu_hours: float | None = None


class Runner(Protocol):
    """Every method raises UnavailableError where the runner does not answer, after seconds and not minutes, and
    InputError where it says that what was asked for cannot be."""

    kind: str

    def submit(self, request: Request) -> Run:
        """Begin the run of a decision. Idempotent: of what was submitted before, ended or cancelled included, it tells
        how that stands, and begins nothing. Two that submit at once begin one run."""
        ...

    def status(self, request: Request) -> Run:
        """How the run stands; ABSENT where none was submitted, or the runner forgot it."""
        ...

    def cancel(self, request: Request) -> Run:
        """Stop it; what is over stays as it ended. A run that was cancelled is not begun again by `submit`."""
        ...

    def logs(self, request: Request, lines: int = 50) -> str:
        """The newest lines of each of its processes; empty where there are none (yet, or any more)."""
        ...


def outside(settings: "Settings") -> Runner | None:
    """Whom DRIFT_RUNNER names; None where that is inline, the process that is asked.

    Raises:
        InputError: DRIFT_RUNNER_FILE cannot be used.
    """
    if settings.runner == "inline":
        return None
    from drift_pipeline.training.runners.breaker import Breaker
    from drift_pipeline.training.runners.declared import read_place

    place = read_place(settings.runner_file)
    match settings.runner:
        case "kubernetes":
            from drift_pipeline.training.runners.kubernetes import JobRunner

            return Breaker(JobRunner(place))
        case "argo":
            from drift_pipeline.training.runners.argo import ArgoRunner

            return Breaker(ArgoRunner(place))
        case "kubeflow":
            from drift_pipeline.training.runners.kubeflow import KubeflowRunner

            return Breaker(KubeflowRunner(place))


def manifests(settings: "Settings", calendars: Sequence[ModelSpec] = ()) -> str:
    """YAML of what the runner wants applied before its first run.

    Args:
        calendars: models that no Dagster asks by the calendar; of Argo alone.

    Raises:
        NothingToDoError: the runner wants nothing.
        InputError: as `outside`.
    """
    import yaml

    from drift_pipeline.training.runners.declared import read_place

    match settings.runner:
        case "argo":
            from drift_pipeline.training.runners.argo import LANES, calendar, template

            place = read_place(settings.runner_file)
            made = [template(place, lane).to_dict() for lane in LANES]
            made += [calendar(place, spec).to_dict() for spec in calendars]
            return yaml.safe_dump_all(made, sort_keys=False)
        case "kubeflow":
            from drift_pipeline.training.runners.kubeflow import compiled_text

            return compiled_text(read_place(settings.runner_file))
    raise NothingToDoError(f"DRIFT_RUNNER={settings.runner}: wants nothing applied beforehand")
