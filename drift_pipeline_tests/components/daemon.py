"""Dagster's daemons, one iteration at a time, on an instance that reads the repository's dagster.yaml."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob  # not exported, as what follows
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration

from drift_pipeline.components.home import FLEET
from drift_pipeline_tests.components.worlds import at_home, write_model

FROM_A_FOLDER = [  # what Dagster does to itself
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function .load_definitions_from_modules?. is currently in preview"),
    pytest.mark.filterwarnings("ignore:Property .ScheduleDefinition.environment_vars. is deprecated"),
]
ROOT = Path(__file__).parents[2]
LOCATION = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="drift_pipeline.definitions"), location_name="drift_pipeline"
)


@dataclass(frozen=True)
class Dagster:
    """An instance, and the code location of one model's home in this process."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    repository: dg.RepositoryDefinition

    def evaluate_sensors(self, after: timedelta = timedelta()) -> None:
        """Every sensor that is due then, as the daemon does; what it wants is in the queue afterwards."""
        with freeze_time(datetime.now(UTC) + after):
            list(execute_sensor_iteration(self.workspace, logging.getLogger("daemon"), None, None))

    def told(self, sensor: str) -> str:
        """Why the sensor's last evaluation launched nothing."""
        (state,) = (state for state in self.instance.all_instigator_state() if state.name == sensor)
        (tick, *_) = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        assert tick.error is None, tick.error
        return tick.skip_reason or ""

    def queued(self, job: str = "retrain") -> list[dg.DagsterRun]:
        """The job's runs that wait, oldest first."""
        waiting = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.QUEUED])
        return list(reversed(self.instance.get_runs(waiting)))

    def dequeued(self) -> list[str]:
        """Ids of the runs that the queue would launch now, the first one first."""
        daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
        found = daemon._get_runs_to_dequeue(self.instance, self.instance.get_concurrency_config(), None)
        return [run.run_id for run in found]

    def execute(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        """What a queued run comes to in this process, as if the queue had launched it."""
        starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
        self.instance.report_dagster_event(starting, run.run_id)
        job = InMemoryJob(self.repository.get_job(run.job_name)).get_subset(asset_selection=run.asset_selection)
        execute_run(job, self._now(run), self.instance)
        return self._now(run).status

    def _now(self, run: dg.DagsterRun) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found


@contextmanager
def dagster(home: Path, folder: Path) -> Iterator[Dagster]:
    """Daemons for the model of `worlds` on its home; `folder` takes the instance and the model's spec."""
    write_model(folder / "models")
    (folder / "instance").mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder / "instance")
    with (
        at_home(home, folder / "models"),
        dg.DagsterInstance.from_config(str(folder / "instance")) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(LOCATION)) as workspace,
    ):
        from drift_pipeline.definitions import defs

        try:
            yield Dagster(instance, workspace, defs().get_repository_def())
        finally:
            FLEET.close()
