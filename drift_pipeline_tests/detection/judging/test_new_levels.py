"""Two samples of one distribution do not differ, whatever its levels; a level that is new does, and is told as such.

`python -m drift_pipeline_tests.benchmarks.null_and_power` has such columns beside the features.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.detection.counting.binning import SCORE, Binning, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.statistics.psi import psi
from drift_pipeline_tests.benchmarks.null_and_power import upper_bound
from drift_pipeline_tests.detection.worlds import spec_of

Floats = npt.NDArray[np.float64]

POPULATIONS: dict[str, Floats] = {
    "two levels": np.array([0.9, 0.1]),
    "40 equal": np.ones(40),
    "100 equal": np.ones(100),
    "1,200 equal": np.ones(1200),
    "5,000 equal": np.ones(5000),
    "Zipf 1": np.arange(1.0, 1001) ** -1.0,
    "Zipf 1.3": np.arange(1.0, 20_001) ** -1.3,
    "Zipf 1.6": np.arange(1.0, 20_001) ** -1.6,
    "Zipf 2": np.arange(1.0, 20_001) ** -2.0,
    "geometric .9": np.array([0.9**k for k in range(300)]),
    "geometric .99": np.array([0.99**k for k in range(2000)]),
    "three and 3,000": np.array([0.3, 0.2, 0.1, *[0.4 / 3000] * 3000]),
    "an id a row": np.ones(1_000_000),
}
UP_TO = {name: np.cumsum(shares / shares.sum()) for name, shares in POPULATIONS.items()}
NAMES = tuple(POPULATIONS)
SPEC = spec_of(categorical=NAMES)


def drawn(rng: np.random.Generator, n: int) -> pl.DataFrame:
    """n rows of a column of each population."""
    places = {name: np.searchsorted(ends[:-1], rng.random(n), side="right") for name, ends in UP_TO.items()}
    return pl.DataFrame({name: pl.Series(place).cast(pl.String) for name, place in places.items()})


def frozen(frame: pl.DataFrame) -> Binning:
    return freeze_binning(frame, pl.Series(SCORE, [], pl.Float64), SPEC)


def side(binning: Binning, frame: pl.DataFrame) -> ColumnCounts:
    return ColumnCounts.of(Layout.of(binning), profile_slices(binning, frame, np.zeros(frame.height, np.int64), 1)[0])


def judged(
    before: ColumnCounts, after: ColumnCounts, fresh: dict[str, float] | None = None
) -> dict[str, FeatureFinding]:
    null = independent(before.layout.names)
    found = ComparedColumns(before, after, DAY, null, null, 1e-3, fresh=fresh or {}).findings()
    return {finding.name: finding for finding in found}


def drifting(rng: np.random.Generator, m: int, n: int, references: int, windows: int) -> dict[str, int]:
    """How many of the windows drift, by population; the PSI of none may be above the KPI's threshold with its bound."""
    hits = dict.fromkeys(NAMES, 0)
    for _ in range(references):
        frame = drawn(rng, m)
        binning = frozen(frame)
        before = side(binning, frame)
        for _ in range(windows):
            for name, finding in judged(before, side(binning, drawn(rng, n))).items():
                hits[name] += finding.drift is True
                assert finding.psi_lower < 0.05
    return hits


@pytest.mark.parametrize(("m", "n"), [(200, 2000), (2000, 200), (2000, 2000), (500, 20_000), (20_000, 500)])
def test_no_window_of_the_references_own_distribution_drifts(m: int, n: int) -> None:
    assert drifting(np.random.default_rng(m + n), m, n, 3, 3) == dict.fromkeys(NAMES, 0)


@pytest.mark.slow
@pytest.mark.parametrize("m", [200, 1000, 2000, 10_000, 50_000])
@pytest.mark.parametrize("n", [200, 1000, 2000, 10_000, 50_000])
def test_at_most_one_window_in_a_hundred_of_any_population_drifts_at_any_size(m: int, n: int) -> None:
    """40 references of each population; the bound is of the windows of all 13 together, 1,560 at least."""
    windows = 10 if n < 10_000 else 3
    hits = drifting(np.random.default_rng([m, n]), m, n, 40, windows)
    assert max(hits.values()) <= 0.01 * 40 * windows + 1
    assert upper_bound(sum(hits.values()), 40 * windows * len(NAMES)) <= 0.01


@pytest.mark.parametrize(("m", "n"), [(2000, 2000), (2000, 50_000)])
def test_what_is_shown_of_two_samples_is_near_nothing(m: int, n: int) -> None:
    """PSI of 20 bins and 2,000 rows a side has a mean of .019, and total variation one of .05."""
    rng = np.random.default_rng(0)
    frame = drawn(rng, m)
    binning = frozen(frame)
    for finding in judged(side(binning, frame), side(binning, drawn(rng, n))).values():
        assert finding.psi < 0.05
        assert finding.hellinger < 0.08
        assert finding.distance < 0.1
        assert finding.direction == "other mix"


KNOWN = ("two levels", "40 equal", "geometric .9", "Zipf 2")
FOUND = [
    *((name, 2000, 2000, 0.1) for name in (*KNOWN, "three and 3,000")),
    *((name, 50_000, 2000, 0.03) for name in KNOWN),
    *((name, 50_000, 50_000, 0.02) for name in KNOWN),
    ("two levels", 200, 2000, 0.1),
]


@pytest.mark.parametrize(("name", "m", "n", "share"), FOUND)
def test_a_level_that_is_new_in_enough_rows_is_drift_to_new_levels(name: str, m: int, n: int, share: float) -> None:
    """Of columns most of whose levels the reference knows; of the last with 40 % in rare ones."""
    rng = np.random.default_rng(0)
    frame = drawn(rng, m)
    binning = frozen(frame)
    new = pl.when(pl.int_range(pl.len()) < share * n).then(pl.lit("new")).otherwise(name).alias(name)
    found = judged(side(binning, frame), side(binning, drawn(rng, n).with_columns(new)))[name]
    assert (found.drift, found.direction) == (True, "new levels")
    assert found.distance == pytest.approx(share, abs=0.06)
    assert found.psi_lower > 0


def test_levels_that_are_known_and_those_that_are_not_are_all_replaced_by_new_ones_whatever_the_population() -> None:
    rng = np.random.default_rng(0)
    frame = drawn(rng, 2000)
    binning = frozen(frame)
    other = drawn(rng, 2000).select(pl.all() + "*")
    found = judged(side(binning, frame), side(binning, other))
    assert {name for name, finding in found.items() if finding.drift} == set(NAMES) - {"an id a row"}
    assert {found[name].direction for name in NAMES if found[name].drift} == {"new levels"}
    assert all(found[name].psi_lower > 0.2 for name in NAMES if found[name].drift and name != "5,000 equal")


def test_where_every_level_is_known_and_none_is_met_once_psi_is_of_the_plain_counts() -> None:
    levels = ["a"] * 1200 + ["b"] * 500 + ["c"] * 4
    frame = pl.DataFrame(dict.fromkeys(NAMES, levels))
    after = pl.DataFrame({name: ["a"] * 900 + ["b"] * 700 + ["c"] * 9 + ["d"] * 30 for name in NAMES})
    binning = frozen(frame)
    for finding in judged(side(binning, frame), side(binning, after)).values():
        assert finding.psi == pytest.approx(psi([1200, 500, 4, 0], [900, 700, 9, 30]), rel=1e-12)


def test_a_reference_that_was_frozen_on_a_sample_of_its_rows_does_not_differ_from_its_own_distribution() -> None:
    """Levels that the sample missed are unseen on both sides."""
    rng = np.random.default_rng(3)
    frame = drawn(rng, 20_000)
    binning = frozen(frame.sample(2000, seed=0))
    found = judged(side(binning, frame), side(binning, drawn(rng, 5000)))
    assert [name for name, finding in found.items() if finding.drift] == []
    assert max(finding.psi for finding in found.values()) < 0.05


def test_levels_that_come_up_as_time_goes_on_are_new_only_beyond_what_healthy_windows_showed() -> None:
    rng = np.random.default_rng(0)
    frame = drawn(rng, 5000)
    binning = frozen(frame)
    new = pl.when(pl.int_range(pl.len()) < 300).then(pl.lit("new")).otherwise("Zipf 1").alias("Zipf 1")
    after = side(binning, drawn(rng, 2000).with_columns(new))
    alone, told = (judged(side(binning, frame), after, fresh)["Zipf 1"] for fresh in ({}, {"Zipf 1": 0.2}))
    assert (alone.drift, alone.direction) == (True, "new levels")
    assert (told.drift, told.direction) == (False, "other mix")


def test_a_level_of_a_tenth_that_vanishes_is_drift_to_another_mix_and_a_rare_one_is_not() -> None:
    before = pl.DataFrame(dict.fromkeys(NAMES, ["a"] * 1000 + ["b"] * 790 + ["c"] * 200 + ["d"] * 10))
    after = pl.DataFrame(dict.fromkeys(NAMES, ["a"] * 1100 + ["b"] * 890 + ["d"] * 10))
    binning = frozen(before)
    found = judged(side(binning, before), side(binning, after))["two levels"]
    assert (found.drift, found.direction) == (True, "other mix")
    assert found.distance == pytest.approx(0.1)
    rare = after.with_columns(pl.all().replace({"d": "c"}))
    assert judged(side(frozen(after), after), side(frozen(after), rare))["two levels"].drift is False


@pytest.mark.parametrize("rows", [300, 2000])
def test_a_tenth_of_rows_that_miss_a_value_or_have_an_unknown_level_is_drift_of_that_tenth(rows: int) -> None:
    """The exact bound of a share: 200 of 2,000 are at least 8 %, and 50 of 300 at least 5 %."""
    part = rows // 10 if rows == 2000 else rows // 6
    levels = pl.Series(["a", "b", "c"] * (rows // 3) + ["a"] * (rows % 3))
    frame = pl.DataFrame(dict.fromkeys(NAMES, levels))
    binning = frozen(frame)
    before = side(binning, frame)
    for value, direction in (("new", "new levels"), (None, "more missing"), ("a", "")):
        changed = pl.DataFrame(
            {name: pl.concat([pl.Series([value] * part, dtype=pl.String), levels[part:]]) for name in NAMES}
        )
        found = judged(before, side(binning, changed))["two levels"]
        assert found.drift is bool(direction)
        if direction:
            assert found.direction == direction
            assert found.distance == pytest.approx(part / rows)
            assert found.distance_lower == pytest.approx(part / rows, abs=0.08)
