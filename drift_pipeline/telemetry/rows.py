"""Rows: events as the lake's tables hold them, with the columns always the same."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import OutcomeKnown, Prediction

_TIME = pl.Datetime("us", "UTC")


def predictions_frame(spec: ModelSpec, predictions: Sequence[Prediction]) -> pl.DataFrame:
    """The lake's `predictions`, and its `late`."""
    facts = {
        "_id": pl.Series([p.id for p in predictions], dtype=pl.String),
        "_time": pl.Series([p.time for p in predictions], dtype=_TIME),
        "_version": pl.Series([p.version for p in predictions], dtype=pl.String),
        "_route": pl.Series([p.route for p in predictions], dtype=pl.String),
        "_score": pl.Series([p.score for p in predictions], dtype=pl.Float64),
        "_latency_ms": pl.Series([p.latency_ms for p in predictions], dtype=pl.Float64),
        "_entity": pl.Series([p.entity for p in predictions], dtype=pl.String),
    }
    dtypes = {"numeric": pl.Float64, "categorical": pl.String}
    watched = {
        name: pl.Series([p.features[name] for p in predictions], dtype=dtypes[kind])
        for name, kind in spec.watched.items()
    }
    whose = {"_producer": pl.Series([p.producer for p in predictions], dtype=pl.String)}
    return pl.DataFrame({**facts, **watched, **whose})


def outcomes_frame(
    spec: ModelSpec, outcomes: Sequence[OutcomeKnown], observed: Sequence[datetime] | None = None
) -> pl.DataFrame:
    """The lake's `outcomes`.

    Args:
        observed: from when on each counts as known; None = from when it was told.
    """
    observed = [o.time for o in outcomes] if observed is None else observed
    label = pl.Float64 if spec.task == "regression" else pl.Int8
    return pl.DataFrame(
        {
            "_id": pl.Series([o.id for o in outcomes], dtype=pl.String),
            "_observed_at": pl.Series(observed, dtype=_TIME),
            "_label": pl.Series([o.label for o in outcomes], dtype=label),
            "_told_at": pl.Series([o.time if o.told else None for o in outcomes], dtype=_TIME),
            "_producer": pl.Series([o.producer for o in outcomes], dtype=pl.String),
        }
    )
