"""What the stages of one model's loop share: the spec, the ledger, the lake, the registry, the clock and the keys."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.clock import MINUTE, Clock
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.judging.performance import Performance, performance_of
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.controllers import Controller
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.promql import PrometheusServer
from drift_pipeline.training.runners import Runner
from drift_pipeline.training.sources import NO_ACCESS, Access, Source, source_for
from drift_pipeline.training.vulnerabilities import Scan


@dataclass(frozen=True)
class Backends:
    """What the loop works on; which implementation stands behind each is not its business.

    `scan`: how the environment that trains is scanned for vulnerabilities; None = it is not. `access`: how stores of
    rows outside the home are reached. `studies`: the url of the database that the trials of trainings are kept in; "" =
    nowhere. `prometheus`: who is asked for KPIs that are measured elsewhere. `runner` tells who runs the steps of a
    retrain, None of this process; it is asked when somebody retrains, so that nothing else fails for its file.
    `controller` is who moves a rollout's traffic, None of the gateways; it is asked when a rollout may move.
    """

    lake: Lake
    store: ControlStore
    registry: Registry
    policy: PolicyEngine
    alerts: Channel
    _: KW_ONLY
    scan: Scan | None = None
    access: Access = NO_ACCESS
    studies: str = ""
    prometheus: PrometheusServer | None = None
    runner: Callable[[], Runner | None] = lambda: None
    controller: Callable[[], Controller | None] = lambda: None


@dataclass(frozen=True)
class Trust:
    """Whose approvals count: the GitOps folder they are filed in, the environment, and the keys.

    `approvers` is asked at each look, so that who is appointed or dismissed while a process runs is so at once.
    `trainer_key_id` is of who attests what is trained from now on; a candidate's record says who attested that one.
    """

    gitops: Path
    environment: str
    approvers: Callable[[], Mapping[str, PublicKey]]
    trainer_key_id: str
    longest_approval: timedelta = timedelta(days=90)


@dataclass(frozen=True)
class Context:
    """One model's. A stage reads and writes state through the ledger alone.

    `step` is the time between two ticks; `seed` starts every training; `progress` is told in words what takes long.
    """

    spec: ModelSpec
    ledger: Ledger
    lake: Lake
    registry: Registry
    clock: Clock
    trust: Trust
    _: KW_ONLY
    step: timedelta = MINUTE
    seed: int = 0
    progress: Callable[[str], None] = lambda _: None
    scan: Scan | None = None
    access: Access = NO_ACCESS
    policy: PolicyEngine | None = None  # whoever only takes back needs none
    studies: str = ""
    prometheus: PrometheusServer | None = None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        ledger: Ledger,
        backends: Backends,
        clock: Clock,
        trust: Trust,
        *,
        step: timedelta,
        seed: int,
        progress: Callable[[str], None],
    ) -> Self:
        """With what every stage may use of the backends."""
        return cls(
            spec,
            ledger,
            backends.lake,
            backends.registry,
            clock,
            trust,
            step=step,
            seed=seed,
            progress=progress,
            scan=backends.scan,
            access=backends.access,
            policy=backends.policy,
            studies=backends.studies,
            prometheus=backends.prometheus,
        )

    @property
    def source(self) -> Source:
        """Where the rows of a retrain come from."""
        return source_for(self.spec, self.lake, self.access)

    @property
    def performance(self) -> Performance:
        """How good a model of this task is, measured."""
        return performance_of(self.spec)
