"""Adopting: a model's history lands in the lake, its reference is frozen, and what answers becomes version 1."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError, NothingToDoError
from drift_pipeline.loop.declared import declared
from drift_pipeline.loop.given import read_given
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.loop import Loop
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History
from drift_pipeline.telemetry.lake import Lake

SOURCE = "adopt"


def adopt(
    home: Home,
    spec: ModelSpec,
    history: History,
    *,
    bundle: Path | None = None,
    external: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Loop:
    """Make a model that the loop watches from now on.

    Args:
        history: its newest 20 % of labelled rows are the held-out baseline and the trusted holdout.
        bundle: a skops file of a scikit-learn pipeline that answers from now on, or of a graph the folder of its steps'
            files, STEP.skops; else what answers is trained. A pipeline is given a table of its features: numbers with
            NaN for null, and the levels of categories as texts of their column's form ("1" of integers, "true" and
            "false" of booleans), "" for null.
        external: another system goes on answering, and its recorded scores are all that is known of the model.
        progress: is told in words what takes long.

    Raises:
        NothingToDoError: the model was adopted before.
        InputError: the history is too small, has no scores for an external model, or the bundle knows none of a
            column's levels.
        IntegrityError: the bundle holds what a registry does not load.
    """
    if home.store.get("model", spec.name) is not None and home.store.find("reference", f"{spec.name}/"):
        raise NothingToDoError(f"{spec.name}: is adopted already; a new version comes by drift retrain")
    if external and spec.prediction.column is None:
        raise InputError(f"{spec.name}: an external model is known by its scores; name their column in prediction")
    spec, frame = spec.with_forms(history.forms).with_negative(history.negative), history.frame
    given = None if bundle is None else (read_given(bundle, spec, frame), str(bundle))
    labels = frame["_label"].drop_nulls()
    if len(labels) < spec.retrain.min_rows or labels.n_unique() < 2:
        needs = performance_of(spec).needs
        raise InputError(
            f"{spec.name}: {len(labels):,} labelled rows in the history, where {spec.retrain.min_rows:,} "
            f"(retrain.min_rows) with {needs} are needed; give a longer one"
        )
    progress(f"{spec.name}: landing {frame.height:,} rows")
    _land(Lake(home.settings.lake / spec.name, source=SOURCE), frame, spec)
    span = Window(frame["_time"][0], frame["_time"][-1] + timedelta(microseconds=1))
    progress(
        f"{spec.name}: {'freezing the reference' if external or bundle else 'training v1, freezing its reference'}"
    )
    loop = home.loop(spec, progress=progress)
    loop.adopt(span, recorded=external, given=given)
    declared(home.settings, home.store, spec)
    return loop


def _same_rows(landed: pl.DataFrame, served: pl.DataFrame) -> bool:
    """Whether an earlier try landed the very rows: another history, or forms that the spec declared since, are not."""
    if landed.is_empty() or not set(served.columns) <= set(landed.columns):
        return False
    landed = landed.filter(pl.col("_version") == "history").select(served.columns)
    return landed.equals(served.sort("_time", "_id"))


def _land(lake: Lake, frame: pl.DataFrame, spec: ModelSpec) -> None:
    """Once: the batch has a number, so that adopting again after a crash lands nothing twice."""
    recorded = frame["_score"] if "_score" in frame.columns else pl.Series("_score", [None] * frame.height, pl.Float64)
    served = frame.drop("_label").with_columns(
        recorded.cast(pl.Float64).alias("_score"),
        recorded.cast(pl.Float64).alias("_recorded"),
        _version=pl.lit("history"),
        _route=pl.lit("history"),
    )
    lake.append("predictions", served, 0)
    landed = lake.read("predictions", Window(frame["_time"][0], frame["_time"][-1] + timedelta(seconds=1)))
    if not _same_rows(landed, served):  # an earlier try's, or of another process that is at it too
        raise InputError(f"{lake.root}: holds the history of an adoption that failed; remove it, then adopt again")
    known = frame.filter(pl.col("_label").is_not_null())
    lake.append(
        "outcomes", known.select("_id", (pl.col("_time") + spec.outcome.delay).alias("_observed_at"), "_label"), 0
    )
