"""Adopting: a model's history lands in the lake, its reference is frozen, and what answers becomes version 1."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.loop import Loop
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History
from drift_pipeline.telemetry.lake import Lake

SOURCE = "adopt"


def adopt(home: Home, spec: ModelSpec, history: History, *, bundle: Path | None = None, external: bool = False) -> Loop:
    """Make a model that the loop watches from now on.

    Args:
        history: its newest 20 % of labelled rows are the held-out baseline and the trusted holdout.
        bundle: a skops file of a scikit-learn pipeline that answers from now on; else one is trained.
        external: another system goes on answering, and its recorded scores are all that is known of the model.

    Raises:
        InputError: the history is too small, has no scores for an external model, or the model was adopted before.
        IntegrityError: the bundle holds what a registry does not load.
    """
    if home.store.get("model", spec.name) is not None and home.store.find("reference", f"{spec.name}/"):
        raise InputError(f"{spec.name}: is adopted already; a new version comes by drift retrain")
    if external and spec.prediction.column is None:
        raise InputError(f"{spec.name}: an external model is known by its scores; name their column in prediction")
    given = None if bundle is None else (_read(bundle), str(bundle))
    frame, loop = history.frame, home.loop(spec)
    labels = frame["_label"].drop_nulls()
    if len(labels) < spec.retrain.min_rows or labels.n_unique() < 2:
        needs = performance_of(spec).needs
        raise InputError(
            f"{spec.name}: {len(labels):,} labelled rows in the history, where {spec.retrain.min_rows:,} "
            f"(retrain.min_rows) with {needs} are needed; give a longer one"
        )
    _land(Lake(home.settings.lake / spec.name, source=SOURCE), frame, spec)
    span = Window(frame["_time"][0], frame["_time"][-1] + timedelta(microseconds=1))
    loop.adopt(span, recorded=external, given=given)
    return loop


def _read(bundle: Path) -> bytes:
    try:
        data = bundle.read_bytes()
    except OSError as error:
        raise InputError(f"{bundle}: cannot be read: {error.strerror}") from error
    try:
        load_pipeline(data)
    except IntegrityError as error:
        raise IntegrityError(f"{bundle}: {error}; write it with skops.io.dump") from error
    return data


def _land(lake: Lake, frame: pl.DataFrame, spec: ModelSpec) -> None:
    """Once: the batch has a number, so that adopting again after a crash lands nothing twice."""
    recorded = frame["_score"] if "_score" in frame.columns else pl.Series("_score", [None] * frame.height, pl.Float64)
    served = frame.drop("_label").with_columns(
        recorded.cast(pl.Float64).alias("_score"),
        recorded.cast(pl.Float64).alias("_recorded"),
        _version=pl.lit("history"),
        _route=pl.lit("history"),
    )
    if not lake.append("predictions", served, 0):
        landed = lake.read("predictions", Window(frame["_time"][0], frame["_time"][-1] + timedelta(seconds=1)))
        if landed.is_empty() or landed.filter(pl.col("_version") == "history").height != frame.height:
            raise InputError(f"{lake.root}: holds the history of an adoption that failed; remove it, then adopt again")
    known = frame.filter(pl.col("_label").is_not_null())
    lake.append(
        "outcomes", known.select("_id", (pl.col("_time") + spec.outcome.delay).alias("_observed_at"), "_label"), 0
    )
