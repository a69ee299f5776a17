"""Worlds of known behaviour for the monitor: a spec, its reference, and what is landed tick by tick."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import DAY
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.judging.monitor import Monitor, window_lengths
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import START

Floats = npt.NDArray[np.float64]


def spec_of(*numeric: str, categorical: tuple[str, ...] = (), **more: Any) -> ModelSpec:
    kinds = dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")
    given = {"name": "m", "owner": "o", "task": "binary_classification", "features": kinds, "outcome": {"column": "y"}}
    return ModelSpec.model_validate({**given, **more})


def rows(rng: np.random.Generator, days: int, per_day: int, first_day: int = 0) -> pl.DataFrame:
    """`x`, `w` standard normal, `kind` of three levels, a protected `group`, a score that explains `_label`."""
    n = days * per_day
    seconds = (np.arange(n) + 0.5) / per_day * 86_400
    score = rng.random(n)
    times = (seconds * 1000).astype(np.int64) + int((START + first_day * DAY).timestamp() * 1000)
    return pl.DataFrame(
        {
            "_time": pl.Series(times).cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "x": rng.standard_normal(n),
            "w": rng.standard_normal(n),
            "kind": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
            "group": rng.choice(["g", "h"], n),
            "_score": score,
            "_label": (rng.random(n) < score).astype(np.int8),
            "_latency_ms": 60 * np.exp(0.35 * rng.standard_normal(n)),
        }
    )


SPEC = spec_of(
    "x", "w", categorical=("kind",), protected={"group": "categorical"}, columns={"latency_ms": "_latency_ms"}
)


@dataclass
class World:
    """A reference of whole days from START, and slices that begin at its end."""

    reference: Reference
    spec: ModelSpec
    baseline_at: datetime
    step: timedelta = DAY

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.reference, self.spec, self.baseline_at, self.step)

    @classmethod
    def on(cls, frame: pl.DataFrame, spec: ModelSpec = SPEC, step: timedelta = DAY) -> "World":
        reference = freeze(frame, frame, spec, window_lengths(spec, step))
        return cls(reference, spec, reference.span.end, step)

    @property
    def slices(self) -> Slices:
        return self.monitor.slices

    def again(self) -> "World":
        """The same reference, nothing landed."""
        return replace(self)

    def land(self, frame: pl.DataFrame) -> "World":
        self.slices.add(frame)
        self.slices.add_labels(frame.filter(pl.col("_label").is_not_null()))
        return self

    def at(self, after: timedelta) -> Report:
        return self.monitor.evaluate(self.baseline_at + after)

    def daily(self, frame: pl.DataFrame) -> Iterator[Report]:
        """A report a day, as replay does it."""
        for number in range(int((frame["_time"][-1] - self.baseline_at) / DAY) + 1):
            start = self.baseline_at + number * DAY
            inside = frame["_time"].is_between(start, start + DAY, closed="left")
            self.land(frame.filter(inside))
            self.slices.consolidate(start + DAY)
            yield self.at((number + 1) * DAY)


def finding(report: Report, name: str, window: timedelta = DAY) -> FeatureFinding:
    return next(f for f in report.features if f.name == name and f.window == window)
