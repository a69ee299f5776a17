"""A sensor that tells others what the audit holds: apart from the loop's tick, so that a slow one holds nothing up."""

from collections.abc import Callable
from contextlib import closing

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import require_store
from drift_pipeline.errors import DriftError
from drift_pipeline.settings import Settings


def teller(
    name: str, seconds: int, description: str, deliver: Callable[[Settings, ControlStore], str]
) -> dg.SensorDefinition:
    """It launches nothing; what is not taken is told again, each `seconds`.

    Args:
        deliver: by the settings as they are then; what it did, in words.
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"{description} It launches nothing; what is not taken is told again.",
    )
    def tell(_: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings = Settings()
        try:
            require_store(settings)
            with closing(ControlStore(settings.database_url, system_clock())) as store:
                return dg.SkipReason(deliver(settings, store))
        except DriftError as error:
            return dg.SkipReason(str(error))

    return tell
