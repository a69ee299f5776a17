"""Behavioural tests that a spec declares (`gates:`): invariance, direction, and a floor for each level of a column.

After Ribeiro et al., "Beyond accuracy: behavioral testing of NLP models with CheckList", ACL 2020: a change of the
input with a known effect on the answer needs no label. Pure functions of a pipeline and rows.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.results import GateResult, Outcome, judged, unknown
from drift_pipeline.training.trainers import score

if TYPE_CHECKING:
    from drift_pipeline.training.graph import Model

MOST_ROWS = 5000
MOST_LEVELS = 20  # of a column that is exchanged, the most frequent ones
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STEPS = (0.1, 0.25, 0.5, 1.0)  # of the span between the 5 % and the 95 % quantile
ROUNDING = 1e-9
LEAST_LEVEL_ROWS = 100
RARE = 0.01  # a level with a smaller share of the rows is told, and asked nothing of
LEAST_OF_A_CLASS = 50

Scores = Callable[[pl.DataFrame], npt.NDArray[np.float64]]


def behavioural_gates(pipeline: "Model", block: pl.DataFrame, spec: ModelSpec) -> Iterator[GateResult]:
    """A result for each declared test; `block` are labelled rows that the pipeline was not trained on."""

    def scores(rows: pl.DataFrame) -> npt.NDArray[np.float64]:
        return score(pipeline, rows, spec.features)

    rows = block.tail(MOST_ROWS)
    for test in spec.gates.invariance:
        yield invariance(scores, rows, spec, test.column, test.at_most)
    for column, sense in spec.gates.direction.items():
        yield direction(scores, rows, column, up=sense == "up")
    told = scores(block) if spec.gates.minimum_slice else np.empty(0)
    for column, limit in spec.gates.minimum_slice.items():
        yield minimum_slice(told, block, spec, column, limit)


def invariance(scores: Scores, rows: pl.DataFrame, spec: ModelSpec, column: str, at_most: float) -> GateResult:
    """For which share of the rows does another value of the column change the decision? FAIL above `at_most`.

    The values are the column's levels, or the quantiles of its numbers. Of a regression: the mean of the largest change
    that a row sees, in standard deviations of the labels.
    """
    name = f"invariance:{column}"
    if column not in spec.features:
        return judged(name, True, 0.0, None, at_most, f"the model does not take {column}")
    values = _values(rows[column])
    if len(values) < 2:
        return unknown(name, f"{rows.height:,} rows hold fewer than two values of {column}", at_most)
    before, largest = scores(rows), np.zeros(rows.height)
    for value in values:
        after = scores(rows.with_columns(pl.lit(value, dtype=rows.schema[column]).alias(column)))
        largest = np.maximum(largest, _changed(before, after, rows, spec))
    found = float(largest.mean())
    if not np.isfinite(found):
        return unknown(name, "not every row has a finite score", at_most)
    what = "decisions change" if spec.task == "binary_classification" else "standard deviations is the mean change"
    told = f"{found:.2%} of the" if spec.task == "binary_classification" else f"{found:.4f}"
    reason = f"{told} {what} with another of {len(values)} values of {column}, on {rows.height:,} rows"
    return judged(name, found <= at_most, found, None, at_most, reason)


def direction(scores: Scores, rows: pl.DataFrame, column: str, *, up: bool) -> GateResult:
    """Does raising the feature, in steps to as much as its span, ever move the mean score the wrong way?"""
    name, known = f"direction:{column}", rows.filter(pl.col(column).is_finite().fill_null(value=False))
    low, high = (known[column].quantile(share) for share in (QUANTILES[0], QUANTILES[-1]))
    if low is None or high is None or high <= low:
        return unknown(name, f"{known.height:,} rows hold no span of {column} to move in", 0.0)
    raised = (known.with_columns(pl.col(column) + step * (high - low)) for step in (0.0, *STEPS))
    means = np.array([scores(moved).mean() for moved in raised])
    if not np.isfinite(means).all():
        return unknown(name, "not every row has a finite score", 0.0)
    worst = float((np.diff(means) if up else -np.diff(means)).min())
    way = "falls" if up else "rises"
    moves = f"moves from {means[0]:.4f} to {means[-1]:.4f}"
    reason = f"the mean score {moves} as {column} is raised by {high - low:.4g} in {len(STEPS)} steps"
    told = reason if worst >= -ROUNDING else f"{reason}, and {way} by {-worst:.4g} on the way"
    return judged(name, worst >= -ROUNDING, worst, None, 0.0, told)


def minimum_slice(
    told: npt.NDArray[np.float64], block: pl.DataFrame, spec: ModelSpec, column: str, limit: float
) -> GateResult:
    """Is the AUROC of each level at least, or its MAE at most, the limit? UNKNOWN where a level has too few rows.

    A level with less than 1 % of the rows is named, and asked nothing of; missing values are of no level.
    """
    name, performance = f"minimum_slice:{column}", performance_of(spec)
    labels, levels = block["_label"].to_numpy(), block[column].cast(pl.String)
    counts = levels.drop_nulls().value_counts(sort=True)
    found, short, rare = dict[str, float](), list[str](), list[str]()
    for level, count in zip(counts[column], counts["count"], strict=True):
        here = (levels == level).fill_null(value=False).to_numpy()
        if count < RARE * block.height:
            rare.append(level)
        elif count < LEAST_LEVEL_ROWS or not performance.enough(labels[here].astype(np.float64), LEAST_OF_A_CLASS):
            short.append(f"{level} ({count:,} rows)")
        elif not np.isfinite(told[here]).all() or (value := performance.of(labels[here], told[here])) is None:
            short.append(f"{level} (a score is missing)")
        else:
            found[level] = value
    aside = f"; under 1 % of the rows: {', '.join(rare)}" if rare else ""
    sign = 1 if performance.higher_is_better else -1
    worst = min(found, key=lambda level: sign * found[level], default=None)
    facts = {"levels": found}
    if worst is not None and sign * found[worst] < sign * limit:
        reason = f"{performance.name} of {column} {worst} is {found[worst]:.4f}{aside}"
        return GateResult(name, Outcome.FAIL, found[worst], None, limit, reason, facts)
    if short or worst is None:
        few = f"too few rows to tell of {column} {', '.join(short) or 'at all'}{aside}"
        return unknown(name, few, limit, facts)
    reason = (
        f"the worst of {len(found)} levels of {column} is {worst} with {performance.name} {found[worst]:.4f}{aside}"
    )
    return GateResult(name, Outcome.PASS, found[worst], None, limit, reason, facts)


def _values(column: pl.Series) -> list[object]:
    known = column.drop_nulls()
    if not known.dtype.is_numeric():
        return list(known.value_counts(sort=True)[column.name].head(MOST_LEVELS))
    return list({known.quantile(share, interpolation="nearest") for share in QUANTILES} - {None})


def _changed(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], rows: pl.DataFrame, spec: ModelSpec
) -> npt.NDArray[np.float64]:
    """Of each row: whether its decision is another one, or how far its value moved."""
    if spec.task == "binary_classification":
        threshold = spec.prediction.threshold
        changed = (before >= threshold) != (after >= threshold)
        return np.where(np.isnan(before + after), np.nan, changed)
    spread = float(np.std(rows["_label"].to_numpy())) or 1.0
    moved: npt.NDArray[np.float64] = np.abs(after - before) / spread
    return moved
