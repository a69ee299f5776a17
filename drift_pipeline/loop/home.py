"""The loops of what lies below one home: the backends that the settings name, opened and closed together."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property, partial

from drift_pipeline.alerts.channels import Channel
from drift_pipeline.alerts.channels.log import LogChannel
from drift_pipeline.clock import MINUTE, Clock, SystemClock
from drift_pipeline.control.postgres import beside
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import approvers, home_key, open_store, read_store, require_store
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.documents import refresh_documents
from drift_pipeline.evidence.statements import PACKAGED_MODELS
from drift_pipeline.evidence.verification import keep_policy
from drift_pipeline.loop.context import Backends, Trust
from drift_pipeline.loop.declared import LiveSpecs, declared, rules_in_force
from drift_pipeline.loop.forms import frozen
from drift_pipeline.loop.loop import Loop
from drift_pipeline.policy.engines import PACKAGED_BUNDLE, Bundle, PolicyEngine, read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.policy.engines.opa import OpaEngine
from drift_pipeline.registry.backends import Registry, registry_of
from drift_pipeline.rollout.controllers import Controller, controller_of
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.delta import PATIENCE_S
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.promql import PrometheusServer
from drift_pipeline.training.runners import Runner, outside
from drift_pipeline.training.sources import Access
from drift_pipeline.training.vulnerabilities import Scan


@dataclass(frozen=True)
class Home:
    """What the models of one home share."""

    settings: Settings
    clock: Clock
    store: ControlStore
    registry: Registry
    policy: PolicyEngine
    alerts: Channel
    patience_s: float = field(default=PATIENCE_S, kw_only=True)

    @cached_property
    def runner(self) -> Runner | None:
        """Who runs the steps of retrains; None = the process that is asked to. Raises InputError as `outside`."""
        return outside(self.settings)

    @cached_property
    def controller(self) -> Controller | None:
        """Who moves a rollout's traffic; None = the gateways. Raises InputError as `controller_of`."""
        return controller_of(self.settings)

    def backends(self, spec: ModelSpec) -> Backends:
        """What one model's loop works on."""
        lake = Lake(self.settings.lake / spec.name, source="loop", patience_s=self.patience_s)
        wanted, stale = self.settings.scan != "off", timedelta(days=self.settings.scan_stale_days)
        scan = Scan(self.settings.scan_url, stale) if wanted else None
        return Backends(
            lake,
            self.store,
            self.registry,
            self.policy,
            self.alerts,
            scan=scan,
            access=access_of(self.settings),
            studies=beside(self.settings.database_url, "optuna") if self.settings.on_postgres else "",
            prometheus=prometheus_of(self.settings),
            runner=lambda: self.runner,
            controller=lambda: self.controller,
        )

    def document(self, spec: ModelSpec) -> None:
        """Write again the cards of a model's versions that are older than what they tell; errors as of there."""
        store, now = self.store, self.clock.now()
        refresh_documents(self.settings, store, self.registry, frozen(store, spec), now)

    def loop(
        self, spec: ModelSpec, *, step: timedelta = MINUTE, progress: Callable[[str], None] = lambda _: None
    ) -> Loop:
        """One model's loop, not resumed yet. The rules that decide, and its spec, are filed and noted first."""
        settings, store = self.settings, self.store
        if not settings.opa_url:
            _file_rules(settings, store, read_bundle(settings.policy or PACKAGED_BUNDLE))
        declared(settings, store, spec)
        spec = frozen(store, spec)
        trust = Trust(
            settings.gitops,
            settings.environment,
            partial(approvers, settings, store),
            home_key(settings, store).key_id,
            settings.longest_approval,
        )
        return Loop(spec, self.backends(spec), trust, self.clock, step=step, seed=0, progress=progress)

    def resumed(
        self, spec: ModelSpec, *, step: timedelta = MINUTE, progress: Callable[[str], None] = lambda _: None
    ) -> Loop:
        """One model's loop, where the control store says it stood."""
        loop = self.loop(spec, step=step, progress=progress)
        loop.resume()
        return loop


@cache
def _prometheus(url: str, token: str, seconds: float) -> PrometheusServer:
    """One a process, so that one that hangs is not waited for by one model after the other."""
    return PrometheusServer(url, timeout_seconds=seconds, token=token)


def prometheus_of(settings: Settings) -> PrometheusServer | None:
    """Who is asked for what is measured elsewhere; None where nobody is named."""
    token = settings.prometheus_token.get_secret_value()
    return (
        _prometheus(settings.prometheus_url, token, settings.prometheus_timeout_seconds)
        if settings.prometheus_url
        else None
    )


def access_of(settings: Settings) -> Access:
    """How the settings say that stores outside the home are reached."""
    return Access(
        settings.feast_python,
        settings.feast_seconds,
        settings.feast_token,
        settings.databricks_host,
        settings.databricks_token,
        settings.databricks_seconds,
    )


@contextmanager
def opened(settings: Settings, clock: Clock, *, new: bool = False, patience_s: float = PATIENCE_S) -> Iterator[Home]:
    """The backends of a home; InputError where there is none, unless a `new` one may be made.

    Args:
        patience_s: for another process that writes to a model's lake; then ConflictError.
    """
    if not new:
        require_store(settings)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{settings.home}: is no folder for a home: {error.strerror}; name another DRIFT_HOME"
        ) from error
    registry = registry_of(settings)
    store = open_store(settings, clock)
    try:
        with _engine(settings, store) as engine:
            yield Home(settings, clock, store, registry, engine, LogChannel(settings.alerts), patience_s=patience_s)
    finally:
        store.close()


@contextmanager
def _engine(settings: Settings, store: ControlStore) -> Iterator[PolicyEngine]:
    """Who decides. Raises InputError where two are named."""
    if not settings.opa_url:
        with EmbeddedEngine(settings.policy) as engine:
            yield engine
        return
    if settings.policy is not None:
        raise InputError("DRIFT_OPA_URL and DRIFT_POLICY both say which rules decide; set one of them")
    yield OpaEngine(
        settings.opa_url,
        SystemClock(),  # in a drill, too: a server tells the machine's time
        timeout_seconds=settings.opa_timeout_seconds,
        stale=timedelta(seconds=settings.opa_stale_seconds),
        token=settings.opa_token.get_secret_value(),
        file=partial(_file_rules, settings, store),
    )


def _file_rules(settings: Settings, store: ControlStore, rules: Bundle) -> None:
    keep_policy(settings, rules)
    rules_in_force(store, rules.digest)


@contextmanager
def reading(settings: Settings) -> Iterator[ControlReader]:
    """The store of a home, to look at: nothing in the home is made or changed. InputError where there is none."""
    with closing(read_store(settings)) as store:
        yield store


def none_adopted(store: ControlReader, settings: Settings, specs: Iterable[str]) -> str:
    """What people are told where none of the models is adopted in this home; "" where one is."""
    adopted = store.keys("model")
    if set(adopted).intersection(specs):
        return ""
    told = f"{settings.home.absolute()}: no model is adopted here: run drift adopt MODEL --data HISTORY"
    if not adopted:
        return f"{told}, or name another DRIFT_HOME"
    folder = (settings.models or PACKAGED_MODELS).absolute()
    return f"{told}, or name another DRIFT_MODELS: {', '.join(adopted)} of this home have no spec below {folder}"


def refuse_unadopted(settings: Settings, specs: Iterable[str]) -> None:
    """For what would run and run, and serve nobody.

    Raises:
        InputError: none of the models is adopted in this home; nothing was written there.
    """
    with reading(settings) as store:
        if told := none_adopted(store, settings, specs):
            raise InputError(told)


def models_of(settings: Settings) -> dict[str, ModelSpec]:
    """The specs of DRIFT_MODELS, or the packaged ones, by name.

    Raises:
        InputError: there is none, two have one name, or one is wrong.
    """
    folder = settings.models or PACKAGED_MODELS
    specs: dict[str, ModelSpec] = {}
    for path in sorted(folder.glob("*/defs.yaml")):
        spec = read_spec(path)
        if spec.name in specs:
            raise InputError(f"{path}: the model {spec.name} is declared twice below {folder}; give each its own name")
        specs[spec.name] = spec
    if not specs:
        raise InputError(f"{folder.absolute()}: no NAME/defs.yaml here; `dg scaffold defs` writes one")
    return specs


def live_specs(settings: Settings, only: str | None = None) -> LiveSpecs:
    """The specs for a process that lives long, or of one model alone; errors as of `models_of` and `model_of`, when it
    begins."""
    if only is not None:
        return LiveSpecs(settings.models, {only: model_of(settings, only)}, only=only)
    return LiveSpecs(settings.models, models_of(settings))


def model_of(settings: Settings, name: str) -> ModelSpec:
    """The spec of one model. Raises InputError where there is none of the name."""
    specs = models_of(settings)
    if name not in specs:
        raise InputError(f"there is no model {name!r}; there are: {', '.join(specs)} (DRIFT_MODELS names the folder)")
    return specs[name]
