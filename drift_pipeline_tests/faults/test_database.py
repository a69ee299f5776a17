"""A control store that is locked, gone, or an older one than the lake and the registry know."""

import shutil
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.control import engine
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import operating
from drift_pipeline.loop.home import opened
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.machine import away, copied, locked
from drift_pipeline_tests.faults.world import Live

pytestmark = pytest.mark.live  # minutes of faults or of history


def files(live: Live) -> list[Path]:
    return sorted(live.site.settings.home.glob("control.db*"))


def rows(live: Live) -> int:
    return live.site.lake().read("predictions", live.site.landed()).height


def test_a_store_that_somebody_holds_stops_the_tick_and_nothing_else(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
    live.kept.restart()
    live.minutes(2)
    landed = rows(live)
    for _ in range(2):
        (told,) = live.minute_in(locked(live.site.settings.home / "control.db"))
        assert told.startswith("UnavailableError: the control store")
    assert rows(live) > landed
    live.minutes(2)
    assert broken(live.site, [live.kept]) == []


def test_a_store_that_is_gone_for_a_minute_is_taken_up_again_and_not_made_anew(live: Live) -> None:
    live.minutes(2)
    with away(*files(live)):
        with pytest.raises(InputError, match="no control store"), opened(live.site.settings, live.site.clock):
            pass
        assert files(live) == [] or all(path.suffix == ".aside" for path in files(live))
    live.minute_in(away(*files(live)))
    live.minutes(2)
    assert broken(live.site, [live.kept]) == []


def restore(live: Live, backup: Path) -> None:
    """Put the older store in the place of today's, with everything stopped, as an operator does."""
    site = live.site
    live.kept.store.close()
    site.store.close()
    site.home.store.close()
    for path in files(live):
        path.unlink()
    shutil.copy(backup, site.settings.home / "control.db")
    site.begin_capture()
    live.kept.begin()


def test_with_an_older_store_every_row_is_counted_again_and_a_checkpoint_tells_what_is_missing(
    live: Live, tmp_path: Path
) -> None:
    site = live.site
    live.minutes(3)
    backup = copied(site.settings.home / "control.db", tmp_path / "backup.db")
    operating.pause(live.kept.loop, "ada", "audit", on=True)
    live.minutes(20, 5 * MINUTE)
    operating.pause(live.kept.loop, "ada", "done", on=False)
    live.kept.store.checkpoint()
    restore(live, backup)
    live.minutes(2)
    found = broken(site, [live.kept])
    assert [text[:2] for text in found] == ["I3"], found
    said = verify_home(site.settings)
    assert not said.ok
    assert "the checkpoint of" in said.reason
