"""Day partitions: hours live in the profiles, so that a backfill of a month is 30 runs and not 720."""

import dagster as dg

from drift_pipeline.spec import ModelSpec


def days_of(spec: ModelSpec) -> dg.DailyPartitionsDefinition:
    """Every UTC day that is over, from the spec's `since` on."""
    return dg.DailyPartitionsDefinition(start_date=spec.since.isoformat(), timezone="UTC")
