"""What a version's pictures are drawn of: curves of a block of rows that it was not trained on, as small JSON.

Computed once, when it is proven, and stored with what the gates said. It holds no value of a feature.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.evidence.groups import share_interval
from drift_pipeline.spec import ModelSpec, Task

CURVES: Mapping[Task, tuple[str, ...]] = {
    "binary_classification": ("roc", "calibration", "gains", "confusion", "importance"),
    "regression": ("predicted_and_actual", "residuals", "importance"),
}
ROC_POINTS, BINS, GAIN_STEPS, RESIDUAL_BINS = 50, 10, 20, 24
MOST_CELLS, MOST_ROWS, LEAST_ROWS, REPEATS = 200_000, 2_000, 200, 2  # of importance: rows x features, the newest rows
MOST_SECONDS = 20.0
DIGITS = 6

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Score = Callable[[pl.DataFrame], npt.ArrayLike]
Rows = list[dict[str, Any]]


def curves_of(frame: pl.DataFrame, spec: ModelSpec, score: Score) -> dict[str, Any]:
    """Each of `CURVES` of the task, by name; none where no row has a label and a finite score, or only one class is
    there.

    - `roc`: points {false_positive_rate, true_positive_rate, threshold}, from (0, 0) to (1, 1), 51 at most.
    - `calibration`: ten bins of equally many rows by score {predicted, observed, low, high, rows}: the mean score, the
      share of positives and its 95 % interval (Wilson).
    - `gains`: {share, captured}: of the rows with the highest scores, that share, and the share of positives in it.
    - `confusion`: rows by label and decision at the spec's `threshold`.
    - `predicted_and_actual`: ten bins by prediction {predicted, p10, median, p90, rows}: of the labels.
    - `residuals`: label minus prediction {from, to, share}: even bins, and what lies outside of them, which has no
      `from` or no `to`.
    - `importance`: see `importance`.

    Args:
        frame: rows (n,) in order of time, with the features, `_label` (0 or 1, or a number) and `_score`.
        score: scores (m,) of rows (m,) with the features.
    """
    known = frame.filter(pl.col("_label").is_not_null() & pl.col("_score").cast(pl.Float64).is_finite())
    labels, scores = (known[name].cast(pl.Float64).to_numpy() for name in ("_label", "_score"))
    if not performance_of(spec).enough(labels, 1):
        return {}
    drawn = _of_numbers(labels, scores) if spec.task == "regression" else _of_classes(labels > 0, scores, spec)
    return {**drawn, "importance": importance(known, spec, score)}


def importance(frame: pl.DataFrame, spec: ModelSpec, score: Score, clock: Callable[[], float] = time.monotonic) -> Rows:
    """How much worse the model is where one feature's values are shuffled: {feature, loss}, the largest loss first.

    `loss` is the AUROC lost, or the MAE added, the mean of two shuffles of the newest 2,000 rows, or fewer where the
    features are many (Breiman, "Random forests", 2001). Features that say the same share their importance, and each
    seems to have little. After 20 s what was not shuffled yet has a `loss` of null.

    Args:
        frame: as for `curves_of`.
    """
    features, measure, began = [*spec.features], performance_of(spec), clock()
    rows = frame.tail(min(max(MOST_CELLS // max(len(features), 1), LEAST_ROWS), MOST_ROWS))
    labels, sign = rows["_label"].cast(pl.Float64).to_numpy(), 1.0 if measure.higher_is_better else -1.0
    whole, random = measure.of(labels, rows["_score"]), np.random.default_rng(0)

    def loss(feature: str) -> float | None:
        worse = list[float]()
        for _ in range(REPEATS):
            shuffled = rows.with_columns(rows[feature].gather(random.permutation(rows.height)))
            if whole is None or clock() - began > MOST_SECONDS:
                return None
            worse.append(sign * (whole - (measure.of(labels, score(shuffled)) or 0.0)))
        return float(np.mean(worse))

    found = [{"feature": name, "loss": _short(loss(name))} for name in features]
    return sorted(found, key=lambda one: -one["loss"] if one["loss"] is not None else np.inf)


def _of_classes(labels: Bools, scores: Floats, spec: ModelSpec) -> dict[str, Any]:
    return {
        "roc": _roc(labels, scores),
        "calibration": list(_calibration(labels, scores)),
        "gains": _gains(labels, scores),
        "confusion": _confusion(labels, scores >= spec.prediction.threshold, spec.prediction.threshold),
    }


def _of_numbers(labels: Floats, predictions: Floats) -> dict[str, Any]:
    return {
        "predicted_and_actual": list(_by_prediction(labels, predictions)),
        "residuals": _histogram(labels - predictions),
    }


def _roc(labels: Bools, scores: Floats) -> Rows:
    """Equal scores are one step. Of many points those are kept that lie about evenly along the curve."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equal scores
    true = hits[last] / labels.sum()
    false = (last + 1 - hits[last]) / (len(labels) - labels.sum())
    wanted = np.linspace(0, 2, ROC_POINTS)
    kept = np.unique(np.minimum(np.searchsorted(true + false, wanted[1:] - 1e-12), len(last) - 1))
    points = [{"false_positive_rate": 0.0, "true_positive_rate": 0.0, "threshold": None}]
    return points + [
        {
            "false_positive_rate": _short(false[at]),
            "true_positive_rate": _short(true[at]),
            "threshold": _short(ranked[last[at]]),
        }
        for at in kept
    ]


def _calibration(labels: Bools, scores: Floats) -> Iterator[dict[str, Any]]:
    for part in _parts(scores):
        share, low, high = share_interval(int(labels[part].sum()), len(part))
        told = {"predicted": float(scores[part].mean()), "observed": share, "low": low, "high": high}
        yield {**{name: _short(value) for name, value in told.items()}, "rows": len(part)}


def _gains(labels: Bools, scores: Floats) -> Rows:
    """Rows of equal scores come in the order of a random draw's mean: evenly."""
    _, run, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    evenly = (np.bincount(run, labels) / sizes)[np.sort(run)]
    captured = np.append(0.0, np.cumsum(evenly)) / labels.sum()
    shares = np.linspace(0, 1, GAIN_STEPS + 1)
    at = np.interp(shares * len(labels), np.arange(len(labels) + 1), captured)
    return [{"share": _short(share), "captured": _short(value)} for share, value in zip(shares, at, strict=True)]


def _confusion(labels: Bools, decided: Bools, threshold: float) -> dict[str, Any]:
    counts = {
        "true_positive": labels & decided,
        "false_negative": labels & ~decided,
        "false_positive": ~labels & decided,
        "true_negative": ~labels & ~decided,
    }
    return {"threshold": threshold, **{name: int(rows.sum()) for name, rows in counts.items()}}


def _by_prediction(labels: Floats, predictions: Floats) -> Iterator[dict[str, Any]]:
    for part in _parts(predictions):
        p10, median, p90 = np.quantile(labels[part], (0.1, 0.5, 0.9))
        told = {"predicted": predictions[part].mean(), "p10": p10, "median": median, "p90": p90}
        yield {**{name: _short(value) for name, value in told.items()}, "rows": len(part)}


def _histogram(residuals: Floats) -> Rows:
    low, high = np.quantile(residuals, (0.005, 0.995))
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, RESIDUAL_BINS + 1)
    place = np.searchsorted(np.append(edges[:-1], np.nextafter(high, np.inf)), residuals, side="right")
    counts = np.bincount(place, minlength=RESIDUAL_BINS + 2)
    ends = [None, *edges.tolist(), None]
    return [
        {"from": _short(ends[at]), "to": _short(ends[at + 1]), "share": _short(count / len(residuals))}
        for at, count in enumerate(counts)
    ]


def _parts(by: Floats) -> Sequence[npt.NDArray[np.int64]]:
    """Rows in ten parts of about equally many, in order; equal values are not split."""
    ends = np.unique(np.quantile(by, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
    place = np.searchsorted(ends, by, side="left")
    return [np.flatnonzero(place == part) for part in np.unique(place)]


def _short(value: Any) -> Any:
    """Of JSON that is kept for ever: six significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
