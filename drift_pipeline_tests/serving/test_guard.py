"""What the guard counts, and for how long a canary stays stopped."""

from dataclasses import replace
from typing import Any

from drift_pipeline.loop.routes import Route
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.guard import Guard, SloCounts

CHAMPION: dict[str, Any] = {"version": "v1", "digest": "sha256:1"}
CANDIDATE: dict[str, Any] = {"version": "v2", "digest": "sha256:2"}
ROUTE = Route("fraud", CHAMPION, CANDIDATE, None, "r1", Phase.CANARY, 10, mirror=True)


def watched(now: list[float], route: Route = ROUTE) -> Guard:
    guard = Guard(lambda: now[0])
    guard.watch(route)
    return guard


def test_a_canary_is_counted_beside_the_champion_since_its_phase_began() -> None:
    guard = watched(now := [1000.0])
    guard.count("fraud", "v2", 10, 2, 1)
    guard.count("fraud", "v1", 90, 0, 3)
    now[0] += 30
    guard.count("fraud", "v2", 5, 0, 0)
    (found,) = guard.counts()
    assert found == SloCounts("fraud", "v2", "canary", 15, 2, 1, 90, 0, 3)


def test_the_last_rows_of_a_canary_are_counted_by_themselves_with_the_champion_of_the_same_time() -> None:
    guard = watched([0.0])
    for number in range(100):
        guard.count("fraud", "v1", 9, 0, 0)
        guard.count("fraud", "v2", 1, 0, int(number >= 90))
    (found,) = guard.counts()
    assert (found.rows, found.slow, found.stable_rows) == (100, 10, 900)
    (last,) = found.recent
    assert (last.rows, last.slow, last.stable_rows) == (32, 10, 279)
    for _ in range(300):
        guard.count("fraud", "v2", 1, 0, 0)
    assert [(recent.rows, recent.slow) for recent in guard.counts()[0].recent] == [(32, 0), (256, 0)]


def test_of_a_champion_that_bakes_the_last_minute_counts_however_many_rows_it_has() -> None:
    now = [1000.0]
    guard = Guard(lambda: now[0])
    guard.watch(replace(ROUTE, candidate=None, weight=0, phase=Phase.FULL), bakes_for=3600)
    for _ in range(70):
        guard.count("fraud", "v1", 10, 0, 0)
        now[0] += 1
    for _ in range(3):
        guard.count("fraud", "v1", 10, 0, 10)
    (found,) = guard.counts()
    assert (found.rows, found.slow, found.stable_rows) == (730, 30, 0)
    assert [(recent.rows, recent.slow) for recent in found.recent] == [(630, 30)]


def test_counts_are_told_of_one_model_where_one_is_asked_for() -> None:
    guard = watched([0.0])
    guard.watch(replace(ROUTE, model="clicks"))
    assert [[counts.model for counts in guard.counts(only)] for only in (None, "clicks", "other")] == [
        ["fraud", "clicks"],
        ["clicks"],
        [],
    ]


def test_without_a_canary_nothing_is_counted() -> None:
    guard = watched([0.0], replace(ROUTE, weight=0, phase=Phase.SHADOW))
    guard.count("fraud", "v1", 10, 0, 0)
    assert guard.counts() == []


def test_another_phase_counts_from_anew_and_the_same_one_goes_on() -> None:
    guard = watched([0.0])
    guard.count("fraud", "v2", 10, 0, 0)
    guard.watch(replace(ROUTE, weight=20))
    assert [counts.rows for counts in guard.counts()] == [10]
    guard.watch(replace(ROUTE, rollout_id="r2"))
    assert [counts.rows for counts in guard.counts()] == [0]


def test_a_stopped_canary_stays_stopped_until_another_rollout() -> None:
    guard = watched([0.0])
    guard.stop("fraud")
    guard.watch(ROUTE)
    assert (guard.counts(), guard.stopped(ROUTE)) == ([], True)
    other = replace(ROUTE, rollout_id="r2")
    guard.watch(other)
    assert (len(guard.counts()), guard.stopped(other)) == (1, False)
