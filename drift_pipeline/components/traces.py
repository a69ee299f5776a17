"""The sensor that delivers traces."""

import dagster as dg

from drift_pipeline.components.teller import teller
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.tracing import deliver_traces, told
from drift_pipeline.settings import Settings

EVERY_S = 15


def traces_sensor() -> dg.SensorDefinition:
    """For all models of the home."""

    def deliver(settings: Settings, store: ControlStore) -> str:
        sent = deliver_traces(settings, store)
        return "; ".join([f"{sent} spans told", *told(store)])

    description = (
        "Tells what the audit holds of incidents, and of what came of them, as spans to OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    return teller("traces", EVERY_S, description, deliver)
