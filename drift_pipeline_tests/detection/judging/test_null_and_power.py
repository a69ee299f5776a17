"""DRIFT on windows of independent rows of five shapes: without a shift hardly ever, with one nearly always.

Small versions of the benchmarks `null_and_power`, `stream` and `time_to_detect`, which print the whole tables.
"""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.detection.counting.binning import freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding, Verdict
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg
from drift_pipeline.detection.thresholds import LEAST_ROWS
from drift_pipeline_tests.benchmarks import stream, time_to_detect
from drift_pipeline_tests.benchmarks.null_and_power import STRICT, Reference, lower_bound, shares, upper_bound
from drift_pipeline_tests.benchmarks.traffic import SHAPES, Traffic, column
from drift_pipeline_tests.detection.worlds import World, rows, spec_of


@pytest.mark.parametrize("n", [200, 1000, 50_000])
def test_of_100_windows_of_20_features_without_a_shift_none_drifts(n: int) -> None:
    """At the looser of the two levels, a false discovery rate of 1e-3."""
    found = shares(0, 20, n, 100)
    assert (found.windows, found.silent, found.ours) == (100, 0, 0)


@pytest.mark.parametrize(("n", "shift"), [(1000, 0.5), (5000, 0.25)])
def test_a_shift_of_3_of_20_features_is_drift(n: int, shift: float) -> None:
    """Of 50 windows, 49 at least: at a power of .95 that would be a chance of 28 %, at .999 of 99.9 %."""
    assert shares(0, 20, n, 50, shift=shift, moved=3, rate=STRICT).ours >= 49


def test_a_quarter_sd_is_drift_and_psi_above_a_fifth_never_sees_it() -> None:
    found = shares(0, 20, 5000, 25, shift=0.25, moved=3, rate=STRICT)
    assert (found.ours, found.psi) == (25, 0)


@pytest.mark.parametrize("n", [50, LEAST_ROWS - 1])
def test_a_window_below_the_least_rows_claims_nothing_of_any_column_even_when_all_moved(n: int) -> None:
    rng = np.random.default_rng(0)
    reference = Reference.draw(rng, 20)
    moved = {name: reference.probabilities(name, 2.0) for name in reference.shapes}
    found = reference.findings(reference.window(rng, n, moved), STRICT)
    assert [f.drift for f in found] == [None] * 20
    assert {f.reason for f in found} == {f"{n} effective rows, {LEAST_ROWS} are needed"}


def test_a_day_below_the_least_rows_is_inconclusive_and_one_more_row_decides() -> None:
    world = World.on(rows(np.random.default_rng(0), 28, 500))
    verdicts = []
    for n in (LEAST_ROWS - 1, LEAST_ROWS):
        day = rows(np.random.default_rng(1), 1, n, first_day=28)
        verdicts.append(world.again().land(day).at(DAY).kpis["psi"].verdict)
    assert verdicts == [Verdict.INCONCLUSIVE, Verdict.OK]


def test_a_value_of_ten_thousand_beside_a_true_shift_changes_no_verdict_and_no_statistic_by_a_hundredth() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.standard_normal(50_000), rng.standard_normal(5000) + 0.5
    clean, spoilt = (finding_of(before, np.append(after, extreme)) for extreme in (0.5, 1e4))
    assert clean.drift is spoilt.drift is True
    assert clean.direction == spoilt.direction == "up"
    assert spoilt.psi == pytest.approx(clean.psi, rel=0.01)
    assert spoilt.distance == pytest.approx(clean.distance, rel=0.01)


def test_a_value_of_ten_thousand_alone_is_no_drift() -> None:
    rng = np.random.default_rng(6)
    found = finding_of(rng.standard_normal(50_000), np.append(rng.standard_normal(5000), 1e4))
    assert found.drift is False


def finding_of(before: np.ndarray, after: np.ndarray) -> FeatureFinding:
    spec = spec_of("x")
    frames = [pl.DataFrame({"x": values}) for values in (before, after)]
    binning = freeze_binning(frames[0], pl.Series([0.5]), spec)
    layout = Layout.of(binning)
    sides = (ColumnCounts.of(layout, profile_slices(binning, f, np.zeros(f.height, np.int64), 1)[0]) for f in frames)
    null = independent(layout.names)
    return ComparedColumns(next(sides), next(sides), HOUR, null, null, STRICT).findings()[0]


# what the benchmarks themselves rest on


@pytest.mark.parametrize("shape", SHAPES)
def test_the_probabilities_that_windows_are_drawn_from_are_those_of_shifted_rows(shape: str) -> None:
    """Chi2 of 200,000 rows over the frozen bins: |z| < 4."""
    rng = np.random.default_rng(7)
    reference = Reference.draw(rng, 5)
    name, bins = f"{shape}0", reference.binning.columns[f"{shape}0"]
    expected = 200_000 * reference.probabilities(name, 0.4)
    values = column(reference.shapes[name], rng.standard_normal(200_000) + 0.4)
    counted = np.bincount(bins.index(values), minlength=len(expected))
    enough = expected >= 5
    assert counted[expected == 0].sum() == 0
    chi2 = ((counted - expected)[enough] ** 2 / expected[enough]).sum()
    assert abs(chi2 - enough.sum()) < 4 * np.sqrt(2 * enough.sum())


def test_the_smallest_adjusted_p_is_where_benjamini_hochberg_begins_to_reject() -> None:
    rng = np.random.default_rng(8)
    reference = Reference.draw(rng, 20)
    moved = {name: reference.probabilities(name, 0.2) for name in list(reference.shapes)[:6]}
    found = reference.findings(reference.window(rng, 2000, moved), STRICT)
    smallest = stream.smallest_adjusted(found)
    matters = np.array([f.distance_lower > 0.05 for f in found])
    p_values = [f.p_value for f in found]
    assert 0 < smallest < 1
    assert not (benjamini_hochberg(p_values, smallest * 0.999) & matters).any()
    assert (benjamini_hochberg(p_values, smallest * 1.001) & matters).any()


def test_an_episode_is_two_of_three_ticks_and_a_new_one_begins_after_an_hour_of_silence() -> None:
    quiet = [1.0] * 60
    looks = [1e-9, *quiet, 1e-9, 1.0, 1e-9, 1e-9, *quiet, 1e-9, 1e-9, 1.0, 1.0, 1e-9, 1e-9]
    assert stream.episodes_at(looks, 1e-4) == 2
    assert stream.episodes_at(looks, 1e-10) == 0


def test_a_run_that_never_ended_is_the_slowest_of_all() -> None:
    times = [5 * MINUTE, None, 3 * MINUTE, 3 * HOUR]
    assert [time_to_detect.minutes(times, share) for share in (0.5, 0.75, 0.95)] == ["5 min", "3.0 h", "> 26 h"]


def test_the_same_traffic_is_drawn_at_every_call_and_its_score_explains_its_labels() -> None:
    hour = Traffic(2000, 1).hour(5)
    assert hour.equals(Traffic(2000, 1).hour(5))
    assert hour["_time"].is_sorted()
    assert abs(hour.height - 2000) < 200
    high = hour["_score"] > 0.5
    assert hour["_label"].filter(high).mean() > 0.7  # type: ignore[operator]
    assert hour["_label"].filter(~high).mean() < 0.3  # type: ignore[operator]


# larger


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500, 1000, 5000, 50_000])
def test_at_most_one_window_in_a_hundred_drifts_without_a_shift(n: int) -> None:
    found = shares(1, 20, n, 2000)
    assert upper_bound(found.ours, found.windows) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000, 50_000])
def test_at_most_one_window_in_a_hundred_of_200_features_drifts_without_a_shift(n: int) -> None:
    found = shares(1, 200, n, 500)
    assert upper_bound(found.ours, found.windows) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(1000, 0.5), (5000, 0.25)])
@pytest.mark.parametrize("features", [20, 200])
def test_nineteen_in_twenty_windows_with_three_shifted_features_drift(features: int, n: int, shift: float) -> None:
    found = shares(1, features, n, 200, shift=shift, moved=3, rate=STRICT)
    assert lower_bound(found.ours, found.windows) >= 0.95


@pytest.mark.slow
def test_independent_traffic_opens_no_incident_in_a_day_of_ticks_by_the_minute() -> None:
    traffic = Traffic(2000, 3)
    tally = stream.minute_pass(traffic, stream.reference_of(traffic), 1, "test")
    assert tally.virtual == DAY
    assert (tally.opened, tally.sources) == (0, {})


@pytest.mark.slow
def test_a_shift_of_one_sd_at_2000_rows_an_hour_opens_an_incident_within_15_minutes() -> None:
    case = time_to_detect.Case("1 sd", 2000, (1.0,))
    found = [time_to_detect.run(case, 0, number) for number in range(10)]
    times = [f.incident for f in found if f.incident is not None]
    assert len(times) == 10
    assert timedelta() < min(times) <= max(times) < 15 * MINUTE
