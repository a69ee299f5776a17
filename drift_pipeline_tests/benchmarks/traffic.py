"""Seeded traffic for the benchmarks: features of five shapes on a latent normal scale, hour by hour, served and labelled.

A shift acts on the latent scale, x = f(z + shift), so that "0.5 sd" means the same for every shape. Healthy traffic is
independent rows, or has a daily cycle in half of the features and effects of the day in all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import START

Floats = npt.NDArray[np.float64]
Shape = Literal["normal", "lognormal", "zero_inflated", "discrete", "categorical"]

SHAPES: tuple[Shape, ...] = ("normal", "lognormal", "zero_inflated", "discrete", "categorical")
LEVELS = 1000
LEVEL_NAMES = pl.Series([f"level{k:03d}" for k in range(LEVELS)])
_DAYS = 400
_SLOPE = 1.7  # norm of the score's coefficients: an AUROC of .83


def names(features: int) -> dict[str, Shape]:
    """`normal0, lognormal0, ..., normal1, ...`: each fifth feature has the same shape."""
    return {f"{SHAPES[k % 5]}{k // 5}": SHAPES[k % 5] for k in range(features)}


def level_shares() -> Floats:
    """Zipf's law over 1000 levels: the first has 13 %, the last 0.01 %."""
    weights: Floats = 1 / np.arange(1.0, LEVELS + 1)
    return weights / weights.sum()


def column(shape: Shape, z: Floats) -> pl.Series:
    """Values of a feature from its latent normal ones: the same rank at every z, whatever the shape."""
    if shape == "categorical":
        return _levels(z)
    if shape == "lognormal":
        return pl.Series(np.exp(z))
    if shape == "zero_inflated":
        return pl.Series(np.maximum(z, 0.0))
    return pl.Series(np.floor(5 * np.exp(0.5 * z)) if shape == "discrete" else z)


def _levels(z: Floats) -> pl.Series:
    from scipy.special import ndtr

    place = np.searchsorted(np.cumsum(level_shares()), ndtr(z), side="right")
    return LEVEL_NAMES.gather(np.minimum(place, LEVELS - 1))


def below(shape: Shape, cuts: Floats, shift: float) -> Floats:
    """P(x <= cut) of a numeric feature whose latent values are shifted."""
    from scipy.special import ndtr

    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == "lognormal":
            latent = np.where(cuts > 0, np.log(np.maximum(cuts, 0)), -np.inf)
        elif shape == "zero_inflated":
            latent = np.where(cuts < 0, -np.inf, cuts)
        elif shape == "discrete":
            latent = np.where(cuts < 0, -np.inf, 2 * np.log((np.floor(cuts) + 1) / 5))
        else:
            latent = cuts
    return np.asarray(ndtr(latent - shift))


def spec_of(features: int) -> ModelSpec:
    """All KPIs on; labels come at once, so that AUROC is judged in every window."""
    kinds = {name: "categorical" if shape == "categorical" else "numeric" for name, shape in names(features).items()}
    return ModelSpec.model_validate(
        {
            "name": "benchmark",
            "owner": "nobody",
            "task": "binary_classification",
            "features": kinds,
            "outcome": {"column": "_label"},
            "columns": {"latency_ms": "_latency_ms"},
            "protected": {"group": "categorical"},
        }
    )


@dataclass(frozen=True)
class Change:
    """What is different from `at` on: shifts in latent sd by feature, and the share of labels that became a coin."""

    at: datetime
    shifts: Mapping[str, float] = field(default_factory=dict)
    coins: float = 0.0


@dataclass(frozen=True)
class Traffic:
    """Poisson arrivals at `rows_per_hour`, the same rows at every call.

    amplitude: of the daily cycle, in sd, in every other feature, each with a peak of its own; day_sd: of the effects
    of a day, in sd, each feature its own; memory: their correlation from one day to the next (AR(1)).
    """

    rows_per_hour: int
    seed: int
    features: int = 20
    amplitude: float = 0.0
    day_sd: float = 0.0
    memory: float = 0.0

    def hour(self, number: int, change: Change | None = None) -> pl.DataFrame:
        """Rows of the hour that begins `number` hours after START, in order of time."""
        rng = np.random.default_rng([self.seed, 1, number])
        at = number + np.sort(rng.random(rng.poisson(self.rows_per_hour)))
        times = _moments(at)
        z = rng.standard_normal((self.features, len(at))) + self._healthy_shift(at, number // 24)
        score = 1 / (1 + np.exp(-(self._slopes @ z)))
        coin = np.zeros(len(at))
        if change is not None:
            later = (times >= change.at).to_numpy()
            for name, size in change.shifts.items():
                z[list(self.shapes).index(name)] += size * later
            coin = change.coins * later
        chance = np.where(rng.random(len(at)) < coin, 0.5, score)
        columns = {name: column(shape, z[k]) for k, (name, shape) in enumerate(self.shapes.items())}
        return pl.DataFrame(
            {
                "_time": times,
                **columns,
                "group": pl.Series(["g", "h"]).gather(rng.integers(0, 2, len(at))),
                "_score": score,
                "_label": (rng.random(len(at)) < chance).astype(np.int8),
                "_latency_ms": 60 * np.exp(0.35 * rng.standard_normal(len(at))),
            }
        )

    def days(self, first: int, number: int) -> pl.DataFrame:
        """Rows of whole days."""
        return pl.concat([self.hour(hour) for hour in range(24 * first, 24 * (first + number))])

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return names(self.features)

    @cached_property
    def _slopes(self) -> Floats:
        slopes = np.random.default_rng([self.seed, 2]).standard_normal(self.features)
        return np.asarray(_SLOPE * slopes / np.linalg.norm(slopes))

    @cached_property
    def _peaks(self) -> Floats:
        return np.random.default_rng([self.seed, 3]).random((self.features, 1))

    @cached_property
    def _day_effects(self) -> Floats:
        """(days, features)."""
        fresh = np.random.default_rng([self.seed, 4]).normal(0, self.day_sd, (_DAYS, self.features))
        for day in range(1, _DAYS):
            fresh[day] = self.memory * fresh[day - 1] + math.sqrt(1 - self.memory**2) * fresh[day]
        return fresh

    def _healthy_shift(self, at: Floats, day: int) -> Floats | float:
        if not self.amplitude and not self.day_sd:
            return 0.0
        cycle = self.amplitude * np.sin(2 * np.pi * (at[None, :] / 24 + self._peaks))
        cycle[1::2] = 0.0
        return np.asarray(cycle + self._day_effects[day][:, None])


def moment(hours: float) -> datetime:
    return START + hours * HOUR


def _moments(hours: Floats) -> pl.Series:
    since = int(START.timestamp() * 1e6)
    microseconds = (hours * 3.6e9).astype(np.int64) + since
    return pl.Series(microseconds).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def day_number(at: datetime) -> int:
    return (at - START) // DAY
