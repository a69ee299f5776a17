"""Seeded traffic for the benchmarks: features of five shapes on a latent normal scale, hour by hour, with labels.

For every ten features there are two healthy columns more, of which a reference never knows every level: merchants by
Zipf's law with a heavy tail, and 1,200 equally frequent codes. A shift acts on the latent scale, x = f(z + shift), so
that "0.5 sd" means the same for every shape. Healthy traffic is independent rows, or has a daily cycle in half of the
features and effects of the day in all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import START

Floats = npt.NDArray[np.float64]
Shape = Literal["normal", "lognormal", "zero_inflated", "discrete", "categorical", "heavy_tailed", "many_levels"]

SHAPES: tuple[Shape, ...] = ("normal", "lognormal", "zero_inflated", "discrete", "categorical")
MANY: tuple[Shape, ...] = ("heavy_tailed", "many_levels")
_DAYS = 400
_SLOPE = 1.7  # norm of the score's coefficients: an AUROC of .83


def names(features: int) -> dict[str, Shape]:
    """`normal0, lognormal0, ..., normal1, ...`: each fifth feature has the same shape."""
    return {f"{SHAPES[k % 5]}{k // 5}": SHAPES[k % 5] for k in range(features)}


def many(features: int) -> dict[str, Shape]:
    """`heavy_tailed0, many_levels0, ...`: the columns of very many levels beside so many features."""
    return {f"{shape}{k}": shape for k in range(max(1, features // 10)) for shape in MANY}


@cache
def levels(shape: Shape) -> tuple[pl.Series, Floats]:
    """Names and shares: 1000 levels by Zipf's law, from 13 % to 0.01 %; 20,000 with a heavy tail; 1,200 equal ones."""
    number, power = {"categorical": (1000, 1.0), "heavy_tailed": (20_000, 1.3), "many_levels": (1200, 0.0)}[shape]
    weights: Floats = np.arange(1.0, number + 1) ** -power
    return pl.Series([f"level{k:03d}" for k in range(number)]), np.asarray(weights / weights.sum())


def column(shape: Shape, z: Floats) -> pl.Series:
    """Values of a feature from its latent normal ones: the same rank at every z, whatever the shape."""
    if shape in ("categorical", *MANY):
        return _levels(shape, z)
    if shape == "lognormal":
        return pl.Series(np.exp(z))
    if shape == "zero_inflated":
        return pl.Series(np.maximum(z, 0.0))
    return pl.Series(np.floor(5 * np.exp(0.5 * z)) if shape == "discrete" else z)


def _levels(shape: Shape, z: Floats) -> pl.Series:
    from scipy.special import ndtr

    known, shares = levels(shape)
    place = np.searchsorted(np.cumsum(shares), ndtr(z), side="right")
    return known.gather(np.minimum(place, len(known) - 1))


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
    shapes = names(features) | many(features)
    of_levels = ("categorical", *MANY)
    kinds = {name: "categorical" if shape in of_levels else "numeric" for name, shape in shapes.items()}
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
        more = np.random.default_rng([self.seed, 5, number])
        columns |= {name: column(shape, more.standard_normal(len(at))) for name, shape in many(self.features).items()}
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
