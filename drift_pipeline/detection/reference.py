"""The reference: what healthy looked like, frozen with a model version, and how much it varied by itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection.binning import SCORE, Binning, Floats, Ints, NumericBins, freeze_binning
from drift_pipeline.detection.profile import Profile, label_slices, profile_slices
from drift_pipeline.detection.statistics.auroc import Auroc, auroc_overdispersion, binned_auroc
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

    by_hour: profiles per hour of week (168), or of day (24) below 4 weeks of reference; nulls: per window length;
    auroc: the held-out, time-forward baseline; auroc_phi: its overdispersion by day, at least 1; group_days: per protected column (positives, totals), each
    (days, groups), of the scored rows.
    """

    binning: Binning
    span: Window
    rows: int
    by_hour: list[Profile]
    nulls: dict[timedelta, Null]
    auroc: Auroc | None
    auroc_phi: float
    group_days: dict[str, tuple[Ints, Ints]]

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
    binning = freeze_binning(frame, scored["_score"], spec)
    start = floor(frame["_time"][0], HOUR)
    span = Window(start, floor(frame["_time"][-1], HOUR) + HOUR)
    cycle = HOURS_A_WEEK if span.length >= 4 * WEEK else 24
    by_hour = _add(
        profile_slices(binning, frame.drop("_score", strict=False), _cycle(frame, cycle), cycle),
        profile_slices(binning, scored.select("_score", *spec.protected), _cycle(scored, cycle), cycle),
    )
    return Reference(
        binning,
        span,
        frame.height,
        by_hour,
        {length: _null(binning, frame, scored, span, length, cycle) for length in lengths},
        held_out_auroc(binning, scored),
        _auroc_phi(scored),
        {name: _group_days(binning, scored, name) for name in binning.protected},
    )


def held_out_auroc(binning: Binning, scored: pl.DataFrame) -> Auroc | None:
    """The baseline AUROC of rows the model has not seen; None where a class is missing."""
    known = scored.filter(pl.col("_label").is_not_null())
    if known["_label"].n_unique() < 2:
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
    profiles = profile_slices(binning, scored.select("_score", *binning.protected), day, int(day.max()) + 1)
    pairs = [profile.group_decisions(name) for profile in profiles]
    return np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])


def _null(
    binning: Binning, frame: pl.DataFrame, scored: pl.DataFrame, span: Window, length: timedelta, cycle: int
) -> Null:
    phi, scale, highest, windows = {}, {}, 0.0, 0
    for name in binning.columns:
        rows = scored if name == SCORE else frame
        counts = _coarse_by_hour(binning, rows, name, span)
        values, expected = _leave_one_out(counts, span, int(length / HOUR), cycle)
        usable = len(values)
        windows = max(windows, usable if name != SCORE else 0)
        mean = float(values.mean()) if usable else float("nan")
        phi[name] = float((values / expected).mean()) if usable >= LEAST_WINDOWS else float("nan")
        scale[name] = max(mean, float(expected.mean())) if usable else float("nan")
        if usable >= LEAST_WINDOWS:
            highest = max(highest, float(values.max()) / scale[name])
    return Null(windows, phi, scale, highest)


def _coarse_by_hour(binning: Binning, frame: pl.DataFrame, name: str, span: Window) -> Ints:
    """Coarse counts (hours of the span, coarse bins)."""
    bins = binning.columns[name]
    index = bins.index(frame[name])
    groups = bins.coarse if isinstance(bins, NumericBins) else np.arange(bins.bins)
    inside = index < bins.bins
    hours = int(span.length / HOUR)
    micros = frame["_time"].dt.epoch("us").to_numpy() - int(span.start.timestamp() * 1e6)
    hour = (micros // 3_600_000_000)[inside]
    size = int(groups.max()) + 1
    flat = np.bincount(hour * size + groups[index[inside]], minlength=hours * size)
    return flat.reshape(hours, size)


def _leave_one_out(counts: Ints, span: Window, hours: int, cycle: int) -> tuple[Floats, Floats]:
    """PSI of each healthy window against the matched rest of the reference, and its i.i.d. expectation.

    Windows are laid end to end, back from the end of the span; those below 200 rows, or whose rest is smaller than
    they are, do not count.
    """
    number = len(counts) // hours
    if number < 2 or counts.shape[1] < 2:
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
