"""Seeded synthetic histories whose every change is known: for `drift sample`, and for tests of what detection sees.

`synthetic_history` is a recommendation model that can drift in six ways and comes with its spec, `SAMPLE_SPEC`;
`delivery_history` is a regression that can drift in two, with `DELIVERY_SPEC`;
`stationary_history` and `seasonal_history` never drift, so whatever fires on them is a false alarm. The same arguments
give the same frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
DriftKind = Literal["covariate", "concept", "latency", "unfairness", "schema", "campaign"]

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
DEVICES = ("desktop", "phone", "tablet")
COUNTRIES = ("DE", "ES", "FR", "IT", "NL")
AGE_BANDS = ("18-29", "30-44", "45-64", "65+")
_SECONDS_A_DAY = 86_400

SAMPLE_SPEC = """\
name: recommendation_v3
owner: ml-platform@example.com
task: binary_classification
columns:
  timestamp: ts
  prediction_id: prediction_id
  entity: user_id
  latency_ms: latency_ms
features:
  session_length_s: numeric
  items_viewed: numeric
  price_eur: numeric
  days_since_visit: numeric
  device: categorical
  country: categorical
prediction: {score: score, threshold: 0.5}
outcome: {column: clicked, positive: 1, delay: 6h}
protected: {age_band: categorical}
"""

DELIVERY_SPEC = """\
name: delivery_minutes
owner: ml-platform@example.com
task: regression
columns:
  timestamp: ts
  prediction_id: prediction_id
features:
  distance_km: numeric
  items: numeric
  orders_waiting: numeric
  vehicle: categorical
prediction: {value: promised_minutes}
outcome: {column: minutes, delay: 2h}
protected: {district: categorical}
"""


@dataclass(frozen=True)
class Drift:
    """One change, whole from `day + ramp_days` on (days from the start, fractions allowed); `size` scales it.

    covariate   sessions grow by 0.8 sd and every fourth phone becomes a desktop; the labels' rule stays
    concept     two of four coefficients of the labels' rule change, one of them its sign; the features stay
    latency     every answer takes 80 % longer, which lifts the p95 from about 107 to 190 ms
    unfairness  sessions and views of the oldest age band sink by 0.8 sd, so that the model accepts fewer of them
    schema      `price_eur` comes empty; at a size below 1, in that share of the rows
    campaign    whoever views many items clicks, for once: two other coefficients move; a second one of size -1 ends it
    """

    kind: DriftKind
    day: float
    ramp_days: float = 0.0
    size: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(DriftKind):
            raise ValueError(f"there is no drift {self.kind!r}; there are: {', '.join(get_args(DriftKind))}")
        if self.ramp_days < 0:
            raise ValueError(f"a ramp takes 0 days or more, not {self.ramp_days}")


def synthetic_history(
    days: int,
    rows_per_day: int,
    seed: int,
    *,
    drifts: Sequence[Drift] = (),
    seasonal: float = 0.0,
    score: bool = True,
    start: datetime = START,
) -> pl.DataFrame:
    """Served recommendations and whether they were clicked, in order of time; `SAMPLE_SPEC` names the columns.

    Args:
        seasonal: amplitude, in sd, of a daily and half of it of a weekly cycle in the sessions' length.
        score: with the recorded scores of a logistic model that knew the labels' rule of the first day, with an error.
            It does not learn of any drift.
    """
    rng = np.random.default_rng(seed)
    at = _arrivals(rng, days, rows_per_day)
    n = len(at)
    size = {kind: _strength(at, kind, drifts) for kind in get_args(DriftKind)}
    age = rng.choice(4, n, p=(0.25, 0.35, 0.25, 0.15))
    device = rng.choice(3, n, p=(0.3, 0.55, 0.15))
    device = np.where((device == 1) & (rng.random(n) < 0.25 * size["covariate"]), 0, device)
    country = rng.choice(5, n, p=(0.4, 0.1, 0.25, 0.15, 0.1))
    sunk = 0.8 * size["unfairness"] * (age == 3)
    z = rng.standard_normal((n, 4))
    z[:, 0] += 0.8 * size["covariate"] - sunk + _cycles(at, seasonal)
    z[:, 1] -= sunk
    levels = np.array([0.4, 0.0, -0.3])[device] + np.array([0.0, 0.1, -0.1, 0.2, 0.0])[country]
    first = np.array([0.8, 0.9, -0.7, -0.3])
    rule = first + size["concept"][:, None] * np.array([0.0, -1.3, 0.6, 0.0])
    rule = rule + size["campaign"][:, None] * np.array([0.0, 1.4, 0.0, 0.5])
    chance = _sigmoid(-0.5 + levels + (z * rule).sum(axis=1))
    learned = first + rng.normal(0, 0.05, 4)
    price = np.where(rng.random(n) < size["schema"], np.nan, np.round(25 * np.exp(0.5 * z[:, 2]), 2))
    frame = pl.DataFrame(
        {
            "prediction_id": np.char.add("p", np.char.zfill(np.arange(n).astype(str), 8)),
            "ts": _moments(at, start),
            "user_id": np.char.add("u", rng.geometric(1 / 2000, n).astype(str)),
            "session_length_s": np.round(180 * np.exp(0.6 * z[:, 0]), 1),
            "items_viewed": np.floor(6 * np.exp(0.6 * z[:, 1])),
            "price_eur": price,
            "days_since_visit": np.round(4 * np.exp(0.8 * z[:, 3]), 2),
            "device": np.array(DEVICES)[device],
            "country": np.array(COUNTRIES)[country],
            "age_band": np.array(AGE_BANDS)[age],
            "latency_ms": np.round(60 * np.exp(0.35 * rng.standard_normal(n)) * (1 + 0.8 * size["latency"]), 1),
            "score": np.round(_sigmoid(-0.5 + levels + z @ learned), 6),
            "clicked": (rng.random(n) < chance).astype(np.int8),
        }
    ).with_columns(pl.col("price_eur").fill_nan(None), pl.col("items_viewed").cast(pl.Int32))
    return frame if score else frame.drop("score")


def delivery_history(
    days: int,
    rows_per_day: int,
    seed: int,
    *,
    drifts: Sequence[Drift] = (),
    value: bool = True,
    start: datetime = START,
) -> pl.DataFrame:
    """Deliveries and the minutes they took, in order of time; `DELIVERY_SPEC` names the columns.

    The noise has a sd of 4 minutes, so nobody has an MAE below 3.2. `covariate`: distances grow by 0.8 sd, the rule
    stays. `concept`: the distance comes to matter little and the queue much; the features stay, and what was learned
    before has an MAE of about 5.5. Other kinds of drift do not occur.

    Args:
        value: with the recorded predictions of a linear model that knew the first day's rule, with an error. It does
            not learn of any drift.
    """
    rng = np.random.default_rng(seed)
    at = _arrivals(rng, days, rows_per_day)
    n = len(at)
    concept, covariate = (_strength(at, kind, drifts) for kind in ("concept", "covariate"))
    z = rng.standard_normal((n, 3))
    z[:, 0] += 0.8 * covariate
    vehicle = rng.choice(3, n, p=(0.5, 0.3, 0.2))
    level = 25 + np.array([0.0, -2.0, 3.0])[vehicle]
    first = np.array([6.0, 2.0, 2.0])
    rule = first + concept[:, None] * np.array([-4.0, 0.0, 4.0])
    minutes = level + (z * rule).sum(axis=1) + rng.normal(0, 4, n)
    frame = pl.DataFrame(
        {
            "prediction_id": np.char.add("d", np.char.zfill(np.arange(n).astype(str), 8)),
            "ts": _moments(at, start),
            "distance_km": np.round(4 * np.exp(0.3 * z[:, 0]), 3),
            "items": np.floor(5 * np.exp(0.4 * z[:, 1])),
            "orders_waiting": np.floor(30 + 8 * z[:, 2]),
            "vehicle": np.array(("bicycle", "scooter", "van"))[vehicle],
            "district": rng.choice(("centre", "north", "south"), n, p=(0.5, 0.3, 0.2)),
            "promised_minutes": np.round(level + z @ (first + rng.normal(0, 0.1, 3)), 3),
            "minutes": np.round(minutes, 3),
        }
    )
    return frame if value else frame.drop("promised_minutes")


def stationary_history(
    features: int = 20, *, days: int, rows_per_day: int, seed: int, start: datetime = START
) -> pl.DataFrame:
    """Independent rows of one distribution: `ts`, standard normal `f0, f1, ...` and a label `y` they explain."""
    return seasonal_history(features, days=days, rows_per_day=rows_per_day, seed=seed, amplitude=0.0, start=start)


def seasonal_history(
    features: int = 20, *, days: int, rows_per_day: int, seed: int, amplitude: float = 0.3, start: datetime = START
) -> pl.DataFrame:
    """As `stationary_history`, with a cycle by day (amplitude in sd) and by week (half of it) in every feature.

    Each feature peaks at its own hour. The label's rule is the same at every hour.
    """
    rng = np.random.default_rng(seed)
    at = _arrivals(rng, days, rows_per_day)
    x = rng.standard_normal((len(at), features))
    for column, shift in enumerate(rng.random(features)):
        x[:, column] += _cycles(at + shift, amplitude)
    rule = rng.normal(0, 1.5 / np.sqrt(features), features)
    y = (rng.random(len(at)) < _sigmoid(x @ rule)).astype(np.int8)
    columns = {f"f{column}": x[:, column] for column in range(features)}
    return pl.DataFrame({"ts": _moments(at, start), **columns, "y": y})


def _arrivals(rng: np.random.Generator, days: int, rows_per_day: int) -> Floats:
    """Rising times in days (days * rows_per_day,); a day's intensity is 1 - 0.7 cos(2 pi t): noon is busy."""
    if days < 1 or rows_per_day < 1:
        raise ValueError(f"a history has at least one day and one row a day, not {days} and {rows_per_day}")
    grid = np.linspace(0, 1, 1441)
    until = grid - 0.7 * np.sin(2 * np.pi * grid) / (2 * np.pi)
    hours = np.sort(np.interp(rng.random((days, rows_per_day)), until, grid), axis=1)
    return np.asarray((np.arange(days)[:, None] + hours).ravel())


def _strength(at: Floats, kind: str, drifts: Sequence[Drift]) -> Floats:
    """How far the drifts of one kind have come at each time: 0 before, `size` after the ramp."""
    total = np.zeros(len(at))
    for drift in drifts:
        if drift.kind == kind:
            come = (at - drift.day) / drift.ramp_days if drift.ramp_days else (at >= drift.day).astype(float)
            total += drift.size * np.clip(come, 0, 1)
    return total


def _cycles(at: Floats, amplitude: float) -> Floats:
    return np.asarray(amplitude * (np.sin(2 * np.pi * at) + 0.5 * np.sin(2 * np.pi * at / 7)))


def _moments(at: Floats, start: datetime) -> pl.Series:
    """Times in whole milliseconds, never past the day they were drawn in."""
    day = np.floor(at)
    seconds = np.minimum((at - day) * _SECONDS_A_DAY, _SECONDS_A_DAY - 0.001)
    milliseconds = (day * _SECONDS_A_DAY * 1000 + np.floor(seconds * 1000)).astype(np.int64)
    since = int(start.timestamp() * 1000)
    return pl.Series(milliseconds + since).cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)))
