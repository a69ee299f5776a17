"""The sensor that delivers lineage: apart from the loop's tick, so that a slow backend holds nothing up."""

from contextlib import closing, suppress

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.components.home import Specs
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import require_store
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.home import models_of
from drift_pipeline.loop.lineage import deliver_lineage, standing, told
from drift_pipeline.settings import Settings

EVERY_S = 60


def lineage_sensor(specs: Specs) -> dg.SensorDefinition:
    """For all models of this code location."""

    @dg.sensor(
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells what the audit and the days that are over hold as OpenLineage events: into files, or to "
        "DRIFT_LINEAGE_URL. It launches nothing; what a backend does not take is told again.",
    )
    def lineage(_: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings, known = Settings(), specs
        with suppress(DriftError):
            known = models_of(settings)
        try:
            require_store(settings)
            with closing(ControlStore(settings.database_url, system_clock())) as store:
                sent = deliver_lineage(settings, store, known, system_clock().now())
                found = standing(settings, store)
        except DriftError as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("; ".join([f"{sent} events told", *told(found)]) if found else "lineage is off")

    return lineage
