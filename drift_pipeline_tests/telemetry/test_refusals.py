"""When what is laid aside counts as much: from a share and a number on, of the newest events of the last hour."""

from datetime import UTC, datetime

import pytest

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.telemetry.event import DeadLetter, OutcomeKnown
from drift_pipeline.telemetry.refusals import Refusals, Refused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD = OutcomeKnown("m", "a", NOW, 1)


def bad(model: str = "m") -> DeadLetter:
    return DeadLetter(NOW, "app", model, "not JSON", "{")


@pytest.mark.parametrize(
    ("good", "refused", "much"),
    [(0, 19, False), (0, 20, True), (380, 20, False), (379, 20, True), (949, 51, True), (950, 50, False)],
)
def test_more_than_a_twentieth_and_at_least_twenty_are_much(good: int, refused: int, much: bool) -> None:
    refusals = Refusals()
    refusals.add([GOOD] * good + [bad()] * refused, NOW)
    assert refusals.found(NOW) == ([Refused("m", refused, good + refused)] if much else [])


def test_the_newest_thousand_of_the_last_hour_count_and_much_stays_much_as_long() -> None:
    refusals = Refusals()
    refusals.add([bad()] * 60, NOW)
    assert refusals.found(NOW) == [Refused("m", 60, 60)]
    refusals.add([GOOD] * 950, NOW + MINUTE)
    assert refusals.found(NOW + MINUTE) == []  # 50 of the newest 1,000
    refusals.add([bad()] * 60, NOW + 2 * MINUTE)
    assert refusals.found(NOW + 2 * MINUTE) == [Refused("m", 60, 1000)]
    assert refusals.found(NOW + HOUR + MINUTE) == [Refused("m", 60, 60)]
    assert refusals.found(NOW + HOUR + 2 * MINUTE) == []


def test_what_names_no_known_model_is_seen_against_all_that_came_and_blames_no_model() -> None:
    refusals = Refusals()
    refusals.add([GOOD] * 380 + [bad("")] * 20, NOW)
    assert refusals.found(NOW) == []
    refusals.add([bad("")], NOW)
    assert refusals.found(NOW) == [Refused("", 21, 401)]
