"""Clocks that are ahead, were set back, or drift apart: when they are right again, so is all that was counted."""

from contextlib import nullcontext
from datetime import timedelta

import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import Live, Process

pytestmark = pytest.mark.live  # minutes of faults or of history


def lived(live: Live, minutes: int) -> None:
    for _ in range(minutes):
        assert live.minute_in(nullcontext()) == []


@pytest.mark.parametrize("ahead", [5 * MINUTE, HOUR, -5 * MINUTE, -HOUR, -DAY], ids=str)
def test_a_loop_whose_clock_was_wrong_for_a_while_counts_as_if_it_had_not(live: Live, ahead: timedelta) -> None:
    live.minutes(20, 5 * MINUTE)
    live.kept.clock.set(ahead)
    lived(live, 4)
    live.kept.clock.right()
    lived(live, 2)
    assert broken(live.site, [live.kept]) == []


@pytest.mark.parametrize("ahead", [30 * MINUTE / 60, DAY, -30 * MINUTE / 60], ids=str)
def test_a_capture_whose_clock_was_wrong_for_a_while_loses_nothing(live: Live, ahead: timedelta) -> None:
    live.minutes(10, 5 * MINUTE)
    live.site.capture_clock.set(ahead)
    lived(live, 3)
    live.site.capture_clock.right()
    lived(live, 2)
    assert broken(live.site, [live.kept]) == []


@pytest.mark.parametrize("ahead", [3 * HOUR, DAY, 9 * DAY], ids=str)
def test_one_tick_by_a_clock_that_is_far_ahead_costs_no_other_process_its_windows(live: Live, ahead: timedelta) -> None:
    other = Process(live.site, inline=False)
    for _ in range(12):
        live.minutes(5, 5 * MINUTE)
        other.tick()
    live.kept.clock.set(ahead)
    lived(live, 1)
    live.kept.clock.right()
    other.tick()
    for process in (other, live.kept):
        assert broken(live.site, [process]) == []
    lived(live, 2)
    other.tick()
    assert broken(live.site, [live.kept, other]) == []
    other.store.close()


def test_processes_whose_clocks_drift_apart_tick_one_loop(live: Live) -> None:
    other = Process(live.site, inline=False)
    live.kept.clock.set(timedelta(), rate=0.2)
    other.clock.set(timedelta(), rate=-0.2)
    live.site.capture_clock.set(timedelta(), rate=0.01)
    for _ in range(6):
        lived(live, 1)
        other.tick()
    for clock in (live.kept.clock, other.clock, live.site.capture_clock):
        clock.right()
    lived(live, 2)
    other.tick()
    assert broken(live.site, [live.kept, other]) == []
    other.store.close()


def test_a_rollout_that_a_clock_set_back_finds_in_the_future_waits_and_goes_on(proven: Live) -> None:
    site = proven.site
    proven.kept.inline = True
    proven.minutes(5, 5 * MINUTE)
    before = site.phase()
    proven.kept.clock.set(-HOUR)
    lived(proven, 3)
    assert site.phase() == before
    proven.kept.clock.right()
    proven.minutes(10, 5 * MINUTE)
    assert site.phase() != before
    assert broken(site, [proven.kept]) == []
