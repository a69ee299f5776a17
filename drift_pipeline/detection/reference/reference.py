"""The reference: what healthy looked like, frozen with a model version, and how much it varied by itself."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.counting.binning import SCORE, Binning, Ints, NumericBins, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import Profile, label_slices, profile_slices
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.reference.null import Distances, Null, null_of
from drift_pipeline.detection.reference.residuals import HeldOut, held_out_errors, known_residuals
from drift_pipeline.detection.statistics.auroc import Auroc, auroc_overdispersion, binned_auroc
from drift_pipeline.detection.statistics.mae import Mae
from drift_pipeline.detection.thresholds import LEAST_ROWS
from drift_pipeline.spec import ModelSpec

HOURS_A_WEEK = 168
_SIDES_KEPT = 6
YEAR = 365 * DAY


@dataclass(frozen=True)
class Reference:
    """Frozen with a model version.

    by_hour: profiles per hour of week (168), or of day (24) below 4 weeks of reference; nulls: per window length, of
    the usable values; missing_nulls: of the share of rows without one; auroc: the held-out, time-forward baseline;
    auroc_phi: its overdispersion by day, at least 1; group_days: per protected column (positives, totals), each
    (days, groups), of the scored rows;
    held_out: positives and negatives of the held-out rows per bin of the watched score, None where none has a label.
    errors: in place of auroc, of a regression.
    """

    binning: Binning
    span: Window
    rows: int
    by_hour: list[Profile]
    nulls: dict[timedelta, Null]
    missing_nulls: dict[timedelta, Null]
    auroc: Auroc | None
    auroc_phi: float
    group_days: dict[str, tuple[Ints, Ints]]
    held_out: tuple[Ints, Ints] | None = None
    errors: HeldOut | None = None

    @property
    def baseline(self) -> Auroc | Mae | None:
        """The performance of the champion on rows it has not seen."""
        return self.auroc or (self.errors.mae if self.errors else None)

    @property
    def provisional(self) -> bool:
        """Too short or too small for verdicts to be called settled."""
        return self.rows < 10_000 or self.span.length < 4 * WEEK

    @property
    def weeks(self) -> int:
        return int(self.span.length / WEEK)

    def matched(self, window: Window) -> ColumnCounts:
        """What the reference holds of the hours of the week (or day) that the window touches.

        All of it for windows of whole cycles.
        """
        cycle, first = len(self.by_hour), floor(window.start, HOUR)
        touched = min(cycle, math.ceil((window.end - first) / HOUR))
        hours = frozenset(_cycle_hour(first + k * HOUR, cycle) for k in range(touched))
        if hours not in self._sides:
            if len(self._sides) >= _SIDES_KEPT:
                self._sides.pop(next(iter(self._sides)))
            self._sides[hours] = ColumnCounts.of(self.layout, self._sum(hours))
        return self._sides[hours]

    @cached_property
    def layout(self) -> Layout:
        return Layout.of(self.binning)

    @cached_property
    def _sides(self) -> dict[frozenset[int], ColumnCounts]:
        return {}

    def _sum(self, hours: frozenset[int]) -> Profile:
        counts = sum((self.by_hour[h].counts for h in sorted(hours)), np.zeros(self.binning.size, np.int64))
        sums = sum((self.by_hour[h].sums for h in sorted(hours)), np.zeros(2 * len(self.binning.numeric)))
        return Profile(self.binning, sum(self.by_hour[h].rows for h in hours), counts, sums)


def freeze(frame: pl.DataFrame, scored: pl.DataFrame, spec: ModelSpec, lengths: tuple[timedelta, ...]) -> Reference:
    """Freeze a reference.

    Args:
        frame: the reference rows in order of time: `_time` and the watched columns.
        scored: rows the model was not trained on: `_time`, `_score`, `_label` (nullable) and the watched columns.
        spec: the model.
        lengths: the window lengths whose empirical null is wanted: whole hours, or parts of which make an hour.
    """
    residuals = known_residuals(scored)["_residual"] if spec.task == "regression" else None
    binning = freeze_binning(frame, scored["_score"], spec, residuals)
    start = floor(frame["_time"][0], HOUR)
    span = Window(start, floor(frame["_time"][-1], HOUR) + HOUR)
    cycle = HOURS_A_WEEK if span.length >= 4 * WEEK else 24
    by_hour = _add(
        profile_slices(binning, frame.drop("_score", strict=False), _cycle(frame, cycle), cycle),
        profile_slices(binning, scored.select("_score", *spec.protected), _cycle(scored, cycle), cycle, (SCORE,)),
    )
    unit = min(HOUR, *lengths)
    coarse, missing = _counts_by_unit(binning, frame, scored, span, unit)
    return Reference(
        binning,
        span,
        frame.height,
        by_hour,
        _nulls(coarse, span, lengths, cycle),
        _nulls(missing, span, lengths, cycle),
        held_out_auroc(binning, scored),
        _auroc_phi(scored) if residuals is None else 1.0,
        {name: _group_days(binning, scored, name) for name in binning.protected},
        None if residuals is not None else _held_out(binning, scored),
        None if residuals is None else held_out_errors(binning, scored),
    )


def held_out_auroc(binning: Binning, scored: pl.DataFrame) -> Auroc | None:
    """The baseline AUROC of rows the model has not seen; None where a class is missing."""
    known = scored.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    if binning.residuals is not None or known["_label"].n_unique() < 2:
        return None
    profile = label_slices(binning, known["_score"], known["_label"], np.zeros(known.height, np.int64), 1)[0]
    return binned_auroc(*profile.labelled_scores(), atom=binning.score_atom)


def _held_out(binning: Binning, scored: pl.DataFrame) -> tuple[Ints, Ints] | None:
    known = scored.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    bins = binning.columns[SCORE]
    if known.is_empty():
        return None
    index, positive = bins.index(known["_score"]), known["_label"].to_numpy() == 1
    return np.bincount(index[positive], minlength=bins.bins), np.bincount(index[~positive], minlength=bins.bins)


def _auroc_phi(scored: pl.DataFrame) -> float:
    known = scored.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    if known["_label"].n_unique() < 2:
        return 1.0
    days = known["_time"].dt.truncate("1d").to_physical().to_numpy()
    phi = auroc_overdispersion(known["_label"].to_numpy(), known["_score"].to_numpy(), days)
    return max(phi, 1.0) if np.isfinite(phi) else 1.0


def _add(features: list[Profile], scores: list[Profile]) -> list[Profile]:
    """Both sets of counters in one: features of all rows, scores and decisions of the scored ones."""
    return [
        Profile(f.binning, f.rows, f.counts + s.counts, f.sums + s.sums) for f, s in zip(features, scores, strict=True)
    ]


def _cycle_hour(moment: datetime, cycle: int) -> int:
    return (moment.weekday() * 24 + moment.hour) % cycle


def _cycle(frame: pl.DataFrame, cycle: int) -> Ints:
    times = frame["_time"]
    hours = (times.dt.weekday().cast(pl.Int64) - 1) * 24 + times.dt.hour().cast(pl.Int64)
    return (hours % cycle).to_numpy().astype(np.int64)


def _group_days(binning: Binning, scored: pl.DataFrame, name: str) -> tuple[Ints, Ints]:
    day = scored["_time"].dt.truncate("1d").rank("dense").cast(pl.Int64).to_numpy() - 1
    profiles = profile_slices(binning, scored.select("_score", *binning.protected), day, int(day.max()) + 1, (SCORE,))
    pairs = [profile.group_decisions(name) for profile in profiles]
    return np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])


def _nulls(counts: dict[str, Ints], span: Window, lengths: tuple[timedelta, ...], cycle: int) -> dict[timedelta, Null]:
    """Of counts (units of the span, bins) per column."""
    return {
        length: null_of({name: _leave_one_out(by_unit, span, length, cycle) for name, by_unit in counts.items()})
        for length in lengths
    }


def _counts_by_unit(
    binning: Binning, frame: pl.DataFrame, scored: pl.DataFrame, span: Window, unit: timedelta
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Per column: coarse counts (units of the span, coarse bins), and usable and missing rows (units, 2)."""
    coarse, missing = {}, {}
    for name, bins in binning.columns.items():
        rows = scored if name == SCORE else frame
        index = bins.index(rows[name])
        since = rows["_time"].dt.epoch("us").to_numpy() - int(span.start.timestamp() * 1e6)
        place = since // (unit // timedelta(microseconds=1))
        groups = bins.coarse if isinstance(bins, NumericBins) else np.arange(bins.bins)
        inside = index < bins.bins
        units = span.length // unit
        coarse[name] = _table(place[inside], groups[index[inside]], units, int(groups.max()) + 1)
        missing[name] = _table(place, (~inside).astype(np.int64), units, 2)
    return coarse, missing


def _table(place: Ints, column: Ints, units: int, width: int) -> Ints:
    return np.bincount(place * width + column, minlength=units * width).reshape(units, width)


def _leave_one_out(counts: Ints, span: Window, length: timedelta, cycle: int) -> Distances:
    """PSI of each healthy window against the matched rest of the reference.

    Windows are laid end to end, back from the end of the span; those below 200 rows, or whose rest is smaller than
    they are, do not count. Bins that the whole reference leaves empty are no bins: of one bin both are 0.
    """
    counts = counts[:, counts.any(axis=0)]
    per_hour = len(counts) // (span.length // HOUR)
    units = int(length / HOUR * per_hour)
    number = len(counts) // units
    if number < 2 or not counts.size:
        return Distances.of(counts[:0], counts[:0])
    first = len(counts) - number * units
    windows = counts[first:].reshape(number, units, -1).sum(axis=1)
    if length >= WEEK:
        rest = counts.sum(axis=0) - windows
    else:
        hours = counts.reshape(-1, per_hour, counts.shape[1]).sum(axis=1)
        touched = (first + np.arange(number) * units)[:, None] // per_hour + np.arange(max(1, units // per_hour))
        rest = _same_hours(hours, span, touched, cycle) - windows
    n, m = windows.sum(axis=1), rest.sum(axis=1)
    usable = (n >= LEAST_ROWS) & (m >= n)
    return Distances.of(rest[usable], windows[usable])


def _same_hours(hours: Ints, span: Window, touched: Ints, cycle: int) -> Ints:
    """For each window (W, hours it touches), the sum over the reference of those hours of the cycle."""
    phase = (_cycle_hour(span.start, cycle) + np.arange(len(hours))) % cycle
    by_phase = np.zeros((cycle, hours.shape[1]), np.int64)
    np.add.at(by_phase, phase, hours)
    if touched.shape[1] >= cycle:
        return np.broadcast_to(by_phase.sum(axis=0), (len(touched), hours.shape[1])).copy()
    return np.asarray(by_phase[phase[touched]].sum(axis=1))
