"""DRIFT of single windows of independent rows: how often without a shift, and how often with one; prints tables.

`python -m drift_pipeline_tests.benchmarks.null_and_power [--full] [--seed N]`. Windows are drawn as counts, one
multinomial a column over the frozen bins with the exact probabilities of the shifted distribution: what rows would
give, since KS, PSI, chi2 and total variation see counts only. Mean and variance, which are votes, see each row at
its bin's mean (of about 1000 bins: 0.02 % of the variance is left out), on both sides alike.
The verdicts come from `detection.judging.compared_columns`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.detection.counting.binning import (
    SCORE,
    Binning,
    CategoricalBins,
    Floats,
    Ints,
    NumericBins,
    freeze_binning,
)
from drift_pipeline.detection.counting.kernel import MOMENT_CLIP
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import Profile, profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.thresholds import false_discovery_rate
from drift_pipeline_tests.benchmarks.traffic import LEVEL_NAMES, Shape, below, column, level_shares, names, spec_of

SIZES = (50, 200, 500, 1000, 5000, 50_000)
REFERENCE_ROWS = 50_000
REFERENCES = 20  # a null share over one reference would be that reference's
STRICT, LOOSE = false_discovery_rate(HOUR), false_discovery_rate(DAY)

# Windows


@dataclass(frozen=True)
class Reference:
    """Bins frozen on independent rows, which are the reference's side, and the probabilities of their counters."""

    binning: Binning
    shapes: dict[str, Shape]
    counts: Ints

    @classmethod
    def draw(cls, rng: np.random.Generator, features: int, rows: int = REFERENCE_ROWS) -> "Reference":
        shapes = names(features)
        frame = pl.DataFrame({name: column(shape, rng.standard_normal(rows)) for name, shape in shapes.items()})
        spec = spec_of(features).model_copy(update={"protected": {}})
        binning = freeze_binning(frame, pl.Series([0.5]), spec)
        return cls(binning, shapes, profile_slices(binning, frame, np.zeros(rows, np.int64), 1)[0].counts)

    @cached_property
    def layout(self) -> Layout:
        return Layout.of(self.binning)

    @cached_property
    def before(self) -> ColumnCounts:
        return ColumnCounts.of(self.layout, self.profile(REFERENCE_ROWS, self.counts))

    @cached_property
    def healthy(self) -> dict[str, Floats]:
        return {name: self.probabilities(name, 0.0) for name in self.shapes}

    @cached_property
    def moments(self) -> dict[str, Floats]:
        """Mean z and z^2 within each bin of a numeric column, shape (2, bins)."""
        z, found = np.random.default_rng(0).standard_normal(100_000), {}
        for name, bins in self.binning.columns.items():
            if name != SCORE and isinstance(bins, NumericBins):
                x = column(self.shapes[name], z)
                standard, index = np.clip(bins.standardised(x), -MOMENT_CLIP, MOMENT_CLIP), bins.index(x)
                n = np.maximum(np.bincount(index, minlength=bins.bins), 1)
                found[name] = np.stack([np.bincount(index, standard**k, bins.bins) / n for k in (1, 2)])
        return found

    def profile(self, rows: int, counts: Ints) -> Profile:
        """Of these counters, each row's z at its bin's mean."""
        sums = np.zeros(2 * len(self.binning.numeric))
        for name, moments in self.moments.items():
            place, start = 2 * self.binning.numeric.index(name), self.binning.slots[name].start
            sums[place : place + 2] = moments @ counts[start : start + moments.shape[1]]
        return Profile(self.binning, rows, counts, sums)

    def probabilities(self, name: str, shift: float) -> Floats:
        """Of a column's counters, those for values only: fine bins, or levels, rare and unseen."""
        bins, shape = self.binning.columns[name], self.shapes[name]
        if isinstance(bins, NumericBins):
            return np.diff(below(shape, bins.cuts, shift), prepend=0.0, append=1.0).clip(0.0)
        return _level_probabilities(bins, shift)

    def window(self, rng: np.random.Generator, n: int, shifted: dict[str, Floats]) -> Profile:
        """n rows, of which the columns in `shifted` have the probabilities given there."""
        counts = np.zeros(self.binning.size, np.int64)
        for name in self.shapes:
            drawn = rng.multinomial(n, shifted.get(name, self.healthy[name]))
            start = self.binning.slots[name].start
            counts[start : start + len(drawn)] = drawn
        return self.profile(n, counts)

    def findings(self, window: Profile, rate: float) -> list[FeatureFinding]:
        null = independent(self.layout.names)
        return ComparedColumns(self.before, ColumnCounts.of(self.layout, window), HOUR, null, null, rate).findings()


def _level_probabilities(bins: CategoricalBins, shift: float) -> Floats:
    from scipy.special import ndtr, ndtri

    edges = ndtr(ndtri(np.clip(np.cumsum(level_shares()), 0, 1)) - shift)
    shares = np.diff(edges, prepend=0.0).clip(0.0)
    found = np.bincount(bins.index(LEVEL_NAMES), shares, bins.bins + 1)
    return np.asarray(found / found.sum())


# Shares of windows


@dataclass
class Shares:
    """How many of `windows` alarmed: ours, by column shape, and the baselines; how many made no claim at all."""

    windows: int = 0
    ours: int = 0
    silent: int = 0
    psi: int = 0
    any_p: int = 0
    bonferroni: int = 0
    by_shape: dict[str, list[int]] = field(default_factory=dict)

    def take(self, findings: Sequence[FeatureFinding], shifted: Sequence[str]) -> None:
        """`shifted`: only these count; none = every column."""
        counted = [f for f in findings if not shifted or f.name in shifted]
        self.windows += 1
        self.ours += any(f.drift for f in counted)
        self.silent += all(f.drift is None for f in findings)
        self.psi += any(f.psi > 0.2 for f in counted)
        smallest = min(f.p_value for f in counted)
        self.any_p += smallest < 0.05
        self.bonferroni += smallest < 0.05 / len(findings)
        for finding in counted:
            seen = self.by_shape.setdefault(finding.name.rstrip("0123456789"), [0, 0])
            seen[0] += finding.drift is True
            seen[1] += 1


def upper_bound(hits: int, n: int, level: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound of a share."""
    from scipy.special import betaincinv

    return 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, level))


def lower_bound(hits: int, n: int, level: float = 0.95) -> float:
    return 1 - upper_bound(n - hits, n, level)


@lru_cache(REFERENCES)
def drawn(seed: int, features: int, number: int) -> Reference:
    return Reference.draw(np.random.default_rng([seed, features, number]), features)


def shares(
    seed: int, features: int, n: int, windows: int, *, shift: float = 0.0, moved: int = 0, rate: float = LOOSE
) -> Shares:
    """Windows of n rows in which `moved` features, others in each window, are shifted; over many references."""
    rng = np.random.default_rng([seed, features, n, int(100 * shift)])
    found, number = Shares(), min(REFERENCES, max(1, windows // 50))
    for place, part in enumerate(np.array_split(np.arange(windows), number)):
        reference = drawn(seed, features, place)
        elsewhere = {name: reference.probabilities(name, shift) for name in reference.shapes} if moved else {}
        for _ in part:
            chosen = [str(name) for name in rng.choice(list(reference.shapes), moved, replace=False)]
            window = reference.window(rng, n, {name: elsewhere[name] for name in chosen})
            found.take(reference.findings(window, rate), chosen)
        print(f"{time.strftime('%H:%M:%S')} {features} x {n}: {found.windows} windows", file=sys.stderr)
    return found


# Tables


def null_table(seed: int, features: int, windows: int) -> None:
    print(f"\n### No shift, {features} features, {windows:,} windows a row, q = {LOOSE:g}\n")
    print("| n | any DRIFT | 95 % bound | no claim | PSI > 0.2 any | p < .05 any | p < .05 Bonferroni |")
    print("|---|---|---|---|---|---|---|")
    for n in SIZES:
        s = shares(seed, features, n, windows)
        told = [f"{hits / s.windows:.2%}" for hits in (s.psi, s.any_p, s.bonferroni)]
        bound = f"{upper_bound(s.ours, s.windows):.3%}"
        print(f"| {n:,} | {s.ours / s.windows:.3%} | {bound} | {s.silent / s.windows:.0%} | {' | '.join(told)} |")
        sys.stdout.flush()


POWER = (
    (200, 0.5, 3),
    (500, 0.5, 3),
    (1000, 0.25, 3),
    (1000, 0.5, 3),
    (1000, 0.5, 1),
    (5000, 0.25, 3),
    (5000, 0.25, 1),
)  # rows, shift in sd, features shifted


def power_table(seed: int, features: int, windows: int) -> None:
    print(f"\n### A shift, {features} features, {windows:,} windows a row, q = {STRICT:g}; shifted ones count\n")
    print("| n | shift, sd | features | DRIFT | 95 % bound | PSI > 0.2 | p < .05 | p < .05 Bonferroni | by shape |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n, shift, moved in POWER:
        s = shares(seed, features, n, windows, shift=shift, moved=moved, rate=STRICT)
        told = [f"{hits / s.windows:.1%}" for hits in (s.psi, s.any_p, s.bonferroni)]
        by = ", ".join(f"{shape} {hits / of:.0%}" for shape, (hits, of) in s.by_shape.items())
        found, bound = s.ours / s.windows, lower_bound(s.ours, s.windows)
        print(f"| {n:,} | {shift:g} | {moved} | {found:.1%} | {bound:.1%} | {' | '.join(told)} | {by} |")
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="10,000 windows a null row, 2,000 a power row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--windows", type=int, help="windows a null row; a power row has a fifth")
    given = parser.parse_args(arguments)
    for features in given.features:
        windows = given.windows or (10_000 if given.full else 8_000 // features)
        null_table(given.seed, features, windows)
        power_table(given.seed, features, max(25, windows // 5))


if __name__ == "__main__":
    main()
