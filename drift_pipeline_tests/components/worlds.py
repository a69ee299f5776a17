"""One small home that a replay made, with a champion that was promoted after a change, and its model's folder."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.components.monitoring import monitoring_assets
from drift_pipeline.components.training import training_assets
from drift_pipeline.control.store import AuditRecord, ControlStore
from drift_pipeline.replays.options import Options
from drift_pipeline.replays.replay import TICKS, Replay
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, Drift, synthetic_history

MODEL = "recommendation_v3"
DAYS, ROWS_PER_DAY, TURN, REFERENCE = 64, 200, 45, 28
ATTRIBUTES: dict[str, Any] = {
    **yaml.safe_load(SAMPLE_SPEC),
    "prediction": {"threshold": 0.5},
    "kpis": {"latency_p95_ms": {"threshold": 2000}},  # a gate measures it, and this machine may be busy
    "retrain": {"min_rows": 1000, "trials": 1, "trainer": "logistic_regression"},
    "rollout": {"shadow": "1d", "canary": "1d"},
}
SPEC = ModelSpec.model_validate(ATTRIBUTES)


@functools.cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="drift-dagster-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def write_model(models: Path, name: str = MODEL, **changes: Any) -> Path:
    """`<models>/<name>/defs.yaml`."""
    path = models / name / "defs.yaml"
    path.parent.mkdir(parents=True)
    attributes = {**ATTRIBUTES, "name": name, **changes}
    path.write_text(
        yaml.safe_dump({"type": "drift_pipeline.components.MonitoredModel", "attributes": attributes}, sort_keys=False)
    )
    return path


@functools.cache
def replayed() -> Path:
    """The home of a replay in which people begin to click for other reasons on day 45. It is only read; copy it."""
    home = folder() / "home"
    home.mkdir()
    data = folder() / "history.parquet"
    drifts = (Drift("concept", day=TURN, size=0.9),)
    synthetic_history(DAYS, ROWS_PER_DAY, 3, drifts=drifts, score=False).write_parquet(data)
    options = Options(REFERENCE * DAY, DAY, "drift")
    with Replay(read_history(data, SPEC), SPEC, Settings(home=home, database=""), options) as running:
        running.run()
    return home


def copied(path: Path) -> Path:
    """A copy of the shared home at `path`, to write to."""
    shutil.copytree(replayed(), path)
    return path


def day(number: int) -> str:
    """The partition of a day of the history, counted from 0."""
    return f"{START + timedelta(days=number):%Y-%m-%d}"


def ticks() -> pl.DataFrame:
    """What the loop recorded: one row a tick and KPI."""
    return pl.read_parquet(replayed() / TICKS)


def tick_after(partition: str) -> dict[str, dict[str, Any]]:
    """What the loop said of each KPI when that day ended."""
    ended = datetime.combine(date.fromisoformat(partition), START.timetz()) + DAY
    return {row["name"]: row for row in ticks().filter(pl.col("at") == ended).iter_rows(named=True)}


def first_breach() -> str:
    """The first day whose AUROC breached."""
    breached = ticks().filter((pl.col("name") == "auroc") & (pl.col("verdict") == "BREACH"))
    return f"{breached['at'][0] - DAY:%Y-%m-%d}"


def promoted_on() -> str:
    """The first whole day of the champion that the change made."""
    promoted = next(record for record in records(replayed()) if record.event == "model.promoted")
    return promoted.at[:10]


@contextmanager
def store(home: Path) -> Iterator[ControlStore]:
    opened = ControlStore(Settings(home=home, database="").database_url, SystemClock())
    try:
        yield opened
    finally:
        opened.close()


def records(home: Path) -> list[AuditRecord]:
    with store(home) as opened:
        return list(opened.records())


def events(home: Path) -> list[str]:
    return [record.event for record in records(home)]


def pinned(home: Path) -> dict[str, Any]:
    """What was pinned or trained last."""
    with store(home) as opened:
        found = opened.get("training", MODEL)
        assert found is not None
        return dict(found.body)


@contextmanager
def at_home(home: Path, models: Path | None = None) -> Iterator[None]:
    """DRIFT_HOME is this folder, DRIFT_MODELS the other if there is one, and nothing else is set: but each evaluation
    of `loop_tick` ticks, however soon it comes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DRIFT_DATABASE", "DRIFT_ENVIRONMENT", "DRIFT_MODELS"):
            patch.delenv(name, raising=False)
        patch.setenv("DRIFT_HOME", str(home))
        patch.setenv("DRIFT_TICK_SECONDS", "1")
        if models is not None:
            patch.setenv("DRIFT_MODELS", str(models))
        yield


def materialised(
    home: Path,
    *names: str,
    partition: str | None = None,
    spec: ModelSpec = SPEC,
    instance: dg.DagsterInstance | None = None,
) -> dg.ExecuteInProcessResult:
    """What a run of these assets came to, on an instance of its own unless one is given."""
    assets = [*monitoring_assets(spec), *training_assets(spec)]
    with at_home(home), dg.DagsterInstance.ephemeral() as own:
        return dg.materialize(
            assets,
            selection=[dg.AssetKey([spec.name, name]) for name in names],
            partition_key=partition,
            instance=instance or own,
            raise_on_error=False,
        )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    """An asset's metadata as plain values."""
    (made,) = result.asset_materializations_for_node(f"{MODEL}__{name}")
    return {key: value.value for key, value in made.metadata.items()}


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    """The assets that were materialised, in order."""
    return [event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key]


def refusal(result: dg.ExecuteInProcessResult) -> str:
    """The message with which the one step that failed said what to do; empty where it failed without one."""
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    told = failed.step_failure_data.user_failure_data
    return told.description or "" if told else ""
