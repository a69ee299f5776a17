"""The Dagster skin: a `MonitoredModel` becomes assets and checks; what they do stands in the rooms below."""

from drift_pipeline.components.monitored_model import MonitoredModel

__all__ = ["MonitoredModel"]
