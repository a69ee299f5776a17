"""How to replay a history: which span trains, how far apart ticks are, which triggers count, and which rows play."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from drift_pipeline.clock import DAY, Window, format_duration
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History

Triggers = Literal["drift", "schedule", "both"]


@dataclass(frozen=True)
class Options:
    """How to replay: the training span at the start, the time between ticks, and which triggers may retrain.

    `policy` is a folder of Rego rules; None = the packaged ones.
    """

    reference: timedelta = 90 * DAY
    step: timedelta = DAY
    triggers: Triggers = "both"
    seed: int = 0
    policy: Path | None = None

    def __post_init__(self) -> None:
        """Raises InputError for triggers that there are not."""
        if self.triggers not in get_args(Triggers):
            raise InputError(f"triggers: there is no {self.triggers!r}; there are: {', '.join(get_args(Triggers))}")

    def to_json(self) -> dict[str, Any]:
        spans = {"reference": format_duration(self.reference), "step": format_duration(self.step)}
        return {**spans, "triggers": self.triggers, "seed": self.seed}


def between(history: History, start: datetime | None, end: datetime | None) -> History:
    """The history's rows in [start, end). Raises InputError when none is left."""
    frame = history.frame
    if start is not None:
        frame = frame.filter(pl.col("_time") >= start)
    if end is not None:
        frame = frame.filter(pl.col("_time") < end)
    if frame.is_empty():
        raise InputError(f"no row is left between --from {start} and --to {end}")
    return replace(history, frame=frame)


def reference_span(frame: pl.DataFrame, spec: ModelSpec, options: Options) -> Window:
    """The span at the start that trains. Raises InputError where the history ends before it does."""
    if options.step <= timedelta() or options.reference <= timedelta():
        raise InputError("--step and --reference are longer than nothing: such as 1d and 90d")
    start = floor(frame["_time"][0], min(options.step, DAY))
    span = Window(start, start + options.reference)
    if frame["_time"][-1] < span.end:
        raise InputError(
            f"{spec.name}: the history ends at {frame['_time'][-1]:%Y-%m-%d %H:%M}, before the reference span does "
            f"({span.end:%Y-%m-%d %H:%M}): give a shorter --reference or a longer history"
        )
    _require_labels(frame, spec, span)
    return span


def too_long_a_step(spec: ModelSpec, options: Options) -> tuple[str, ...]:
    """What to say where a rollout is past its deadline whenever it is looked at; nothing where it is not."""
    step, deadline = options.step, spec.rollout.deadline
    if step < deadline:
        return ()
    told = f"rollout.deadline {format_duration(deadline)} is over at the first look, --step {format_duration(step)} on"
    return (f"{told}: a candidate that has not proven itself by then is rolled back; give a shorter step or more time",)


def _require_labels(frame: pl.DataFrame, spec: ModelSpec, span: Window) -> None:
    """Enough labels are known by the end of the reference span, else how long it has to be."""
    enough, least = outcomes_of(frame, spec)["_observed_at"].sort(), spec.retrain.min_rows
    inside = int((enough <= span.end).sum())
    if inside >= least:
        return
    lack = f"{spec.name}: {inside:,} labels are known by {span.end:%Y-%m-%d}, where retrain.min_rows is {least:,}"
    if len(enough) < least:
        raise InputError(f"{lack}, and the whole history has {len(enough):,}: set a smaller retrain.min_rows")
    days = (enough[least - 1] - span.start) // DAY + 1
    raise InputError(f"{lack}: give --reference {days}d, in which as many are, or set a smaller retrain.min_rows")


def outcomes_of(frame: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    """The labels of a history, each with when it is known."""
    known = frame.filter(pl.col("_label").is_not_null())
    return known.select("_id", (pl.col("_time") + spec.outcome.delay).alias("_observed_at"), "_label")


def ticks_of(start: datetime, last: datetime, step: timedelta) -> list[datetime]:
    """From one step after `start` to the first one after the last row."""
    return [start + step * number for number in range(1, (last - start) // step + 2)]
