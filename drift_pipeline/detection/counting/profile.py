"""Profiles: what a slice of time looked like on frozen bins; merged by adding, never by recomputing."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.counting.binning import SCORE, Binning, Floats, Ints, NumericBins
from drift_pipeline.detection.counting.kernel import KERNEL_ROWS, count
from drift_pipeline.detection.counting.residuals import count_residuals


@dataclass(frozen=True)
class Profile:
    """Counters (C,) and sums (2 x numeric columns,) of some rows; `rows` is how many there were."""

    binning: Binning
    rows: int
    counts: Ints
    sums: Floats

    def __add__(self, other: "Profile") -> "Profile":
        """Merge. Raises ValueError for profiles of different bins."""
        if self.binning is not other.binning and self.binning.digest != other.binning.digest:
            raise ValueError(
                f"profiles of different bins do not merge: {self.binning.digest} and {other.binning.digest}"
            )
        return Profile(self.binning, self.rows + other.rows, self.counts + other.counts, self.sums + other.sums)

    def bins(self, name: str) -> Ints:
        """Counts of a column's bins (numeric: fine bins; categorical: levels and rare)."""
        slot = self.binning.slots[name]
        return self.counts[slot][: self.binning.columns[name].bins]

    def unseen(self, name: str) -> int:
        """Rows whose level the reference did not know (0 for numbers)."""
        bins = self.binning.columns[name]
        return 0 if isinstance(bins, NumericBins) else int(self.counts[self.binning.slots[name]][bins.bins])

    def beyond(self, name: str) -> int:
        """Rows farther than the range threshold from the reference mean."""
        bins = self.binning.columns[name]
        return int(self.counts[self.binning.slots[name]][bins.bins + 2]) if isinstance(bins, NumericBins) else 0

    def labelled_scores(self) -> tuple[Ints, Ints]:
        """Positives and negatives per score bin."""
        return self.counts[self.binning.slots["label:1"]], self.counts[self.binning.slots["label:0"]]

    def group_decisions(self, name: str) -> tuple[Ints, Ints]:
        """Positive decisions and all decisions per level of a protected column (levels, rare, unseen, missing)."""
        decisions = self.counts[self.binning.slots[f"group:{name}"]].reshape(-1, 2)
        return decisions[:, 1], decisions.sum(axis=1)

    def latency(self, threshold_ms: float) -> tuple[int, int]:
        """Rows above the threshold, and all rows with a latency."""
        buckets = self.counts[self.binning.slots["latency"]]
        first_above = int(np.searchsorted(self.binning.latency_cuts, threshold_ms, side="left")) + 1
        return int(buckets[first_above:].sum()), int(buckets.sum())


def empty(binning: Binning) -> Profile:
    return Profile(binning, 0, np.zeros(binning.size, np.int64), np.zeros(2 * len(binning.numeric)))


def merge(binning: Binning, profiles: Iterable[Profile]) -> Profile:
    """Sum of profiles of the same bins; the empty sum is the empty profile."""
    total = empty(binning)
    counts, sums, rows = total.counts, total.sums, 0
    for profile in profiles:
        if profile.binning.digest != binning.digest:
            raise ValueError(f"profiles of different bins do not merge: {profile.binning.digest} and {binning.digest}")
        counts += profile.counts
        sums += profile.sums
        rows += profile.rows
    return Profile(binning, rows, counts, sums)


def profile_slices(
    binning: Binning, frame: pl.DataFrame, slices: Ints, number: int, columns: Iterable[str] | None = None
) -> list[Profile]:
    """Profile rows into `number` slices at once.

    Args:
        frame: rows with the watched columns and, where known, `_score` and `_latency_ms`.
        slices: which slice each row belongs to, shape (rows,), values in 0..number-1.
        columns: of these the distribution is counted; None = of all that the frame has.
    """
    counts = np.zeros((number, binning.size), np.int64)
    sums = np.zeros((number, 2 * len(binning.numeric)))
    counted = frame.columns if columns is None else tuple(columns)
    jobs = [
        partial(_count_numbers, binning, name, frame[name], slices, counts, sums)
        if isinstance(bins, NumericBins)
        else partial(_count_levels, binning, name, frame, slices, counts, name in counted)
        for name, bins in binning.columns.items()
        if name in counted or (name in binning.protected and SCORE in frame.columns)
    ]
    if "_latency_ms" in frame.columns:
        jobs.append(partial(_count_latency, binning, frame["_latency_ms"], slices, counts))
    _do(jobs, frame.height)
    rows = np.bincount(slices, minlength=number)
    return [Profile(binning, int(rows[i]), counts[i], sums[i]) for i in range(number)]


def label_slices(binning: Binning, scores: pl.Series, labels: pl.Series, slices: Ints, number: int) -> list[Profile]:
    """Profiles that hold only score x label, or a regression's residuals: what labels add to a slice when they come."""
    counts = np.zeros((number, binning.size), np.int64)
    if binning.residuals is None:
        found = count(binning.score_grid, _floats(scores), 2 * slices + labels.to_numpy(), 2 * number)[0]
        for label in (0, 1):
            counts[:, binning.slots[f"label:{label}"]] = found[label::2, : len(binning.score_cuts) + 1]
    else:
        residuals = _floats(labels - scores)
        known = np.isfinite(residuals)
        found_residuals = count_residuals(binning, residuals[known], slices[known], number)
        counts[:, binning.slots["residual"]], counts[:, binning.slots["errors"]] = found_residuals
    return [Profile(binning, 0, counts[i], np.zeros(2 * len(binning.numeric))) for i in range(number)]


def _do(jobs: Sequence[Callable[[], None]], rows: int) -> None:
    """Each job writes counters of its own, so many rows are counted on all cores."""
    if rows < KERNEL_ROWS:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(jobs))) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _count_numbers(binning: Binning, name: str, values: pl.Series, slices: Ints, counts: Ints, sums: Floats) -> None:
    bins, slot, position = binning.columns[name], binning.slots[name], 2 * binning.numeric.index(name)
    assert isinstance(bins, NumericBins)
    found = count(bins.grid, _floats(values), slices, len(counts), bins.mean, bins.sd, bins.z_threshold)
    counts[:, slot], sums[:, position : position + 2] = found
    if values.null_count():  # a null was read as NaN
        nulls = np.bincount(slices[values.is_null().to_numpy()], minlength=len(counts))
        counts[:, slot.start + bins.bins] += nulls
        counts[:, slot.start + bins.bins + 1] -= nulls


def _count_levels(binning: Binning, name: str, frame: pl.DataFrame, slices: Ints, counts: Ints, counted: bool) -> None:
    """The levels, unless they are not `counted`, and of a protected column the decisions."""
    bins = binning.columns[name]
    index = bins.index(frame[name])
    if counted:
        counts[:, binning.slots[name]] = _table(slices, index, len(counts), bins.size)
    if name in binning.protected and SCORE in frame.columns:
        score = _floats(frame[SCORE])
        known = np.isfinite(score)
        pairs = 2 * index + (score >= binning.decision_threshold)
        table = _table(slices[known], pairs[known], len(counts), 2 * bins.size)
        counts[:, binning.slots[f"group:{name}"]] = table


def _count_latency(binning: Binning, values: pl.Series, slices: Ints, counts: Ints) -> None:
    latency = _floats(values)
    known = np.isfinite(latency)
    buckets = np.searchsorted(binning.latency_cuts, latency[known], side="left")
    counts[:, binning.slots["latency"]] = _table(slices[known], buckets, len(counts), len(binning.latency_cuts) + 1)


def _floats(values: pl.Series) -> Floats:
    """NaN where missing."""
    return values.cast(pl.Float64).to_numpy()


def _table(slices: Ints, places: npt.NDArray[np.integer], number: int, width: int) -> Ints:
    """How often each (slice, place) occurs, shape (number, width)."""
    return np.bincount(slices * width + places, minlength=number * width).reshape(number, width)
