"""Dagster's door: loads the models of DRIFT_MODELS, or the packaged ones, and what drives their loops."""

import sys
import warnings
from pathlib import Path
from types import ModuleType

import dagster as dg

import drift_pipeline.defs
from drift_pipeline.components.jobs import operating_jobs, retention, retrain
from drift_pipeline.components.lanes import give_way_early
from drift_pipeline.components.schedules import loop_schedules
from drift_pipeline.components.sensors import loop_sensors
from drift_pipeline.errors import InputError
from drift_pipeline.loop import home
from drift_pipeline.settings import Settings


def models_of(folder: Path | None) -> dg.Definitions:
    """The definitions of every `NAME/defs.yaml` below a folder. Raises InputError where there is none."""
    module = drift_pipeline.defs
    if folder is not None:
        if not any(folder.glob("*/defs.yaml")):
            raise InputError(f"DRIFT_MODELS {folder.absolute()}: no NAME/defs.yaml here; `dg scaffold defs` writes one")
        module = ModuleType("drift_models")
        module.__file__, module.__path__ = str(folder.absolute() / "__init__.py"), [str(folder.absolute())]
        sys.modules[module.__name__] = module
    root = Path(str(module.__file__)).parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # each defs.yaml is linked as the code of its assets
        return dg.ComponentTree.from_module(defs_module=module, project_root=root).build_defs()


@dg.definitions
def defs() -> dg.Definitions:
    """Steps of a run share its process: the libraries of a report take longer to import than the report to write."""
    give_way_early()
    settings = Settings()
    models, specs = models_of(settings.models), home.models_of(settings)
    operating = operating_jobs(specs)
    loops = dg.Definitions(
        jobs=[retrain, retention, *operating],
        sensors=loop_sensors(specs, submit_rollout=operating[0]),
        schedules=loop_schedules(specs),
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(models, loops)
