"""A disk that is full, slow or read-only: what cannot be written waits, nothing is lost or counted twice."""

from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.errors import DriftError, UnavailableError
from drift_pipeline.loop import operating
from drift_pipeline_tests.faults.breaking import Point, Side
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.machine import filled, read_only, short_files, small_disk
from drift_pipeline_tests.faults.world import Live, Process, Site

pytestmark = pytest.mark.live  # minutes of faults or of history


def ours(told: list[str]) -> bool:
    """Something is told, each says what did not answer, and none is a stranger's exception."""
    return bool(told) and all(
        text.startswith(tuple(f"{kind.__name__}: " for kind in DriftError.__subclasses__())) for text in told
    )


@pytest.mark.parametrize("most", [0, 300, 5000], ids="files end at {} bytes".format)
def test_a_write_that_ends_in_its_middle_is_done_again(live: Live, most: int) -> None:
    live.minutes(2)
    assert ours(live.minute_in(short_files(most)))
    for _ in range(2):
        assert live.minute_in(short_files(most)), "the disk was not full"
    live.minutes(3)
    assert broken(live.site, [live.kept]) == []


def test_a_full_disk_takes_no_event_loses_none_and_recovers(tmp_path: Path, just_adopted: Site) -> None:
    with small_disk(tmp_path / "disk", megabytes=40):
        site = Site(tmp_path / "disk", hours=2, reference_days=2, like=just_adopted)
        live = Live(site, Process(site, inline=False))
        try:
            live.minutes(2)
            refused = site.prediction(site.some_row(), id="refused", features={"padding": "x" * 10_000})
            with filled(tmp_path / "disk"), pytest.raises(UnavailableError, match="the spool takes no events"):
                site.send([refused])
            for _ in range(2):
                told = live.minute_in(filled(tmp_path / "disk"))
                assert ours(told[:1]), told
            live.minutes(3)
            assert broken(site, [live.kept]) == []
        finally:
            live.kept.store.close()
            site.close()


def test_on_a_disk_that_is_read_only_by_now_what_came_waits(live: Live) -> None:
    live.minutes(2)
    for _ in range(2):
        told = live.minute_in(read_only(live.site.settings.home))
        assert ours(told[:1]), told
    live.minutes(2)
    assert broken(live.site, [live.kept]) == []


def test_who_starts_on_a_read_only_disk_is_told_and_changes_nothing(live: Live) -> None:
    live.minutes(2)
    with read_only(live.site.settings.home), pytest.raises(DriftError):
        live.kept.restart()
    live.kept.begin()
    live.minutes(2)
    assert broken(live.site, [live.kept]) == []


SLOW: list[tuple[Point, Side]] = [
    (point, side)
    for point in ("lake.append", "store.commit", "store.remember", "capture.flush")
    for side in ("before", "after")
]


@pytest.mark.parametrize(("point", "side"), SLOW)
def test_a_write_that_takes_minutes_in_which_others_go_on_breaks_nothing(live: Live, point: Point, side: Side) -> None:
    site, other = live.site, Process(live.site, inline=False)
    passed = []

    def slow() -> None:
        for _ in range(3):
            site.clock.advance_to(site.clock.now() + MINUTE)
            site.serve()
            other.tick()
        passed.append(point)

    live.minutes(2)
    fuses = site.capture_fuses if point == "capture.flush" else live.kept.fuses
    fuses.set[point, side] = slow
    if point == "store.commit":
        _pause(live)
    live.minutes(60 if point == "lake.append" else 2, 5 * MINUTE if point == "lake.append" else MINUTE)
    assert passed == [point]
    live.minutes(2)
    assert broken(site, [live.kept, other]) == []
    other.store.close()


def _pause(live: Live) -> None:
    """Something to commit: no tick of a healthy model does."""
    operating.pause(live.kept.loop, "ada", "audit", on=True)
