"""The sensor that delivers traces: apart from the loop's tick, so that a slow collector holds nothing up."""

from contextlib import closing

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import require_store
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.tracing import deliver_traces, told
from drift_pipeline.settings import Settings

EVERY_S = 15


def traces_sensor() -> dg.SensorDefinition:
    """For all models of the home."""

    @dg.sensor(
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells what the audit holds of incidents, and of what came of them, as spans to "
        "OTEL_EXPORTER_OTLP_ENDPOINT. It launches nothing; what is not taken is told again.",
    )
    def traces(_: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings = Settings()
        try:
            require_store(settings)
            with closing(ControlStore(settings.database_url, system_clock())) as store:
                sent = deliver_traces(settings, store)
                amiss = told(store)
        except DriftError as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("; ".join([f"{sent} spans told", *amiss]))

    return traces
