"""The reference: what healthy looked like, frozen with a model version, and how much it varied by itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window, Zone
from drift_pipeline.detection.counting.binning import SCORE, Binning, Ints, NumericBins, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import Profile, label_slices, profile_slices
from drift_pipeline.detection.counting.windows import local_days
from drift_pipeline.detection.reference.new_levels import expected_later, fresh_levels
from drift_pipeline.detection.reference.null import Distances, Null, null_of
from drift_pipeline.detection.reference.residuals import HeldOut, held_out_errors, known_residuals
from drift_pipeline.detection.statistics.auroc import Auroc, auroc_overdispersion, binned_auroc
from drift_pipeline.detection.statistics.mae import Mae
from drift_pipeline.detection.thresholds import LEAST_ROWS, LEAST_WINDOWS, ROWS_A_BLOCK, block_days, sparse_lengths
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
    errors: in place of auroc, of a regression. by_hour_of_day: of the held-out rows in each of the 24 hours: positives
    and negatives (24, B), or a regression's errors (24, 3) and residuals (24, R); None where no window is shorter than
    a day. timezone: whose hours and days these are; a day is several where one holds few rows (`block_days`).
    fresh: per window length and column, the largest share of rows of a healthy window whose level came up as time
    went on, beyond what rows without time let expect; nothing where none was found.
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
    by_hour_of_day: tuple[Ints, Ints] | None = None
    timezone: str = "UTC"
    fresh: dict[timedelta, dict[str, float]] = field(default_factory=dict)

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

    @property
    def sparse(self) -> tuple[timedelta, ...]:
        """The lengths of the windows of a model with few rows, rising; none where 28 days hold enough."""
        return sparse_lengths(self.rows, self.span.length)

    def touched(self, window: Window) -> frozenset[int]:
        """The hours of the cycle, by the clock on the wall, that the window touches."""
        cycle, first = len(self.by_hour), self.zone.floor(window.start, HOUR)
        number = math.ceil((window.end - first) / HOUR)
        if number > cycle + 2:  # also where the clocks changed meanwhile
            return frozenset(range(cycle))
        return frozenset(self.hour(first + k * HOUR) for k in range(number))

    def hour(self, moment: datetime) -> int:
        """The hour of the cycle that the moment lies in."""
        return self.zone.hour_of_week(moment) % len(self.by_hour)

    def hours_near(self, window: Window) -> Iterator[list[int]]:
        """The hours of the day that the window touches, then with an hour more on both ends, up to the whole day."""
        own = {hour % 24 for hour in self.touched(window)}
        for more in range(13):
            yield sorted({(hour + by) % 24 for hour in own for by in range(-more, more + 1)})

    def matched(self, window: Window, lost: frozenset[int] = frozenset()) -> ColumnCounts:
        """What the reference holds of the hours of the week (or day) that the window touches.

        All of it for windows of whole cycles; without the hours of the cycle that the window has `lost`.
        """
        hours = (self.touched(window) - lost) or self.touched(window)
        if hours not in self._sides:
            if len(self._sides) >= _SIDES_KEPT:
                self._sides.pop(next(iter(self._sides)))
            self._sides[hours] = ColumnCounts.of(self.layout, self._sum(hours))
        return self._sides[hours]

    def expected_later(self, window: Window) -> dict[str, float]:
        """Share of rows of each column whose level may have come up since, of the columns where any did before."""
        most = self.fresh.get(window.length, {})
        return {name: expected_later(share, self.span, window.end) for name, share in most.items()}

    @cached_property
    def zone(self) -> Zone:
        return Zone(self.timezone)

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
        lengths: the window lengths whose empirical null is wanted: whole hours, or parts of which make an hour; those
            of a model with few rows take their place.
    """
    residuals = known_residuals(scored)["_residual"] if spec.task == "regression" else None
    binning, zone = freeze_binning(frame, scored["_score"], spec, residuals), spec.zone
    span = Window(zone.floor(frame["_time"][0], HOUR), zone.floor(frame["_time"][-1], HOUR) + HOUR)
    lengths = sparse_lengths(frame.height, span.length) or lengths
    cycle = HOURS_A_WEEK if span.length >= 4 * WEEK else 24
    by_hour = _add(
        profile_slices(binning, frame.drop("_score", strict=False), _cycle(frame, cycle, zone), cycle),
        profile_slices(binning, scored.select("_score", *spec.protected), _cycle(scored, cycle, zone), cycle, (SCORE,)),
    )
    unit = DAY if min(lengths) >= WEEK else min(HOUR, *lengths)
    coarse, missing = _counts_by_unit(binning, frame, scored, span, unit)
    phase = np.array([zone.hour_of_week(span.start + k * HOUR) % cycle for k in range(span.length // HOUR)])
    days = block_days(frame.height, span.length)
    blocks = local_days(scored["_time"], zone) // days
    return Reference(
        binning,
        span,
        frame.height,
        by_hour,
        _nulls(coarse, unit, lengths, cycle, phase, days * DAY),
        _nulls(missing, unit, lengths, cycle, phase, days * DAY),
        held_out_auroc(binning, scored),
        _auroc_phi(scored, blocks) if residuals is None else 1.0,
        {name: _group_days(binning, scored, name, blocks) for name in binning.protected},
        None if residuals is not None else _held_out(binning, scored),
        None if residuals is None else held_out_errors(binning, scored, blocks),
        _held_out_by_hour(binning, scored, zone) if min(lengths) < DAY else None,
        zone.name,
        fresh_levels(binning, frame, span, lengths, unit),
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


def _held_out_by_hour(binning: Binning, scored: pl.DataFrame, zone: Zone) -> tuple[Ints, Ints] | None:
    known = scored.filter(pl.col("_label").is_not_null() & pl.col("_score").is_finite())
    if known.is_empty():
        return None
    found = label_slices(binning, known["_score"], known["_label"], _cycle(known, 24, zone), 24)
    first, second = ("label:1", "label:0") if binning.residuals is None else ("errors", "residual")
    return np.stack([p.counts[binning.slots[first]] for p in found]), np.stack(
        [p.counts[binning.slots[second]] for p in found]
    )


def _auroc_phi(scored: pl.DataFrame, blocks: Ints) -> float:
    usable = scored.select(pl.col("_label").is_not_null() & pl.col("_score").is_finite().fill_null(value=False))
    is_known = usable.to_series()
    known = scored.filter(is_known)
    if known["_label"].n_unique() < 2:
        return 1.0
    days = blocks[is_known.to_numpy()]
    phi = auroc_overdispersion(known["_label"].to_numpy(), known["_score"].to_numpy(), days)
    return max(phi, 1.0) if np.isfinite(phi) else 1.0


def _add(features: list[Profile], scores: list[Profile]) -> list[Profile]:
    """Both sets of counters in one: features of all rows, scores and decisions of the scored ones."""
    return [
        Profile(f.binning, f.rows, f.counts + s.counts, f.sums + s.sums) for f, s in zip(features, scores, strict=True)
    ]


def _cycle(frame: pl.DataFrame, cycle: int, zone: Zone) -> Ints:
    times = frame["_time"].dt.convert_time_zone(zone.name)
    hours = (times.dt.weekday().cast(pl.Int64) - 1) * 24 + times.dt.hour().cast(pl.Int64)
    return (hours % cycle).to_numpy().astype(np.int64)


def _group_days(binning: Binning, scored: pl.DataFrame, name: str, blocks: Ints) -> tuple[Ints, Ints]:
    day = np.unique(blocks, return_inverse=True)[1].astype(np.int64)
    profiles = profile_slices(binning, scored.select("_score", *binning.protected), day, int(day.max()) + 1, (SCORE,))
    pairs = [profile.group_decisions(name) for profile in profiles]
    return np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])


def _nulls(
    counts: dict[str, Ints], unit: timedelta, lengths: tuple[timedelta, ...], cycle: int, phase: Ints, block: timedelta
) -> dict[timedelta, Null]:
    """Of counts (units of the span, bins) per column; `block` is a day, or of a model with few rows more than one."""

    def of(length: timedelta, least: int = LEAST_ROWS) -> Null:
        return null_of(
            {name: _leave_one_out(by_unit, unit, length, cycle, phase, least) for name, by_unit in counts.items()}
        )

    nulls = {length: of(length) for length in lengths}
    if block == DAY:
        return nulls
    short = of(block, ROWS_A_BLOCK // 2)
    return {n: null if null.windows >= LEAST_WINDOWS else short.stretched(n / block) for n, null in nulls.items()}


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
        units = -(-span.length // unit)
        coarse[name] = _table(place[inside], groups[index[inside]], units, int(groups.max()) + 1)
        missing[name] = _table(place, (~inside).astype(np.int64), units, 2)
    return coarse, missing


def _table(place: Ints, column: Ints, units: int, width: int) -> Ints:
    return np.bincount(place * width + column, minlength=units * width).reshape(units, width)


def _leave_one_out(counts: Ints, unit: timedelta, length: timedelta, cycle: int, phase: Ints, least: int) -> Distances:
    """PSI of each healthy window against the matched rest of the reference.

    Windows are laid end to end, back from the end of the span; those below `least` rows, or whose rest is smaller than
    they are, do not count. `phase` is the hour of the cycle of each hour of the span.
    Bins that the whole reference leaves empty are no bins: of one bin both are 0.
    """
    counts = counts[:, counts.any(axis=0)]
    units = length // unit
    number = len(counts) // units
    if number < 2 or not counts.size:
        return Distances.of(counts[:0], counts[:0])
    first = len(counts) - number * units
    windows = counts[first:].reshape(number, units, -1).sum(axis=1)
    if length >= WEEK:
        rest = counts.sum(axis=0) - windows
    else:
        per_hour = HOUR // unit
        hours = counts.reshape(-1, per_hour, counts.shape[1]).sum(axis=1)
        touched = (first + np.arange(number) * units)[:, None] // per_hour + np.arange(max(1, units // per_hour))
        rest = _same_hours(hours, phase, touched, cycle) - windows
    n, m = windows.sum(axis=1), rest.sum(axis=1)
    usable = (n >= least) & (m >= n)
    return Distances.of(rest[usable], windows[usable])


def _same_hours(hours: Ints, phase: Ints, touched: Ints, cycle: int) -> Ints:
    """For each window (W, hours it touches), the sum over the reference of those hours of the cycle."""
    by_phase = np.zeros((cycle, hours.shape[1]), np.int64)
    np.add.at(by_phase, phase, hours)
    if touched.shape[1] >= cycle:
        return np.broadcast_to(by_phase.sum(axis=0), (len(touched), hours.shape[1])).copy()
    return np.asarray(by_phase[phase[touched]].sum(axis=1))
