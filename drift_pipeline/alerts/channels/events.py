"""An alert as a CloudEvent 1.0, in its JSON format: what webhook and Pub/Sub carry."""

import json
from typing import Any

from drift_pipeline.alerts.alert import Alert
from drift_pipeline.control.traces import traceparent

CONTENT_TYPE = "application/cloudevents+json"


def envelope(alert: Alert) -> dict[str, Any]:
    """`id` is the same at each attempt; (source, id) names it among all, as the standard has it. `traceparent`: its
    extension for distributed tracing, of the first span of the alert's trace."""
    extension = {"traceparent": traceparent(alert.trace_id)} if alert.trace_id else {}
    return {
        "specversion": "1.0",
        "id": alert.id,
        "source": f"/drift/{alert.environment}/{alert.model}".rstrip("/"),
        "type": f"drift.alert.{alert.action}",
        "subject": alert.incident,
        "time": alert.at,
        "datacontenttype": "application/json",
        **extension,
        "data": alert.to_json(),
    }


def encoded(alert: Alert) -> bytes:
    return json.dumps(envelope(alert), ensure_ascii=False).encode()
