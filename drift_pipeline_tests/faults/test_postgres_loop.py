"""A loop whose control store is PostgreSQL: two daemons at once on one drift, and a server that is killed meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Barrier

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import ConflictError, UnavailableError
from drift_pipeline.loop import Backends, Loop, Trust, operating
from drift_pipeline.loop.deciding import TRAINS
from drift_pipeline.policy.engines import PolicyEngine
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.approval import REPLAY
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.parts import postgres as part
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.test_live import day, turn_labels
from drift_pipeline_tests.test_loop import World, phase

pytestmark = pytest.mark.live


@pytest.fixture
def own(postgres_server: Postgres) -> Iterator[Postgres]:
    """A server of the test's own, which it may break; skipped where there is none."""
    with part.running() as server:
        yield server


def daemon(world: World, store: ControlStore, policy: PolicyEngine) -> Loop:
    """A loop of another process, with a connection of its own."""
    lake = Lake(world.lake.root, source="loop")
    backends = Backends(lake, store, LocalRegistry(world.registry), policy, world.pager)
    keys = {signer.key_id: signer.public for signer in (world.trainer, world.approver)}
    trust = Trust(world.gitops, REPLAY, lambda: keys, world.trainer.key_id)
    made = Loop(world.spec, backends, trust, world.clock, step=DAY, seed=0)
    made.resume()
    return made


def test_two_daemons_at_once_on_one_drift_are_one_incident_and_one_retrain(own: Postgres, tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = World(tmp_path, database=own.url)
        stack.enter_context(closing(world.store))
        stores = [stack.enter_context(closing(ControlStore(own.url, world.clock))) for _ in range(2)]
        engines = [stack.enter_context(EmbeddedEngine()) for _ in stores]
        loops, at_once = list(map(daemon, [world] * 2, stores, engines)), Barrier(2)

        def tick(loop: Loop) -> bool:
            at_once.wait(60)
            with suppress(ConflictError):  # the other one was faster
                loop.tick(inline=False)
                return True
            return False

        turn_labels(world)
        with ThreadPoolExecutor(2) as pool:
            for _ in range(6):  # by then it lasts, and has labels enough to learn from
                day(world)
                assert any(pool.map(tick, loops))
        records = list(world.store.records())
        decided = [record.details["action"] for record in records if record.event == "decision.made"]
        assert [record.event for record in records].count("incident.opened") == 1
        assert len([action for action in decided if action in TRAINS]) == 1  # who comes later holds it, and says so
        assert len(loops[0].queue.wanted()) == 1
        assert verify(world.store.records()).ok


def test_a_server_that_is_killed_between_ticks_holds_the_loop_and_loses_nothing(own: Postgres, tmp_path: Path) -> None:
    with closing((world := World(tmp_path, database=own.url)).store):
        training = world.proven()
        assert world.loop.release(training.digest)
        world.approve(training.digest)
        day(world)
        before = world.events()
        own.server.kill()
        for step in (lambda: world.loop.tick(inline=False), lambda: operating.roll_back(world.loop, "ada", "in vain")):
            with pytest.raises(UnavailableError):
                step()
        own.server.start()
        assert world.events() == before
        assert world.loop.tick(inline=False).verdict is not None
        assert phase(world) is not Phase.ROLLED_BACK
        operating.roll_back(world.loop, "ada", "complaints")
        assert phase(world) is Phase.ROLLED_BACK
        assert verify(world.store.records()).ok
