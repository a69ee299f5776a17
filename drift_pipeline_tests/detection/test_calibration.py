"""What a healthy history says of its own false alarms: judged live, window by window against the rest of itself."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK
from drift_pipeline.detection.calibration.alarms import budget, measure
from drift_pipeline.detection.calibration.healthy import MOST_WINDOWS, Healthy, Varied, drawn
from drift_pipeline.detection.calibration.proposals import calibrate, round_up, too_often
from drift_pipeline.detection.calibration.visible import psi_of_shift, visible_shift
from drift_pipeline.detection.judging.monitor import window_lengths
from drift_pipeline.detection.statistics.psi import psi_p_value
from drift_pipeline.detection.thresholds import FARTHER
from drift_pipeline.errors import InputError
from drift_pipeline.spec import Kpis, ModelSpec
from drift_pipeline.telemetry.history import History
from drift_pipeline_tests.detection.worlds import SPEC, rows, spec_of


def calm(days: int = 42, per_day: int = 400, seed: int = 0) -> pl.DataFrame:
    return rows(np.random.default_rng(seed), days, per_day)


def moody(days: int = 42, per_day: int = 400, seed: int = 0) -> pl.DataFrame:
    """Each day has a mood of its own: `x` moves by 0.5 sd from day to day, though nothing ever drifts."""
    mood = np.random.default_rng(seed + 1).normal(0, 0.5, days)
    return calm(days, per_day, seed).with_columns(pl.col("x") + pl.Series(np.repeat(mood, per_day)))


def varied(healthy: Healthy, length: timedelta) -> Varied:
    splits = healthy.splits(length)
    found = Varied.of(healthy.reference.layout.names, splits)
    for number, split in enumerate(splits):
        found.put(number, healthy.as_independent(split))
    return found


@pytest.mark.parametrize("length", [DAY, WEEK])
def test_the_null_of_all_windows_is_the_one_that_a_reference_freezes(length: timedelta) -> None:
    healthy = Healthy(moody(), SPEC, (length,))
    null, frozen = varied(healthy, length).values.null(), healthy.reference.nulls[length]
    assert null.windows == frozen.windows
    for name in healthy.reference.layout.names:
        assert null.phi[name] == pytest.approx(frozen.phi[name], nan_ok=True)
    assert null.least_p == pytest.approx(frozen.least_p)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 41 * 24), hours=st.sampled_from([1, 24, 168]))
def test_a_window_and_the_rest_are_what_the_reference_holds_of_its_hours(start: int, hours: int) -> None:
    healthy = WHOLE
    first = healthy.reference.span.start + min(start, 42 * 24 - hours) * HOUR
    split = healthy.split(type(healthy.reference.span)(first, first + hours * HOUR))
    whole = healthy.reference.matched(split.window).profile
    labels = slice(healthy.reference.binning.slots["label:0"].start, healthy.reference.binning.slots["label:1"].stop)
    both = split.rest.counts + split.own.counts
    assert split.rest.rows + split.own.rows == whole.rows
    assert np.array_equal(np.delete(both, np.r_[labels]), np.delete(whole.counts, np.r_[labels]))
    assert both[labels].sum() == healthy.frame["_label"].count()
    assert (split.rest.counts >= 0).all()


WHOLE = Healthy(calm(), SPEC, (DAY,))


def test_a_window_has_no_part_in_the_null_that_judges_it() -> None:
    healthy = Healthy(moody(), SPEC, (DAY,))
    found = varied(healthy, DAY)
    without = found.nulls(found.values.windows[7])[0]
    assert without.windows == found.values.null().windows - 1
    x = found.values.names.index("x")
    highest = found.values.windows[int(np.argmax(found.values.psi[:, x]))]
    assert found.nulls(highest)[0].phi["x"] < found.values.null().phi["x"]


def test_independent_rows_do_not_alarm_and_have_phi_one() -> None:
    found = measure(Healthy(calm(), SPEC, (DAY,)), DAY, MINUTE)
    assert found.alone[0] <= 1
    assert (found.before, found.after) == ((0, 42), (0, 42))
    assert all(0.7 < phi < 1.4 for phi in found.phi.values())
    assert (found.episodes, found.mute, found.silent) == ((0, 0), (), "")


def test_days_with_a_mood_alarm_as_independent_rows_and_not_with_the_empirical_null() -> None:
    found = measure(Healthy(moody(per_day=4000), SPEC, (DAY,)), DAY, HOUR)
    assert found.before[0] > 0.6 * found.before[1]
    assert found.after[0] <= 1
    assert found.episodes[0] > 10 * max(found.episodes[1], 1)
    assert max(found.phi, key=lambda name: found.phi[name]) == "x"
    assert found.phi["x"] > 20


def test_a_column_whose_effective_rows_are_few_is_mute_and_shows_no_shift() -> None:
    found = measure(Healthy(moody(per_day=400), SPEC, (DAY,)), DAY, HOUR)
    assert found.mute == ("x",)
    assert found.shifts["x"] is None
    assert found.shifts["w"] is not None


def test_windows_without_rows_say_so() -> None:
    found = measure(Healthy(calm(per_day=100), SPEC, (HOUR,)), HOUR, MINUTE)
    assert (found.before, found.silent) == ((0, 0), "no window has 200 rows")


def test_i_i_d_p_values_are_also_told_of_windows_too_small_to_be_judged() -> None:
    found = measure(Healthy(calm(per_day=48), SPEC, (DAY,)), DAY, MINUTE)
    assert (found.alone[1], found.before[1]) == (42, 0)


def test_at_most_300_windows_of_a_length_are_judged_and_the_same_ones_each_time() -> None:
    healthy = Healthy(calm(per_day=24 * 20), SPEC, (HOUR,))
    windows = healthy.windows(HOUR)
    assert len(windows) == MOST_WINDOWS
    assert windows == sorted(windows) == healthy.windows(HOUR)
    assert len({window.start.hour for window in windows}) == 24


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_what_is_drawn_is_some_of_it_in_order(some: list[int], most: int) -> None:
    found = drawn(list(enumerate(some)), most)
    assert len(found) == min(len(some), most)
    assert found == sorted(found)
    assert set(found) <= set(enumerate(some))


def test_the_budgets_of_all_windows_are_one_incident_a_month() -> None:
    assert sum(budget(length) for length in window_lengths(SPEC, MINUTE)) == pytest.approx(1.0)


def test_rates_have_an_upper_bound_also_where_nothing_alarmed() -> None:
    found = measure(Healthy(calm(), SPEC, (DAY,)), DAY, HOUR)
    rate = found.a_month(0)
    assert rate is not None
    assert rate[0] == 0
    assert rate[1] == pytest.approx(3.0 / found.months, rel=0.01)  # the rule of three


# shifts


@given(n=st.floats(200, 1e6), factor=st.floats(1.1, 100))
def test_more_rows_see_smaller_shifts(n: float, factor: float) -> None:
    few, many = (visible_shift(1.0, 0.0, rows, 1e7, 1e-5) for rows in (n, n * factor))
    assert few is not None
    assert many is not None
    assert many <= few


def test_dependent_rows_and_windows_that_went_far_hide_shifts() -> None:
    independent, dependent, hidden = (
        visible_shift(phi, least_p, 20_000, 1e6, 1e-5) for phi, least_p in ((1.0, 1.0), (20.0, 1.0), (20.0, 1e-60))
    )
    assert independent is not None
    assert dependent is not None
    assert hidden is not None
    assert independent < dependent < hidden
    tails = [psi_p_value(psi_of_shift(shift), 10, 1000, 50_000) for shift in (hidden - 0.02, hidden)]
    assert tails[0] >= 1e-60**FARTHER > tails[1]


def test_where_nothing_is_known_or_judged_no_shift_is_promised() -> None:
    assert visible_shift(float("nan"), 0.0, 1e6, 1e6, 1e-5) is None
    assert visible_shift(10.0, 0.0, 1500, 1e6, 1e-5) is None


# proposals


def proposed(frame: pl.DataFrame, spec: ModelSpec = SPEC, step: timedelta = DAY) -> dict[str, tuple[float, float]]:
    found = calibrate(History(frame, ()), spec, None, step)
    return {one.key: (one.current, one.proposed) for one in found.proposals}


SCORED = spec_of(
    "x",
    "w",
    categorical=("kind",),
    protected={"group": "categorical"},
    columns={"latency_ms": "_latency_ms"},
    prediction={"score": "_score"},
)


def test_a_calm_history_keeps_every_default() -> None:
    assert proposed(calm(), SCORED) == {
        "kpis.psi.threshold": (0.2, 0.2),
        "kpis.range_z.threshold": (4, 4),
        "kpis.auroc.drop": (0.05, 0.05),
        "kpis.latency_p95_ms.threshold": (150, 150),
        "kpis.demographic_parity.drop": (0.03, 0.03),
    }


def test_a_slow_service_gets_a_threshold_that_its_history_does_not_breach() -> None:
    slow = calm().with_columns(pl.col("_latency_ms") * 3)
    before, after = proposed(slow)["kpis.latency_p95_ms.threshold"]
    assert (before, after) == (150, 400)
    again = SPEC.model_copy(update={"kpis": Kpis.model_validate({"latency_p95_ms": {"threshold": after}})})
    assert proposed(slow, again)["kpis.latency_p95_ms.threshold"] == (400, 400)


def test_a_month_with_outages_gets_a_wider_range() -> None:
    every_fifth_day = (pl.int_range(pl.len()) // 400 % 10 == 0) & (pl.int_range(pl.len()) % 10 == 0)
    spiky = calm().with_columns(pl.when(every_fifth_day).then(5.5).otherwise("x").alias("x"))
    before, after = proposed(spiky)["kpis.range_z.threshold"]
    assert before == 4
    assert after > 4


def test_scores_that_rank_worse_for_a_week_get_a_larger_drop() -> None:
    day = pl.int_range(pl.len()) // 400
    label = pl.when(day.is_between(14, 20)).then(1 - pl.col("_label")).otherwise("_label").cast(pl.Int8)
    before, after = proposed(calm().with_columns(label.alias("_label")), SCORED)["kpis.auroc.drop"]
    assert before == 0.05
    assert after > 0.5


def test_what_the_spec_switches_off_is_not_proposed() -> None:
    off = SPEC.model_copy(update={"kpis": Kpis.model_validate({"psi": None, "latency_p95_ms": None})})
    assert not proposed(calm(), off).keys() & {"kpis.psi.threshold", "kpis.latency_p95_ms.threshold"}


def test_a_short_history_says_what_it_cannot_tell() -> None:
    found = calibrate(History(calm(days=3, per_day=100), ()), SPEC, None, MINUTE)
    assert not found.conclusive
    assert found.proposals == ()
    assert all("too short" in reason or "few labels" in reason for reason in found.untold.values())


def test_the_reference_is_the_first_span_only() -> None:
    found = calibrate(History(calm(), ()), SPEC, 28 * DAY, DAY)
    assert (found.days, found.rows) == (28, 28 * 400)


@pytest.mark.parametrize(
    ("reference", "step", "said"),
    [
        (timedelta(), DAY, "longer than nothing"),
        (90 * DAY, DAY, "before --reference does"),
        (None, timedelta(seconds=30), "whole minutes"),
        (None, timedelta(), "whole minutes"),
    ],
)
def test_spans_that_do_not_fit_are_refused(reference: timedelta | None, step: timedelta, said: str) -> None:
    with pytest.raises(InputError, match=said):
        calibrate(History(calm(days=14), ()), SPEC, reference, step)


@given(st.floats(1e-6, 1e6))
def test_a_round_number_is_above_and_near(value: float) -> None:
    assert value < round_up(value) <= 2.01 * value


def test_a_breach_is_too_often_only_beyond_the_budget() -> None:
    found = measure(Healthy(calm(), SPEC, (DAY,)), DAY, HOUR)
    assert too_often(found, 1, 42)
    assert not too_often(found, 1, 300)
    assert not too_often(found, 0, 42)
