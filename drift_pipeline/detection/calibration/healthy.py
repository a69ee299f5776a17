"""Healthy windows of a model's own history, each against the matched rest: how far they differ without any drift."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.detection.comparing.timeless import auroc_of, errors_of
from drift_pipeline.detection.counting.binning import SCORE, Floats, Ints
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.profile import Profile, empty, label_slices, profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.monitor import compare
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.null import Distances, Null, independent, null_of
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg
from drift_pipeline.detection.statistics.psi import occupied_bins, psi_rows
from drift_pipeline.detection.thresholds import LEAST_ROWS, LEAST_WINDOWS, false_discovery_rate
from drift_pipeline.spec import ModelSpec

T = TypeVar("T")
MOST_WINDOWS = 300  # of a length
FEWEST_ROWS = 20  # below it, not even p-values alone are told
LOOKS = 12  # while a window moves on by its own length


def drawn(some: Sequence[T], most: int) -> list[T]:
    """All of them, or as many at random, in their order; the same ones each time. (Every n-th would be of one hour.)"""
    if len(some) <= most:
        return list(some)
    places = np.random.default_rng(0).choice(len(some), most, replace=False)
    return [some[place] for place in sorted(places.tolist())]


@dataclass(frozen=True)
class Split:
    """A window and the matched rest of the history: the reference that it would have without itself."""

    window: Window
    rest: Profile
    own: Profile


class Healthy:
    """A history that counts as healthy, frozen as a reference of which any window can be left out."""

    def __init__(self, frame: pl.DataFrame, spec: ModelSpec, lengths: tuple[timedelta, ...]) -> None:
        """
        Args:
            frame: rows in order of time: `_time`, `_label`, the watched columns, and `_score`, `_latency_ms` if known.
        """
        self.spec, self.lengths = spec, lengths
        self.frame = frame if SCORE in frame.columns else frame.with_columns(pl.lit(None, pl.Float64).alias(SCORE))
        self.reference: Reference = freeze(self.frame, self.frame, spec, lengths)
        self._since = self.frame["_time"].dt.epoch("us").to_numpy()
        self._scored = bool(self.frame[SCORE].is_not_null().any())
        self._labels = self._label_counts(self.frame)

    def windows(self, length: timedelta) -> list[Window]:
        """Laid end to end, back from the end; of more than 300, as many drawn at random."""
        span = self.reference.span
        number = span.length // length
        ends = [span.end - k * length for k in drawn(range(number - 1, -1, -1), MOST_WINDOWS)]
        return [Window(end - length, end) for end in ends]

    def moved(self, window: Window, step: timedelta) -> Iterator[Window]:
        """The looks at a window while it moves on by its own length to where `window` stands, oldest first."""
        unit = MINUTE if window.length < DAY else HOUR if window.length == DAY else DAY
        stride = max(step, unit, window.length // LOOKS // unit * unit)
        for k in range(window.length // stride, -1, -1):
            start = window.start - k * stride
            if start >= self.reference.span.start:
                yield Window(start, window.end - k * stride)

    def rows(self, window: Window) -> pl.DataFrame:
        first, last = np.searchsorted(self._since, [int(w.timestamp() * 1e6) for w in (window.start, window.end)])
        return self.frame[int(first) : int(last)]

    def split(self, window: Window) -> Split:
        """The window's profile, and the matched rest's: both with the labels of their scores."""
        rows, binning = self.rows(window), self.reference.binning
        own = profile_slices(binning, rows, np.zeros(rows.height, np.int64), 1)[0] + self._label_counts(rows)
        whole = self.reference.matched(window).profile + self._labels
        rest = Profile(binning, whole.rows - own.rows, whole.counts - own.counts, whole.sums - own.sums)
        return Split(window, rest, own)

    def splits(self, length: timedelta) -> list[Split]:
        """Of the windows of a length that have 20 rows."""
        return [self.split(window) for window in self.windows(length) if self.rows(window).height >= FEWEST_ROWS]

    def _label_counts(self, rows: pl.DataFrame) -> Profile:
        if not self._scored:
            return empty(self.reference.binning)
        known = rows.filter(pl.col("_label").is_not_null() & pl.col(SCORE).is_finite())
        one = np.zeros(known.height, np.int64)
        return label_slices(self.reference.binning, known[SCORE], known["_label"], one, 1)[0]

    def as_independent(self, split: Split) -> ComparedColumns:
        """Both samples with rows taken for independent: what is judged before any null is measured."""
        layout, length = self.reference.layout, split.window.length
        null = independent(layout.names)
        samples = ColumnCounts.of(layout, split.rest), ColumnCounts.of(layout, split.own)
        return ComparedColumns(*samples, length, null, null, false_discovery_rate(length))

    def without(self, split: Split, null: Null, missing_null: Null) -> Reference:
        """The reference that a split's window has: the rest, and what the other windows showed."""
        length, known = split.window.length, self.reference.errors
        made = replace(
            self.reference,
            by_hour=[split.rest],
            nulls={length: null},
            missing_nulls={length: missing_null},
            auroc=auroc_of(split.rest),
            errors=errors_of(split.rest, known.mae_phi, known.counts_phi) if known else None,
        )
        made.__dict__["layout"] = self.reference.layout  # of the same bins: not made anew for each window
        return made

    def live(self, split: Split, null: Null, missing_null: Null) -> list[FeatureFinding]:
        """What the monitor finds in the window, against the rest and the null of the other windows."""
        return compare(self.without(split, null, missing_null), split.own, split.window)


@dataclass
class Table:
    """PSI of each healthy window and column (W, K), and its bins; rows (W, K, 2) of the rest and of the window."""

    windows: list[Window]
    names: tuple[str, ...]
    psi: Floats
    bins: Ints
    rows: Floats

    @classmethod
    def of(cls, names: tuple[str, ...], windows: list[Window]) -> "Table":
        shape = (len(windows), len(names))
        return cls(windows, names, np.zeros(shape), np.ones(shape, np.int64), np.zeros((*shape, 2)))

    def put(self, number: int, before: Floats, after: Floats) -> None:
        """Of one window, counts (K, B) of the rest and of the window itself."""
        m, n = before.sum(axis=1), after.sum(axis=1)
        self.rows[number] = np.stack([m, n], axis=1)
        self.psi[number] = psi_rows(before, after)
        self.bins[number] = occupied_bins(before, after)

    def null(self, window: Window | None = None, least: int = LEAST_ROWS) -> Null:
        """The empirical null as a reference freezes it, of the windows that do not overlap this one."""
        usable = (self.rows[:, :, 1] >= least) & (self.rows[:, :, 0] >= self.rows[:, :, 1])
        kept = np.array([window is None or w.end <= window.start or w.start >= window.end for w in self.windows], bool)
        told = {}
        for k, name in enumerate(self.names):
            chosen = usable[:, k] & kept
            m, n = self.rows[chosen, k].T
            told[name] = Distances(self.psi[chosen, k], self.bins[chosen, k], n, m)
        return null_of(told)


@dataclass
class Varied:
    """How far the healthy windows of one length are from the rest: of values, and of the share of rows without one."""

    values: Table
    missing: Table

    @classmethod
    def of(cls, names: tuple[str, ...], splits: list[Split]) -> "Varied":
        windows = [split.window for split in splits]
        return cls(Table.of(names, windows), Table.of(names, windows))

    def put(self, number: int, compared: ComparedColumns) -> None:
        self.values.put(number, compared.before.coarse, compared.after.coarse)
        self.missing.put(number, compared.before.usable, compared.after.usable)

    def nulls(self, window: Window) -> tuple[Null, Null]:
        """Of values and of the missing share, without the windows that overlap this one."""
        return self.values.null(window), self.missing.null(window)

    @property
    def phi(self) -> dict[str, float]:
        """Of the values; of windows with fewer rows than are judged where the others are too few to tell."""
        found = self.values.null()
        return (found if found.windows >= LEAST_WINDOWS else self.values.null(least=FEWEST_ROWS)).phi


def alarm_of_p_values(findings: list[FeatureFinding], rate: float) -> bool | None:
    """Whether i.i.d. p-values with Benjamini-Hochberg alone would alarm; None: fewer than 20 rows."""
    told = [finding.p_value for finding in findings if finding.n >= FEWEST_ROWS]
    return bool(any(benjamini_hochberg(told, rate))) if told else None


def alarm(findings: list[FeatureFinding]) -> bool | None:
    """Whether any column drifts; None: no claim is made of any."""
    claims = [finding.drift for finding in findings if finding.drift is not None]
    return any(claims) if claims else None
