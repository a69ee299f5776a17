"""Mean absolute error with its standard error: of one model from sums, of a rise of it, and of two models on one set.

MAE = mean |label - prediction|. A change of it is told as a share of what it was, for it has the label's unit.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array


@dataclass(frozen=True)
class Mae:
    """`rows` labelled rows have the mean absolute error `value`."""

    value: float
    standard_error: float
    rows: int


@dataclass(frozen=True)
class Rise:
    """value = MAE now / MAE before - 1, with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class PairedGain:
    """gain = 1 - candidate's MAE / champion's, on the same rows; positive where the candidate errs less."""

    gain: float
    standard_error: float
    candidate: float
    champion: float


def mae_of_sums(rows: int, total: float, squares: float) -> Mae:
    """Of n rows with sum |e| and sum e^2, which add up over slices of time. se = s / sqrt(n), infinite for one row.

    >>> found = mae_of_sums(4, total=10.0, squares=30.0)
    >>> found.value, round(found.standard_error, 4)
    (2.5, 0.6455)

    Raises:
        ValueError: no row, of which no mean can be told.
    """
    if rows < 1:
        raise ValueError("no row: a mean absolute error of nothing is not defined")
    mean = total / rows
    if rows == 1:
        return Mae(mean, math.inf, rows)
    return Mae(mean, math.sqrt(max(squares - rows * mean**2, 0.0) / (rows - 1) / rows), rows)


def mae_rise(now: Mae, before: Mae) -> Rise:
    """Relative rise of two independent MAEs; R = now / before, se = R sqrt((se / value)^2 of both) (delta method).

    From a perfect model every error is an infinite rise, known without error.

    >>> found = mae_rise(Mae(3.4, 0.06, 5000), Mae(3.1, 0.05, 8000))
    >>> round(found.value, 4), round(found.standard_error, 4)
    (0.0968, 0.0262)
    """
    if before.value == 0:
        return Rise(0.0 if now.value == 0 else math.inf, 0.0)
    ratio = now.value / before.value
    return Rise(ratio - 1, math.hypot(now.standard_error, ratio * before.standard_error) / before.value)


def paired_mae_gain(labels: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike) -> PairedGain:
    """Gain of one model over another on the same rows, with the standard error of the ratio of paired means.

    With a, b (n,) the absolute errors of candidate and champion and R = mean a / mean b, the influence of a row on R
    is (a - R b) / mean b; se = its sd / sqrt(n). Equal predictions give exactly 0 with a standard error of 0; one row
    gives an infinite one. Against a perfect champion every error is an infinite loss.

    >>> found = paired_mae_gain([1, 2, 3, 4], candidate=[1, 2, 3, 5], champion=[2, 3, 4, 5])
    >>> round(found.gain, 4), round(found.standard_error, 4)
    (0.75, 0.25)

    Raises:
        ValueError: no row, lengths that differ, or a number that is not finite.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (labels, candidate, champion)]
    if len({side.shape for side in sides}) != 1 or sides[0].ndim != 1:
        raise ValueError(f"labels and predictions are of one length, not {[side.shape for side in sides]}")
    if not sides[0].size:
        raise ValueError("no row: a mean absolute error of nothing is not defined")
    if not all(np.isfinite(side).all() for side in sides):
        raise ValueError("a label or prediction is not finite: leave out such rows, for both models")
    first, second = np.abs(sides[1] - sides[0]), np.abs(sides[2] - sides[0])
    mine, other = float(first.mean()), float(second.mean())
    if other == 0:
        return PairedGain(0.0 if mine == 0 else -math.inf, 0.0, mine, other)
    ratio = mine / other
    return PairedGain(1 - ratio, _standard_error((first - ratio * second) / other), mine, other)


def mae_overdispersion(errors: npt.ArrayLike, blocks: npt.ArrayLike) -> float:
    """How much more the MAE varies than independent rows would let it: its variance clustered by block over s^2 / n.

    Each block's sum of influences (|e| - MAE) / n is one draw: K / (K - 1) times the sum of their squares. About 1
    for independent rows, with a relative error of sqrt(2 / K); NaN for fewer than two blocks or constant errors.

    errors (n,) are signed or absolute, blocks (n,) are integers.

    >>> mae_overdispersion([1, 1, 1, 3, 3, 3], [0, 0, 0, 1, 1, 1])
    5.0
    """
    absolute = np.abs(np.asarray(errors, dtype=np.float64))
    names, block = np.unique(np.asarray(blocks), return_inverse=True)
    if len(names) < 2 or len(absolute) < 2:
        return math.nan
    influence = (absolute - absolute.mean()) / len(absolute)
    independent = _standard_error(absolute) ** 2
    clustered = len(names) / (len(names) - 1) * float((np.bincount(block, influence) ** 2).sum())
    return clustered / independent if independent > 0 else math.nan


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
