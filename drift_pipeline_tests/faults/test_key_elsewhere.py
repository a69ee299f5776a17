"""A gateway on another machine than the home's key: it rolls back, and the home signs what it did.

Both machines share one control store, which is a SQLite file where there is no PostgreSQL; each has its own folder.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE, ManualClock
from drift_pipeline.control.moving import move_store
from drift_pipeline.control.store import ControlStore, Entry
from drift_pipeline.control.trust import checkpoints_of, open_store
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.operating import brake
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.capturing import Tally
from drift_pipeline.settings import Settings
from drift_pipeline_tests.faults.homes import MODEL, NOW, spec_of
from drift_pipeline_tests.faults.test_audit_attacks import change, records
from drift_pipeline_tests.parts import postgres as part
from drift_pipeline_tests.parts.postgres import Postgres

ROLLOUT = f"{MODEL}-v2"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW + MINUTE)


@pytest.fixture
def beside(settings: Settings, clock: ManualClock, tmp_path: Path) -> Iterator[ControlStore]:
    """The store as a machine opens it that has the home's models, and nothing of its folder."""
    other = settings.model_copy(update={"home": tmp_path / "beside"})
    with closing(ControlStore(settings.database_url, clock, checkpoints_of(other, clock))) as store:
        yield store


def braked(settings: Settings, store: ControlStore, clock: ManualClock) -> None:
    status = brake(settings, store, registry_of(settings), spec_of(settings), clock, ROLLOUT, "slow")
    assert status is not None
    assert status.phase is Phase.ROLLED_BACK


def covered(settings: Settings) -> tuple[int, int]:
    """How many records there are, and how many are under a checkpoint; all of them hold."""
    found = verify_home(settings)
    assert found.ok, found.reason
    return found.records, found.covered


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(one.levelname, one.getMessage()) for one in caplog.records if "checkpoint" in one.getMessage()]


def test_a_machine_without_the_key_rolls_back_says_so_once_and_the_homes_next_tick_signs_it(
    settings: Settings, beside: ControlStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(settings, clock) as at:
        fleet = Fleet(at, {MODEL: spec_of(settings)})
        at.store.checkpoint()
        before = covered(settings)[1]
        for number in range(3):
            if number:
                beside.commit(Entry("gateway", "rollout.held", MODEL))
            else:
                braked(settings, beside, clock)
            assert covered(settings) == (before + 1, before)
            clock.advance_to(clock.now() + MINUTE)
            assert not [one for one in fleet.tick(inline=False) if isinstance(one, Failed)]
            total, before = covered(settings)
            assert total == before
    ((level, told),) = lines(caplog)
    assert level == "WARNING"
    assert "the home's key is not in" in told
    assert not (settings.home.parent.parent / "beside").exists()


@pytest.mark.live
def test_two_machines_on_one_postgresql_roll_back_count_and_sign(
    postgres_server: Postgres, settings: Settings, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with part.running() as server:
        move_store(settings.home, server.url)
        homes = (settings.home, tmp_path / "beside")
        here, there = (Settings(home=home, models=settings.models, database=server.url) for home in homes)
        with closing(open_store(there, clock)) as store, opened(here, clock) as at:
            braked(here, store, clock)
            assert covered(here)[0] == covered(here)[1] + 1
            with ThreadPoolExecutor(2) as pool:
                both = [Tally(one, clock, every_s=0) for one in (store, at.store)]
                list(pool.map(lambda tally: [tally.add({"predictions": 1}) for _ in range(20)], both))
            assert not [one for one in Fleet(at, {MODEL: spec_of(here)}).tick(inline=False) if isinstance(one, Failed)]
            total, signed = covered(here)
            counted = store.recall(CAPTURE)
        assert total == signed
        assert counted is not None
        assert counted.body["events"] == {"predictions": 40}
    assert [level for level, _ in lines(caplog)] == ["WARNING"]


def test_until_the_set_age_it_is_no_finding_that_the_home_signs_nothing(
    settings: Settings, beside: ControlStore, clock: ManualClock
) -> None:
    step = settings.checkpoint_age / 4
    for _ in range(3):
        clock.advance_to(clock.now() + step)
        beside.commit(Entry("gateway", "rollout.held", MODEL))
        assert verify_home(settings).ok
    for _ in range(4):
        clock.advance_to(clock.now() + step)
        beside.commit(Entry("gateway", "rollout.held", MODEL))
    found = verify_home(settings)
    assert not found.ok
    assert f"are under no checkpoint, where 100 records or {settings.checkpoint_age} may wait" in found.reason
    with opened(settings, clock) as at:
        at.store.checkpoint(only_if_due=True)
    assert verify_home(settings).ok


def test_who_asks_for_a_checkpoint_where_the_key_is_not_is_told_where_it_is(beside: ControlStore) -> None:
    beside.commit(Entry("gateway", "observed", MODEL))
    with pytest.raises(InputError, match=r"the home's key is not in .*keys; the next tick on the machine"):
        beside.checkpoint()


def no_folder(settings: Settings) -> None:
    shutil.rmtree(settings.checkpoints)
    settings.checkpoints.write_text("a file")


SPOILT: dict[str, Callable[[Settings], object]] = {
    "no key": lambda home: (home.keys / "trainer.pem").unlink(),
    "another key": lambda home: (home.keys / "trainer.pem").write_text("nonsense"),
    "no checkpoints": lambda home: shutil.rmtree(home.checkpoints),
    "no folder": no_folder,
    "a checkpoint that is none": lambda home: [path.write_text("{}") for path in home.checkpoints.glob("*.dsse.json")],
    "a size that is none": lambda home: change(
        home.home, 'UPDATE memory SET body = \'{"at":1,"size":"x"}\' WHERE key = \'_checkpoint\''
    ),
    "nonsense remembered": lambda home: change(home.home, "UPDATE memory SET body = 'x' WHERE key = '_checkpoint'"),
    "a key that is none": lambda home: change(home.home, "UPDATE state SET body = '{}' WHERE kind = 'key'"),
    "nonsense for a key": lambda home: change(home.home, "UPDATE state SET body = 'x' WHERE kind = 'key'"),
    "no home": lambda home: change(home.home, "UPDATE state SET body = '[]' WHERE kind = 'home'"),
}


@pytest.mark.parametrize("where", ["the home", "another machine"])
@pytest.mark.parametrize("what", SPOILT)
def test_whatever_is_wrong_with_checkpoints_a_rollback_goes_through(
    settings: Settings, clock: ManualClock, what: str, where: str, tmp_path: Path
) -> None:
    own = settings if where == "the home" else settings.model_copy(update={"home": tmp_path / "beside"})
    with closing(ControlStore(settings.database_url, clock, checkpoints_of(own, clock))) as store:
        SPOILT[what](settings)
        clock.advance_to(clock.now() + timedelta(days=1))  # so that one is due
        braked(settings, store, clock)
    assert records(settings.home)[-1].event == "rollout.rolled_back"
