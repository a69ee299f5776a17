"""How a model does for each protected group and each pairwise intersection, with 95 % intervals.

Figures of two classes come from fairlearn (`training/group_figures.py`), their intervals from here. AUROC: DeLong's
standard error on the logit scale, so that no bound leaves (0, 1) (Pepe, "The statistical evaluation of medical tests
for classification and prediction", 2003, section 5.2). Rates of positive decisions: Wilson's score interval (JASA
22(158), 1927). MAE: the mean's normal interval. All take rows as independent.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.detection.statistics.mae import mae_of_sums
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.behaviour import LEAST_OF_A_CLASS
from drift_pipeline.training.group_figures import group_figures

LEAST_ROWS = 30
Z_95 = 1.959963984540054
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
ASKED = ("a share", "TPR", "FPR")  # of positive decisions: of all, of those with a positive label, of the negative
FIGURES = ("auroc", *RATES)

Interval = tuple[float | None, float | None, float | None]  # value, low, high
Levels = tuple[str | None, ...]


def group_analysis(frame: pl.DataFrame, spec: ModelSpec) -> list[dict[str, Any]]:
    """One entry a level of each protected column, then one a pair of levels of each two columns that has rows.

    An entry is `{columns, levels, rows, positives, note}` with, of each of `FIGURES`, its value and the ends of its
    interval. AUROC is null below 50 rows of either label, a rate below 30 rows that it is of; `note` says so. Where a
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
    measured = _errors_of if spec.task == "regression" else partial(_rates_of, threshold=spec.prediction.threshold)
    return [
        {"columns": list(columns), "levels": list(levels), **told}
        for columns in [*((name,) for name in names), *combinations(names, 2)]
        if known.height
        for parts in [list(_parts(known, columns))]
        for (levels, _), told in zip(parts, measured([part for _, part in parts]), strict=True)
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


def _errors_of(parts: Sequence[pl.DataFrame]) -> list[dict[str, Any]]:
    return [_errors(part) for part in parts]


def _rates_of(parts: Sequence[pl.DataFrame], threshold: float) -> list[dict[str, Any]]:
    rows = pl.concat(parts)
    member = np.repeat(np.arange(len(parts)), [part.height for part in parts])
    scores = rows["_score"].to_numpy()
    found = group_figures(member, rows["_label"].to_numpy() > 0, scores >= threshold, scores)
    return [_rates({name: float(values[at]) for name, values in found.items()}, part) for at, part in enumerate(parts)]


def _errors(part: pl.DataFrame) -> dict[str, Any]:
    if part.height < LEAST_ROWS:
        note = f"MAE wants {LEAST_ROWS} rows, here are {part.height}"
        return {"rows": part.height, **dict.fromkeys(("mae", "mae_low", "mae_high")), "note": note}
    errors = (part["_label"] - part["_score"]).abs().to_numpy()
    found = mae_of_sums(part.height, float(errors.sum()), float(errors @ errors))
    half = Z_95 * found.standard_error
    ends = {"mae_low": max(found.value - half, 0.0), "mae_high": found.value + half}
    return {"rows": part.height, "mae": found.value, **ends, "note": None}


def _rates(found: Mapping[str, float], part: pl.DataFrame) -> dict[str, Any]:
    """A group's figures with their intervals, and why others are not told."""
    rows, positives = int(found["rows"]), int(found["positives"])
    fewer, notes, told = min(positives, rows - positives), list[str](), dict[str, float | None]()
    if fewer >= LEAST_OF_A_CLASS:
        _, low, high = auroc_interval(part["_label"].to_numpy() > 0, part["_score"].to_numpy())
        told |= _figure("auroc", (found["auroc"], low, high))
        notes += ["no interval: the labels are separated without a fault"] if low is None else []
    else:
        told |= _figure("auroc", (None, None, None))
        notes.append(f"AUROC wants {LEAST_OF_A_CLASS} rows of each label, here are {fewer}")
    for name, of, asked in zip(RATES, (rows, positives, rows - positives), ASKED, strict=True):
        if of < LEAST_ROWS:
            told |= _figure(name, (None, None, None))
            notes.append(f"{asked} wants {LEAST_ROWS} rows, here are {of}")
        else:
            told |= _figure(name, share_interval(round(found[name] * of), of))
    return {"rows": rows, "positives": positives, **told, "note": "; ".join(notes) or None}


def _figure(name: str, interval: Interval) -> dict[str, float | None]:
    return dict(zip((name, f"{ends_of(name)}_low", f"{ends_of(name)}_high"), interval, strict=True))


def ends_of(figure: str) -> str:
    """What the keys of its interval begin with.

    >>> ends_of("selection_rate"), ends_of("auroc")
    ('selection', 'auroc')
    """
    return figure.removesuffix("_rate")
