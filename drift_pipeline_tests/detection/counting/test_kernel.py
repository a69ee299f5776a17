"""The counting kernel: the same counters as a binary search, whatever the values and the cuts."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.detection.counting import kernel
from drift_pipeline.detection.counting.binning import NumericBins, numeric_bins
from drift_pipeline.detection.counting.kernel import Floats, count, grid, locate

RNG = np.random.default_rng(3)
N = 60_000  # above KERNEL_ROWS
NORMAL = RNG.standard_normal(N)
SHAPES = {
    "normal": NORMAL,
    "lognormal": np.exp(3 * NORMAL),
    "half an atom": np.where(RNG.random(N) < 0.5, 0.0, NORMAL),
    "integers": RNG.integers(0, 40, N).astype(np.float64),
    "Cauchy": RNG.standard_cauchy(N),
    "a few huge": np.where(RNG.random(N) < 0.001, NORMAL * 1e300, NORMAL),
    "constant": np.full(N, 7.0),
    "denormal": RNG.integers(0, 40, N) * 5e-324,
    "both ends of the floats": RNG.choice([-1.7e308, -1.0, 0.0, 1.0, 1.7e308], N),
    "next to one another": np.nextafter(1.0, 2.0) + RNG.integers(0, 900, N) * np.spacing(1.0),
}
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308])
number = st.floats(allow_nan=True, allow_infinity=True)


def frozen(values: Floats | list[float], z_threshold: float = 4.0) -> NumericBins:
    """Bins whose mean and sd are numbers also where those of the values overflow."""
    with np.errstate(all="ignore"):
        bins = numeric_bins(pl.Series(values, dtype=pl.Float64), z_threshold)
    return bins if np.isfinite([bins.mean, bins.sd]).all() else replace(bins, mean=0.0, sd=1.0)


def searched(bins: NumericBins, x: Floats, slices: kernel.Ints, parts: int) -> tuple[kernel.Ints, Floats]:
    """What the counters are by definition, a slice at a time."""
    counts, sums = np.zeros((parts, bins.size), np.int64), np.zeros((parts, 2))
    for part in range(parts):
        values = x[(slices == part) & np.isfinite(x)]
        with np.errstate(over="ignore"):
            z = (values - bins.mean) / bins.sd
        counts[part, : bins.bins] = np.bincount(np.searchsorted(bins.cuts, values), minlength=bins.bins)
        counts[part, bins.bins + 1] = (~np.isfinite(x[slices == part])).sum()
        counts[part, bins.bins + 2] = (np.abs(z) > bins.z_threshold).sum()
        z = np.clip(z, -kernel.MOMENT_CLIP, kernel.MOMENT_CLIP)
        sums[part] = z.sum(), (z**2).sum()
    return counts, sums


def counted(bins: NumericBins, x: Floats, slices: kernel.Ints, parts: int) -> tuple[kernel.Ints, Floats]:
    return count(bins.grid, x, slices, parts, bins.mean, bins.sd, bins.z_threshold)


def assert_same(a: tuple[kernel.Ints, Floats], b: tuple[kernel.Ints, Floats], rows: int) -> None:
    assert (a[0] == b[0]).all()
    assert np.allclose(a[1], b[1], rtol=1e-12, atol=1e-12 * max(rows, 1))


@pytest.mark.parametrize("compiled_from", [0, 10**9], ids=["numba", "numpy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_counters_are_those_of_a_binary_search(shape: str, compiled_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "KERNEL_ROWS", compiled_from)
    bins = frozen(SHAPES[shape])
    x = np.concatenate([SHAPES[shape], NORMAL[:5000], bins.cuts, np.nextafter(bins.cuts, np.inf), ODD])
    for slices in (np.zeros(len(x), np.int64), np.arange(len(x)) % 3, np.sort(np.arange(len(x)) % 3)):
        assert_same(counted(bins, x, slices, 3), searched(bins, x, slices, 3), len(x))


@given(
    reference=st.lists(number, min_size=1, max_size=60),
    values=st.lists(number, max_size=60),
    slices=st.lists(st.integers(0, 3), min_size=60, max_size=60),
    z_threshold=st.sampled_from([0.5, 4.0, 30.0]),
)
@settings(deadline=None, max_examples=200)
def test_the_loop_compiled_or_not_and_numpy_agree(
    reference: list[float], values: list[float], slices: list[int], z_threshold: float
) -> None:
    bins = frozen(reference, z_threshold)
    x = np.concatenate([np.array(values, np.float64), bins.cuts, ODD])
    parts = np.resize(np.array(slices), len(x))
    by_search = searched(bins, x, parts, 4)
    for loop in (kernel._count_few, kernel._count_many, kernel._compiled()):
        on = bins.grid
        found = np.zeros((4, bins.size), np.int64), np.zeros((4, 2))
        with np.errstate(all="ignore"):
            loop(
                x, parts, on.cuts, on.first, on.low, on.scale, bins.mean, bins.sd, z_threshold, *found, np.empty(0, int)
            )
        assert_same(found, by_search, len(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_column_is_located_as_a_short_one(shape: str) -> None:
    bins = frozen(SHAPES[shape])
    x = np.concatenate([SHAPES[shape], ODD])
    short = np.concatenate([locate(bins.grid, part) for part in np.array_split(x, 3)])
    assert (locate(bins.grid, x) == short).all()


@pytest.mark.parametrize("shape", ["normal", "lognormal", "Cauchy", "a few huge"])
def test_tails_do_not_leave_the_inner_cuts_in_one_cell(shape: str) -> None:
    cuts = frozen(SHAPES[shape]).cuts
    inside = np.diff(grid(cuts).first)
    assert np.sort(inside)[-3:].sum() < 0.6 * len(cuts)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.Int64])
def test_columns_of_other_types_are_counted_as_their_floats(dtype: Any) -> None:
    values = pl.Series([0, 1, None, 1, 0], dtype=pl.Int64).cast(dtype)
    bins = numeric_bins(values, 4.0)
    assert bins.index(values).tolist() == bins.index(values.cast(pl.Float64)).tolist()
    assert bins.index(values)[2] == bins.bins


def test_no_rows_are_no_counts() -> None:
    nothing: npt.NDArray[Any] = np.empty(0)
    counts, sums = count(grid(np.array([1.0])), nothing, nothing.astype(np.int64), 2)
    assert (counts.shape, counts.sum(), sums.sum()) == ((2, 5), 0, 0.0)


def test_few_rows_are_counted_without_numba() -> None:
    script = (
        "import sys, numpy as np; import drift_pipeline.detection.counting.profile;"
        "from drift_pipeline.detection.counting.kernel import count, grid;"
        "count(grid(np.arange(9.0)), np.arange(99.0), np.zeros(99, np.int64), 1);"
        "print('numba' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout == "False\n", found.stderr
