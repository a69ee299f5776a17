"""Profiles: what a slice of time looked like on frozen bins; merged by adding, never by recomputing."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.binning import MOMENT_CLIP, SCORE, Binning, CategoricalBins, Floats, Ints, NumericBins
from drift_pipeline.detection.residuals import count_residuals


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

    def coarse(self, name: str) -> Ints:
        """Counts that PSI is taken on: deciles, or levels and rare."""
        bins = self.binning.columns[name]
        counts = self.bins(name)
        if isinstance(bins, CategoricalBins):
            return counts
        return np.bincount(bins.coarse, weights=counts).astype(np.int64)

    def missing(self, name: str) -> int:
        """Rows without a usable value: missing, and for numbers also not finite."""
        bins = self.binning.columns[name]
        counters = self.counts[self.binning.slots[name]]
        if isinstance(bins, NumericBins):
            return int(counters[bins.bins] + counters[bins.bins + 1])
        return int(counters[bins.bins + 1])

    def unseen(self, name: str) -> int:
        """Rows whose level the reference did not know (0 for numbers)."""
        bins = self.binning.columns[name]
        return 0 if isinstance(bins, NumericBins) else int(self.counts[self.binning.slots[name]][bins.bins])

    def beyond(self, name: str) -> int:
        """Rows farther than the range threshold from the reference mean."""
        bins = self.binning.columns[name]
        return int(self.counts[self.binning.slots[name]][bins.bins + 2]) if isinstance(bins, NumericBins) else 0

    def moments(self, name: str) -> tuple[float, float]:
        """Mean and variance in reference sd (clipped to +-10); (nan, nan) without rows."""
        position = self.binning.numeric.index(name)
        n = int(self.bins(name).sum())
        if n == 0:
            return float("nan"), float("nan")
        mean = self.sums[2 * position] / n
        return float(mean), float(max(self.sums[2 * position + 1] / n - mean**2, 0.0))

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
    counted = frame.columns if columns is None else columns
    for name, bins in binning.columns.items():
        if name not in counted:
            continue
        start = binning.slots[name].start
        _count(counts, slices, bins.index(frame[name]) + start)
        if isinstance(bins, NumericBins):
            z = bins.standardised(frame[name])
            far = np.abs(z) > bins.z_threshold
            _count(counts, slices[far], np.full(int(far.sum()), start + bins.bins + 2))
            clipped = np.clip(np.where(np.isnan(z), 0.0, z), -MOMENT_CLIP, MOMENT_CLIP)
            position = 2 * binning.numeric.index(name)
            sums[:, position] += np.bincount(slices, clipped, number)
            sums[:, position + 1] += np.bincount(slices, clipped**2, number)
    _count_decisions(binning, counts, frame, slices)
    if "_latency_ms" in frame.columns:
        latency = frame["_latency_ms"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = np.isfinite(latency)
        bucket = np.searchsorted(binning.latency_cuts, latency[known], side="left")
        _count(counts, slices[known], bucket + binning.slots["latency"].start)
    rows = np.bincount(slices, minlength=number)
    return [Profile(binning, int(rows[i]), counts[i], sums[i]) for i in range(number)]


def label_slices(binning: Binning, scores: pl.Series, labels: pl.Series, slices: Ints, number: int) -> list[Profile]:
    """Profiles that hold only score x label, or a regression's residuals: what labels add to a slice when they come."""
    counts = np.zeros((number, binning.size), np.int64)
    if binning.residuals is not None:
        residuals = (labels - scores).cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = np.isfinite(residuals)
        found = count_residuals(binning, residuals[known], slices[known], number)
        counts[:, binning.slots["residual"]], counts[:, binning.slots["errors"]] = found
        return [Profile(binning, 0, counts[i], np.zeros(2 * len(binning.numeric))) for i in range(number)]
    score = scores.cast(pl.Float64).fill_null(np.nan).to_numpy()
    label = labels.to_numpy()
    known = np.isfinite(score)
    bucket = np.searchsorted(binning.score_cuts, score[known], side="left")
    starts = np.array([binning.slots["label:0"].start, binning.slots["label:1"].start])
    _count(counts, slices[known], bucket + starts[label[known]])
    return [Profile(binning, 0, counts[i], np.zeros(2 * len(binning.numeric))) for i in range(number)]


def _count_decisions(binning: Binning, counts: Ints, frame: pl.DataFrame, slices: Ints) -> None:
    if SCORE not in frame.columns:
        return
    score = frame[SCORE].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(score)
    decision = (score >= binning.decision_threshold).astype(np.int64)
    for name in binning.protected:
        group = binning.columns[name].index(frame[name])
        _count(counts, slices[known], (2 * group + decision)[known] + binning.slots[f"group:{name}"].start)


def _count(counts: Ints, slices: Ints, columns: npt.NDArray[np.integer]) -> None:
    """counts[slice, column] += 1 for each pair, by one bincount over the touched range."""
    if not len(columns):
        return
    low, high = int(columns.min()), int(columns.max()) + 1
    flat = slices * (high - low) + (columns - low)
    counts[:, low:high] += np.bincount(flat, minlength=len(counts) * (high - low)).reshape(len(counts), high - low)
