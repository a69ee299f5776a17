"""What assets, jobs and sensors work on: the home that the DRIFT_ variables name, opened for a step or kept open."""

import atexit
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress

import dagster as dg

from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.clock import system_clock
from drift_pipeline.components.lanes import give_way
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.errors import ConflictError, DriftError, UnavailableError
from drift_pipeline.loop import Loop
from drift_pipeline.loop.declared import LiveSpecs
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import Home, models_of, opened
from drift_pipeline.policy.engines import PACKAGED_BUNDLE, read_bundle
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

Specs = Mapping[str, ModelSpec]
Context = dg.AssetExecutionContext | dg.OpExecutionContext
LAKE_S = 2.0  # for who writes one model's lake, while all others wait; the next tick tries again


@contextmanager
def home(run: dg.DagsterRun) -> Iterator[Home]:
    """The home, for one step. An expected error fails the step with its message: it says what to do, a trace does not.

    What the same step may well do a little later is tried again. A step of the normal lane leaves the processor to
    what cannot wait.
    """
    give_way(run)
    try:
        with opened(Settings(), system_clock()) as at:
            yield at
    except (ConflictError, UnavailableError) as error:
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=10) from error
    except DriftError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:  # a defect, or a trainer's: a policy of retries is for pods that were lost
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error


@contextmanager
def loop_of(spec: ModelSpec, context: Context) -> Iterator[Loop]:
    """The model's loop where it stands; what takes long is told in the run's log."""
    with home(context.run) as at:
        yield at.resumed(in_force(spec), progress=context.log.info)


def in_force(spec: ModelSpec) -> ModelSpec:
    """The model's spec as its file says now; as it was loaded where the file is gone or wrong by now."""
    settings = Settings()
    with suppress(DriftError):
        return models_of(settings).get(spec.name, spec) if settings.models else spec
    return spec


def tags_of(context: Context) -> Mapping[str, str]:
    """The run's tags as they are now, with those that it gave itself on the way."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run.tags if run else {}


def actor_of(context: Context) -> str:
    """Who launched the run, as far as Dagster knows; its open source UI knows nobody."""
    tags = tags_of(context)
    known = [tags[name] for name in ("user", "dagster/sensor_name", "dagster/schedule_name") if name in tags]
    return f"dagster:{known[0] if known else 'unnamed'}"


class KeptFleet:
    """The fleet of a code server, open between evaluations so that a tick costs what is new.

    One evaluation works on it at a time: Dagster evaluates sensors and schedules in threads of one process.
    """

    def __init__(self) -> None:
        self._lock, self._open = threading.RLock(), ExitStack()
        self._kept: tuple[tuple[Settings, Specs, str], LiveSpecs, Home, Fleet] | None = None

    @contextmanager
    def of(self, specs: Specs) -> Iterator[tuple[Home, Fleet]]:
        """The home and its fleet, by the specs as their files say now; made again where the settings, the models or
        the rules are others than before.
        """
        with self._lock:
            settings = Settings()
            asked = settings, specs, read_bundle(settings.policy or PACKAGED_BUNDLE).digest
            if self._kept is None or self._kept[0] != asked:
                self.close()
                at = self._open.enter_context(opened(settings, system_clock(), patience_s=LAKE_S))
                self._kept = asked, LiveSpecs(settings.models, specs), at, Fleet(at, specs, apart=True)
            _, live, at, fleet = self._kept
            fleet.take_up({name: live[name] for name in specs})
            yield at, fleet

    def close(self) -> None:
        with self._lock:
            self._kept = None
            self._open.close()


class KeptAlerting:
    """The delivery of a code server's alerts, which wants the control store alone; open between evaluations."""

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), ExitStack()
        self._kept: tuple[Settings, Alerting] | None = None

    def deliver(self) -> None:
        """As `Alerting.deliver`, by the settings as they are now. Raises DriftError where there is no store."""
        with self._lock:
            settings, clock = Settings(), system_clock()
            if self._kept is None or self._kept[0] != settings:
                self._close()
                require_store(settings)
                store = self._open.enter_context(closing(open_store(settings, clock)))
                self._kept = settings, Alerting(settings, store, clock)
            self._kept[1].deliver()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._kept = None
        self._open.close()


FLEET, DOCUMENTS, CHANNELS = KeptFleet(), KeptFleet(), KeptAlerting()  # a tick waits neither for git nor for a pager
for kept in (FLEET, DOCUMENTS, CHANNELS):
    atexit.register(kept.close)
