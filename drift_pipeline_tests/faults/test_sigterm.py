"""Processes that are told to end while they land or commit, and begun anew, lose nothing and do nothing twice.

They are the real commands on the real clock. Each sends itself SIGTERM within its n-th write, n and the moment drawn
by its seed, since a signal at any moment of a process's life would nearly always hit its imports.
"""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from drift_pipeline.loop import operating
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.keys import add_producer
from drift_pipeline_tests.faults.real import Real, real_home
from drift_pipeline_tests.faults.world import NAME
from drift_pipeline_tests.serving.worlds import heard

pytestmark = pytest.mark.live  # real processes, again and again

ARMED = """
import os, random, signal, sys, threading
from drift_pipeline.cli import main
from drift_pipeline.control.store import ControlStore
from drift_pipeline.telemetry.delta import Delta
from drift_pipeline.telemetry.sources.spool import SpoolReader, SpoolWriter

chance, left = random.Random(SEED), 0

def end():
    os.kill(os.getpid(), signal.SIGTERM)

def arm(owner, name):
    real = getattr(owner, name)
    def armed(*given, **named):
        global left
        left -= 1
        if left == 0:
            threading.Timer(chance.expovariate(500), end).start()  # of 2 ms on average
        return real(*given, **named)
    setattr(owner, name, armed)

WRITES = {
    "capture": (12, (Delta, "append"), (SpoolReader, "done")),
    "tick": (4, (Delta, "append"), (ControlStore, "commit"), (ControlStore, "remember")),
    "serve": (60, (SpoolWriter, "write"), (SpoolWriter, "_rotate")),
}
most, *writes = WRITES[sys.argv[1]]
left = chance.randint(1, most)
for write in writes:
    arm(*write)
main()
"""


def armed(command: str, seed: int) -> str:
    return ARMED.replace("SEED", repr(f"{command} {seed}"))


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    yield from real_home(tmp_path, speed=1)


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Real]:
    yield from real_home(tmp_path, speed=60)


@contextmanager
def answering(real: Real, seed: int) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    with real.started(armed("serve", seed), "serve", "--port", "0") as process:
        try:
            assert process.stderr is not None
            yield process, process.stderr.readline().removeprefix("gateway on ").strip()
        finally:
            process.kill()


@pytest.mark.parametrize("options", [("--every", "1s"), ("--once",)])
def test_a_capture_that_is_told_to_end_while_it_lands_loses_and_doubles_nothing(
    real: Real, options: tuple[str, ...]
) -> None:
    real.until_now()
    codes = []
    for seed in range(8):
        if real.left():
            codes.append(real.ended(armed("capture", seed), "capture", *options))
    assert codes == [0] * len(codes)
    assert len(codes) >= 3
    real.landed()
    real.holds()


def test_a_rollout_whose_ticks_are_told_to_end_while_they_commit_ends_in_one_promotion(hurried: Real) -> None:
    site, by_hand, codes = hurried.site, hurried.site.by_hand(), []
    hurried.until_now(step=5)
    site.take()
    trained = by_hand.train(operating.retrain(by_hand, "ada", "it is time")[0])
    assert trained is not None
    for seed in range(20):
        hurried.until_now()
        site.take()
        codes.append(hurried.ended(armed("tick", seed), "tick"))
        hurried.holds()
        if site.phase() is Phase.FULL and codes[-1] == 0:
            break
        candidate = site.route.candidate
        if site.phase() is Phase.AWAITING_APPROVAL and candidate and candidate["digest"] not in site.approved:
            site.approved.add(candidate["digest"])
            site.approve(site.approver, candidate["digest"])
    assert set(codes) == {0, -signal.SIGTERM}
    assert codes.count(-signal.SIGTERM) >= 4
    events = [record.event for record in site.records()]
    assert [events.count(f"rollout.{phase}") for phase in ("shadow", "awaiting_approval", "canary", "full")] == [1] * 4
    assert events.count("model.promoted") == 1


def asked(url: str, key: str, names: Sequence[str], body: dict[str, object]) -> list[str]:
    """Which of the ids were answered, until the gateway is gone."""
    answered = []
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        heard(client)
        for name in names:
            try:
                told = client.post(f"/v2/models/{NAME}/infer", json={**body, "id": name})
            except httpx.HTTPError:
                break
            assert told.status_code == 200, told.text
            answered.append(name)
    return answered


def test_a_gateway_that_is_told_to_end_while_it_writes_has_written_what_it_answered(real: Real) -> None:
    site, key = real.site, add_producer(real.site.store, "app", [NAME], 10_000, "ops")
    row = site.some_row()
    tensors = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(row[name], str) else "FP64",
            "data": [row[name]],
        }
        for name in site.spec.watched
    ]
    body: dict[str, object] = {"inputs": tensors, "parameters": {"entity": "u1"}}
    for seed in range(3):
        with answering(real, seed) as (process, url), ThreadPoolExecutor(2) as pool:
            names = [[f"{seed}-{worker}-{number}" for number in range(500)] for worker in range(2)]
            told = [pool.submit(asked, url, key, part, body) for part in names]
            site.sent.landing |= {name for part in told for name in part.result(60)}
            assert process.wait(60) == 0
        real.landed()
        real.holds()
    assert len(site.sent.landing) > 30
