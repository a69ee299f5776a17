"""The sensor that delivers lineage."""

from contextlib import suppress

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.components.home import Specs
from drift_pipeline.components.teller import teller
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.home import models_of
from drift_pipeline.loop.lineage import deliver_lineage, standing, told
from drift_pipeline.settings import Settings

EVERY_S = 60


def lineage_sensor(specs: Specs) -> dg.SensorDefinition:
    """For all models of this code location."""

    def deliver(settings: Settings, store: ControlStore) -> str:
        known = specs
        with suppress(DriftError):
            known = models_of(settings)
        sent = deliver_lineage(settings, store, known, system_clock().now())
        found = standing(settings, store)
        return "; ".join([f"{sent} events told", *told(found)]) if found else "lineage is off"

    description = (
        "Tells what the audit and the days that are over hold as OpenLineage events: into files, or to "
        "DRIFT_LINEAGE_URL."
    )
    return teller("lineage", EVERY_S, description, deliver)
