"""Dagster's door: loads the models of DRIFT_MODELS, or the packaged ones, and what drives their loops."""

import logging
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import dagster as dg

import drift_pipeline.defs
from drift_pipeline.components.jobs import operating_jobs, retention, retrain_job
from drift_pipeline.components.lanes import give_way, models_of_run, run_of_worker
from drift_pipeline.components.schedules import loop_schedules
from drift_pipeline.components.sensors import loop_sensors
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.statements import PACKAGED_MODELS
from drift_pipeline.logs import OURS, about, to_stderr
from drift_pipeline.loop import home
from drift_pipeline.observability.lines import line_handlers
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec

_LINES = ExitStack()  # until the process ends


def models_of(folder: Path | None) -> dg.Definitions:
    """The definitions of the `NAME/defs.yaml` below a folder, or in it. Raises InputError where there is none."""
    module = drift_pipeline.defs
    if folder is not None:
        if not any((*folder.glob("*/defs.yaml"), *folder.glob("defs.yaml"))):
            raise InputError(f"DRIFT_MODELS {folder.absolute()}: no NAME/defs.yaml here; `dg scaffold defs` writes one")
        module = ModuleType("drift_models")
        module.__file__, module.__path__ = str(folder.absolute() / "__init__.py"), [str(folder.absolute())]
        sys.modules[module.__name__] = module
    root = Path(str(module.__file__)).parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # each defs.yaml is linked as the code of its assets
        return dg.ComponentTree.from_module(defs_module=module, project_root=root).build_defs()


def needed(settings: Settings) -> tuple[dg.Definitions, dict[str, ModelSpec]]:
    """Of every model; in a worker whose run is about one model, of that one: each of a hundred takes it 60 ms."""
    if run := run_of_worker():
        give_way(run)
        _LINES.enter_context(about(run=run.run_id))
        names = models_of_run(run)
        path = (settings.models or PACKAGED_MODELS) / next(iter(names), "") / "defs.yaml"
        if len(names) == 1 and path.is_file() and (spec := read_spec(path)).name in names:
            return models_of(path.parent), {spec.name: spec}
    return models_of(settings.models), home.models_of(settings)


@dg.definitions
def defs() -> dg.Definitions:
    """Steps of a run share its process: the libraries of a report take longer to import than the report to write. With
    DRIFT_EXECUTOR=k8s_job those of a retrain do not."""
    settings = Settings()
    if settings.log and not logging.getLogger(OURS).handlers:
        _LINES.enter_context(to_stderr(settings.log, *line_handlers(settings.log_otlp, "drift-dagster"), of=OURS))
    models, specs = needed(settings)
    operating = operating_jobs(specs)
    loops = dg.Definitions(
        jobs=[retrain_job(settings.executor), retention, *operating],
        sensors=loop_sensors(specs, submit_rollout=operating[0]),
        schedules=loop_schedules(specs),
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(models, loops)
