"""Kafka as a way in: capture reads topics of events, and who serves elsewhere writes them. Needs the extra `kafka`."""

from drift_pipeline.telemetry.sources.kafka.producer import EventProducer

__all__ = ["EventProducer"]
