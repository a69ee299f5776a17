"""A loop on what lies below one home: the backends that the settings name, opened and closed together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from drift_pipeline.alerts.channels.log import LogChannel
from drift_pipeline.clock import DAY, Clock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.approve import read_keys
from drift_pipeline.evidence.verification import keep_policy
from drift_pipeline.loop.loop import Backends, Loop, Trust
from drift_pipeline.policy.engines import read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake


@contextmanager
def opened(settings: Settings, clock: Clock) -> Iterator[Backends]:
    """The backends of a home. Raises InputError where there is none."""
    if not settings.database and not (settings.home / "control.db").is_file():
        raise InputError(f"{settings.home.absolute()}: no control store here; run `drift demo`, or name a DRIFT_HOME")
    store = ControlStore(settings.database_url, clock)
    try:
        with EmbeddedEngine() as engine:
            lake, registry = Lake(settings.lake), LocalRegistry(settings.registry)
            yield Backends(lake, store, registry, engine, LogChannel(settings.alerts))
    finally:
        store.close()


def resumed(
    settings: Settings,
    backends: Backends,
    spec: ModelSpec,
    clock: Clock,
    *,
    step: timedelta = DAY,
    progress: Callable[[str], None] = lambda _: None,
) -> Loop:
    """One model's loop, where the control store says it stood. The rules that decide are filed first."""
    keep_policy(settings, read_bundle())
    trust = Trust(settings.gitops, settings.environment, read_keys(settings.keys), _trainer(settings).key_id)
    loop = Loop(spec, backends, trust, clock, step=step, seed=0, progress=progress)
    loop.resume()
    return loop


def _trainer(settings: Settings) -> Signer:
    """The key of what trains here, made when it is first needed; it cannot approve what it trained."""
    path = settings.keys / "trainer.pem"
    if not path.exists():
        settings.keys.mkdir(parents=True, exist_ok=True)
        Signer.generate("trainer").save(path)
    return Signer.load(path)
