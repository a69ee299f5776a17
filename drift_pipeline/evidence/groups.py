"""How a model does for each protected group and each pairwise intersection, with 95 % intervals.

MAE: the mean's normal interval.

AUROC: DeLong's standard error on the logit scale, so that no bound leaves (0, 1) (Pepe, "The statistical evaluation
of medical tests for classification and prediction", 2003, section 5.2). Share of positive decisions: Wilson's score
interval (JASA 22(158), 1927). All take rows as independent.
"""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.detection.statistics.mae import mae_of_sums
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.behaviour import LEAST_OF_A_CLASS

LEAST_ROWS = 30
Z_95 = 1.959963984540054

Interval = tuple[float | None, float | None, float | None]  # value, low, high
Levels = tuple[str | None, ...]


def group_analysis(frame: pl.DataFrame, spec: ModelSpec) -> list[dict[str, Any]]:
    """One entry a level of each protected column, then one a pair of levels of each two columns that has rows.

    An entry is `{columns, levels, rows, positives, auroc, auroc_low, auroc_high, selection_rate, selection_low,
    selection_high, note}`. AUROC is null below 50 rows of either label, a share below 30 rows; `note` says so. Where a
    group is separated without a fault its AUROC has no interval: DeLong's variance is 0 there, which is no certainty.
    Of a regression an entry is `{columns, levels, rows, mae, mae_low, mae_high, note}`; MAE is null below 30 rows.

    Args:
        frame: `_label` (0 or 1, or a number), `_score` and the protected columns; rows without a label or a finite
            score are left out, and a missing level is a group of its own (null).
    """
    names = list(spec.protected)
    known = frame.select(
        pl.col("_label"), pl.col("_score").cast(pl.Float64), *(pl.col(n).cast(pl.String) for n in names)
    )
    known = known.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    groupings = [*((name,) for name in names), *combinations(names, 2)]
    return [
        {"columns": list(columns), "levels": list(levels), **_measured(part, spec)}
        for columns in groupings
        for levels, part in _parts(known, columns)
    ]


def auroc_interval(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> Interval:
    """AUROC and its 95 % interval: logit(A) -+ z se / (A (1 - A)); no interval for an AUROC of 0 or 1.

    >>> labels = np.repeat([False, True], 60)
    >>> [round(number, 3) for number in auroc_interval(labels, np.arange(120.0) % 50)]
    [0.542, 0.437, 0.643]
    """
    found = paired_auroc_difference(labels, scores, np.zeros(scores.shape))
    value = found.candidate
    if not 0 < value < 1:
        return value, None, None
    middle, half = math.log(value / (1 - value)), Z_95 * found.standard_error / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-logit)) for logit in (middle - half, middle + half))
    return value, low, high


def share_interval(count: int, rows: int) -> Interval:
    """A share and Wilson's 95 % interval, which also holds for 0 and for all of the rows.

    >>> [round(number, 4) for number in share_interval(0, 40)]
    [0.0, 0.0, 0.0876]
    """
    share, z2 = count / rows, Z_95**2
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z_95 / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def _parts(rows: pl.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[Levels, pl.DataFrame]]:
    parts = rows.partition_by(*columns, as_dict=True)
    yield from sorted(parts.items(), key=lambda part: [(level is None, level or "") for level in part[0]])


def _measured(part: pl.DataFrame, spec: ModelSpec) -> dict[str, Any]:
    return _errors(part) if spec.task == "regression" else _ranks(part, spec.prediction.threshold)


def _errors(part: pl.DataFrame) -> dict[str, Any]:
    if part.height < LEAST_ROWS:
        note = f"MAE wants {LEAST_ROWS} rows, here are {part.height}"
        return {"rows": part.height, **dict.fromkeys(("mae", "mae_low", "mae_high")), "note": note}
    errors = (part["_label"] - part["_score"]).abs().to_numpy()
    found = mae_of_sums(part.height, float(errors.sum()), float(errors @ errors))
    half = Z_95 * found.standard_error
    ends = {"mae_low": max(found.value - half, 0.0), "mae_high": found.value + half}
    return {"rows": part.height, "mae": found.value, **ends, "note": None}


def _ranks(part: pl.DataFrame, threshold: float) -> dict[str, Any]:
    labels, scores = part["_label"].to_numpy().astype(bool), part["_score"].to_numpy()
    rows, positives = part.height, int(labels.sum())
    fewer, notes = min(positives, rows - positives), []
    auroc: Interval = (None, None, None)
    share: Interval = (None, None, None)
    if fewer >= LEAST_OF_A_CLASS:
        auroc = auroc_interval(labels, scores)
        notes += ["no interval: the labels are separated without a fault"] if auroc[1] is None else []
    else:
        notes.append(f"AUROC wants {LEAST_OF_A_CLASS} rows of each label, here are {fewer}")
    if rows >= LEAST_ROWS:
        share = share_interval(int((scores >= threshold).sum()), rows)
    else:
        notes.append(f"a share wants {LEAST_ROWS} rows, here are {rows}")
    return {
        "rows": rows,
        "positives": positives,
        **dict(zip(("auroc", "auroc_low", "auroc_high"), auroc, strict=True)),
        **dict(zip(("selection_rate", "selection_low", "selection_high"), share, strict=True)),
        "note": "; ".join(notes) or None,
    }
