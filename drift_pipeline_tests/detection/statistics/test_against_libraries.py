"""The numbers that others publish under the same names: equal, or inside the interval that is certified."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from drift_pipeline.clock import DAY
from drift_pipeline.detection.counting.binning import freeze_binning, numeric_bins
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.statistics.parity import demographic_parity_difference
from drift_pipeline_tests.detection.worlds import SPEC, rows

Floats = npt.NDArray[np.float64]


def drawn(rng: np.random.Generator, shape: str, n: int, shift: float) -> Floats:
    z = rng.standard_normal(n) + shift
    return {
        "normal": z,
        "lognormal": np.exp(1.5 * z),
        "zero_inflated": np.where(z < 0.4, 0.0, z),
        "whole": np.round(2 * z),
        "constant": np.full(n, 7.0 + (shift > 1)),
        "wild": z / (np.abs(rng.standard_normal(n)) + 1e-3),
    }[shape]


def compared(before: Floats, after: Floats) -> FeatureFinding:
    """What the monitor finds of one column."""
    rng = np.random.default_rng(0)
    frames = [rows(rng, 1, len(side)).with_columns(x=pl.Series(side)) for side in (before, after)]
    binning = freeze_binning(frames[0], frames[0]["_score"], SPEC)
    layout = Layout.of(binning)
    null = independent(layout.names)
    first, second = (
        ColumnCounts.of(layout, profile_slices(binning, part, np.zeros(part.height, np.int64), 1)[0]) for part in frames
    )
    found = ComparedColumns(first, second, length=DAY, null=null, missing_null=null, rate=1e-3).findings()
    return next(f for f in found if f.name == "x")


@given(
    shape=st.sampled_from(["normal", "lognormal", "zero_inflated", "whole", "constant", "wild"]),
    sizes=st.tuples(st.integers(2, 4000), st.integers(2, 3000)),
    shift=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_the_exact_ks_of_scipy_lies_in_the_interval(
    shape: str, sizes: tuple[int, int], shift: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before, after = drawn(rng, shape, sizes[0], 0.0), drawn(rng, shape, sizes[1], shift)
    ours, exact = compared(before, after), ks_2samp(before, after, method="asymp").statistic
    assert ours.ks_low is not None
    assert ours.ks_high is not None
    assert ours.ks_low - 1e-12 <= exact <= ours.ks_high + 1e-12


@given(rates=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=6), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_the_demographic_parity_difference_is_fairlearns(rates: list[float], seed: int) -> None:
    from fairlearn.metrics import demographic_parity_difference as fairlearns

    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(len(rates)), rng.integers(0, len(rates), 500)])
    decision = (rng.random(len(group)) < np.array(rates)[group]).astype(int)
    positives, totals = (np.bincount(group, weight) for weight in (decision, np.ones(len(group))))
    theirs = fairlearns(np.zeros(len(group)), decision, sensitive_features=group)
    assert demographic_parity_difference(positives, totals) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_decile_psi_is_plain_numpys(seed: int) -> None:
    """Deciles by numpy.quantile on the reference, counts by numpy.histogram, (c + 0.5) / (n + 0.5 B) on both sides."""
    rng = np.random.default_rng(seed)
    before, after = rng.standard_normal(20_000), rng.standard_normal(3000) + 0.3
    bins = numeric_bins(pl.Series(before), 4.0)
    ends = np.flatnonzero(np.diff(bins.coarse))
    edges = [-np.inf, *np.nextafter(bins.cuts[ends], np.inf), np.inf]
    assert np.allclose(bins.cuts[ends], np.quantile(before, np.linspace(0.1, 0.9, 9)), atol=0.01)
    p, q = ((np.histogram(side, edges)[0] + 0.5) / (len(side) + 5) for side in (before, after))
    assert compared(before, after).psi == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=1e-12)
