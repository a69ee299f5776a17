"""What came in wrong or twice, as the loop counts it; and a lake that fails a model's tick, as people hear of it."""

import pytest

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.loop.fleet import Failed
from drift_pipeline.loop.status import standings
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.test_found import counted
from drift_pipeline_tests.faults.world import Live

pytestmark = pytest.mark.live  # minutes of faults or of history


def test_a_correction_neither_counts_again_nor_moves_what_was_counted(live: Live) -> None:
    site = live.site
    live.minutes(20)
    site.send([site.prediction({**site.some_row(), "_time": site.clock.now() - MINUTE}, id="x")])
    site.sent.landing.add("x")
    live.minutes(1)
    first = site.clock.now()
    for told_at, label in ((first, 0), (first + MINUTE / 60, 1), (first, 0), (first, 0)):
        site.send([site.outcome("x", told_at, label)])
        live.minutes(1)
    assert broken(site, [live.kept]) == []
    assert counted(site.twin()) == counted(live.kept.loop)
    rows = site.lake().labelled(site.landed(), site.clock.now() + HOUR, HOUR)
    assert dict(rows.select("_id", "_label").iter_rows())["x"] == 1


def test_events_hours_behind_are_counted_in_their_slice_once(live: Live) -> None:
    site = live.site
    live.minutes(95)
    held = [site.prediction({**site.some_row(n), "_time": site.began + n * MINUTE}, id=f"held{n}") for n in range(10)]
    site.sent.landing |= {f"held{n}" for n in range(10)}
    for _ in range(2):
        site.send(held)
        live.minutes(1)
    assert broken(site, [live.kept]) == []


@pytest.mark.parametrize("what", ["the log", "a file"])
def test_a_lake_that_cannot_be_read_fails_one_tick_with_advice_and_one_page_an_hour(live: Live, what: str) -> None:
    site = live.site
    live.minutes(2)
    table = site.settings.home / "lake" / site.spec.name / "predictions"
    paths = sorted((table / "_delta_log").glob("*.json") if what == "the log" else table.rglob("*.parquet"))
    for path in paths[-1:] if what == "the log" else paths:
        path.write_bytes(path.read_bytes()[:100])
    live.kept.restart()
    for _ in range(3):
        failed = live.kept.tick()
        assert isinstance(failed, Failed)
        assert failed.reason.startswith("IntegrityError: ")
        assert "from a copy" in failed.reason
    pages = [page for page in site.pager.received if page.body["what"] == "tick.failed"]
    assert len(pages) == 1
    assert pages[0].body["owner"] == site.spec.owner
    (standing,) = standings(site.store, [site.spec], site.clock.now())
    assert "is not watched" in standing.concerns["tick.failed"]
