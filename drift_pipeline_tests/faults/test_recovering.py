"""What a killed retention, a wrong clock, a full disk or a store that is gone or older leave is taken up or told."""

from contextlib import nullcontext, suppress
from datetime import timedelta

import pytest

from drift_pipeline.clock import DAY, MINUTE
from drift_pipeline.errors import DriftError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import operating
from drift_pipeline.loop.retention import retain
from drift_pipeline.serving.capturing import capturing
from drift_pipeline_tests.faults.breaking import KilledError, kill
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.machine import away, short_files
from drift_pipeline_tests.faults.test_disk import ours
from drift_pipeline_tests.faults.world import Live

pytestmark = pytest.mark.live  # minutes of faults or of history


def test_a_new_loop_on_a_full_disk_is_told_as_ours_and_leaves_the_rules_whole(live: Live) -> None:
    live.minutes(2)
    policies = [p for p in live.site.settings.gitops.glob("policies/*/*") if p.is_file()]
    before = {p: p.read_bytes() for p in policies}
    live.minute_in(short_files(0))
    told = live.minute_in(short_files(0))  # its loop is opened anew
    assert ours(told), told
    assert {p: p.read_bytes() for p in policies} == before


def test_a_retrain_out_of_memory_is_given_up_and_paged(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    live.minutes(30, 5 * MINUTE)
    operating.retrain(live.kept.loop, "ada", "it is time")
    live.kept.inline = True

    def starved(*_: object, **__: object) -> object:
        raise MemoryError("Unable to allocate 80.0 GiB")

    monkeypatch.setattr("drift_pipeline.loop.retraining.fitting.train", starved)
    live.minutes(2)
    assert "training.failed" in [record.event for record in live.site.records()]
    assert any(message.body["what"] == "training.failed" for message in live.site.pager.received)


def test_a_retention_killed_before_its_last_record_is_recorded_when_done_again(live: Live) -> None:
    site, fuses = live.site, live.site.home.fuses
    live.minutes(2)
    site.spec = site.spec.model_copy(update={"retention": site.spec.retention.model_copy(update={"telemetry": DAY})})
    fuses.only["store.commit"], fuses.set["store.commit", "before"] = "retention.applied", kill
    with suppress(KilledError):
        retain(site.home, site.spec, "ada")
    retain(site.home, site.spec, "ada")
    assert [record.event for record in site.records()][-1] == "retention.applied"


def test_capture_does_not_make_a_store_where_there_is_none(live: Live) -> None:
    store = sorted(live.site.settings.home.glob("control.db*"))
    with away(*store):
        with pytest.raises(DriftError), capturing(live.site.settings, {}, live.site.clock):
            pass
        assert not list(live.site.settings.home.glob("control.db"))


@pytest.mark.parametrize("ahead", [-5 * MINUTE, -50 * MINUTE])
def test_answered_events_survive_a_capture_whose_clock_was_set_back(live: Live, ahead: timedelta) -> None:
    live.minutes(10, 5 * MINUTE)
    live.site.capture_clock.set(ahead)
    for _ in range(4):
        live.minute_in(nullcontext())
    live.site.capture_clock.right()
    live.minutes(3)
    assert broken(live.site, [live.kept]) == []


def test_a_loop_whose_clock_was_a_day_ahead_for_minutes_says_what_a_new_one_says(live: Live) -> None:
    live.minutes(30, 5 * MINUTE)
    live.kept.clock.set(DAY)
    for _ in range(4):
        live.minute_in(nullcontext())
    live.kept.clock.right()
    live.minutes(3)
    assert broken(live.site, [live.kept]) == []


def test_a_store_that_is_older_than_the_lake_is_noticed_without_a_checkpoint(live: Live) -> None:
    import shutil

    from drift_pipeline_tests.faults.machine import copied

    site = live.site
    live.minutes(3)
    backup = copied(site.settings.home / "control.db", site.settings.home.parent / "backup.db")
    operating.pause(live.kept.loop, "ada", "audit", on=True)
    live.minutes(60, 5 * MINUTE)
    for store in (live.kept.store, site.store, site.home.store):
        store.close()
    for path in site.settings.home.glob("control.db*"):
        path.unlink()
    shutil.copy(backup, site.settings.home / "control.db")
    live.kept.begin()
    assert not verify_home(site.settings).ok
