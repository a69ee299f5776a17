"""The reference: what healthy looked like, frozen with a model version, and how much it varied by itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.binning import SCORE, Binning, Floats, Ints, NumericBins, freeze_binning
from drift_pipeline.detection.profile import Profile, label_slices, profile_slices
from drift_pipeline.detection.residuals import HeldOut, held_out, known_residuals
from drift_pipeline.detection.statistics.auroc import Auroc, auroc_overdispersion, binned_auroc
from drift_pipeline.detection.statistics.mae import Mae
from drift_pipeline.detection.statistics.psi import psi_null_mean, psi_rows
from drift_pipeline.detection.windows import floor
from drift_pipeline.spec import ModelSpec

HOURS_A_WEEK = 168
LEAST_WINDOWS = 5
LEAST_ROWS = 200
YEAR = 365 * DAY


@dataclass(frozen=True)
class Null:
    """How far healthy windows of one length are from the rest of the reference (leave one out).

    phi: per column, mean PSI over its i.i.d. expectation (1 = independent rows); ceiling: the largest PSI of any
    column in any healthy window, in units of that column's own mean; windows: how many there were.
    """

    windows: int
    phi: dict[str, float]
    scale: dict[str, float]
    ceiling: float


@dataclass(frozen=True)
class Reference:
    """Frozen with a model version.

    by_hour: profiles per hour of week (168), or of day (24) below 4 weeks of reference; nulls: per window length, of
    the usable values; missing_nulls: of the share of rows without one; auroc: the held-out, time-forward baseline;
    auroc_phi: its overdispersion by day, at least 1; group_days: per protected column (positives, totals), each
    (days, groups), of the scored rows; errors: in place of auroc, of a regression.
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

    def matched(self, window: Window) -> Profile:
        """What the reference holds of the same hours of the week (or day); all of it for windows of whole cycles."""
        cycle = len(self.by_hour)
        hours = sorted({_cycle_hour(window.start + k * HOUR, cycle) for k in range(int(window.length / HOUR))})
        counts = sum((self.by_hour[h].counts for h in hours), np.zeros(self.binning.size, np.int64))
        sums = sum((self.by_hour[h].sums for h in hours), np.zeros(2 * len(self.binning.numeric)))
        return Profile(self.binning, sum(self.by_hour[h].rows for h in hours), counts, sums)


def freeze(frame: pl.DataFrame, scored: pl.DataFrame, spec: ModelSpec, lengths: tuple[timedelta, ...]) -> Reference:
    """Freeze a reference.

    Args:
        frame: the reference rows in order of time: `_time` and the watched columns.
        scored: rows the model was not trained on: `_time`, `_score`, `_label` (nullable) and the watched columns.
        spec: the model.
        lengths: the window lengths whose empirical null is wanted.
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
    coarse, missing = _counts_by_hour(binning, frame, scored, span)
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
        None if residuals is None else held_out(binning, scored),
    )


def held_out_auroc(binning: Binning, scored: pl.DataFrame) -> Auroc | None:
    """The baseline AUROC of rows the model has not seen; None where a class is missing."""
    known = scored.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    if binning.residuals is not None or known["_label"].n_unique() < 2:
        return None
    profile = label_slices(binning, known["_score"], known["_label"], np.zeros(known.height, np.int64), 1)[0]
    return binned_auroc(*profile.labelled_scores(), atom=binning.score_atom)


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


def _nulls(by_hour: dict[str, Ints], span: Window, lengths: tuple[timedelta, ...], cycle: int) -> dict[timedelta, Null]:
    return {length: _null(by_hour, span, int(length / HOUR), cycle) for length in lengths}


def _null(by_hour: dict[str, Ints], span: Window, hours: int, cycle: int) -> Null:
    """Of counts (hours of the span, bins) per column. A column that never varied has phi 1."""
    phi, scale, highest, windows = {}, {}, 0.0, 0
    for name, counts in by_hour.items():
        values, expected = _leave_one_out(counts, span, hours, cycle)
        known = len(values) >= LEAST_WINDOWS
        windows = max(windows, len(values) if name != SCORE else 0)
        ratio = np.divide(values, expected, out=np.ones_like(values), where=expected > 0)
        phi[name] = float(ratio.mean()) if known else float("nan")
        scale[name] = float(max(values.mean(), expected.mean())) if len(values) else float("nan")
        if known and scale[name] > 0:
            highest = max(highest, float(values.max()) / scale[name])
    return Null(windows, phi, scale, highest)


def _counts_by_hour(
    binning: Binning, frame: pl.DataFrame, scored: pl.DataFrame, span: Window
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Per column: coarse counts (hours of the span, coarse bins), and usable and missing rows (hours, 2)."""
    coarse, missing = {}, {}
    for name, bins in binning.columns.items():
        rows = scored if name == SCORE else frame
        index = bins.index(rows[name])
        hour = (rows["_time"].dt.epoch("us").to_numpy() - int(span.start.timestamp() * 1e6)) // 3_600_000_000
        groups = bins.coarse if isinstance(bins, NumericBins) else np.arange(bins.bins)
        inside = index < bins.bins
        coarse[name] = _table(hour[inside], groups[index[inside]], span, int(groups.max()) + 1)
        missing[name] = _table(hour, (~inside).astype(np.int64), span, 2)
    return coarse, missing


def _table(hour: Ints, column: Ints, span: Window, width: int) -> Ints:
    hours = int(span.length / HOUR)
    return np.bincount(hour * width + column, minlength=hours * width).reshape(hours, width)


def _leave_one_out(counts: Ints, span: Window, hours: int, cycle: int) -> tuple[Floats, Floats]:
    """PSI of each healthy window against the matched rest of the reference, and its i.i.d. expectation.

    Windows are laid end to end, back from the end of the span; those below 200 rows, or whose rest is smaller than
    they are, do not count. Bins that the whole reference leaves empty are no bins: of one bin both are 0.
    """
    counts = counts[:, counts.any(axis=0)]
    number = len(counts) // hours
    if number < 2 or not counts.size:
        return np.empty(0), np.empty(0)
    used = counts[len(counts) - number * hours :]
    windows = used.reshape(number, hours, -1).sum(axis=1)
    if hours >= HOURS_A_WEEK:
        rest = counts.sum(axis=0) - windows
    else:
        rest = _same_hours(counts, span, number, hours, cycle) - windows
    n, m = windows.sum(axis=1), rest.sum(axis=1)
    usable = (n >= LEAST_ROWS) & (m >= n)
    expected = np.array([psi_null_mean(counts.shape[1], a, b) for a, b in zip(n[usable], m[usable], strict=True)])
    return psi_rows(rest[usable], windows[usable]), expected


def _same_hours(counts: Ints, span: Window, number: int, hours: int, cycle: int) -> Ints:
    """For each window, the sum over the reference of the hours of the cycle that the window covers."""
    first = _cycle_hour(span.start, cycle)
    phase = (first + np.arange(len(counts))) % cycle
    by_phase = np.zeros((cycle, counts.shape[1]), np.int64)
    np.add.at(by_phase, phase, counts)
    covered = phase[len(counts) - number * hours :].reshape(number, hours)
    if hours >= cycle:
        return np.broadcast_to(by_phase.sum(axis=0), (number, counts.shape[1])).copy()
    return np.asarray(by_phase[covered].sum(axis=1))
