"""What assets work on: the home that DRIFT_HOME, DRIFT_DATABASE and DRIFT_ENVIRONMENT name, opened for one step."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import DriftError
from drift_pipeline.loop import Backends, Loop
from drift_pipeline.loop.home import opened, resumed
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec


@contextmanager
def backends() -> Iterator[Backends]:
    """The home's backends. An expected error fails the step with its message: it says what to do, a trace does not."""
    try:
        with opened(Settings(), SystemClock()) as at:
            yield at
    except DriftError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


@contextmanager
def loop_of(spec: ModelSpec, context: dg.AssetExecutionContext) -> Iterator[Loop]:
    """The model's loop where it stands; what takes long is told in the run's log."""
    with backends() as at:
        yield resumed(Settings(), at, spec, SystemClock(), progress=context.log.info)
