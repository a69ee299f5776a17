"""The SLO of a young version: what is a breach, and that the gateway takes it back by itself and writes that down."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from drift_pipeline.clock import DAY, Clock, ManualClock, SystemClock
from drift_pipeline.loop.routes import Route
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.route import in_canary
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.guard import Guard, SloCounts
from drift_pipeline.serving.slo import brake_of, slo_of
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import SPECS, Home, heard, infer, listening, until

INFER = "/v2/models/fraud/infer"
ROW = [(10.0, 40.0, "phone")]
PEOPLE = [f"u{number}" for number in range(400)]
CALM = SloCounts("fraud", "v2", "canary", 200, 0, 2, 1800, 0, 20)
judge_slo = slo_of(SPECS)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


@contextmanager
def gateway(home: Home, clock: Clock) -> Iterator[httpx.Client]:
    key = home.producer()
    app = make_app(
        home.settings,
        SPECS,
        SpoolWriter(home.settings.home / "spool" / "gateway"),
        clock,
        judge_slo=judge_slo,
        rolled_back=brake_of(home.settings, SPECS, home.store, home.registry, clock),
        every_seconds=0.1,
        drills=True,
    )
    with listening(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False) as client:
        heard(client)
        yield client


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ({}, None),
        ({"errors": 30}, "without a usable score"),
        ({"slow": 60}, "slower than the threshold"),
        ({"slow": 60, "stable_slow": 540}, None),  # the machine is slow, not the canary
        ({"rows": 3, "slow": 3, "errors": 0}, "slower than the threshold"),
        ({"rows": 1, "slow": 1}, None),
        ({"phase": "full", "slow": 60, "stable_rows": 0, "stable_slow": 0}, "slower than the threshold"),
    ],
)
def test_a_breach_is_what_the_rollouts_verdict_calls_a_failure(change: dict[str, Any], breach: str | None) -> None:
    found = judge_slo(replace(CALM, **change))
    assert found is None if breach is None else breach in str(found)


@pytest.mark.parametrize("good", [0, 32, 600, 20_000])
@pytest.mark.parametrize(("what", "at_most"), [("slow", 11), ("errors", 6)])
def test_however_long_a_canary_was_good_a_few_bad_rows_stop_it(good: int, what: str, at_most: int) -> None:
    guard = Guard(lambda: 0.0)
    guard.watch(Route("fraud", {"version": "v1"}, {"version": "v2"}, None, "r1", Phase.CANARY, 10, mirror=True))
    for _ in range(good):
        guard.count("fraud", "v1", 9, 0, 0)
        guard.count("fraud", "v2", 1, 0, 0)
    assert judge_slo(guard.counts()[0]) is None
    for _ in range(at_most):
        guard.count("fraud", "v1", 9, 0, 0)
        guard.count("fraud", "v2", 1, int(what == "errors"), int(what == "slow"))
    assert judge_slo(guard.counts()[0])


def test_spans_that_overlap_stop_no_canary_that_is_as_slow_as_it_may_be() -> None:
    """One row in twenty is slow, which is allowed, in 30,000 rows that are judged at each slow one."""
    guard = Guard(lambda: 0.0)
    guard.watch(Route("fraud", {"version": "v1"}, {"version": "v2"}, None, "r1", Phase.CANARY, 10, mirror=True))
    most = 0
    for slow in np.random.default_rng(0).random(30_000) < 0.05:
        guard.count("fraud", "v1", 9, 0, 0)
        guard.count("fraud", "v2", 1, 0, int(slow))
        (found,) = guard.counts()
        if found.recent and found.recent[0].slow > most:  # the others were judged with as few among as many
            most = found.recent[0].slow
            assert judge_slo(found) is None
    assert most >= 5


def moved(home: Home, since: datetime, candidate: dict[str, Any], champion: dict[str, Any], phase: Phase) -> None:
    home.put("candidate", f"fraud/{candidate['digest']}", candidate)
    status = Status("fraud-v2", "fraud", candidate["digest"], champion["digest"], phase, since, since, "a test")
    home.put("rollout", "fraud", status.to_json())


def rollout(home: Home) -> dict[str, Any]:
    found = home.store.get("rollout", "fraud")
    assert found is not None
    return dict(found.body)


def test_a_slow_canary_is_rolled_back_by_the_gateway_alone_and_audited(home: Home) -> None:
    champion, candidate = home.version("v1", 0), home.version("v2", 1)
    home.champion(champion)
    moved(home, SystemClock().now(), candidate, champion, Phase.CANARY)
    inside = [person for person in PEOPLE if in_canary(person, "fraud-v2", 10)]
    with gateway(home, SystemClock()) as client:
        until(client, 'canary_weight_percent{model="fraud"} 10.0')
        began = time.monotonic()
        for person in inside[:8]:
            body = infer(ROW, parameters={"entity": person, "canary_delay_ms": 200})
            client.post(INFER, json=body).raise_for_status()
        until(client, 'canary_weight_percent{model="fraud"} 0.0')
        assert client.post(INFER, json=infer(ROW, parameters={"entity": inside[0]})).json()["model_version"] == "v1"
        while rollout(home)["phase"] != "rolled_back":
            assert time.monotonic() - began < 20
            time.sleep(0.05)
    last = list(home.store.records())[-1]
    assert (last.actor, last.event) == ("gateway", "rollout.rolled_back")
    assert "SLO breach: " in last.details["reason"]
    assert [message.body["what"] for message in home.store.pending(topic="alerts")] == ["rollout.rolled_back"]


def test_a_new_champion_that_breaches_within_a_day_gives_way_to_the_former_one(home: Home) -> None:
    former, champion = home.version("v1", 0), home.version("v2", 1)
    home.champion(former)
    with gateway(home, SystemClock()) as client:
        until(client, 'role="champion",version="v1"')
        moved(home, SystemClock().now(), champion, former, Phase.FULL)
        home.champion(champion, former)
        until(client, 'role="champion",version="v2"')
        until(client, 'role="previous",version="v1"')
        for _ in range(8):
            client.post(INFER, json=infer(ROW, parameters={"delay_ms": 200})).raise_for_status()
        until(client, 'role="champion",version="v1"')
        assert client.post(INFER, json=infer(ROW)).json()["model_version"] == "v1"
    found = home.store.get("model", "fraud")
    assert found is not None
    assert (found.body["version"], found.body["previous"]) == ("v1", None)


def test_after_a_day_a_slow_champion_is_a_matter_for_people(home: Home) -> None:
    former, champion = home.version("v1", 0), home.version("v2", 1)
    now = SystemClock().now()
    home.champion(champion, former)
    moved(home, now - DAY, champion, former, Phase.FULL)
    with gateway(home, ManualClock(now)) as client:
        for _ in range(10):
            client.post(INFER, json=infer(ROW, parameters={"delay_ms": 160})).raise_for_status()
        time.sleep(0.5)
        assert client.post(INFER, json=infer(ROW)).json()["model_version"] == "v2"
    assert rollout(home)["phase"] == "full"


def test_a_rollback_that_somebody_did_already_is_not_done_twice(home: Home) -> None:
    former, champion, candidate = home.version("v0", 2), home.version("v1", 0), home.version("v2", 1)
    home.champion(champion, former)
    moved(home, SystemClock().now(), candidate, champion, Phase.ROLLED_BACK)
    brake = brake_of(home.settings, SPECS, home.store, home.registry, SystemClock())
    before = len(list(home.store.records()))
    brake("fraud", "fraud-v2", "slow")
    brake("fraud", "fraud-v3", "slow")
    assert len(list(home.store.records())) == before
