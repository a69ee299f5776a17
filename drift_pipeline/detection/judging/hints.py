"""Hints: two KPIs beside the matrix that may raise WARN, never say that all is well, and never close an incident.

`estimated_auroc` fills the time until labels come; it assumes that a score still means what it meant and so cannot see
concept drift. Where labels later show that it was off by more than .05, it is hidden. `multivariate` asks whether
reference and current days can be told apart by means, variances and products of two columns together.
"""

from collections.abc import Mapping
from datetime import date

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, Window
from drift_pipeline.detection.counting.binning import SCORE, Binning, CategoricalBins, Floats, Ints, NumericBins
from drift_pipeline.detection.counting.windows import nominal
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.detection.statistics.estimated_auroc import calibrated_rates, estimated_auroc
from drift_pipeline.detection.statistics.multivariate import Term, domain_shift
from drift_pipeline.detection.thresholds import LEAST_ROWS, auroc_z

TRUSTED_WITHIN = 0.05
SAMPLED_DAYS, ROWS_A_DAY = 14, 300
LEAST_DAYS = 8  # a side: two blocks for each of four folds
_LEVELS_SHOWN = 3

Samples = Mapping[date, Floats]


def estimate_of(reference: Reference, scored: Ints) -> float | None:
    """The AUROC that rows (B,) over the bins of the watched score would have if the score still means what it meant."""
    if reference.held_out is None or not scored.sum() or not all(side.sum() for side in reference.held_out):
        return None
    rate = calibrated_rates(*reference.held_out)
    return binned_auroc(rate * scored, (1 - rate) * scored).value


def estimated(
    reference: Reference, scored: Ints, window: Window, drop: float, realised: tuple[float, float] | None
) -> KpiResult:
    """WARN where the estimate fell by `drop` and its upper bound is not above 0; else INCONCLUSIVE, with the value.

    Args:
        scored: rows of the window per bin of the watched score (B,).
        realised: estimated and realised AUROC of the newest cohort whose labels have come; None = of none yet.
    """
    name, n = "estimated_auroc", int(scored.sum())

    def result(verdict: Verdict, reason: str, value: float | None = None, bound: float | None = None) -> KpiResult:
        return KpiResult(name, verdict, value, -drop, bound, nominal(window), n, reason)

    baseline, value = reference.auroc, estimate_of(reference, scored)
    if baseline is None or value is None or n < LEAST_ROWS:
        return result(Verdict.INCONCLUSIVE, f"{n} scored rows, {LEAST_ROWS} and a baseline are needed")
    if realised is not None and abs(realised[0] - realised[1]) > TRUSTED_WITHIN:
        told, true = realised
        return result(Verdict.INCONCLUSIVE, f"hidden: it said {told:.3f} where labels then showed {true:.3f}")
    delta = value - baseline.value
    words = f"estimated AUROC {value:.3f} against {baseline.value:.3f} held out"
    if delta > -drop:
        return result(Verdict.INCONCLUSIVE, f"{words}; an estimate is no proof of health", delta)
    upper = delta + _margin(reference, baseline, scored, window)
    verdict = Verdict.WARN if upper <= 0 else Verdict.INCONCLUSIVE
    return result(verdict, words, delta, upper)


def _margin(reference: Reference, baseline: Auroc, scored: Ints, window: Window) -> float:
    bins = reference.binning.columns[SCORE]
    assert reference.held_out is not None
    assert isinstance(bins, NumericBins)
    found = estimated_auroc(*reference.held_out, scored, atom=bins.atom)
    error = float(reference.auroc_phi**0.5 * np.hypot(found.standard_error, baseline.standard_error))
    return auroc_z(nominal(window)) * float(error) + found.slack + baseline.slack


def sample_day(binning: Binning, frame: pl.DataFrame, day: date) -> Floats:
    """At most 300 rows of a day as numbers (rows, columns): numbers as they are, the commonest levels as 0 or 1.

    Which rows is seeded by the day: reading it again samples the same.
    """
    if frame.is_empty():
        return np.empty((0, len(sampled_names(binning))))
    rows = frame.sample(min(frame.height, ROWS_A_DAY), seed=day.toordinal(), shuffle=False)
    columns: list[Floats] = []
    for name, bins in binning.columns.items():
        if name == SCORE or name not in rows.columns:
            continue
        if isinstance(bins, CategoricalBins):
            text = rows[name].cast(pl.String).fill_null("")
            columns += [(text == level).to_numpy().astype(np.float64) for level in bins.levels[:_LEVELS_SHOWN]]
        else:
            columns.append(rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy())
    return np.column_stack(columns)


def sampled_names(binning: Binning) -> list[str]:
    """What the columns of `sample_day` are called."""
    names: list[str] = []
    for name, bins in binning.columns.items():
        if isinstance(bins, CategoricalBins):
            names += [f"{name}={level}" for level in bins.levels[:_LEVELS_SHOWN]]
        elif name != SCORE:
            names.append(name)
    return names


def multivariate(binning: Binning, before: Samples, after: Samples, level: float) -> KpiResult:
    """WARN where days of both sides can be told apart at `level`, by day-blocked permutation; else INCONCLUSIVE.

    `before` and `after` are samples by day. The value is the out-of-fold AUROC of reference or current.
    """
    length, n = len(after) * DAY, sum(map(len, after.values()))

    def result(verdict: Verdict, reason: str, value: float | None = None) -> KpiResult:
        return KpiResult("multivariate", verdict, value, level, None, length, n, reason)

    if min(len(before), len(after)) < LEAST_DAYS:
        fewest = min(len(before), len(after))
        return result(Verdict.INCONCLUSIVE, f"{fewest} days on one side, {LEAST_DAYS} are needed")
    sides, blocks = [], []
    for samples in (before, after):
        sides.append(np.concatenate(list(samples.values())))
        blocks.append(np.repeat(np.arange(len(samples)), [len(rows) for rows in samples.values()]))
    found = domain_shift(*sides, *blocks)
    if found.smallest_p > level:
        return result(Verdict.INCONCLUSIVE, f"too few days for p below {found.smallest_p:.1e}", found.auroc)
    names = sampled_names(binning)
    words = f"days told apart with AUROC {found.auroc:.3f}, p = {found.p_value:.1e}"
    if found.p_value <= level:
        told = ", ".join(_said(term, names) for term in found.terms[:3])
        return result(Verdict.WARN, f"{words}; most by {told}", found.auroc)
    return result(Verdict.INCONCLUSIVE, f"{words}; only pairs of columns are looked at", found.auroc)


def _said(term: Term, names: list[str]) -> str:
    """`x`, `spread of x`, `x with y`."""
    columns = [names[place] for place in term.columns]
    if len(columns) > 1:
        return " with ".join(columns)
    return columns[0] if term.kind == "mean" else f"{term.kind} of {columns[0]}"
