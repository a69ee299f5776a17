"""Frozen bins: where a reference puts its edges, so that no later window can move them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.counting.kept_levels import kept_levels
from drift_pipeline.detection.counting.kernel import Grid, grid, locate
from drift_pipeline.spec import ModelSpec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FINE_BINS = 1000
SCORE_BINS = 2000
COARSE_BINS = 10
SCORE = "_score"
LATENCY_CUTS = np.geomspace(0.1, 100_000, 121)


@dataclass(frozen=True)
class NumericBins:
    """Bins (c_j-1, c_j] with open ends on about 1000 quantiles; an atom has a bin of its own.

    `coarse[j]` is the decile group of bin j (deciles nest in the fine bins); values farther than `z_threshold` sd from
    the mean are counted beside the bins. Mean and sd are winsorised at the 0.1 / 99.9 % quantiles.
    """

    cuts: Floats
    atom: Bools
    coarse: Ints
    mean: float
    sd: float
    z_threshold: float

    @property
    def size(self) -> int:
        """Bins, then: missing, not finite, beyond z_threshold."""
        return len(self.cuts) + 1 + 3

    @property
    def bins(self) -> int:
        return len(self.cuts) + 1

    @cached_property
    def grid(self) -> Grid:
        """What finds a value's bin among the cuts."""
        return grid(self.cuts)

    def index(self, values: pl.Series) -> Ints:
        """The counter of each value; a value that is missing or not finite has the counter of its own."""
        index = locate(self.grid, values.cast(pl.Float64).to_numpy())
        if values.null_count():
            index[values.is_null().to_numpy()] = self.bins
        return index

    def standardised(self, values: pl.Series) -> Floats:
        """(x - mean) / sd; NaN where missing or not finite; a constant reference has sd 1.

        Infinite where a finite value is too far away for a float to say how many sd.
        """
        x = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
        with np.errstate(over="ignore"):
            z = (np.where(np.isfinite(x), x, np.nan) - self.mean) / self.sd
        return np.asarray(z)


@dataclass(frozen=True)
class CategoricalBins:
    """At most 19 levels with an expected count of at least 5, then `rare` (known, pooled), `unseen`, `missing`.

    `once`, `twice`: how many levels had one and two of the `rows` that froze them, which tell the share unseen by them.
    """

    levels: tuple[str, ...]
    rare: frozenset[str]
    once: int = 0
    twice: int = 0
    rows: int = 0

    @property
    def bins(self) -> int:
        """The levels and `rare`."""
        return len(self.levels) + 1

    @property
    def size(self) -> int:
        return self.bins + 2

    def index(self, values: pl.Series) -> Ints:
        known, counters = self._codes
        codes = values.cast(pl.String).cast(known, strict=False).to_physical()
        index: Ints = counters[codes.fill_null(len(counters) - 1).to_numpy()]
        if values.null_count():
            index[values.is_null().to_numpy()] = self.bins + 1
        return index

    @cached_property
    def _codes(self) -> tuple[pl.Enum, Ints]:
        """The known levels as a type, and the counter of each of its codes; the last is of a level it lacks."""
        known = [*self.levels, *sorted(self.rare)]
        counters = np.minimum(np.arange(len(known) + 1), len(self.levels))
        counters[-1] = self.bins
        return pl.Enum(known), counters


Bins = NumericBins | CategoricalBins


def numeric_bins(values: pl.Series, z_threshold: float, bins: int = FINE_BINS) -> NumericBins:
    """Freeze the bins of a numeric reference column; a column without finite values gets one bin."""
    x = np.sort(values.drop_nulls().cast(pl.Float64).to_numpy())
    x = x[np.isfinite(x)]
    if not len(x):
        return NumericBins(np.empty(0), np.zeros(1, bool), np.zeros(1, np.int64), 0.0, 1.0, z_threshold)
    quantiles = x[np.linspace(0, len(x) - 1, bins + 1).round().astype(int)]
    atoms = _atoms(x, quantiles)
    with np.errstate(over="ignore"):
        below = np.nextafter(atoms, -np.inf)
    below = below[np.isfinite(below)]  # nothing is below the least of all floats
    cuts = np.unique(np.concatenate([quantiles[1:-1], atoms, below]))
    counts = np.bincount(np.searchsorted(cuts, x, side="left"), minlength=len(cuts) + 1)
    low, high = x[int(0.001 * (len(x) - 1))], x[int(np.ceil(0.999 * (len(x) - 1)))]
    clipped = np.clip(x, low, high)
    sd = float(clipped.std())
    atom = np.zeros(len(cuts) + 1, bool)
    atom[np.searchsorted(cuts, atoms, side="left")] = True
    return NumericBins(cuts, atom, _deciles(counts), float(clipped.mean()), sd if sd > 0 else 1.0, z_threshold)


def _atoms(x: Floats, quantiles: Floats) -> Floats:
    """Values so frequent that two neighbouring quantiles fall on them."""
    repeated: Floats = np.unique(quantiles[1:][np.diff(quantiles) == 0])
    counts = np.searchsorted(x, repeated, side="right") - np.searchsorted(x, repeated, side="left")
    return repeated[counts > 1]


def _deciles(counts: Ints) -> Ints:
    """Group of each fine bin: a new group starts where the cumulative share has passed the next decile.

    What lies below the reference's least value, where that is an atom, is a group of its own: nobody was there.
    """
    below = np.concatenate([[0], np.cumsum(counts)[:-1]]) / max(counts.sum(), 1)
    group = np.floor(below * COARSE_BINS + 1e-9).astype(np.int64)
    group = np.clip(group, 0, COARSE_BINS - 1)
    group[: int((counts > 0).argmax())] = -1
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def categorical_bins(values: pl.Series) -> CategoricalBins:
    """Freeze the levels of a categorical reference column, the most frequent first."""
    counts = values.cast(pl.String).alias("level").drop_nulls().value_counts(name="n")
    counts = counts.sort(["n", "level"], descending=[True, False])
    levels, n = counts["level"].to_list(), counts["n"].cast(pl.Int64).to_numpy()
    kept = kept_levels(levels, n)
    once, twice = (int((n == rows).sum()) for rows in (1, 2))
    return CategoricalBins(tuple(kept), frozenset(levels) - frozenset(kept), once, twice, int(n.sum()))


@dataclass(frozen=True)
class Binning:
    """The frozen bins of everything that is watched, laid out as one flat vector of counters.

    Counters, one after the other: each watched column and the score; score bins x label (negatives, positives);
    each protected group x decision (no, yes); latency buckets. Sums: sum z, sum z^2 per numeric column, z clipped to
    +-10 sd, so that one absurd value cannot carry a mean.

    A regression counts residual bins and errors, in units of `error_unit`, in place of score x label.
    """

    columns: dict[str, Bins]
    protected: tuple[str, ...]
    score_cuts: Floats
    score_atom: Bools
    decision_threshold: float
    latency_cuts: Floats
    residuals: NumericBins | None = None
    error_unit: float = 1.0

    @cached_property
    def slots(self) -> dict[str, slice]:
        """Where each part stands in the flat vector of counters."""
        sizes = {name: bins.size for name, bins in self.columns.items()}
        if self.residuals is None:
            sizes["label:0"] = sizes["label:1"] = len(self.score_cuts) + 1
        else:
            sizes |= {"residual": self.residuals.size, "errors": 3}
        sizes |= {f"group:{name}": 2 * self.columns[name].size for name in self.protected}
        sizes["latency"] = len(self.latency_cuts) + 1
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    @property
    def size(self) -> int:
        return int(list(self.slots.values())[-1].stop)

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        return tuple(name for name, bins in self.columns.items() if isinstance(bins, NumericBins))

    @cached_property
    def score_grid(self) -> Grid:
        return grid(self.score_cuts)

    @cached_property
    def digest(self) -> str:
        """sha256 over schema and edges: profiles of different digests are strangers."""
        sha = hashlib.sha256()
        for name, bins in self.columns.items():
            sha.update(f"\0{name}\0{type(bins).__name__}\0".encode())
            if isinstance(bins, NumericBins):
                sha.update(bins.cuts.tobytes() + np.array([bins.mean, bins.sd, bins.z_threshold]).tobytes())
            else:
                sha.update("\0".join([*bins.levels, "", *sorted(bins.rare)]).encode())
                sha.update(np.array([bins.once, bins.twice, bins.rows]).tobytes())
        sha.update("\0".join(self.protected).encode() + self.score_cuts.tobytes() + self.latency_cuts.tobytes())
        sha.update(np.array([self.decision_threshold]).tobytes())
        if self.residuals is not None:
            sha.update(self.residuals.cuts.tobytes() + np.array([self.error_unit]).tobytes())
        return f"sha256:{sha.hexdigest()}"


def freeze_binning(
    frame: pl.DataFrame, scores: pl.Series, spec: ModelSpec, residuals: pl.Series | None = None
) -> Binning:
    """Freeze the bins on a reference.

    Args:
        frame: the reference rows with the spec's watched columns.
        scores: the model's scores on rows it was not trained on.
        spec: which columns are watched, and the thresholds that get an edge of their own.
        residuals: of a regression, labels minus scores.
    """
    z = spec.kpis.range_z.threshold if spec.kpis.range_z else 4.0
    columns: dict[str, Bins] = {
        name: numeric_bins(frame[name], z) if kind == "numeric" else categorical_bins(frame[name])
        for name, kind in spec.watched.items()
    }
    columns[SCORE] = numeric_bins(scores, z)
    fine = numeric_bins(scores, z, SCORE_BINS)
    ceiling = spec.kpis.latency_p95_ms.threshold if spec.kpis.latency_p95_ms else 150.0
    return Binning(
        columns,
        tuple(spec.protected),
        fine.cuts,
        fine.atom,
        spec.prediction.threshold,
        np.unique(np.append(LATENCY_CUTS, ceiling)),
        *(() if residuals is None else (numeric_bins(residuals, z), _error_unit(residuals))),
    )


def _error_unit(residuals: pl.Series) -> float:
    """A thousandth of the mean absolute residual, or 1 where that says nothing."""
    mean = float(residuals.abs().to_numpy().mean()) if len(residuals) else 0.0
    return mean / 1000 if mean > 0 else 1.0
