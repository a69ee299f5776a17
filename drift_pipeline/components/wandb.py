"""Weights & Biases in Dagster: the runs that the training half works in, and the sensor that sends what waits.

The run's files are written below the home, whatever the network does, and sent later by the sensor: a retrain waits for
nobody. dagster-wandb's resource logs in and gives the client; its IO manager is not used, for the registry keeps the
bundles.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from drift_pipeline.components.teller import teller
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.mirroring import deliver_mirror, told
from drift_pipeline.registry.backends.wandb import require_wandb, variables
from drift_pipeline.registry.mirror import Table
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

EVERY_S = 60


@dataclass
class Seen:
    """A run of W&B that a step works in; there may be none. metadata: where it is to be found, or why there is none."""

    log: Any
    run: Any = None
    sdk: Any = None
    metadata: dict[str, dg.MetadataValue | str] = field(default_factory=dict)

    def tell(
        self,
        summary: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]] = (),
        tables: Mapping[str, Table] | None = None,
    ) -> None:
        """What came of the step. Whatever the client raises is told, and fails no training."""
        if self.run is None:
            return
        try:
            for step in history:
                self.run.log(dict(step))
            for name, table in (tables or {}).items():
                rows = [list(row) for row in table.rows]
                self.run.log({name: self.sdk.Table(columns=list(table.columns), data=rows, allow_mixed_types=True)})
            self.run.summary.update(dict(summary))
        except Exception as error:  # the edge to a client that may raise anything
            self.without(error)

    def without(self, error: Exception) -> None:
        why = f"W&B has no run of this, or not all of it: {type(error).__name__}: {error}"[:300]
        self.log.warning(why)
        self.metadata = {"wandb": why}


@contextmanager
def wandb_run(context: dg.AssetExecutionContext, spec: ModelSpec, kind: str, version: str) -> Iterator[Seen]:
    """The step's run in W&B; none, and nothing of it is imported, where versions are not mirrored there.

    What the client raises is told in the run's log and in the metadata, and the step goes on.
    """
    settings, seen = Settings(), Seen(context.log)
    if settings.registry_kind != "wandb" or settings.wandb_mode == "disabled":
        yield seen
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(_recording(seen, settings, spec, context, kind, version))
        except Exception as error:  # the edge to a client that may raise anything, and fails no training
            seen.without(error)
        yield seen
        try:
            stack.close()
        except Exception as error:  # as above
            seen.without(error)


@contextmanager
def _recording(
    seen: Seen, settings: Settings, spec: ModelSpec, context: dg.AssetExecutionContext, kind: str, version: str
) -> Iterator[None]:
    """The run is written in a hidden place, and moved when it is over to where the sensor finds it."""
    require_wandb()
    folder = settings.wandb.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder))
    name = f"{context.run.run_id[:8]}-{spec.name}-{kind}-{context.retry_number}"
    about = {"id": name, "name": f"{kind} {version}", "group": f"{spec.name}-{version}", "job_type": kind}
    config = {"dagster_run_id": context.run.run_id, "model": spec.name, "version": version}
    try:
        (incoming / "wandb").mkdir()
        with _as(variables(settings, sends=False)), _client(settings) as seen.sdk:
            from drift_pipeline.registry.backends.wandb_client import offline

            where = {"project": settings.wandb_project, "entity": settings.wandb_entity or None}
            with seen.sdk.init(config=config, settings=offline(incoming), **about, **where) as seen.run:
                yield
    finally:  # of a step that failed, too
        seen.run, final = None, folder / f"offline-run-{name}"
        for made in (incoming / "wandb").glob("offline-run-*"):
            made.rename(final)
        shutil.rmtree(incoming, ignore_errors=True)
    seen.metadata = seen.metadata or _where(settings, name, final)


@contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    """W&B's client by the resource of dagster-wandb, which needs a key to log in; ended with its child process."""
    from dagster_wandb import wandb_resource

    key = settings.wandb_api_key.get_secret_value() or "offline"
    config = {"api_key": key, "host": settings.wandb_base_url}
    sdk = wandb_resource(dg.build_init_resource_context(config=config))["sdk"]
    try:
        yield sdk
    finally:
        sdk.teardown()


def _where(settings: Settings, run: str, final: Path) -> dict[str, dg.MetadataValue | str]:
    """Its address, once the sensor has sent it; else the folder, and how to send it."""
    if settings.wandb_sends and settings.wandb_entity:
        host = settings.wandb_base_url.rstrip("/").replace("://api.wandb.ai", "://wandb.ai")
        address = f"{host}/{settings.wandb_entity}/{settings.wandb_project}/runs/{run}"
        return {"wandb": dg.MetadataValue.url(address)}
    return {"wandb": dg.MetadataValue.path(final), "wandb_send_by": f"wandb sync {final}"}


@contextmanager
def _as(ours: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process, which the client reads when it is imported; put back in the end."""
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def wandb_sensor() -> dg.SensorDefinition:
    """For all models of the home."""

    def deliver(settings: Settings, store: ControlStore) -> str:
        written = deliver_mirror(settings, store)
        return "; ".join([f"{written} runs written", *told(settings, store)])

    return teller("wandb", EVERY_S, "Tells Weights & Biases what the audit holds of versions.", deliver)
